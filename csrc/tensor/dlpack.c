/* Both forms of the struct, each beside the tensor reference and the shape that it points to. */
#include "tensor/dlpack.h"

#include "core/memory.h"

typedef struct exported {
    DLManagedTensor managed;
    DLManagedTensorVersioned versioned;
    ct_tensor *tensor;
    int64_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
} exported;

static const struct {
    ct_dtype dtype;
    uint8_t code, bits;
} types[] = {
    {CT_F32, kDLFloat, 32}, {CT_F16, kDLFloat, 16}, {CT_BF16, kDLBfloat, 16}, {CT_I64, kDLInt, 64},
    {CT_I32, kDLInt, 32},   {CT_I8, kDLInt, 8},     {CT_U8, kDLUInt, 8},      {CT_BOOL, kDLBool, 8},
};
#define N_TYPES (sizeof types / sizeof *types)

static void delete_exported(exported *old)
{
    ct_tensor_unref(&old->tensor);
    ct_free(&old);
}

static void delete_managed(DLManagedTensor *self)
{
    delete_exported(self->manager_ctx);
}

static void delete_versioned(DLManagedTensorVersioned *self)
{
    delete_exported(self->manager_ctx);
}

static ct_status new_exported(exported **out, ct_tensor *tensor)
{
    size_t type = 0;
    while (type < N_TYPES && types[type].dtype != tensor->dtype)
        type++;
    if (type == N_TYPES)
        return ct_fail(CT_BUFFER, "a %s tensor has no DLPack type; convert it with to(\"float32\")",
                       ct_dtype_name(tensor->dtype));
    exported *made;
    CT_TRY(ct_alloc_zeroed((void **)&made, 1, sizeof *made));
    for (int i = 0; i < tensor->n_dims; i++) {
        made->shape[i] = tensor->shape[i];
        made->strides[i] = tensor->strides[i];
    }
    bool cpu = tensor->storage->device.kind == CT_DEVICE_CPU;
    DLTensor view = {
        .data = ct_tensor_data(tensor),
        .device = {cpu ? kDLCPU : kDLCUDA, tensor->storage->device.index},
        .ndim = tensor->n_dims,
        .dtype = {types[type].code, types[type].bits, 1},
        .shape = made->shape,
        .strides = made->strides,
    };
    made->tensor = ct_tensor_ref(tensor);
    made->managed = (DLManagedTensor){view, made, delete_managed};
    made->versioned = (DLManagedTensorVersioned){
        .version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION},
        .manager_ctx = made,
        .deleter = delete_versioned,
        .dl_tensor = view,
    };
    *out = made;
    return CT_OK;
}

ct_status ct_dlpack_export(DLManagedTensor **out, ct_tensor *tensor)
{
    *out = NULL;
    if (tensor->storage->read_only)
        return ct_fail(CT_BUFFER,
                       "this tensor is read-only, which only DLPack 1.0 and newer can say; "
                       "copy it first with to(copy=True)");
    exported *made;
    CT_TRY(new_exported(&made, tensor));
    *out = &made->managed;
    return CT_OK;
}

ct_status ct_dlpack_export_versioned(DLManagedTensorVersioned **out, ct_tensor *tensor, bool copied)
{
    *out = NULL;
    exported *made;
    CT_TRY(new_exported(&made, tensor));
    if (tensor->storage->read_only)
        made->versioned.flags |= DLPACK_FLAG_READ_ONLY;
    if (copied)
        made->versioned.flags |= DLPACK_FLAG_IS_COPIED;
    *out = &made->versioned;
    return CT_OK;
}

static void release_managed(void *data, size_t size, void *context)
{
    DLManagedTensor *managed = context;
    (void)data, (void)size;
    if (managed->deleter)
        managed->deleter(managed);
}

static void release_versioned(void *data, size_t size, void *context)
{
    DLManagedTensorVersioned *managed = context;
    (void)data, (void)size;
    if (managed->deleter)
        managed->deleter(managed);
}

static const char *kind_name(uint8_t code)
{
    static const char *const names[] = {"int",    "uint",    "float", "handle",
                                        "bfloat", "complex", "bool"};
    return code < sizeof names / sizeof *names ? names[code] : NULL;
}

static ct_status find_type(ct_dtype *out, DLDataType type)
{
    static const char advice[] = "convert it to float32, float16, bfloat16, int64, int32, int8, "
                                 "uint8 or bool";

    for (size_t i = 0; i < N_TYPES; i++) {
        if (types[i].code == type.code && types[i].bits == type.bits && type.lanes == 1) {
            *out = types[i].dtype;
            return CT_OK;
        }
    }
    if (type.lanes != 1)
        return ct_fail(CT_TYPE, "a DLPack tensor of vectors of %d lanes is not supported; %s",
                       type.lanes, advice);
    if (!kind_name(type.code))
        return ct_fail(CT_TYPE, "a DLPack tensor of type code %d and %d bits is not supported; %s",
                       type.code, type.bits, advice);
    return ct_fail(CT_TYPE, "a DLPack tensor of %s%d is not supported; %s", kind_name(type.code),
                   type.bits, advice);
}

