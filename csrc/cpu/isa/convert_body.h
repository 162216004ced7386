/* Conversions of rows, written once for every vector ISA. Include after that ISA's vector.h and
 * blocks.h. */
#include "cpu/isa/kernels.h"
#include "quant/gguf_blocks.h"

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
#define BLOCK_TO_F32(format)                                                                       \
    static void format##_to_f32(float *dst, const void *src, int64_t n)                            \
    {                                                                                              \
        const char *block = src;                                                                   \
        for (int64_t i = 0; i < n; i += CT_BLOCK, block += sizeof(ct_block_##format)) {            \
            vec piece[CT_BLOCK / V_WIDTH];                                                         \
            decode_##format(piece, block);                                                         \
            for (int v = 0; v < CT_BLOCK / V_WIDTH; v++)                                           \
                v_store(dst + i + v * V_WIDTH, piece[v]);                                          \
        }                                                                                          \
    }

BLOCK_TO_F32(q8_0)
BLOCK_TO_F32(q4_0)
BLOCK_TO_F32(q4_1)

static inline void fill_convert(ct_kernels *table)
{
    table->to_f32[CT_F16] = f16_to_f32;
    table->to_f32[CT_BF16] = bf16_to_f32;
    table->to_f32[CT_Q8_0] = q8_0_to_f32;
    table->to_f32[CT_Q4_0] = q4_0_to_f32;
    table->to_f32[CT_Q4_1] = q4_1_to_f32;
    table->from_f32[CT_F16] = f16_from_f32;
    table->from_f32[CT_BF16] = bf16_from_f32;
}
