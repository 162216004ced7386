/* Matrix-vector products by the formula: a piece of a weight row becomes f32, then every row of x
 * is multiplied with it. Sums run over k in order, so they do not depend on m. */
#include "cpu/isa/portable/table.h"

#include "quant/format.h"

#define PIECE CT_DTYPE_MAX_BLOCK /* values of a weight row at a time; a multiple of every block */

typedef void (*to_f32)(float *dst, const void *src, int64_t n);

static inline void gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                        const void *w, int64_t w_stride, int64_t n, int64_t k, ct_dtype dtype,
                        to_f32 decode)
{
    int64_t piece_bytes =
        PIECE / ct_dtype_block_values(dtype) * (int64_t)ct_dtype_block_bytes(dtype);
    float piece[PIECE];
    for (int64_t j = 0; j < n; j++) {
        const char *row = (const char *)w + j * w_stride;
        float sums[CT_GEMV_MAX_M] = {0};
        for (int64_t start = 0; start < k; start += PIECE, row += piece_bytes) {
            int64_t length = k - start < PIECE ? k - start : PIECE;
            decode(piece, row, length);
            for (int64_t i = 0; i < m; i++)
                for (int64_t c = 0; c < length; c++)
                    sums[i] += piece[c] * x[i * ldx + start + c];
        }
        for (int64_t i = 0; i < m; i++)
            y[i * ldy + j] = sums[i];
    }
}

static void f32_row(float *dst, const void *src, int64_t n)
{
    const float *values = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = values[i];
}

static void f16_row(float *dst, const void *src, int64_t n)
{
    const uint16_t *bits = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = ct_f16_to_f32(bits[i]);
}

static void bf16_row(float *dst, const void *src, int64_t n)
{
    const uint16_t *bits = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = ct_bf16_to_f32(bits[i]);
}

#define GEMV(name, dtype, decode)                                                                  \
    static void name(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, const void *w, \
                     int64_t w_stride, int64_t n, int64_t k)                                       \
    {                                                                                              \
        gemv(y, ldy, x, ldx, m, w, w_stride, n, k, dtype, decode);                                 \
    }

GEMV(gemv_f32, CT_F32, f32_row)
GEMV(gemv_f16, CT_F16, f16_row)
GEMV(gemv_bf16, CT_BF16, bf16_row)
#define QUANTIZED(name, dtype) GEMV(name, dtype, ct_format_get(dtype)->dequantize)
QUANTIZED(gemv_q8_0, CT_Q8_0)
QUANTIZED(gemv_q4_0, CT_Q4_0)
QUANTIZED(gemv_q4_1, CT_Q4_1)
QUANTIZED(gemv_q5_0, CT_Q5_0)
QUANTIZED(gemv_q5_1, CT_Q5_1)
QUANTIZED(gemv_q4_k, CT_Q4_K)
QUANTIZED(gemv_q5_k, CT_Q5_K)
QUANTIZED(gemv_q6_k, CT_Q6_K)

void ct_portable_fill_gemv(ct_kernels *table)
{
    table->gemv[CT_F32] = gemv_f32;
    table->gemv[CT_F16] = gemv_f16;
    table->gemv[CT_BF16] = gemv_bf16;
    table->gemv[CT_Q8_0] = gemv_q8_0;
    table->gemv[CT_Q4_0] = gemv_q4_0;
    table->gemv[CT_Q4_1] = gemv_q4_1;
    table->gemv[CT_Q5_0] = gemv_q5_0;
    table->gemv[CT_Q5_1] = gemv_q5_1;
    table->gemv[CT_Q4_K] = gemv_q4_k;
    table->gemv[CT_Q5_K] = gemv_q5_k;
    table->gemv[CT_Q6_K] = gemv_q6_k;
}
