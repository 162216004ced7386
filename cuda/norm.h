/* A norm that a product applies to the rows of x as it reads them: fewer launches, and no rows that
 * go to memory and back. */
#ifndef CT_CUDA_NORM_H
#define CT_CUDA_NORM_H

#include "csrc.h"
#include "device.h"
#include "fours.h"

/* By value, as kernels need it. weight NULL: there is no norm. */
typedef struct ct_cuda_input_norm {
    ct_norm_kind kind;
    const float *weight, *bias; /* bias NULL: none */
    float eps;
    bool in_fours; /* both may be read 16 bytes at a time */
} ct_cuda_input_norm;

/* What a row's values have taken off, and are multiplied by then. */
typedef struct ct_moments {
    float mean, lost, inverse;
} ct_moments;

/* Values i ... i + 3 of a row, of which `n` exist. */
CT_DEVICE void ct_normalize(float values[4], const ct_cuda_input_norm &norm,
                            const ct_moments &moments, int64_t i, int64_t n)
{
    float weight[4], bias[4] = {};
    ct_get4(weight, CT_F32, norm.weight, i, n, norm.in_fours);
    if (norm.bias)
        ct_get4(bias, CT_F32, norm.bias, i, n, norm.in_fours);
    for (int j = 0; j < 4; j++)
        values[j] =
            ((values[j] - moments.mean) - moments.lost) * moments.inverse * weight[j] + bias[j];
}

/* Weight and bias are on their way to the L2 cache while x is not yet there; by all threads. */
CT_DEVICE void ct_prefetch_norm(const ct_cuda_input_norm &norm, int64_t width)
{
    constexpr int LINE = 32; /* floats */
    for (int64_t i = threadIdx.x * LINE; norm.weight && i < width; i += blockDim.x * LINE) {
        ct_prefetch(norm.weight + i);
        if (norm.bias)
            ct_prefetch(norm.bias + i);
    }
}

/* Floats of shared memory that ct_find_moments works in, for M rows and so many threads. */
#define CT_MOMENTS_SCRATCH(M, threads) (2 * (M) * ((threads) / CT_WARP + 1))

/* values[i] = the sum of all threads' ones, in the order of lanes and warps. */
template <int N> CT_DEVICE void ct_block_sums(float (&values)[N], float *scratch)
{
    int n_warps = ct_block_warps(), thread = (int)threadIdx.x;
    float *totals = scratch + N * n_warps;
    ct_barrier(); /* what lay there before may still be read */
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        float sum = ct_warp_sum(values[i]);
        if (thread % CT_WARP == 0)
            scratch[thread / CT_WARP * N + i] = sum;
    }
    ct_barrier();
    if (thread < N) {
        float total = 0;
        for (int w = 0; w < n_warps; w++)
            total += scratch[w * N + thread];
        totals[thread] = total;
    }
    ct_barrier();
    CT_UNROLL
    for (int i = 0; i < N; i++)
        values[i] = totals[i];
}

/* The moments of the first M rows of x, f32, as far as there are such, in shared memory; by all
 * threads of the block, which is a warp at least. A first mean, and then what rounding took from
 * it, together with the variance around it: what is large beside the spread is subtracted before
 * anything is squared. */
template <int M>
CT_DEVICE void ct_find_moments(ct_moments *out, float *scratch, const ct_cuda_input_norm &norm,
                               const ct_rows &x, bool in_fours)
{
    bool centered = norm.kind == CT_NORM_LAYER;
    float sums[2 * M] = {}, means[M] = {}, n = (float)x.width, values[4];
    int64_t begin = 4 * (int64_t)threadIdx.x, step = 4 * (int64_t)blockDim.x;
    for (int64_t i = begin; centered && i < x.width; i += step) {
        CT_UNROLL
        for (int m = 0; m < M; m++) {
            if (m >= x.n_rows)
                continue;
            ct_get4(values, CT_F32, x.data, m * x.stride + i, x.width - i, in_fours);
            means[m] += (values[0] + values[1]) + (values[2] + values[3]);
        }
    }
    if (centered)
        ct_block_sums(means, scratch);
    CT_UNROLL
    for (int m = 0; m < M; m++)
        means[m] /= n;
    for (int64_t i = begin; i < x.width; i += step) {
        CT_UNROLL
        for (int m = 0; m < M; m++) {
            if (m >= x.n_rows)
                continue;
            ct_get4(values, CT_F32, x.data, m * x.stride + i, x.width - i, in_fours);
            for (int j = 0; j < 4; j++) {
                float value = i + j < x.width ? values[j] - means[m] : 0;
                sums[m] += value;
                sums[M + m] += value * value;
            }
        }
    }
    ct_block_sums(sums, scratch);
    CT_UNROLL
    for (int m = 0; m < M; m++) {
        float lost = centered ? sums[m] / n : 0, squares = sums[M + m] / n;
        if (centered)
            squares = fmaxf(squares - lost * lost, 0);
        if ((int)threadIdx.x == m)
            out[m] = {means[m], lost, 1 / sqrtf(squares + norm.eps)};
    }
    ct_barrier();
}

#endif
