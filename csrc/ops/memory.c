/* A device's block is a storage like any other: its release function is the device's. */
#include "ops/memory.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "ops/device.h"

static void release_block(void *data, size_t size, void *context)
{
    const ct_memory *memory = context;
    memory->free(memory->index, data, size);
}

ct_status ct_device_tensor(ct_tensor **out, ct_device_id device, ct_dtype dtype, int n_dims,
                           const int64_t *shape)
{
    *out = NULL;
    const ct_memory *memory;
    if (device.kind == CT_DEVICE_CPU)
        return ct_tensor_new(out, dtype, n_dims, shape);
    CT_TRY(ct_device_memory(device, &memory));
    size_t size;
    CT_TRY(ct_dtype_row_bytes(&size, dtype, n_dims ? shape[n_dims - 1] : 1));
    for (int i = 0; i < n_dims - 1; i++)
        CT_TRY(ct_mul_size(&size, size, (size_t)shape[i]));
    void *data;
    ct_storage *storage;
    CT_TRY(memory->alloc(memory->index, &data, size));
    ct_status status =
        ct_storage_import(&storage, data, size, false, device, release_block, (void *)memory);
    if (status != CT_OK) {
        memory->free(memory->index, data, size);
        return status;
    }
    status = ct_tensor_view(out, storage, 0, dtype, n_dims, shape, NULL);
    ct_storage_unref(&storage);
    return status;
}

/* The bytes before and from element 0 on that a view of plain elements covers. */
static void extent(const ct_tensor *tensor, size_t *before, size_t *after)
{
    size_t value = ct_dtype_block_bytes(tensor->dtype);
    *before = 0;
    *after = value;
    for (int i = 0; i < tensor->n_dims; i++) {
        int64_t span = (tensor->shape[i] - 1) * tensor->strides[i];
        *(span < 0 ? before : after) += (size_t)llabs(span) * value;
    }
}

/* A view of a copy of what the tensor covers: its strides stay what they are. */
static ct_status to_host(ct_tensor **out, const ct_tensor *tensor)
{
    ct_status status = CT_OK;
    const ct_ops *ops;
    ct_storage *copy = NULL;
    ct_device_id device = tensor->storage->device;
    size_t before = 0, after = ct_tensor_bytes(tensor);
    if (ct_tensor_size(tensor) > 0 && !ct_dtype_is_quantized(tensor->dtype))
        extent(tensor, &before, &after);
    CT_TRY(ct_device_ops(device, &ops));
    CT_TRY(ct_storage_new(&copy, before + after));
    CT_TRY_TO(done, ops->enter(device.index));
    status = ops->download(copy->data, (char *)ct_tensor_data(tensor) - before, before + after);
    ops->leave(device.index);
    CT_TRY_TO(done, status);
    CT_TRY_TO(done, ct_tensor_view(out, copy, before, tensor->dtype, tensor->n_dims, tensor->shape,
                                   tensor->strides));
done:
    ct_storage_unref(&copy);
    return status;
}

static ct_status from_host(ct_tensor **out, const ct_tensor *tensor, ct_device_id device)
{
    ct_status status = CT_OK;
    const ct_ops *ops;
    ct_tensor *flat;
    CT_TRY(ct_device_ops(device, &ops));
    CT_TRY(ct_tensor_contiguous(&flat, tensor));
    CT_TRY_TO(done, ct_device_tensor(out, device, flat->dtype, flat->n_dims, flat->shape));
    CT_TRY_TO(done, ops->enter(device.index));
    status = ops->upload(ct_tensor_data(*out), ct_tensor_data(flat), ct_tensor_bytes(flat));
    ops->leave(device.index);
done:
    ct_tensor_unref(&flat);
    if (status != CT_OK)
        ct_tensor_unref(out);
    return status;
}

ct_status ct_tensor_to_device(ct_tensor **out, const ct_tensor *tensor, ct_device_id device)
{
    *out = NULL;
    if (ct_same_device(tensor->storage->device, device)) {
        *out = ct_tensor_ref((ct_tensor *)tensor);
        return CT_OK;
    }
    if (ct_dtype_has_scales(tensor->dtype))
        return ct_fail(CT_TYPE, "a %s tensor stays where its scales are; models move as a whole",
                       ct_dtype_name(tensor->dtype));
    if (tensor->storage->device.kind == CT_DEVICE_CPU)
        return from_host(out, tensor, device);
    if (device.kind == CT_DEVICE_CPU)
        return to_host(out, tensor);
    ct_tensor *between;
    CT_TRY(to_host(&between, tensor));
    ct_status status = from_host(out, between, device);
    ct_tensor_unref(&between);
    return status;
}

