/* Conversions of rows, written once for every vector ISA. Include after that ISA's vector.h and
 * blocks.h. */
#include "cpu/isa/block_formats.h"
#include "cpu/isa/kernels.h"

#define CONVERT_INLINE static inline __attribute__((always_inline))

CONVERT_INLINE void widen_row(float *dst, const uint16_t *src, int64_t n,
                              vec (*load)(const uint16_t *),
                              vec (*load_n)(const uint16_t *, int64_t))
{
    int64_t i = 0;
    for (; i + V_WIDTH <= n; i += V_WIDTH)
        v_store(dst + i, load(src + i));
    if (i < n)
        v_store_n(dst + i, load_n(src + i, n - i), n - i);
}

static void f16_to_f32(float *dst, const void *src, int64_t n)
{
    widen_row(dst, src, n, v_load_f16, v_load_f16_n);
}

static void bf16_to_f32(float *dst, const void *src, int64_t n)
{
    widen_row(dst, src, n, v_load_bf16, v_load_bf16_n);
}

CONVERT_INLINE void narrow_row(uint16_t *dst, const float *src, int64_t n, vec_u16 (*narrow)(vec))
{
    int64_t i = 0;
    for (; i + V_WIDTH <= n; i += V_WIDTH)
        v_store_u16(dst + i, narrow(v_load(src + i)));
    if (i < n)
        v_store_u16_n(dst + i, narrow(v_load_n(src + i, n - i)), n - i);
}

static void f16_from_f32(void *dst, const float *src, int64_t n)
{
    narrow_row(dst, src, n, v_to_f16);
}

static void bf16_from_f32(void *dst, const float *src, int64_t n)
{
    narrow_row(dst, src, n, v_to_bf16);
}

/* A kernel of the table for each block format. */
#define BLOCK_TO_F32(format, dtype, parts)                                                         \
    static void format##_to_f32(float *dst, const void *src, int64_t n)                            \
    {                                                                                              \
        const char *block = src;                                                                   \
        float scales[BLOCK_SCALES];                                                                \
        for (int64_t i = 0; i < n; i += (parts)*CT_BLOCK, block += sizeof(ct_block_##format)) {    \
            scales_##format(scales, block);                                                        \
            for (int p = 0; p < (parts); p++, dst += CT_BLOCK) {                                   \
                vec piece[CT_BLOCK / V_WIDTH];                                                     \
                decode_##format(piece, block, scales, p);                                          \
                for (int v = 0; v < CT_BLOCK / V_WIDTH; v++)                                       \
                    v_store(dst + v * V_WIDTH, piece[v]);                                          \
            }                                                                                      \
        }                                                                                          \
    }

BLOCK_FORMATS(BLOCK_TO_F32)

#define BLOCK_TO_F32_ENTRY(format, dtype, parts) table->to_f32[dtype] = format##_to_f32;

static inline void fill_convert(ct_kernels *table)
{
    table->to_f32[CT_F16] = f16_to_f32;
    table->to_f32[CT_BF16] = bf16_to_f32;
    BLOCK_FORMATS(BLOCK_TO_F32_ENTRY)
    table->from_f32[CT_F16] = f16_from_f32;
    table->from_f32[CT_BF16] = bf16_from_f32;
}
