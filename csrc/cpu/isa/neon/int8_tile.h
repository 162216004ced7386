/* Products of bytes by tiles on NEON's vectors. Include after sums_of_4(sums, w, x), which adds the
 * products of 16 bytes w by x in [-127, 127] to four lanes, and what int8_body.h asks for. */
#include "cpu/isa/neon/vector.h"

#define INT8_STEP 16 /* bytes of a vector */

/* n of them, and zeros. */
static inline int8x16_t load_bytes_n(const int8_t *p, int64_t n)
{
    if (n >= INT8_STEP)
        return vld1q_s8(p);
    int8_t buffer[INT8_STEP] = {0};
    memcpy(buffer, p, (size_t)n);
    return vld1q_s8(buffer);
}

/* sums [m, rows] = x [m, k] by weights [rows, k]. */
INT8_INLINE void int8_tile(int32_t *sums, int64_t ld_sums, const int8_t *x, int64_t ldx,
                           const int8_t *w, int64_t w_stride, int64_t k, const int rows,
                           const int m)
{
    int32x4_t lanes[4][4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            lanes[r][i] = vdupq_n_s32(0);
    for (int64_t c = 0; c < k; c += INT8_STEP) {
        int8x16_t pieces[4];
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            pieces[i] = load_bytes_n(x + i * ldx + c, k - c);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            int8x16_t weights = load_bytes_n(w + r * w_stride + c, k - c);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++)
                lanes[r][i] = sums_of_4(lanes[r][i], weights, pieces[i]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[i * ld_sums + r] = vaddvq_s32(lanes[r][i]);
}

/* X(weight rows, rows of x, rows of x that meet the tile afterwards): 32 registers hold the sums of
 * 4 by 4 products, the rows of x and a vector of weights. */
#define INT8_TILES(X)                                                                              \
    X(4, 1, 0) X(4, 2, 0) X(4, 3, 0) X(4, 4, 0) X(4, 4, 1) X(4, 4, 2) X(4, 4, 3) X(4, 4, 4)

#include "cpu/isa/int8_body.h"
