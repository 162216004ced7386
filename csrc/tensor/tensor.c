/* Views and what makes new ones of them. Every constructor ends in ct_tensor_view, whose bounds
 * check is the only one. */
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "quant/format.h"
#include "quant/scaled.h"

static ct_status byte_range(size_t *begin, size_t *end, const ct_tensor *view);
static ct_status check_quantized(const ct_tensor *view);
static void copy_strided(char *dst, const ct_tensor *src, int dim, const char *from, size_t size);

static void contiguous_strides(int64_t *strides, int n_dims, const int64_t *shape)
{
    int64_t stride = 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= shape[i] > 0 ? shape[i] : 1;
    }
}

/* The number of elements, or CT_VALUE when a length is negative or the product too large. */
static ct_status count_elements(int64_t *out, int n_dims, const int64_t *shape)
{
    if (n_dims < 0 || n_dims > CT_MAX_DIMS)
        return ct_fail(CT_VALUE, "a tensor has at most %d dimensions, not %d", CT_MAX_DIMS, n_dims);
    int64_t count = 1;
    bool empty = false;
    for (int i = 0; i < n_dims; i++) {
        if (shape[i] < 0)
            return ct_fail(CT_VALUE, "dimension %d has the negative length %lld", i,
                           (long long)shape[i]);
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(count, shape[i], &count) || count > INT64_MAX / 16)
            return ct_fail(CT_VALUE, "the shape has too many elements");
    }
    *out = empty ? 0 : count;
    return CT_OK;
}

ct_status ct_tensor_new(ct_tensor **out, ct_dtype dtype, int n_dims, const int64_t *shape)
{
    *out = NULL;
    int64_t count;
    size_t size;
    CT_TRY(count_elements(&count, n_dims, shape));
    CT_TRY(ct_dtype_row_bytes(&size, dtype, count));
    ct_storage *storage;
    CT_TRY(ct_storage_new(&storage, size));
    ct_status status = ct_tensor_view(out, storage, 0, dtype, n_dims, shape, NULL);
    ct_storage_unref(&storage);
    return status;
}

ct_status ct_tensor_view(ct_tensor **out, ct_storage *storage, size_t offset, ct_dtype dtype,
                         int n_dims, const int64_t *shape, const int64_t *strides)
{
    *out = NULL;
    ct_tensor view = {.storage = storage, .offset = offset, .dtype = dtype, .n_dims = n_dims};
    int64_t count;
    CT_TRY(count_elements(&count, n_dims, shape));
    for (int i = 0; i < n_dims; i++)
        view.shape[i] = shape[i];
    if (!strides || count == 0) /* where nothing is, strides may be any number */
        contiguous_strides(view.strides, n_dims, shape);
    for (int i = 0; i < n_dims && strides && count > 0; i++)
        view.strides[i] = strides[i];
    if (ct_dtype_is_quantized(dtype))
        CT_TRY(check_quantized(&view));
    size_t begin, end;
    CT_TRY(byte_range(&begin, &end, &view));
    if (end > storage->size)
        return ct_fail(CT_VALUE, "a tensor of bytes %zu to %zu does not fit a storage of %zu bytes",
                       begin, end, storage->size);

    ct_tensor *tensor;
    CT_TRY(ct_alloc((void **)&tensor, sizeof *tensor));
    *tensor = view;
    ct_refcount_init(&tensor->refs);
    ct_storage_ref(storage);
    *out = tensor;
    return CT_OK;
}

/* Another view of the same elements, from the byte `offset` of the storage on. */
static ct_status view_of(ct_tensor **out, const ct_tensor *tensor, size_t offset, int n_dims,
                         const int64_t *shape, const int64_t *strides)
{
    CT_TRY(ct_tensor_view(out, tensor->storage, offset, tensor->dtype, n_dims, shape, strides));
    if (!tensor->scales)
        return CT_OK;
    (*out)->scales = ct_scales_ref(tensor->scales);
    (*out)->first_value = tensor->first_value + (int64_t)(offset - tensor->offset) /
                                                    (int64_t)ct_dtype_block_bytes(tensor->dtype) *
                                                    ct_dtype_block_values(tensor->dtype);
    return CT_OK;
}