static ct_status copy_on_device(ct_tensor **out, const ct_tensor *tensor)
{
    const ct_ops *ops;
    ct_device_id device = tensor->storage->device;
    CT_TRY(ct_device_ops(device, &ops));
    CT_TRY(ct_device_tensor(out, device, tensor->dtype, tensor->n_dims, tensor->shape));
    ct_status status = ops->enter(device.index);
    if (status == CT_OK) {
        status = ops->copy(ct_tensor_data(*out), ct_tensor_data(tensor), ct_tensor_bytes(tensor));
        ops->leave(device.index);
    }
    if (status != CT_OK)
        ct_tensor_unref(out);
    return status;
}

/* Strides are followed on the host. */
ct_status ct_tensor_copy(ct_tensor **out, const ct_tensor *tensor)
{
    ct_tensor *host;
    ct_device_id device = tensor->storage->device;
    *out = NULL;
    if (device.kind == CT_DEVICE_CPU)
        return ct_tensor_convert(out, tensor, tensor->dtype);
    if (ct_tensor_is_contiguous(tensor))
        return copy_on_device(out, tensor);
    CT_TRY(ct_tensor_to_device(&host, tensor, (ct_device_id){CT_DEVICE_CPU, 0}));
    ct_status status = ct_tensor_to_device(out, host, device);
    ct_tensor_unref(&host);
    return status;
}

/* ---- memory that another library uses, too ---- */

typedef struct shared_block {
    ct_storage *storage; /* owned: the memory */
    const ct_ops *ops;   /* of its device */
    intptr_t stream;     /* of the other library */
} shared_block;

static void drop_block(shared_block *block)
{
    ct_storage_unref(&block->storage);
    ct_free(&block);
}

static void release_lent(void *data, size_t size, void *context)
{
    shared_block *block = context;
    (void)data, (void)size;
    block->ops->wait_for(block->storage->device.index, block->stream);
    drop_block(block);
}

static void release_borrowed(void *data, size_t size, void *context)
{
    shared_block *block = context;
    (void)data, (void)size;
    block->ops->finish(block->storage->device.index);
    drop_block(block);
}

static ct_status share(ct_tensor **out, ct_tensor *tensor, const ct_ops *ops, intptr_t stream,
                       void (*release)(void *, size_t, void *))
{
    ct_storage *old = tensor->storage, *storage;
    shared_block *block;
    CT_TRY(ct_alloc((void **)&block, sizeof *block));
    *block = (shared_block){ct_storage_ref(old), ops, stream};
    ct_status status = ct_storage_import(&storage, old->data, old->size, old->read_only,
                                         old->device, release, block);
    if (status != CT_OK) {
        drop_block(block);
        return status;
    }
    status = ct_tensor_view(out, storage, tensor->offset, tensor->dtype, tensor->n_dims,
                            tensor->shape, tensor->strides);
    ct_storage_unref(&storage);
    return status;
}

ct_status ct_tensor_lend(ct_tensor **out, ct_tensor *tensor, intptr_t stream)
{
    const ct_ops *ops;
    ct_device_id device = tensor->storage->device;
    *out = NULL;
    CT_TRY(ct_device_ops(device, &ops));
    CT_TRY(ops->let_wait(device.index, stream));
    return share(out, tensor, ops, stream, release_lent);
}

ct_status ct_tensor_borrow(ct_tensor **out, ct_tensor *tensor)
{
    const ct_ops *ops;
    *out = NULL;
    CT_TRY(ct_device_ops(tensor->storage->device, &ops));
    return share(out, tensor, ops, -1, release_borrowed);
}

#define ROUNDED(size) (((size) + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT)

ct_status ct_stage(const ct_staged *arrays, size_t n, const ct_ops *ops, ct_arena *host,
                   ct_arena *device)
{
    unsigned char *gathered, *copy;
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        *arrays[i].place = arrays[i].array;
        size += arrays[i].array ? ROUNDED(arrays[i].size) : 0;
    }
    if (ops->host_memory || size == 0)
        return CT_OK;
    CT_TRY(ct_arena_alloc(host, (void **)&gathered, size));
    CT_TRY(ct_arena_alloc(device, (void **)&copy, size));
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (!arrays[i].array)
            continue;
        memcpy(gathered + at, arrays[i].array, arrays[i].size);
        *arrays[i].place = copy + at;
        at += ROUNDED(arrays[i].size);
    }
    return ops->upload(copy, gathered, size);
}
