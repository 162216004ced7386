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

/* y [m] = x [m, k] by a row of weights. */
CODEBOOK_INLINE void codebook_row(float *y, int64_t ldy, const float *x, int64_t ldx,
                                  const uint8_t *codes, const float *scales, int64_t k, const int m,
                                  const codebook *book, codebook_look_up look_up)
{
    vec sums[CT_GEMV_MAX_M];
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        sums[i] = v_set1(0);
    for (int64_t c = 0; c < k; c += CT_CODEBOOK_BLOCK, codes += CT_CODEBOOK_BLOCK / 2) {
        vec values[BLOCK_VECTORS];
        look_up(values, codes, book);
        vec scale = v_set1(*scales++);
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) {
            const float *piece = x + i * ldx + c;
            vec sum = v_mul(values[0], v_load(piece));
#pragma GCC unroll 8
            for (int v = 1; v < BLOCK_VECTORS; v++)
                sum = v_fma(values[v], v_load(piece + v * V_WIDTH), sum);
            sums[i] = v_fma(scale, sum, sums[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < m; i++)
        y[i * ldy] = v_sum(sums[i]);
}

/* X(rows of x) */
#define CODEBOOK_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define CODEBOOK_CASE(rows)                                                                        \
    case rows:                                                                                     \
        codebook_row(y + j, ldy, x, ldx, row, row_scales, k, rows, book, look_up);                 \
        break;

CODEBOOK_INLINE void codebook_gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                                   const uint8_t *codes, const float *scales, int64_t n, int64_t k,
                                   const codebook *book, codebook_look_up look_up)
{
    for (int64_t j = 0; j < n; j++) {
        const uint8_t *row = codes + j * (k / 2);
        const float *row_scales = scales + j * (k / CT_CODEBOOK_BLOCK);
        switch (m) {
            CODEBOOK_ROWS(CODEBOOK_CASE)
        default:
            break;
        }
    }
}