ct_status ct_tensor_scaled(ct_tensor **out, const ct_tensor *codes, ct_dtype dtype, int n_dims,
                           const int64_t *shape, ct_scales *scales)
{
    *out = NULL;
    ct_dtype wanted = dtype == CT_LLM_INT8 ? CT_I8 : CT_U8;
    int64_t count;
    size_t size;
    CT_TRY(count_elements(&count, n_dims, shape));
    CT_TRY(ct_dtype_row_bytes(&size, dtype, count));
    if (codes->dtype != wanted || !ct_tensor_is_contiguous(codes) || ct_tensor_bytes(codes) != size)
        return ct_fail(CT_VALUE, "%lld values in %s need %zu contiguous codes of %s, got %zu of %s",
                       (long long)count, ct_dtype_name(dtype), size, ct_dtype_name(wanted),
                       ct_tensor_bytes(codes), ct_dtype_name(codes->dtype));
    if (scales->n_values != count)
        return ct_fail(CT_VALUE, "scales of %lld values do not fit a matrix of %lld",
                       (long long)scales->n_values, (long long)count);
    if (dtype == CT_LLM_INT8 &&
        (n_dims < 1 || scales->block != shape[n_dims - 1] || scales->nested_absmax))
        return ct_fail(CT_VALUE, "%s needs one float scale for each row", ct_dtype_name(dtype));
    CT_TRY(ct_tensor_view(out, codes->storage, codes->offset, dtype, n_dims, shape, NULL));
    (*out)->scales = ct_scales_ref(scales);
    return CT_OK;
}

ct_status ct_tensor_from_bytes(ct_tensor **out, ct_storage *storage, size_t offset, ct_dtype dtype,
                               int n_dims, const int64_t *shape)
{
    *out = NULL;
    if (ct_dtype_has_scales(dtype))
        return ct_fail(CT_VALUE, "a tensor of %s needs scales beside it: read its codes",
                       ct_dtype_name(dtype));
    CT_TRY(ct_tensor_view(out, storage, offset, dtype, n_dims, shape, NULL));
    if (ct_dtype_is_quantized(dtype) || offset % ct_dtype_block_bytes(dtype) == 0)
        return CT_OK;
    ct_tensor *view = *out;
    ct_status status = ct_tensor_new(out, dtype, n_dims, shape);
    if (status == CT_OK)
        memcpy(ct_tensor_data(*out), ct_tensor_data(view), (*out)->storage->size);
    ct_tensor_unref(&view);
    return status;
}

ct_tensor *ct_tensor_ref(ct_tensor *tensor)
{
    ct_refcount_take(&tensor->refs);
    return tensor;
}

void ct_tensor_unref(ct_tensor **tensor)
{
    ct_tensor *old = *tensor;
    *tensor = NULL;
    if (!old || !ct_refcount_drop(&old->refs))
        return;
    ct_storage_unref(&old->storage);
    ct_scales_unref(&old->scales);
    ct_free(&old);
}

void *ct_tensor_data(const ct_tensor *tensor)
{
    return (char *)tensor->storage->data + tensor->offset;
}

int64_t ct_tensor_size(const ct_tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        count *= tensor->shape[i];
    return count;
}

size_t ct_tensor_bytes(const ct_tensor *tensor)
{
    return (size_t)(ct_tensor_size(tensor) / ct_dtype_block_values(tensor->dtype)) *
           ct_dtype_block_bytes(tensor->dtype);
}

bool ct_tensor_is_contiguous(const ct_tensor *tensor)
{
    int64_t stride = 1;
    for (int i = tensor->n_dims - 1; i >= 0; i--) {
        if (tensor->shape[i] == 0)
            return true;
        if (tensor->shape[i] != 1 && tensor->strides[i] != stride)
            return false;
        stride *= tensor->shape[i];
    }
    return true;
}

void ct_shape_text(char *text, size_t size, int n_dims, const int64_t *shape)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < n_dims && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "",
                                 (long long)shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static ct_status check_dim(const ct_tensor *tensor, int dim)
{
    if (dim < 0 || dim >= tensor->n_dims)
        return ct_fail(CT_INDEX, "there is no dimension %d in a tensor of %d dimensions", dim,
                       tensor->n_dims);
    return CT_OK;
}

/* Bytes from element 0 to the one that starts `index` * stride of `dim` later. */
static int64_t step_bytes(const ct_tensor *tensor, int dim, int64_t index)
{
    int values = ct_dtype_block_values(tensor->dtype);
    if (ct_tensor_size(tensor) == 0)
        return 0;
    return index * tensor->strides[dim] / values * (int64_t)ct_dtype_block_bytes(tensor->dtype);
}

