/* Matrix-vector products with weights in blocks of 32, written once for every vector ISA. Include
 * after that ISA's vector.h.
 *
 * Each step decodes a block of a few weight rows and multiplies it with all rows of x, so that
 * weights are read and decoded once. Each product has two sums, for even and odd vectors of a
 * block, whatever tile it stands in: a result does not depend on how many rows are computed
 * together. */
#include "cpu/isa/kernels.h"
#include "quant/gguf_blocks.h"

#define BLOCK_VECTORS (CT_BLOCK / V_WIDTH)
#define BLOCK_MAX_M 4 /* rows of x whose sums fit the registers; more meet a tile in two goes */
#define BLOCK_INLINE static inline __attribute__((always_inline))

/* piece = the values of a block */
typedef void (*block_decode)(vec piece[BLOCK_VECTORS], const char *block);

/* A single row of weights is one stream, which the processor's own prefetcher follows at full
 * speed; it loses several rows side by side, so those ask for the rows behind them. The address may
 * lie behind the matrix: a prefetch does not fault. */
BLOCK_INLINE void prefetch_behind(const char *block, int64_t ahead)
{
    __builtin_prefetch((const char *)((uintptr_t)block + (uintptr_t)ahead), 0, 3);
}

/* y [m, rows] = x [m, k] by weights [rows, k]. */
BLOCK_INLINE void block_tile(float *y, int64_t ldy, const float *x, int64_t ldx, const char *w,
                             int64_t w_stride, int64_t k, const int rows, const int m,
                             const int64_t block_bytes, block_decode decode)
{
    vec sums[4][BLOCK_MAX_M][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[r][i][0] = sums[r][i][1] = v_set1(0);

    for (int64_t c = 0; c < k; c += CT_BLOCK, w += block_bytes) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vec piece[BLOCK_VECTORS];
            decode(piece, w + r * w_stride);
            if (rows > 1)
                prefetch_behind(w + r * w_stride, rows * w_stride);
#pragma GCC unroll 4
            for (int v = 0; v < BLOCK_VECTORS; v++)
#pragma GCC unroll 4
                for (int i = 0; i < m; i++)
                    sums[r][i][v & 1] =
                        v_fma(piece[v], v_load(x + i * ldx + c + v * V_WIDTH), sums[r][i][v & 1]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            y[i * ldy + r] = v_sum(v_add(sums[r][i][0], sums[r][i][1]));
}

/* All n weight rows, `rows` at a time, then one by one: `first` rows of x meet a tile, then
 * `second`, for which it is in cache. */
BLOCK_INLINE void block_rows(float *y, int64_t ldy, const float *x, int64_t ldx, const char *w,
                             int64_t w_stride, int64_t n, int64_t k, const int rows,
                             const int first, const int second, const int64_t block_bytes,
                             block_decode decode)
{
    const float *x2 = x + first * ldx;
    float *y2 = y + first * ldy;
    int64_t j = 0;
    for (; j + rows <= n; j += rows, w += rows * w_stride) {
        block_tile(y + j, ldy, x, ldx, w, w_stride, k, rows, first, block_bytes, decode);
        if (second)
            block_tile(y2 + j, ldy, x2, ldx, w, w_stride, k, rows, second, block_bytes, decode);
    }
    for (; j < n; j++, w += w_stride) {
        block_tile(y + j, ldy, x, ldx, w, w_stride, k, 1, first, block_bytes, decode);
        if (second)
            block_tile(y2 + j, ldy, x2, ldx, w, w_stride, k, 1, second, block_bytes, decode);
    }
}

#define BLOCK_CASE(rows, first, second)                                                            \
    case (first) + (second):                                                                       \
        block_rows(y, ldy, x, ldx, w, w_stride, n, k, rows, first, second, block_bytes, decode);   \
        break;

BLOCK_INLINE void block_gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                             const void *w, int64_t w_stride, int64_t n, int64_t k,
                             const int64_t block_bytes, block_decode decode)
{
    switch (m) {
        BLOCK_TILES(BLOCK_CASE)
    default:
        break;
    }
}

/* A kernel of the table for each format. */
#define BLOCK_KERNEL(format)                                                                       \
    static void gemv_##format(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,       \
                              const void *w, int64_t w_stride, int64_t n, int64_t k)               \
    {                                                                                              \
        block_gemv(y, ldy, x, ldx, m, w, w_stride, n, k, sizeof(ct_block_##format),                \
                   decode_##format);                                                               \
    }

BLOCK_KERNEL(q8_0)
BLOCK_KERNEL(q4_0)
BLOCK_KERNEL(q4_1)

static inline void fill_gemv_quant(ct_kernels *table)
{
    table->gemv[CT_Q8_0] = gemv_q8_0;
    table->gemv[CT_Q4_0] = gemv_q4_0;
    table->gemv[CT_Q4_1] = gemv_q4_1;
}
