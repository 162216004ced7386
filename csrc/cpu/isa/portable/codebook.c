/* Products with 4-bit codes of a codebook, and making such codes, by the formula. Values stay in
 * their own order, so ordering an input is copying it. */
#include "cpu/isa/portable/table.h"

#include <string.h>

#include "cpu/isa/portable/whole.h"
#include "quant/bnb.h"

#define BLOCK CT_CODEBOOK_BLOCK

static void codebook_input(float *dst, const float *x, int64_t k)
{
    memcpy(dst, x, (size_t)k * sizeof *dst);
}

static void look_up(float values[BLOCK], const uint8_t *codes, const float table[16])
{
    for (int i = 0; i < BLOCK / 2; i++) {
        values[2 * i] = table[codes[i] >> 4];
        values[2 * i + 1] = table[codes[i] & 15];
    }
}

static void gemv_codebook(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                          const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                          const float table[16])
{
    for (int64_t j = 0; j < n; j++) {
        float sums[CT_GEMV_MAX_M] = {0};
        for (int64_t c = 0; c < k; c += BLOCK, codes += BLOCK / 2, scales++) {
            float values[BLOCK];
            look_up(values, codes, table);
            for (int64_t i = 0; i < m; i++) {
                const float *piece = x + i * ldx + c;
                float sum = 0;
                for (int l = 0; l < BLOCK; l++)
                    sum += values[l] * piece[l];
                sums[i] += *scales * sum;
            }
        }
        for (int64_t i = 0; i < m; i++)
            y[i * ldy + j] = sums[i];
    }
}

#define WHOLE_INPUT(name, type, most)                                                              \
    static void codebook_input_##name(type *dst, float *dst_scales, const float *x, int64_t k)     \
    {                                                                                              \
        for (int64_t c = 0; c < k; c += BLOCK, dst_scales++) {                                     \
            *dst_scales = block_scale(x + c, BLOCK, most);                                         \
            for (int64_t i = c; i < c + BLOCK; i++)                                                \
                dst[i] = (type)whole(x[i], *dst_scales, most);                                     \
        }                                                                                          \
    }

/* A block's sum is exact as a `total`. */
#define WHOLE_GEMV(name, type, total)                                                              \
    static void gemv_codebook_##name(float *y, int64_t ldy, const type *x, int64_t ldx,            \
                                     const float *x_scales, int64_t x_lds, int64_t m,              \
                                     const uint8_t *codes, const float *scales, int64_t n,         \
                                     int64_t k, const type table[16])                              \
    {                                                                                              \
        for (int64_t j = 0; j < n; j++) {                                                          \
            float sums[CT_GEMV_MAX_M] = {0};                                                       \
            for (int64_t b = 0; b < k / BLOCK; b++, codes += BLOCK / 2, scales++)                  \
                for (int64_t i = 0; i < m; i++) {                                                  \
                    const type *piece = x + i * ldx + b * BLOCK;                                   \
                    total sum = 0;                                                                 \
                    for (int l = 0; l < BLOCK / 2; l++) {                                          \
                        sum += (total)table[codes[l] >> 4] * piece[2 * l];                         \
                        sum += (total)table[codes[l] & 15] * piece[2 * l + 1];                     \
                    }                                                                              \
                    sums[i] += x_scales[i * x_lds + b] * *scales * (float)sum;                     \
                }                                                                                  \
            for (int64_t i = 0; i < m; i++)                                                        \
                y[i * ldy + j] = sums[i];                                                          \
        }                                                                                          \
    }

WHOLE_INPUT(int8, int8_t, 127)
WHOLE_INPUT(int16, int16_t, CT_CODEBOOK_INT16_MAX)
WHOLE_GEMV(int8, int8_t, int32_t)
WHOLE_GEMV(int16, int16_t, int64_t)

static void codebook_to_f32(float *dst, const uint8_t *codes, const float *scales, int64_t k,
                            const float table[16])
{
    for (int64_t c = 0; c < k; c += BLOCK, codes += BLOCK / 2, scales++) {
        look_up(dst + c, codes, table);
        for (int64_t i = c; i < c + BLOCK; i++)
            dst[i] *= *scales;
    }
}

static void codebook_to_bf16(uint16_t *dst, const uint8_t *codes, const float *scales, int64_t k,
                             const float table[16])
{
    for (int64_t c = 0; c < k; c += BLOCK, codes += BLOCK / 2, scales++) {
        float values[BLOCK];
        look_up(values, codes, table);
        for (int i = 0; i < BLOCK; i++)
            dst[c + i] = ct_bf16_from_f32(values[i] * *scales);
    }
}

static void codebook_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n,
                              ct_dtype format)
{
    ct_bnb_quantize_4bit(codes, absmax, x, n, BLOCK, format);
}

void ct_portable_fill_codebook(ct_kernels *table)
{
    table->codebook_input = codebook_input;
    table->gemv_codebook = gemv_codebook;
    table->codebook_input_int8 = codebook_input_int8;
    table->gemv_codebook_int8 = gemv_codebook_int8;
    table->codebook_input_int16 = codebook_input_int16;
    table->gemv_codebook_int16 = gemv_codebook_int16;
    table->codebook_to_f32 = codebook_to_f32;
    table->codebook_to_bf16 = codebook_to_bf16;
    table->codebook_quantize = codebook_quantize;
}