ct_status ct_tensor_select(ct_tensor **out, const ct_tensor *tensor, int dim, int64_t index)
{
    *out = NULL;
    CT_TRY(check_dim(tensor, dim));
    int64_t length = tensor->shape[dim], wanted = index;
    if (index < 0)
        index += length;
    if (index < 0 || index >= length)
        return ct_fail(CT_INDEX, "index %lld is out of bounds for dimension %d of length %lld",
                       (long long)wanted, dim, (long long)length);
    if (ct_dtype_is_quantized(tensor->dtype) && dim == tensor->n_dims - 1)
        return ct_fail(CT_VALUE, "a %s tensor cannot be indexed inside its rows",
                       ct_dtype_name(tensor->dtype));
    int64_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
    for (int i = 0, j = 0; i < tensor->n_dims; i++) {
        if (i == dim)
            continue;
        shape[j] = tensor->shape[i];
        strides[j++] = tensor->strides[i];
    }
    size_t offset = tensor->offset + (size_t)step_bytes(tensor, dim, index);
    return view_of(out, tensor, offset, tensor->n_dims - 1, shape, strides);
}

/* Whether `length` places from `start` on, every `step`-th, are among `n`. */
static bool slice_fits(int64_t n, int64_t start, int64_t length, int64_t step)
{
    int64_t last;
    if (start < 0 || length <= 0)
        return start >= 0 && length == 0;
    return start < n && !__builtin_mul_overflow(length - 1, step, &last) &&
           !__builtin_add_overflow(start, last, &last) && last >= 0 && last < n;
}

ct_status ct_tensor_slice(ct_tensor **out, const ct_tensor *tensor, int dim, int64_t start,
                          int64_t length, int64_t step)
{
    *out = NULL;
    CT_TRY(check_dim(tensor, dim));
    if (!slice_fits(tensor->shape[dim], start, length, step))
        return ct_fail(CT_INDEX, "a slice of %lld from %lld by %lld leaves dimension %d of %lld",
                       (long long)length, (long long)start, (long long)step, dim,
                       (long long)tensor->shape[dim]);
    if (ct_dtype_is_quantized(tensor->dtype) && dim == tensor->n_dims - 1 &&
        length != tensor->shape[dim])
        return ct_fail(CT_VALUE, "a %s tensor cannot be sliced inside its rows",
                       ct_dtype_name(tensor->dtype));
    int64_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
    memcpy(shape, tensor->shape, sizeof shape);
    memcpy(strides, tensor->strides, sizeof strides);
    shape[dim] = length;
    if (length > 1)
        strides[dim] *= step;
    size_t offset = tensor->offset + (length ? (size_t)step_bytes(tensor, dim, start) : 0);
    return view_of(out, tensor, offset, tensor->n_dims, shape, strides);
}

/* The number of elements at one distance, *stride, that the dimensions from *dim outwards join to;
 * *dim becomes the first that does not. */
static int64_t next_run(const ct_tensor *tensor, int *dim, int64_t *stride)
{
    int64_t length = 1;
    for (; *dim >= 0; --*dim) {
        if (tensor->shape[*dim] == 1)
            continue;
        if (length == 1)
            *stride = tensor->strides[*dim];
        else if (tensor->strides[*dim] != *stride * length)
            break;
        length *= tensor->shape[*dim];
    }
    return length;
}

/* The strides of a shape of as many elements; false when a dimension would not lie in one run. */
static bool view_strides(int64_t *strides, const ct_tensor *tensor, int n_dims,
                         const int64_t *shape)
{
    int dim = tensor->n_dims - 1;
    int64_t left = 1, stride = 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        if (left == 1 && shape[i] != 1)
            left = next_run(tensor, &dim, &stride);
        if (left % shape[i] != 0)
            return false;
        strides[i] = stride;
        stride *= shape[i];
        left /= shape[i];
    }
    return true;
}

