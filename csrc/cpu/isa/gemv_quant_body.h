/* Products with quantized weights, written once for every level that decodes them to f32. Include
 * after that level's vector.h and blocks.h, with BLOCK_TILES defined.
 *
 * Each step decodes 32 values of a few weight rows and multiplies them with all rows of x, so that
 * weights are read and decoded once. Each product has two sums, for even and odd vectors of a
 * step, whatever tile it stands in: a result does not depend on how many rows are computed
 * together. */
#include "cpu/isa/block_formats.h"
#include "cpu/isa/kernels.h"

#define BLOCK_VECTORS (CT_BLOCK / V_WIDTH)
#define BLOCK_MAX_M 4 /* rows of x whose sums fit the registers; more meet a tile in two goes */
#define CACHE_LINE 64
#define BLOCK_INLINE static inline __attribute__((always_inline))

/* A format, all of it known when a tile is compiled. */
typedef struct block_format {
    int64_t bytes;
    int parts; /* of 32 values */
    void (*scales)(float *scales, const char *block);
    void (*decode)(vec *piece, const char *block, const float *scales, int part);
} block_format;

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
                             const block_format format)
{
    vec sums[4][BLOCK_MAX_M][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[r][i][0] = sums[r][i][1] = v_set1(0);

    /* How codes are packed repeats every four parts. */
    const int group = format.parts < 4 ? format.parts : 4;
    for (int64_t c = 0; c < k; w += format.bytes) {
        float scales[4][BLOCK_SCALES];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            format.scales(scales[r], w + r * w_stride);
            if (rows > 1)
                for (int64_t line = 0; line < format.bytes; line += CACHE_LINE)
                    prefetch_behind(w + r * w_stride, rows * w_stride + line);
        }
        for (int first = 0; first < format.parts; first += group)
#pragma GCC unroll 4
            for (int p = 0; p < group; p++, c += CT_BLOCK)
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++) {
                    vec piece[BLOCK_VECTORS];
                    format.decode(piece, w + r * w_stride, scales[r], first + p);
#pragma GCC unroll 8
                    for (int v = 0; v < BLOCK_VECTORS; v++)
#pragma GCC unroll 4
                        for (int i = 0; i < m; i++)
                            sums[r][i][v & 1] = v_fma(
                                piece[v], v_load(x + i * ldx + c + v * V_WIDTH), sums[r][i][v & 1]);
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
                             const int first, const int second, const block_format format)
{
    const float *x2 = x + first * ldx;
    float *y2 = y + first * ldy;
    int64_t j = 0;
    for (; j + rows <= n; j += rows, w += rows * w_stride) {
        block_tile(y + j, ldy, x, ldx, w, w_stride, k, rows, first, format);
        if (second)
            block_tile(y2 + j, ldy, x2, ldx, w, w_stride, k, rows, second, format);
    }
    for (; j < n; j++, w += w_stride) {
        block_tile(y + j, ldy, x, ldx, w, w_stride, k, 1, first, format);
        if (second)
            block_tile(y2 + j, ldy, x2, ldx, w, w_stride, k, 1, second, format);
    }
}

#define BLOCK_CASE(rows, first, second)                                                            \
    case (first) + (second):                                                                       \
        block_rows(y, ldy, x, ldx, w, w_stride, n, k, rows, first, second, format);                \
        break;

BLOCK_INLINE void block_gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                             const void *w, int64_t w_stride, int64_t n, int64_t k,
                             const block_format format)
{
    switch (m) {
        BLOCK_TILES(BLOCK_CASE)
    default:
        break;
    }
}

/* A kernel of the table for each format. */
#define BLOCK_KERNEL(format, dtype, parts)                                                         \
    static void gemv_##format(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,       \
                              const void *w, int64_t w_stride, int64_t n, int64_t k)               \
    {                                                                                              \
        const block_format traits = {sizeof(ct_block_##format), parts, scales_##format,            \
                                     decode_##format};                                             \
        block_gemv(y, ldy, x, ldx, m, w, w_stride, n, k, traits);                                  \
    }

BLOCK_FORMATS(BLOCK_KERNEL)

#define BLOCK_ENTRY(format, dtype, parts) table->gemv[dtype] = gemv_##format;

static inline void fill_gemv_quant(ct_kernels *table)
{
    BLOCK_FORMATS(BLOCK_ENTRY)
    table->words_are_fast = false;
}
