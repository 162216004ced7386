/* The attention's small dense products, written once for every vector ISA. Include after that ISA's
 * vector.h.
 *
 * A block of c of V_TILE_ROWS x V_TILE_VECTORS vectors stays in registers while k runs; each
 * element sums over k in order, so a row does not depend on the others. */
#include <stdbool.h>

#include "cpu/isa/kernels.h"

#define TILE_INLINE static inline __attribute__((always_inline))

TILE_INLINE void tile_block(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                            int64_t ldb, const int rows, const int vectors, int64_t last, int64_t k,
                            float alpha, bool accumulate)
{
    vec sums[V_TILE_ROWS][V_TILE_VECTORS];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sums[i][v] = v_set1(0);
    for (int64_t l = 0; l < k; l++) {
        vec row[V_TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            row[v] = v < vectors - 1 ? v_load(b + l * ldb + v * V_WIDTH)
                                     : v_load_n(b + l * ldb + v * V_WIDTH, last);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            vec factor = v_set1(a[i * lda + l]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sums[i][v] = v_fma(factor, row[v], sums[i][v]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            int64_t n = v < vectors - 1 ? V_WIDTH : last;
            float *out = c + i * ldc + v * V_WIDTH;
            vec product = v_mul(sums[i][v], v_set1(alpha));
            v_store_n(out, accumulate ? v_add(product, v_load_n(out, n)) : product, n);
        }
}

TILE_INLINE void tile_columns(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                              int64_t ldb, int64_t m, const int vectors, int64_t last, int64_t k,
                              float alpha, bool accumulate)
{
    int64_t i = 0;
    for (; i + V_TILE_ROWS <= m; i += V_TILE_ROWS)
        tile_block(c + i * ldc, ldc, a + i * lda, lda, b, ldb, V_TILE_ROWS, vectors, last, k, alpha,
                   accumulate);
    for (; i + 2 <= m; i += 2)
        tile_block(c + i * ldc, ldc, a + i * lda, lda, b, ldb, 2, vectors, last, k, alpha,
                   accumulate);
    for (; i < m; i++)
        tile_block(c + i * ldc, ldc, a + i * lda, lda, b, ldb, 1, vectors, last, k, alpha,
                   accumulate);
}

static void gemm_tile(float *c, int64_t ldc, const float *a, int64_t lda, const float *b,
                      int64_t ldb, int64_t m, int64_t n, int64_t k, float alpha, bool accumulate)
{
    for (int64_t j = 0; j < n; j += V_TILE_VECTORS * V_WIDTH, b += V_TILE_VECTORS * V_WIDTH,
                 c += V_TILE_VECTORS * V_WIDTH) {
        int64_t left = n - j < V_TILE_VECTORS * V_WIDTH ? n - j : V_TILE_VECTORS * V_WIDTH;
        int vectors = (int)((left + V_WIDTH - 1) / V_WIDTH);
        int64_t last = left - (vectors - 1) * V_WIDTH;
        switch (vectors) {
        case 1:
            tile_columns(c, ldc, a, lda, b, ldb, m, 1, last, k, alpha, accumulate);
            break;
        case 2:
            tile_columns(c, ldc, a, lda, b, ldb, m, 2, last, k, alpha, accumulate);
            break;
#if V_TILE_VECTORS > 2
        case 3:
            tile_columns(c, ldc, a, lda, b, ldb, m, 3, last, k, alpha, accumulate);
            break;
        default:
            tile_columns(c, ldc, a, lda, b, ldb, m, 4, last, k, alpha, accumulate);
            break;
#endif
        }
    }
}