ct_status ct_tensor_reshape(ct_tensor **out, const ct_tensor *tensor, int n_dims,
                            const int64_t *shape)
{
    *out = NULL;
    if (n_dims < 0 || n_dims > CT_MAX_DIMS)
        return ct_fail(CT_VALUE, "a tensor has at most %d dimensions, not %d", CT_MAX_DIMS, n_dims);
    int64_t full[CT_MAX_DIMS], known = 1, size = ct_tensor_size(tensor);
    int open = -1;
    for (int i = 0; i < n_dims; i++) {
        full[i] = shape[i];
        if (shape[i] == -1 && open < 0)
            open = i;
        else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known))
            return ct_fail(CT_VALUE, "cannot reshape to a length of %lld", (long long)shape[i]);
    }
    if (open >= 0)
        full[open] = known > 0 ? size / known : 0;
    if ((open >= 0 ? full[open] * known : known) != size)
        return ct_fail(CT_VALUE, "cannot reshape %lld elements to a shape of %lld", (long long)size,
                       (long long)known);
    int64_t strides[CT_MAX_DIMS];
    if (size > 0 && !view_strides(strides, tensor, n_dims, full))
        return ct_fail(CT_VALUE,
                       "the tensor's strides do not allow this shape without a copy; call "
                       "contiguous() first");
    return view_of(out, tensor, tensor->offset, n_dims, full, strides);
}

ct_status ct_tensor_contiguous(ct_tensor **out, const ct_tensor *tensor)
{
    if (ct_tensor_is_contiguous(tensor)) {
        *out = ct_tensor_ref((ct_tensor *)tensor);
        return CT_OK;
    }
    CT_TRY(ct_tensor_new(out, tensor->dtype, tensor->n_dims, tensor->shape));
    copy_strided(ct_tensor_data(*out), tensor, 0, ct_tensor_data(tensor),
                 ct_dtype_block_bytes(tensor->dtype));
    return CT_OK;
}

static bool is_integer(ct_dtype dtype)
{
    return dtype == CT_I64 || dtype == CT_I32 || dtype == CT_I8 || dtype == CT_U8 ||
           dtype == CT_BOOL;
}

/* What is read may lie at any address (a file's tensor behind a header of odd length); what is
 * written is our own. */
static float read_float(ct_dtype dtype, const char *data, int64_t i)
{
    float value;
    uint16_t half;
    if (dtype == CT_F32) {
        memcpy(&value, data + i * (int64_t)sizeof value, sizeof value);
        return value;
    }
    memcpy(&half, data + i * (int64_t)sizeof half, sizeof half);
    return dtype == CT_F16 ? ct_f16_to_f32(half) : ct_bf16_to_f32(half);
}

static void write_float(ct_dtype dtype, void *data, int64_t i, float value)
{
    if (dtype == CT_F16)
        ((uint16_t *)data)[i] = ct_f16_from_f32(value);
    else if (dtype == CT_BF16)
        ((uint16_t *)data)[i] = ct_bf16_from_f32(value);
    else
        ((float *)data)[i] = value;
}

static int64_t read_integer(ct_dtype dtype, const char *data, int64_t i)
{
    int64_t wide;
    int32_t word;
    switch (dtype) {
    case CT_I64:
        memcpy(&wide, data + i * (int64_t)sizeof wide, sizeof wide);
        return wide;
    case CT_I32:
        memcpy(&word, data + i * (int64_t)sizeof word, sizeof word);
        return word;
    case CT_I8:
        return (int8_t)data[i];
    default:
        return (uint8_t)data[i];
    }
}

static void write_integer(ct_dtype dtype, void *data, int64_t i, int64_t value)
{
    switch (dtype) {
    case CT_I64:
        ((int64_t *)data)[i] = value;
        break;
    case CT_I32:
        ((int32_t *)data)[i] = (int32_t)value;
        break;
    case CT_I8:
        ((int8_t *)data)[i] = (int8_t)value;
        break;
    case CT_BOOL:
        ((uint8_t *)data)[i] = value != 0;
        break;
    default:
        ((uint8_t *)data)[i] = (uint8_t)value;
    }
}

/* Quantized values go through a small f32 buffer. */
static void dequantize_to(void *dst, ct_dtype dtype, const ct_tensor *source)
{
    const ct_format *format = ct_format_get(source->dtype);
    int64_t step = format ? ct_dtype_block_values(source->dtype) : CT_DTYPE_MAX_BLOCK;
    int64_t size = ct_tensor_size(source);
    const char *src = ct_tensor_data(source);
    float piece[CT_DTYPE_MAX_BLOCK];
    for (int64_t i = 0; i < size; i += step) {
        int64_t n = size - i < step ? size - i : step;
        if (format)
            format->dequantize(piece, src, n);
        else
            ct_scaled_to_f32(piece, source, i, n);
        src += ct_dtype_block_bytes(source->dtype);
        for (int64_t j = 0; j < n; j++)
            write_float(dtype, dst, i + j, piece[j]);
    }
}

