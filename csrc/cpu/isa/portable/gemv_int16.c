/* Products of GGUF blocks with x in whole numbers of 16 or 31 bits, by the formula: what a block
 * decodes to times what x stands for. The sums of x, by which faster levels add minima, are not
 * needed. */
#include "cpu/isa/portable/table.h"

#include "cpu/isa/block_formats.h"
#include "cpu/isa/portable/whole.h"
#include "quant/format.h"

#define BLOCK CT_INT16_BLOCK
#define PIECE CT_DTYPE_MAX_BLOCK /* values of a weight row at a time; a multiple of every block */

/* A block in words of 16 bits, n_words for each value: first all the high ones. */
static inline void words_block(int16_t *dst, float *dst_scale, float *dst_sum, const float *x,
                               int n_words)
{
    int32_t sums[2] = {0};
    const float scale = block_scale(x, BLOCK, CT_INT16_MAX);
    for (int i = 0; i < BLOCK; i++) {
        sums[0] += dst[i] = (int16_t)whole(x[i], scale, CT_INT16_MAX);
        if (n_words == 2) {
            float rest = fmaf((float)-dst[i], scale, x[i]);
            sums[1] += dst[BLOCK + i] =
                (int16_t)whole(rest, scale * CT_INT31_LOW, CT_INT31_LOW_MAX);
        }
    }
    *dst_scale = scale;
    *dst_sum = ((float)sums[0] + (float)sums[1] * CT_INT31_LOW) * scale;
}

#define INPUT(name, n_words)                                                                       \
    static void name(int16_t *dst, float *dst_scales, float *dst_sums, const float *x, int64_t k)  \
    {                                                                                              \
        for (int64_t b = 0; b < k / BLOCK; b++)                                                    \
            words_block(dst + b * BLOCK * (n_words), &dst_scales[b], &dst_sums[b], x + b * BLOCK,  \
                        n_words);                                                                  \
    }

INPUT(int16_input, 1)
INPUT(int31_input, 2)

/* Value c of a row. */
static inline float x_value(const int16_t *x, const float *scales, int64_t c, int n_words)
{
    const int16_t *word = x + c / BLOCK * BLOCK * n_words + c % BLOCK;
    float value = (float)word[0];
    if (n_words == 2)
        value += (float)word[BLOCK] * CT_INT31_LOW;
    return value * scales[c / BLOCK];
}

static inline void gemv_words(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                              const float *x_scales, int64_t x_lds, int64_t m, const void *w,
                              int64_t w_stride, int64_t n, int64_t k, ct_dtype dtype, int n_words)
{
    const ct_dequantize_row decode = ct_format_get(dtype)->dequantize;
    const int64_t block = ct_dtype_block_values(dtype);
    const int64_t block_bytes = (int64_t)ct_dtype_block_bytes(dtype);
    float piece[PIECE];
    for (int64_t j = 0; j < n; j++) {
        const char *row = (const char *)w + j * w_stride;
        float sums[CT_GEMV_MAX_M] = {0};
        for (int64_t start = 0; start < k; start += PIECE, row += PIECE / block * block_bytes) {
            int64_t length = k - start < PIECE ? k - start : PIECE;
            decode(piece, row, length);
            for (int64_t i = 0; i < m; i++)
                for (int64_t c = start; c < start + length; c++)
                    sums[i] +=
                        piece[c - start] * x_value(x + i * ldx, x_scales + i * x_lds, c, n_words);
        }
        for (int64_t i = 0; i < m; i++)
            y[i * ldy + j] = sums[i];
    }
}

/* Kernels of the table for each format. */
#define KERNEL(kernel, name, dtype, n_words)                                                       \
    static void kernel##_##name(float *y, int64_t ldy, const int16_t *x, int64_t ldx,              \
                                const float *x_scales, const float *x_sums, int64_t x_lds,         \
                                int64_t m, const void *w, int64_t w_stride, int64_t n, int64_t k)  \
    {                                                                                              \
        (void)x_sums;                                                                              \
        gemv_words(y, ldy, x, ldx, x_scales, x_lds, m, w, w_stride, n, k, dtype, n_words);         \
    }
#define INT16_KERNEL(name, dtype, parts) KERNEL(gemv_int16, name, dtype, 1)
#define INT31_KERNEL(name, dtype, parts) KERNEL(gemv_int31, name, dtype, 2)

BLOCK_FORMATS(INT16_KERNEL)
BLOCK_FORMATS(INT31_KERNEL)

#define INT16_ENTRY(name, dtype, parts) table->gemv_int16[dtype] = gemv_int16_##name;
#define INT31_ENTRY(name, dtype, parts) table->gemv_int31[dtype] = gemv_int31_##name;

void ct_portable_fill_gemv_int16(ct_kernels *table)
{
    table->int16_input = int16_input;
    table->int31_input = int31_input;
    BLOCK_FORMATS(INT16_ENTRY)
    BLOCK_FORMATS(INT31_ENTRY)
}
