/* A DLPack tensor with any geometry over a few bytes: what is imported covers exactly the elements
 * that its shape and strides name, and is read when those are ours. */
#include "fuzz.h"

#include "tensor/dlpack.h"

#define CPU ((ct_device_id){CT_DEVICE_CPU, 0})

typedef struct producer {
    int n_deleted;
} producer;

static void delete_managed(DLManagedTensor *self)
{
    ((producer *)self->manager_ctx)->n_deleted++;
}

static void delete_versioned(DLManagedTensorVersioned *self)
{
    ((producer *)self->manager_ctx)->n_deleted++;
}

/* Whether all elements of the imported tensor, which has some, lie in data [0, size). */
static bool inside(const ct_tensor *tensor, const char *data, size_t size)
{
    __int128 low = (char *)ct_tensor_data(tensor) - data, high = low;
    int64_t bytes = (int64_t)ct_dtype_block_bytes(tensor->dtype);
    for (int i = 0; i < tensor->n_dims; i++) {
        __int128 span = (__int128)(tensor->shape[i] - 1) * tensor->strides[i] * bytes;
        *(span < 0 ? &low : &high) += span;
    }
    MUST(low == (char *)tensor->storage->data - data);
    MUST(high - low + bytes == (__int128)tensor->storage->size);
    return low >= 0 && high + bytes <= (__int128)size;
}

static void read_imported(ct_tensor *tensor, const char *data, size_t size)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        count *= tensor->shape[i];
    ct_tensor *copy;
    if (count > 1 << 14 || (count > 0 && !inside(tensor, data, size)))
        return;
    MUST(ct_tensor_convert(&copy, tensor, tensor->dtype) == CT_OK);
    ct_tensor_unref(&copy);
}

static void take_view(DLTensor *view, fuzz_input *input, int64_t *shape, int64_t *strides)
{
    static const DLDataType types[] = {
        {kDLFloat, 32, 1}, {kDLInt, 64, 1}, {kDLUInt, 8, 1}, {kDLBfloat, 16, 1}};
    uint8_t way = fuzz_byte(input);
    view->device.device_type = way & 1 ? fuzz_byte(input) : kDLCPU;
    view->dtype = types[way >> 6];
    if (way & 2)
        fuzz_take(input, &view->dtype, sizeof view->dtype);
    view->ndim = way & 4 ? (int32_t)fuzz_length(input) : fuzz_byte(input) % 4;
    for (int i = 0; i < view->ndim && i < CT_MAX_DIMS; i++) {
        shape[i] = fuzz_length(input);
        strides[i] = fuzz_length(input);
    }
    view->byte_offset = (uint64_t)fuzz_length(input);
    view->shape = way & 8 ? NULL : shape;
    view->strides = way & 16 ? NULL : strides;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input input = {data, size};
    int64_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
    producer owner = {0};
    DLTensor view = {0};
    ct_tensor *tensor;
    ct_status status;
    uint8_t way = fuzz_byte(&input);
    uint32_t major = way & 2 ? fuzz_byte(&input) : DLPACK_MAJOR_VERSION;
    take_view(&view, &input, shape, strides);
    char *bytes = fuzz_rest(&input);
    view.data = way & 4 ? NULL : bytes;
    DLManagedTensor managed = {view, &owner, delete_managed};
    DLManagedTensorVersioned versioned = {.version = {major, DLPACK_MINOR_VERSION},
                                          .manager_ctx = &owner,
                                          .deleter = delete_versioned,
                                          .flags = way >> 3,
                                          .dl_tensor = view};
    if (way & 1)
        status = ct_dlpack_import(&tensor, &managed, CPU);
    else
        status = ct_dlpack_import_versioned(&tensor, &versioned, CPU);
    MUST((status == CT_OK) == (tensor != NULL));
    MUST(owner.n_deleted == 0);
    if (tensor && tensor->storage->size > 0)
        MUST(ct_tensor_data(tensor) == bytes + view.byte_offset);
    if (tensor)
        read_imported(tensor, bytes, input.size);
    ct_tensor_unref(&tensor);
    MUST(owner.n_deleted == (status == CT_OK)); /* on failure it stays the producer's */
    free(bytes);
    return 0;
}
