/* The attention's small dense products. */
#include "cpu/isa/portable/table.h"

static void gemm_tile(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                      int64_t ldb, int64_t m, int64_t n, int64_t k, float alpha, bool accumulate)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += a[i * lda + l] * b[l * ldb + j];
            c[i * ldc + j] = alpha * sum + (accumulate ? c[i * ldc + j] : 0);
        }
    }
}

static void transpose(float *dst, int64_t ld_dst, const float *src, int64_t ld_src, int64_t m,
                      int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++)
            dst[j * ld_dst + i] = src[i * ld_src + j];
}

void ct_portable_fill_tile(ct_kernels *table)
{
    table->gemm_tile = gemm_tile;
    table->transpose = transpose;
}
