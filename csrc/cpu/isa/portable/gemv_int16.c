/* Products of GGUF blocks with x in whole numbers of 16 bits, by the formula: what a block decodes
 * to times what x stands for. The sums of x, by which faster levels add minima, are not needed. */
#include "cpu/isa/portable/table.h"

#include "cpu/isa/block_formats.h"
#include "cpu/isa/portable/whole.h"
#include "quant/format.h"

#define BLOCK CT_INT16_BLOCK
#define PIECE CT_DTYPE_MAX_BLOCK /* values of a weight row at a time; a multiple of every block */

static void int16_input(int16_t *dst, float *dst_scales, float *dst_sums, const float *x, int64_t k)
{
    for (int64_t c = 0; c < k; c += BLOCK, dst_scales++, dst_sums++) {
        int32_t sum = 0;
        *dst_scales = block_scale(x + c, BLOCK, CT_INT16_MAX);
        for (int64_t i = c; i < c + BLOCK; i++)
            sum += dst[i] = (int16_t)whole(x[i], *dst_scales, CT_INT16_MAX);
        *dst_sums = (float)sum * *dst_scales;
    }
}

static inline void gemv_int16(float *y, int64_t ldy, const int16_t *x, int64_t ldx,
                              const float *x_scales, int64_t x_lds, int64_t m, const void *w,
                              int64_t w_stride, int64_t n, int64_t k, ct_dtype dtype)
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
                    sums[i] += piece[c - start] *
                               (x_scales[i * x_lds + c / BLOCK] * (float)x[i * ldx + c]);
        }
        for (int64_t i = 0; i < m; i++)
            y[i * ldy + j] = sums[i];
    }
}

/* A kernel of the table for each format. */
#define KERNEL(name, dtype, parts)                                                                 \
    static void gemv_int16_##name(float *y, int64_t ldy, const int16_t *x, int64_t ldx,            \
                                  const float *x_scales, const float *x_sums, int64_t x_lds,       \
                                  int64_t m, const void *w, int64_t w_stride, int64_t n,           \
                                  int64_t k)                                                       \
    {                                                                                              \
        (void)x_sums;                                                                              \
        gemv_int16(y, ldy, x, ldx, x_scales, x_lds, m, w, w_stride, n, k, dtype);                  \
    }

BLOCK_FORMATS(KERNEL)

#define ENTRY(name, dtype, parts) table->gemv_int16[dtype] = gemv_int16_##name;

void ct_portable_fill_gemv_int16(ct_kernels *table)
{
    table->int16_input = int16_input;
    BLOCK_FORMATS(ENTRY)
}