ct_status ct_tensor_convert(ct_tensor **out, const ct_tensor *tensor, ct_dtype dtype)
{
    *out = NULL;
    ct_dtype from = tensor->dtype;
    bool quantized = ct_dtype_is_quantized(from);
    bool floats = (ct_dtype_is_float(from) || quantized) && ct_dtype_is_float(dtype);
    if (from != dtype && !floats && !(is_integer(from) && is_integer(dtype)))
        return ct_fail(CT_TYPE, "cannot convert %s to %s", ct_dtype_name(from),
                       ct_dtype_name(dtype));
    ct_status status = CT_OK;
    ct_tensor *source, *converted = NULL;
    CT_TRY(ct_tensor_contiguous(&source, tensor));
    CT_TRY_TO(done, ct_tensor_new(&converted, dtype, tensor->n_dims, tensor->shape));
    if (from == dtype && tensor->scales) {
        converted->scales = ct_scales_ref(tensor->scales);
        converted->first_value = tensor->first_value;
    }
    int64_t n = ct_tensor_size(source);
    const char *src = ct_tensor_data(source);
    void *dst = ct_tensor_data(converted);
    if (from == dtype)
        memcpy(dst, src, converted->storage->size);
    else if (quantized)
        dequantize_to(dst, dtype, source);
    else if (floats)
        for (int64_t i = 0; i < n; i++)
            write_float(dtype, dst, i, read_float(from, src, i));
    else
        for (int64_t i = 0; i < n; i++)
            write_integer(dtype, dst, i, read_integer(from, src, i));
    *out = converted;
done:
    ct_tensor_unref(&source);
    return status;
}

/* The bytes of the storage that the view's elements cover: [*begin, *end). */
static ct_status byte_range(size_t *begin, size_t *end, const ct_tensor *view)
{
    int values = ct_dtype_block_values(view->dtype);
    int64_t bytes = (int64_t)ct_dtype_block_bytes(view->dtype), low = 0, high = 0;
    *begin = *end = view->offset;
    for (int i = 0; i < view->n_dims; i++)
        if (view->shape[i] == 0)
            return CT_OK;
    bool fits = view->offset <= INT64_MAX;
    for (int i = 0; i < view->n_dims && fits; i++) {
        int64_t span;
        fits = !__builtin_mul_overflow(view->shape[i] - 1, view->strides[i], &span) &&
               !__builtin_add_overflow(span < 0 ? low : high, span, span < 0 ? &low : &high);
    }
    fits = fits && !__builtin_mul_overflow(low, bytes, &low) &&
           !__builtin_add_overflow(high / values, 1, &high) &&
           !__builtin_mul_overflow(high, bytes, &high) &&
           !__builtin_add_overflow((int64_t)view->offset, low, &low) &&
           !__builtin_add_overflow((int64_t)view->offset, high, &high) && low >= 0;
    if (!fits)
        return ct_fail(CT_VALUE, "the tensor's strides and offset lead outside its storage");
    *begin = (size_t)low;
    *end = (size_t)high;
    return CT_OK;
}

static ct_status check_quantized(const ct_tensor *view)
{
    int values = ct_dtype_block_values(view->dtype);
    if (view->n_dims < 1 || view->shape[view->n_dims - 1] % values != 0)
        return ct_fail(CT_VALUE, "the rows of a %s tensor must be multiples of %d values",
                       ct_dtype_name(view->dtype), values);
    if (!ct_tensor_is_contiguous(view))
        return ct_fail(CT_VALUE, "a %s tensor must be contiguous", ct_dtype_name(view->dtype));
    return CT_OK;
}

/* Copies from dimension `dim` inwards; dst is contiguous. */
static void copy_strided(char *dst, const ct_tensor *src, int dim, const char *from, size_t size)
{
    int64_t inner = 1;
    for (int i = dim + 1; i < src->n_dims; i++)
        inner *= src->shape[i];
    for (int64_t i = 0; i < src->shape[dim]; i++) {
        const char *element = from + i * src->strides[dim] * (int64_t)size;
        char *to = dst + i * inner * (int64_t)size;
        if (dim == src->n_dims - 1)
            memcpy(to, element, size);
        else
            copy_strided(to, src, dim + 1, element, size);
    }
}
