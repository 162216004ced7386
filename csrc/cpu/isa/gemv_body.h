/* Matrix-vector products, written once for every vector ISA and weight format. Include after that
 * ISA's vector.h.
 *
 * A format says how to decode 32 consecutive weights; every step decodes such a piece of a few
 * weight rows and multiplies it with all rows of x, so that weights are read and decoded once. Each
 * product has two accumulators, for even and odd vectors, whatever tile it stands in: a result does
 * not depend on how many rows are computed together. */
#include "cpu/isa/kernels.h"

#define GEMV_STEP 32
#define GEMV_VECTORS (GEMV_STEP / V_WIDTH)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* A single row of weights is one stream, which the processor's own prefetcher follows at full
 * speed; it loses several rows side by side, each of about a page, so those ask for the rows behind
 * them. The address may lie behind the matrix: a prefetch does not fault. */
ALWAYS_INLINE void prefetch(const char *row, int64_t ahead)
{
    __builtin_prefetch((const char *)((uintptr_t)row + (uintptr_t)ahead), 0, 3);
}

/* piece = the 32 weights that start at value 32 * step of a row */
typedef void (*gemv_decode)(vec piece[GEMV_VECTORS], const char *row, int64_t step);
/* a vector of the last, incomplete step, from value `first` on; `n` values exist */
typedef vec (*gemv_decode_tail)(const char *row, int64_t first, int64_t n);

typedef struct gemv_format {
    gemv_decode decode;
    gemv_decode_tail tail; /* NULL where rows are whole steps */
    int64_t step_bytes;
} gemv_format;

ALWAYS_INLINE void gemv_tile(float *y, int64_t ldy, const float *x, int64_t ldx, const char *w,
                             int64_t w_stride, int64_t k, const int rows, const int m,
                             const gemv_format format)
{
    vec sums[4][CT_GEMV_MAX_M][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            sums[r][i][0] = sums[r][i][1] = v_set1(0);

    int64_t step = 0;
    for (; (step + 1) * GEMV_STEP <= k; step++) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vec piece[GEMV_VECTORS];
            format.decode(piece, w + r * w_stride, step);
            if (rows > 1)
                prefetch(w + r * w_stride, rows * w_stride + step * format.step_bytes);
#pragma GCC unroll 4
            for (int v = 0; v < GEMV_VECTORS; v++)
#pragma GCC unroll 4
                for (int i = 0; i < m; i++)
                    sums[r][i][v & 1] =
                        v_fma(piece[v], v_load(x + i * ldx + step * GEMV_STEP + v * V_WIDTH),
                              sums[r][i][v & 1]);
        }
    }
    for (int64_t first = step * GEMV_STEP; format.tail && first < k; first += V_WIDTH) {
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vec piece = format.tail(w + r * w_stride, first, k - first);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++)
                sums[r][i][0] =
                    v_fma(piece, v_load_n(x + i * ldx + first, k - first), sums[r][i][0]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            y[i * ldy + r] = v_sum(v_add(sums[r][i][0], sums[r][i][1]));
}

/* All n weight rows, `rows` at a time, then one by one. */
ALWAYS_INLINE void gemv_rows(float *y, int64_t ldy, const float *x, int64_t ldx, const char *w,
                             int64_t w_stride, int64_t n, int64_t k, const int rows, const int m,
                             const gemv_format format)
{
    int64_t j = 0;
    for (; j + rows <= n; j += rows)
        gemv_tile(y + j, ldy, x, ldx, w + j * w_stride, w_stride, k, rows, m, format);
    for (; j < n; j++)
        gemv_tile(y + j, ldy, x, ldx, w + j * w_stride, w_stride, k, 1, m, format);
}

ALWAYS_INLINE void gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                        const void *weights, int64_t w_stride, int64_t n, int64_t k,
                        const gemv_format format)
{
    switch (m) {
    case 1:
        gemv_rows(y, ldy, x, ldx, weights, w_stride, n, k, 1, 1, format);
        break;
    case 2:
        gemv_rows(y, ldy, x, ldx, weights, w_stride, n, k, V_GEMV_ROWS_OF_2, 2, format);
        break;
    case 3:
        gemv_rows(y, ldy, x, ldx, weights, w_stride, n, k, V_GEMV_ROWS_OF_4, 3, format);
        break;
    case 4:
        gemv_rows(y, ldy, x, ldx, weights, w_stride, n, k, V_GEMV_ROWS_OF_4, 4, format);
        break;
    default:
        break;
    }
}

ALWAYS_INLINE void decode_f32(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
#pragma GCC unroll 4
    for (int v = 0; v < GEMV_VECTORS; v++)
        piece[v] = v_load((const float *)row + step * GEMV_STEP + v * V_WIDTH);
}
ALWAYS_INLINE vec tail_f32(const char *row, int64_t first, int64_t n)
{
    return v_load_n((const float *)row + first, n);
}
ALWAYS_INLINE void decode_f16(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
#pragma GCC unroll 4
    for (int v = 0; v < GEMV_VECTORS; v++)
        piece[v] = v_load_f16((const uint16_t *)row + step * GEMV_STEP + v * V_WIDTH);
}
ALWAYS_INLINE vec tail_f16(const char *row, int64_t first, int64_t n)
{
    return v_load_f16_n((const uint16_t *)row + first, n);
}
ALWAYS_INLINE void decode_bf16(vec piece[GEMV_VECTORS], const char *row, int64_t step)
{
#pragma GCC unroll 4
    for (int v = 0; v < GEMV_VECTORS; v++)
        piece[v] = v_load_bf16((const uint16_t *)row + step * GEMV_STEP + v * V_WIDTH);
}
ALWAYS_INLINE vec tail_bf16(const char *row, int64_t first, int64_t n)
{
    return v_load_bf16_n((const uint16_t *)row + first, n);
}

/* A kernel of the table for each format. */
#define GEMV_KERNEL(name, ...)                                                                     \
    static void name(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, const void *w, \
                     int64_t w_stride, int64_t n, int64_t k)                                       \
    {                                                                                              \
        gemv(y, ldy, x, ldx, m, w, w_stride, n, k, (gemv_format)__VA_ARGS__);                      \
    }
