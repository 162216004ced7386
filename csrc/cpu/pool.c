/* The rows of a sequence become one, feature by feature. A task is a sequence and a block of
 * features, so that one long sequence also has work for all threads, and sums stay in cache. */
#include "cpu/pool.h"

#include <string.h>

#include "cpu/parallel.h"

#define BLOCK 256

/* dst [n] = sum / n_rows; in double, since thousands of rows of f32 lose digits. */
static void pool_mean(float *dst, const float *x, int64_t stride, int64_t n_rows, int64_t n)
{
    double sum[BLOCK] = {0};
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < n; j++)
            sum[j] += (double)x[i * stride + j];
    for (int64_t j = 0; j < n; j++)
        dst[j] = (float)(sum[j] / (double)n_rows);
}

/* NaN is passed on. */
static void pool_max(float *dst, const float *x, int64_t stride, int64_t n_rows, int64_t n)
{
    memcpy(dst, x, sizeof *dst * (size_t)n);
    for (int64_t i = 1; i < n_rows; i++) {
        for (int64_t j = 0; j < n; j++) {
            float value = x[i * stride + j];
            dst[j] = value > dst[j] || value != value ? value : dst[j];
        }
    }
}

static void pool_block(ct_pool_kind kind, float *dst, const float *x, int64_t stride,
                       int64_t n_rows, int64_t n)
{
    if (n_rows == 0)
        memset(dst, 0, sizeof *dst * (size_t)n);
    else if (kind == CT_POOL_FIRST)
        memcpy(dst, x, sizeof *dst * (size_t)n);
    else if (kind == CT_POOL_MAX)
        pool_max(dst, x, stride, n_rows, n);
    else
        pool_mean(dst, x, stride, n_rows, n);
}

ct_status ct_cpu_pool(ct_pool_kind kind, ct_rows dst, ct_rows x, const int64_t *offsets)
{
    int64_t blocks = (dst.width + BLOCK - 1) / BLOCK;
    int n_threads = ct_parallel_threads(kind == CT_POOL_FIRST ? 0 : x.n_rows * x.width);
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (int64_t task = 0; task < dst.n_rows * blocks; task++) {
        int64_t sequence = task / blocks, column = task % blocks * BLOCK;
        int64_t first = offsets[sequence], left = dst.width - column;
        pool_block(kind, (float *)dst.data + sequence * dst.stride + column,
                   (const float *)x.data + first * x.stride + column, x.stride,
                   offsets[sequence + 1] - first, left < BLOCK ? left : BLOCK);
    }
    return CT_OK;
}