static ct_status check_geometry(const DLTensor *view, int64_t bytes)
{
    bool empty = false;
    if (view->ndim < 0 || view->ndim > CT_MAX_DIMS)
        return ct_fail(CT_VALUE, "a tensor has at most %d dimensions, not %d", CT_MAX_DIMS,
                       (int)view->ndim);
    if (view->ndim > 0 && !view->shape)
        return ct_fail(CT_VALUE, "a DLPack tensor of %d dimensions has no shape", (int)view->ndim);
    for (int i = 0; i < view->ndim; i++) {
        if (view->shape[i] < 0)
            return ct_fail(CT_VALUE, "a DLPack tensor has the negative length %lld",
                           (long long)view->shape[i]);
        empty = empty || view->shape[i] == 0;
    }
    if (empty)
        return CT_OK;
    if (!view->data)
        return ct_fail(CT_VALUE, "a DLPack tensor has elements, but no data");
    if (view->byte_offset > INT64_MAX)
        return ct_fail(CT_VALUE, "a DLPack tensor's offset is too large");
    if (((uintptr_t)view->data + view->byte_offset) % (uint64_t)bytes != 0)
        return ct_fail(CT_BUFFER,
                       "a DLPack tensor's data is not aligned to its elements of %d "
                       "bytes; copy it first",
                       (int)bytes);
    return CT_OK;
}

/* The bytes around element 0 that the view covers: [low, high); both 0 when there is none. */
static ct_status extent(const DLTensor *view, int64_t bytes, const int64_t *strides, int64_t *low,
                        int64_t *high)
{
    int64_t span, whole;
    *low = 0;
    *high = bytes;
    for (int i = 0; i < view->ndim; i++)
        if (view->shape[i] == 0)
            *high = 0;
    for (int i = 0; *high > 0 && i < view->ndim; i++)
        if (__builtin_mul_overflow(view->shape[i] - 1, strides[i], &span) ||
            __builtin_mul_overflow(span, bytes, &span) ||
            __builtin_add_overflow(span < 0 ? *low : *high, span, span < 0 ? low : high))
            return ct_fail(CT_VALUE, "a DLPack tensor is too large");
    if (__builtin_sub_overflow(*high, *low, &whole))
        return ct_fail(CT_VALUE, "a DLPack tensor is too large");
    uintptr_t first, end;
    if (*high > 0 &&
        (__builtin_add_overflow((uintptr_t)view->data, view->byte_offset, &first) ||
         __builtin_add_overflow(first, (uintptr_t)*high, &end) || first < (uintptr_t) - *low))
        return ct_fail(CT_VALUE, "a DLPack tensor's offset and strides lead outside of memory");
    return CT_OK;
}

static ct_status check_device(const DLTensor *view, ct_device_id device)
{
    DLDevice own = view->device;
    if (device.kind == CT_DEVICE_CPU) {
        if (own.device_type == kDLCPU || own.device_type == kDLCUDAHost)
            return CT_OK;
        return ct_fail(CT_BUFFER,
                       "a DLPack tensor on device type %d cannot be used by the CPU; "
                       "move it there first",
                       (int)own.device_type);
    }
    if (own.device_type == kDLCUDA && own.device_id == device.index)
        return CT_OK;
    return ct_fail(CT_BUFFER,
                   "a DLPack tensor that should be on \"cuda:%d\" is number %d of device type %d",
                   device.index, (int)own.device_id, (int)own.device_type);
}

static ct_status import_view(ct_tensor **out, const DLTensor *view, ct_device_id device,
                             bool read_only, void (*release)(void *, size_t, void *), void *managed)
{
    static char nothing; /* memory of tensors without elements, which may come without a pointer */
    *out = NULL;
    ct_dtype dtype = CT_F32;
    CT_TRY(check_device(view, device));
    CT_TRY(find_type(&dtype, view->dtype));
    int64_t bytes = (int64_t)ct_dtype_block_bytes(dtype);
    CT_TRY(check_geometry(view, bytes));
    int64_t strides[CT_MAX_DIMS], step = 1, low, high;
    for (int i = view->ndim - 1; i >= 0; i--) {
        strides[i] = view->strides ? view->strides[i] : step;
        if (view->shape[i] > 0 && __builtin_mul_overflow(step, view->shape[i], &step))
            return ct_fail(CT_VALUE, "a DLPack tensor is too large");
    }
    CT_TRY(extent(view, bytes, strides, &low, &high));
    char *lowest = high > 0 ? (char *)view->data + ((int64_t)view->byte_offset + low) : &nothing;
    ct_storage *storage;
    CT_TRY(ct_storage_import(&storage, lowest, (size_t)(high - low), read_only, device, release,
                             managed));
    ct_status status =
        ct_tensor_view(out, storage, (size_t)-low, dtype, view->ndim, view->shape, strides);
    if (status != CT_OK)
        storage->release = NULL; /* the caller keeps `managed` */
    ct_storage_unref(&storage);
    return status;
}

ct_status ct_dlpack_import(ct_tensor **out, DLManagedTensor *managed, ct_device_id device)
{
    return import_view(out, &managed->dl_tensor, device, false, release_managed, managed);
}

ct_status ct_dlpack_import_versioned(ct_tensor **out, DLManagedTensorVersioned *managed,
                                     ct_device_id device)
{
    *out = NULL;
    if (managed->version.major != DLPACK_MAJOR_VERSION)
        return ct_fail(CT_BUFFER, "DLPack version %u.%u is not supported, only 1.x",
                       managed->version.major, managed->version.minor);
    return import_view(out, &managed->dl_tensor, device, managed->flags & DLPACK_FLAG_READ_ONLY,
                       release_versioned, managed);
}
