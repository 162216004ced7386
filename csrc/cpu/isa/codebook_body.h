/* Matrix-vector products with 4-bit codes of a codebook, written once for every vector ISA. Include
 * after that ISA's vector.h, with
 *
 *   codebook             a table as the ISA looks values up in it
 *   place_in_block(c)    the place in its block of the value that comes at c in the ISA's order
 *
 * Values are looked up once for all rows of x. A block's products are summed in lanes, which its
 * scale multiplies before they are added to those of other blocks: a result does not depend on how
 * many rows are computed together. */
#include "cpu/isa/kernels.h"

#define CODEBOOK_MAX_ROWS 4 /* of weights in a tile */
#define BLOCK_VECTORS (CT_CODEBOOK_BLOCK / V_WIDTH)
#define CODEBOOK_INLINE static inline __attribute__((always_inline))

typedef void (*codebook_look_up)(vec values[BLOCK_VECTORS], const uint8_t *codes,
                                 const codebook *book);

static void codebook_input(float *dst, const float *x, int64_t k)
{
    for (int64_t start = 0; start < k; start += CT_CODEBOOK_BLOCK)
#pragma GCC unroll 64
        for (int c = 0; c < CT_CODEBOOK_BLOCK; c++)
            dst[start + c] = x[start + place_in_block(c)];
}

/* y [m, rows] = x [m, k] by weights [rows, k]. */
CODEBOOK_INLINE void codebook_tile(float *y, int64_t ldy, const float *x, int64_t ldx,
                                   const uint8_t *codes, const float *scales, int64_t k,
                                   const int rows, const int m, const codebook *book,
                                   codebook_look_up look_up)
{
    vec sums[CODEBOOK_MAX_ROWS][CT_GEMV_MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            sums[r][i] = v_set1(0);
    for (int64_t b = 0; b < k / CT_CODEBOOK_BLOCK; b++)
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vec values[BLOCK_VECTORS];
            look_up(values, codes + r * (k / 2) + b * (CT_CODEBOOK_BLOCK / 2), book);
            vec scale = v_set1(scales[r * (k / CT_CODEBOOK_BLOCK) + b]);
#pragma GCC unroll 8
            for (int i = 0; i < m; i++) {
                const float *piece = x + i * ldx + b * CT_CODEBOOK_BLOCK;
                vec sum = v_mul(values[0], v_load(piece));
#pragma GCC unroll 16
                for (int v = 1; v < BLOCK_VECTORS; v++)
                    sum = v_fma(values[v], v_load(piece + v * V_WIDTH), sum);
                sums[r][i] = v_fma(scale, sum, sums[r][i]);
            }
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            y[i * ldy + r] = v_sum(sums[r][i]);
}

/* All n weight rows, `rows` at a time, then one by one. */
CODEBOOK_INLINE void codebook_rows(float *y, int64_t ldy, const float *x, int64_t ldx,
                                   const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                   const int rows, const int m, const codebook *book,
                                   codebook_look_up look_up)
{
    const int64_t n_scales = k / CT_CODEBOOK_BLOCK;
    int64_t j = 0;
    for (; j + rows <= n; j += rows)
        codebook_tile(y + j, ldy, x, ldx, codes + j * (k / 2), scales + j * n_scales, k, rows, m,
                      book, look_up);
    for (; j < n; j++)
        codebook_tile(y + j, ldy, x, ldx, codes + j * (k / 2), scales + j * n_scales, k, 1, m, book,
                      look_up);
}

/* X(weight rows, rows of x): one row of codes is the stream that the processor prefetches best;
 * many rows of x outgrow the first-level cache, so more weight rows meet what is there of them. */
#define CODEBOOK_TILES(X) X(1, 1) X(1, 2) X(4, 3) X(4, 4) X(4, 5) X(4, 6) X(4, 7) X(4, 8)
#define CODEBOOK_CASE(rows, m)                                                                     \
    case m:                                                                                        \
        codebook_rows(y, ldy, x, ldx, codes, scales, n, k, rows, m, book, look_up);                \
        break;

CODEBOOK_INLINE void codebook_gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                                   const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                   const codebook *book, codebook_look_up look_up)
{
    switch (m) {
        CODEBOOK_TILES(CODEBOOK_CASE)
    default:
        break;
    }
}
