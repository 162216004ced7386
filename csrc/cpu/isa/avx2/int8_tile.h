/* Products of bytes by tiles on avx2's vectors. Include after int8_step, which adds the products of
 * a vector of bytes, or of the n first of one, to lanes [rows, m], and what int8_body.h asks for.
 */
#include "cpu/isa/avx2/bytes.h"

/* sums [m, rows] = x [m, k] by weights [rows, k]. */
INT8_INLINE void int8_tile(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, int64_t k, const int rows,
                           const int m)
{
    __m256i lanes[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            lanes[r][i] = _mm256_setzero_si256();
    int64_t c = 0;
    for (; c + BYTES_STEP <= k; c += BYTES_STEP)
        int8_step(lanes, x + c, ldx, w + c, w_stride, rows, m, true, 0);
    if (c < k)
        int8_step(lanes, x + c, ldx, w + c, w_stride, rows, m, false, k - c);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[i * ld_sums + r] = sum_of_lanes(lanes[r][i]);
}

/* X(weight rows, rows of x, rows of x that meet the tile afterwards): 16 registers have to hold
 * their sums, the weights and their magnitudes. */
#define INT8_TILES(X)                                                                              \
    X(1, 1, 0) X(2, 2, 0) X(2, 3, 0) X(2, 4, 0) X(2, 4, 1) X(2, 4, 2) X(2, 4, 3) X(2, 4, 4)

#include "cpu/isa/int8_body.h"
