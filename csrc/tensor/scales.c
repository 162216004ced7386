/* The scales beside a matrix of codes. */
#include "tensor/scales.h"

#include <string.h>

#include "core/memory.h"
#include "tensor/tensor.h"

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static ct_status check_vector(const ct_tensor *tensor, const char *what, ct_dtype dtype, int64_t n)
{
    if (tensor->dtype == dtype && tensor->n_dims == 1 && tensor->shape[0] == n &&
        ct_tensor_is_contiguous(tensor))
        return CT_OK;
    char shape[192];
    ct_shape_text(shape, sizeof shape, tensor->n_dims, tensor->shape);
    return ct_fail(CT_VALUE, "%s must be a contiguous %s tensor of shape [%lld], is %s of %s", what,
                   ct_dtype_name(dtype), (long long)n, ct_dtype_name(tensor->dtype), shape);
}

static ct_status check(const ct_scales *parts)
{
    bool nested = parts->nested_absmax;
    if (parts->n_values < 0 || parts->block < 1)
        return ct_fail(CT_VALUE, "%lld values in blocks of %lld cannot be scaled",
                       (long long)parts->n_values, (long long)parts->block);
    if (nested != (parts->nested_map != NULL))
        return ct_fail(CT_VALUE, "nested scales need both their absmax and their map");
    if (!ct_dtype_is_float(parts->origin))
        return ct_fail(CT_VALUE, "%s cannot have been quantized", ct_dtype_name(parts->origin));
    int64_t n = ct_scales_count(parts);
    CT_TRY(check_vector(parts->absmax, "absmax", nested ? CT_U8 : CT_F32, n));
    if (!nested)
        return CT_OK;
    CT_TRY(
        check_vector(parts->nested_absmax, "nested absmax", CT_F32, ceil_div(n, CT_NESTED_BLOCK)));
    return check_vector(parts->nested_map, "nested quant map", CT_F32, CT_NESTED_CODES);
}

ct_status ct_scales_new(ct_scales **out, const ct_scales *parts)
{
    *out = NULL;
    CT_TRY(check(parts));
    ct_scales *scales;
    CT_TRY(ct_alloc((void **)&scales, sizeof *scales));
    *scales = *parts;
    ct_refcount_init(&scales->refs);
    ct_tensor_ref(scales->absmax);
    if (scales->nested_absmax) {
        ct_tensor_ref(scales->nested_absmax);
        ct_tensor_ref(scales->nested_map);
    }
    *out = scales;
    return CT_OK;
}

ct_scales *ct_scales_ref(ct_scales *scales)
{
    ct_refcount_take(&scales->refs);
    return scales;
}

void ct_scales_unref(ct_scales **scales)
{
    ct_scales *old = *scales;
    *scales = NULL;
    if (!old || !ct_refcount_drop(&old->refs))
        return;
    ct_tensor_unref(&old->absmax);
    ct_tensor_unref(&old->nested_absmax);
    ct_tensor_unref(&old->nested_map);
    ct_free(&old);
}

int64_t ct_scales_count(const ct_scales *scales)
{
    return ceil_div(scales->n_values, scales->block);
}

void ct_scales_restore(float *dst, const ct_scales *scales, int64_t first, int64_t n)
{
    const char *absmax = ct_tensor_data(scales->absmax);
    if (!scales->nested_absmax) { /* may lie at any address of a file */
        memcpy(dst, absmax + first * (int64_t)sizeof *dst, (size_t)n * sizeof *dst);
        return;
    }
    const uint8_t *codes = (const uint8_t *)absmax + first;
    const float *nested = ct_tensor_data(scales->nested_absmax);
    const float *map = ct_tensor_data(scales->nested_map);
    const float offset = scales->nested_offset;
    while (n > 0) {
        int64_t left = CT_NESTED_BLOCK - first % CT_NESTED_BLOCK, count = n < left ? n : left;
        const float factor = nested[first / CT_NESTED_BLOCK];
        for (int64_t i = 0; i < count; i++) {
            float product = map[codes[i]] * factor;
            dst[i] = product + offset;
        }
        codes += count, dst += count, first += count, n -= count;
    }
}

static size_t bytes_of(const ct_tensor *tensor)
{
    return tensor ? (size_t)ct_tensor_size(tensor) * ct_dtype_block_bytes(tensor->dtype) : 0;
}

size_t ct_scales_bytes(const ct_scales *scales)
{
    return bytes_of(scales->absmax) + bytes_of(scales->nested_absmax) +
           bytes_of(scales->nested_map);
}
