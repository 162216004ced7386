/* Rows of other element types to and from f32. */
#include "cpu/isa/portable/table.h"

#include <string.h>

#include "quant/format.h"

static void f32_to_f32(float *dst, const void *src, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void f16_to_f32(float *dst, const void *src, int64_t n)
{
    const uint16_t *bits = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = ct_f16_to_f32(bits[i]);
}

static void bf16_to_f32(float *dst, const void *src, int64_t n)
{
    const uint16_t *bits = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = ct_bf16_to_f32(bits[i]);
}

static void f32_from_f32(void *dst, const float *src, int64_t n)
{
    memcpy(dst, src, (size_t)n * sizeof *src);
}

static void f16_from_f32(void *dst, const float *src, int64_t n)
{
    uint16_t *bits = dst;
    for (int64_t i = 0; i < n; i++)
        bits[i] = ct_f16_from_f32(src[i]);
}

static void bf16_from_f32(void *dst, const float *src, int64_t n)
{
    uint16_t *bits = dst;
    for (int64_t i = 0; i < n; i++)
        bits[i] = ct_bf16_from_f32(src[i]);
}

void ct_portable_fill_convert(ct_kernels *table)
{
    for (int dtype = 0; dtype < CT_DTYPE_COUNT; dtype++) {
        const ct_format *format = ct_format_get((ct_dtype)dtype);
        table->to_f32[dtype] = format ? format->dequantize : NULL;
    }
    table->to_f32[CT_F32] = f32_to_f32;
    table->to_f32[CT_F16] = f16_to_f32;
    table->to_f32[CT_BF16] = bf16_to_f32;
    table->from_f32[CT_F32] = f32_from_f32;
    table->from_f32[CT_F16] = f16_from_f32;
    table->from_f32[CT_BF16] = bf16_from_f32;
}
