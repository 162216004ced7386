/* Tiles of products of bytes for levels that add them up in a vector of lanes for each product.
 * Include after int8_lanes, a vector of sums of 32 bits, INT8_STEP, the bytes of a vector,
 * sum_of_lanes, and int8_step, which adds the products of a vector of bytes, or of the n first of
 * one, to lanes [rows, m]; and what int8_body.h asks for. */

/* sums [m, rows] = x [m, k] by weights [rows, k]. */
INT8_INLINE void int8_tile(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, int64_t k, const int rows,
                           const int m)
{
    int8_lanes lanes[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            lanes[r][i] = (int8_lanes){0};
    int64_t c = 0;
    for (; c + INT8_STEP <= k; c += INT8_STEP)
        int8_step(lanes, x + c, ldx, w + c, w_stride, rows, m, true, 0);
    if (c < k)
        int8_step(lanes, x + c, ldx, w + c, w_stride, rows, m, false, k - c);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[i * ld_sums + r] = sum_of_lanes(lanes[r][i]);
}

#include "cpu/isa/int8_body.h"
