/* Matrix-vector products with weights of float types, written once for every vector ISA. Include
 * after that ISA's vector.h, with FLOAT_TILES defined.
 *
 * Such products wait for memory, so each tile of weight rows prefetches the next one: the
 * processor's own prefetching starts anew in every row. Each product is one chain of sums over k,
 * whatever tile it stands in: a result does not depend on how many rows are computed together. */
#include "cpu/isa/kernels.h"

#define FLOAT_STEP 32 /* values of k at a time: a cache line of 16-bit weights */
#define FLOAT_LINE 64
#define FLOAT_INLINE static inline __attribute__((always_inline))

/* A vector of weights, or the first n values of one. */
typedef vec (*float_load)(const void *weights);
typedef vec (*float_load_n)(const void *weights, int64_t n);

typedef struct float_weights {
    const char *rows;
    int64_t stride, next; /* bytes to the next row, and to the tile to prefetch */
} float_weights;

/* `n_bytes` of each row of the next tile, from byte `first` on. */
FLOAT_INLINE void prefetch_next(float_weights w, int64_t first, const int rows, const int n_bytes)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int line = 0; line < n_bytes; line += FLOAT_LINE)
            __builtin_prefetch(w.rows + r * w.stride + w.next + first + line, 0, 3);
}

/* y [m, rows] = x [m, k] by weights [rows, k], whose elements have `size` bytes. */
FLOAT_INLINE void float_tile(float *y, int64_t ldy, const float *x, int64_t ldx, float_weights w,
                             int64_t k, const int rows, const int m, const int size,
                             float_load load, float_load_n load_n)
{
    vec sums[8][8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            sums[r][i] = v_set1(0);
    int64_t c = 0;
    for (; c + FLOAT_STEP <= k; c += FLOAT_STEP) {
        if (m > 1 || size < 4) /* one row of x by f32 keeps up with the processor's prefetching */
            prefetch_next(w, c * size, rows, FLOAT_STEP * size);
#pragma GCC unroll 8
        for (int v = 0; v < FLOAT_STEP; v += V_WIDTH) {
            vec factors[8];
#pragma GCC unroll 8
            for (int i = 0; i < m; i++)
                factors[i] = v_load(x + i * ldx + c + v);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                vec piece = load(w.rows + r * w.stride + (c + v) * size);
#pragma GCC unroll 8
                for (int i = 0; i < m; i++)
                    sums[r][i] = v_fma(piece, factors[i], sums[r][i]);
            }
        }
    }
    for (; c < k; c += V_WIDTH) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vec piece = load_n(w.rows + r * w.stride + c * size, k - c);
#pragma GCC unroll 8
            for (int i = 0; i < m; i++)
                sums[r][i] = v_fma(piece, v_load_n(x + i * ldx + c, k - c), sums[r][i]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            y[i * ldy + r] = v_sum(sums[r][i]);
}

/* The same for all n weight rows, `rows` at a time, then one by one. Where registers do not hold
 * the sums of all rows of x, `first` and then `second` of them meet the tile, which is in cache the
 * second time. */
FLOAT_INLINE void float_rows(float *y, int64_t ldy, const float *x, int64_t ldx,
                             const char *weights, int64_t w_stride, int64_t n, int64_t k,
                             const int rows, const int first, const int second, const int size,
                             float_load load, float_load_n load_n)
{
    int64_t j = 0;
    for (; j + rows <= n; j += rows) {
        float_weights w = {weights + j * w_stride, w_stride,
                           j + 2 * rows <= n ? rows * w_stride : 0};
        float_tile(y + j, ldy, x, ldx, w, k, rows, first, size, load, load_n);
        if (second)
            float_tile(y + j + first * ldy, ldy, x + first * ldx, ldx, w, k, rows, second, size,
                       load, load_n);
    }
    for (; j < n; j++) {
        float_weights w = {weights + j * w_stride, w_stride, 0};
        float_tile(y + j, ldy, x, ldx, w, k, 1, first, size, load, load_n);
        if (second)
            float_tile(y + j + first * ldy, ldy, x + first * ldx, ldx, w, k, 1, second, size, load,
                       load_n);
    }
}

FLOAT_INLINE vec load_f32(const void *weights)
{
    return v_load(weights);
}
FLOAT_INLINE vec load_f32_n(const void *weights, int64_t n)
{
    return v_load_n(weights, n);
}
FLOAT_INLINE vec load_f16(const void *weights)
{
    return v_load_f16(weights);
}
FLOAT_INLINE vec load_f16_n(const void *weights, int64_t n)
{
    return v_load_f16_n(weights, n);
}
FLOAT_INLINE vec load_bf16(const void *weights)
{
    return v_load_bf16(weights);
}
FLOAT_INLINE vec load_bf16_n(const void *weights, int64_t n)
{
    return v_load_bf16_n(weights, n);
}

#define FLOAT_CASE(rows, first, second)                                                            \
    case (first) + (second):                                                                       \
        float_rows(y, ldy, x, ldx, w, w_stride, n, k, rows, first, second, size, load, load_n);    \
        break;

FLOAT_INLINE void float_gemv(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                             const void *w, int64_t w_stride, int64_t n, int64_t k, const int size,
                             float_load load, float_load_n load_n)
{
    switch (m) {
        FLOAT_TILES(FLOAT_CASE)
    default:
        break;
    }
}

static void gemv_f32(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, const void *w,
                     int64_t w_stride, int64_t n, int64_t k)
{
    float_gemv(y, ldy, x, ldx, m, w, w_stride, n, k, 4, load_f32, load_f32_n);
}

static void gemv_f16(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, const void *w,
                     int64_t w_stride, int64_t n, int64_t k)
{
    float_gemv(y, ldy, x, ldx, m, w, w_stride, n, k, 2, load_f16, load_f16_n);
}

static void gemv_bf16(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, const void *w,
                      int64_t w_stride, int64_t n, int64_t k)
{
    float_gemv(y, ldy, x, ldx, m, w, w_stride, n, k, 2, load_bf16, load_bf16_n);
}

static inline void fill_gemv(ct_kernels *table)
{
    table->gemv[CT_F32] = gemv_f32;
    table->gemv[CT_F16] = gemv_f16;
    table->gemv[CT_BF16] = gemv_bf16;
}
