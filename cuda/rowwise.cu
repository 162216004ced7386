/* Norms, sums and scaling: a block for each row, or each group of one. */
#include "ops.h"

#include "rows.h"
#include "runtime.h"

#define THREADS 256
#define MAX_BLOCKS 2048 /* of elementwise kernels, whose blocks go round */

/* Mean and variance in two passes over the row, which the second finds in L1: one pass with a sum
 * of squares loses what a large mean takes. */
CT_KERNEL norm_kernel(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                      const float *bias, float eps, int64_t n)
{
    const float *from = (const float *)x.data + blockIdx.x * x.stride + blockIdx.y * n;
    int64_t to = blockIdx.x * y.stride + blockIdx.y * n;
    float mean = 0, squares = 0;
    if (kind == CT_NORM_LAYER) {
        float sum = 0;
        for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
            sum += from[i];
        mean = ct_block_sum(sum) / (float)n;
    }
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        squares += (from[i] - mean) * (from[i] - mean);
    float inverse = 1 / sqrtf(ct_block_sum(squares) / (float)n + eps);
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        float value = (from[i] - mean) * inverse * weight[i];
        ct_put_as(y.dtype, y.data, to + i, bias ? value + bias[i] : value);
    }
}

ct_status ct_cuda_norm(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                       const float *bias, float eps, int64_t groups)
{
    int64_t n = x.width / groups;
    if (x.n_rows == 0)
        return CT_OK;
    dim3 grid((unsigned)x.n_rows, (unsigned)groups);
    CT_KERNEL_CALL(norm_kernel, grid, n < THREADS ? 64 : THREADS, 0, ct_cuda_stream(), kind, y, x,
                   weight, bias, eps, n);
    return ct_cuda_launched("norm");
}

CT_KERNEL add_kernel(ct_rows y, ct_rows x, ct_rows z)
{
    int64_t size = x.n_rows * x.width, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        int64_t row = i / x.width, column = i % x.width;
        ((float *)y.data)[row * y.stride + column] = ((const float *)x.data)[row * x.stride + column] +
                                                     ((const float *)z.data)[row * z.stride + column];
    }
}

static unsigned blocks_for(int64_t size)
{
    int64_t n = (size + THREADS - 1) / THREADS;
    return (unsigned)(n < MAX_BLOCKS ? n : MAX_BLOCKS);
}

ct_status ct_cuda_add(ct_rows y, ct_rows x, ct_rows z)
{
    if (x.n_rows == 0 || x.width == 0)
        return CT_OK;
    CT_KERNEL_CALL(add_kernel, blocks_for(x.n_rows * x.width), THREADS, 0, ct_cuda_stream(), y, x, z);
    return ct_cuda_launched("add");
}

CT_KERNEL scale_kernel(ct_rows x, float scale, float cap)
{
    int64_t size = x.n_rows * x.width, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        float *value = (float *)x.data + i / x.width * x.stride + i % x.width;
        *value = cap > 0 ? cap * tanhf(*value * (scale / cap)) : *value * scale;
    }
}

ct_status ct_cuda_scale(ct_rows x, float scale, float cap)
{
    if (x.n_rows == 0 || x.width == 0)
        return CT_OK;
    CT_KERNEL_CALL(scale_kernel, blocks_for(x.n_rows * x.width), THREADS, 0, ct_cuda_stream(), x,
                   scale, cap);
    return ct_cuda_launched("scale");
}
