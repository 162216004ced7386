/* The tiles of products of bytes on NEON's vectors. Include after sums_of_4(sums, w, x), which adds
 * the products of 16 bytes w by x in [-127, 127] to four lanes, INT8_INLINE and INT8_FUNCTION. */
#include <stdbool.h>

#include "cpu/isa/neon/vector.h"

#define INT8_STEP 16

typedef int32x4_t int8_lanes;

/* n < INT8_STEP bytes, and zeros. */
static inline int8x16_t load_bytes_n(const int8_t *p, int64_t n)
{
    int8_t buffer[INT8_STEP] = {0};
    memcpy(buffer, p, (size_t)n);
    return vld1q_s8(buffer);
}

static inline int32_t sum_of_lanes(int8_lanes a)
{
    return vaddvq_s32(a);
}

INT8_INLINE void int8_step(int8_lanes lanes[4][4], const int8_t *x, int64_t ldx, const int8_t *w,
                           int64_t w_stride, const int rows, const int m, const bool whole,
                           int64_t n)
{
    int8x16_t pieces[4];
#pragma GCC unroll 4
    for (int i = 0; i < m; i++)
        pieces[i] = whole ? vld1q_s8(x + i * ldx) : load_bytes_n(x + i * ldx, n);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const int8_t *row = w + r * w_stride;
        int8x16_t weights = whole ? vld1q_s8(row) : load_bytes_n(row, n);
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            lanes[r][i] = sums_of_4(lanes[r][i], weights, pieces[i]);
    }
}

/* X(weight rows, rows of x, rows of x that meet the tile afterwards): 32 registers hold the sums of
 * 4 by 4 products, the rows of x and a vector of weights. */
#define INT8_TILES(X)                                                                              \
    X(4, 1, 0) X(4, 2, 0) X(4, 3, 0) X(4, 4, 0) X(4, 4, 1) X(4, 4, 2) X(4, 4, 3) X(4, 4, 4)

#include "cpu/isa/int8_tile_body.h"
