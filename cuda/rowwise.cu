/* Norms, sums and scaling. A norm is the work of a warp, or of a block where its values do not fit
 * the registers of one; which of the two, and so the order of sums, is by its width alone. */
#include "ops.h"

#include "fours.h"
#include "rows.h"
#include "runtime.h"

/* ---- norms ---- */

#define NORM_WARPS 4 /* norms of a block, where each is a warp's */
#define MAX_THREADS 1024

typedef struct norm_job {
    ct_norm_kind kind;
    ct_rows y, x;
    const float *weight, *bias;
    float eps;
    int64_t groups, n; /* norms of a row, and values of each */
    bool x_in_fours, y_in_fours, weight_in_fours;
} norm_job;

/* body(at, values) for each four of the norm that is this thread's: kept ones, or with FOURS 0,
 * where a row is too long to be kept, ones that are read again. */
template <int FOURS, typename Body>
CT_DEVICE void each_four(const norm_job &job, const float *from, float (*kept)[4], Body body)
{
    if constexpr (FOURS > 0) {
        for (int f = 0; f < FOURS; f++)
            body(4 * ((int64_t)threadIdx.x + f * blockDim.x), kept[f]);
    } else {
        for (int64_t at = 4 * (int64_t)threadIdx.x; at < job.n; at += 4 * blockDim.x) {
            ct_get4(kept[0], CT_F32, from, at, job.n - at, job.x_in_fours);
            body(at, kept[0]);
        }
    }
}

template <bool IS_WARP> CT_DEVICE float sum_of_team(float value)
{
    if constexpr (IS_WARP)
        return ct_warp_sum(value);
    else
        return ct_block_sum(value);
}

/* A first mean, and then what rounding took from it, together with the variance around it: what is
 * large beside the spread is subtracted before anything is squared. */
template <int FOURS, bool IS_WARP>
CT_KERNEL CT_BOUNDS(IS_WARP ? CT_WARP *NORM_WARPS : MAX_THREADS, 1) norm_kernel(norm_job job)
{
    uint32_t group = blockIdx.x * blockDim.y + threadIdx.y, row = group / (uint32_t)job.groups;
    if (row >= job.x.n_rows)
        return; /* with all of the warp: a norm that is a block's has a row */
    int64_t first = (group - row * job.groups) * job.n;
    const float *from = (const float *)job.x.data + row * job.x.stride + first;
    float kept[FOURS > 0 ? FOURS : 1][4];
    for (int f = 0; f < FOURS; f++) {
        int64_t at = 4 * ((int64_t)threadIdx.x + f * blockDim.x);
        ct_get4(kept[f], CT_F32, from, at, job.n - at, job.x_in_fours);
    }
    float mean = 0, sum = 0, squares = 0, n = (float)job.n;
    if (job.kind == CT_NORM_LAYER) {
        each_four<FOURS>(job, from, kept, [&](int64_t, const float *values) {
            sum += (values[0] + values[1]) + (values[2] + values[3]);
        });
        mean = sum_of_team<IS_WARP>(sum) / n;
        sum = 0;
    }
    each_four<FOURS>(job, from, kept, [&](int64_t at, const float *values) {
        for (int j = 0; j < 4; j++) {
            float value = at + j < job.n ? values[j] - mean : 0;
            sum += value;
            squares += value * value;
        }
    });
    squares = sum_of_team<IS_WARP>(squares) / n;
    float lost = 0;
    if (job.kind == CT_NORM_LAYER) {
        lost = sum_of_team<IS_WARP>(sum) / n;
        squares = fmaxf(squares - lost * lost, 0);
    }
    float inverse = 1 / sqrtf(squares + job.eps);
    each_four<FOURS>(job, from, kept, [&](int64_t at, const float *values) {
        float weight[4], bias[4] = {0}, normed[4];
        ct_get4(weight, CT_F32, job.weight, at, job.n - at, job.weight_in_fours);
        if (job.bias)
            ct_get4(bias, CT_F32, job.bias, at, job.n - at, job.weight_in_fours);
        for (int j = 0; j < 4; j++)
            normed[j] = ((values[j] - mean) - lost) * inverse * weight[j] + bias[j];
        ct_put4(job.y.dtype, job.y.data, row * job.y.stride + first + at, normed, job.n - at,
                job.y_in_fours);
    });
}

template <int FOURS> static void launch_warps(const norm_job &job)
{
    int64_t blocks = (job.x.n_rows * job.groups + NORM_WARPS - 1) / NORM_WARPS;
    CT_KERNEL_CALL((norm_kernel<FOURS, true>), (unsigned)blocks, dim3(CT_WARP, NORM_WARPS), 0,
                   ct_cuda_stream(), job);
}

template <int FOURS> static void launch_blocks(const norm_job &job)
{
    int64_t each = 4 * CT_WARP * (FOURS > 0 ? FOURS : 1), warps = (job.n + each - 1) / each;
    int64_t threads = warps * CT_WARP < MAX_THREADS ? warps * CT_WARP : MAX_THREADS;
    CT_KERNEL_CALL((norm_kernel<FOURS, false>), (unsigned)(job.x.n_rows * job.groups),
                   (unsigned)threads, 0, ct_cuda_stream(), job);
}

ct_status ct_cuda_norm(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                       const float *bias, float eps, int64_t groups)
{
    if (x.n_rows == 0 || x.width == 0)
        return CT_OK;
    norm_job job = {kind, y, x, weight, bias, eps, groups, x.width / groups, false, false, false};
    bool whole = groups == 1 || job.n % 4 == 0; /* where one group has fours, all have */
    job.x_in_fours = whole && ct_in_fours(x);
    job.y_in_fours = whole && ct_in_fours(y);
    job.weight_in_fours = ((uintptr_t)weight | (uintptr_t)bias) % 16 == 0;
    if (job.n <= 4 * CT_WARP)
        launch_warps<1>(job);
    else if (job.n <= 8 * CT_WARP)
        launch_warps<2>(job);
    else if (job.n <= 32 * CT_WARP)
        launch_warps<8>(job);
    else if (job.n <= 8 * MAX_THREADS)
        launch_blocks<2>(job);
    else if (job.n <= 16 * MAX_THREADS)
        launch_blocks<4>(job);
    else
        launch_blocks<0>(job);
    return ct_cuda_launched("norm");
}

/* ---- value by value ---- */

CT_KERNEL add_kernel(ct_rows y, ct_rows x, ct_rows z, bool in_fours)
{
    int64_t row = ct_fours_row(), column = ct_fours_column(), left = x.width - column;
    if (row >= x.n_rows || left <= 0)
        return;
    float a[4], b[4];
    ct_get4(a, CT_F32, x.data, row * x.stride + column, left, in_fours);
    ct_get4(b, CT_F32, z.data, row * z.stride + column, left, in_fours);
    for (int j = 0; j < 4; j++)
        a[j] += b[j];
    ct_put4(CT_F32, y.data, row * y.stride + column, a, left, in_fours);
}

ct_status ct_cuda_add(ct_rows y, ct_rows x, ct_rows z)
{
    if (x.n_rows == 0 || x.width == 0)
        return CT_OK;
    ct_fours fours = ct_fours_over(x.n_rows, x.width);
    CT_KERNEL_CALL(add_kernel, fours.grid, fours.block, 0, ct_cuda_stream(), y, x, z,
                   ct_in_fours(y) && ct_in_fours(x) && ct_in_fours(z));
    return ct_cuda_launched("add");
}

CT_KERNEL scale_kernel(ct_rows x, float scale, float cap, bool in_fours)
{
    int64_t row = ct_fours_row(), column = ct_fours_column(), left = x.width - column;
    if (row >= x.n_rows || left <= 0)
        return;
    float values[4];
    ct_get4(values, CT_F32, x.data, row * x.stride + column, left, in_fours);
    for (int j = 0; j < 4; j++)
        values[j] = cap > 0 ? cap * tanhf(values[j] * scale) : values[j] * scale;
    ct_put4(CT_F32, x.data, row * x.stride + column, values, left, in_fours);
}

ct_status ct_cuda_scale(ct_rows x, float scale, float cap)
{
    if (x.n_rows == 0 || x.width == 0)
        return CT_OK;
    ct_fours fours = ct_fours_over(x.n_rows, x.width);
    CT_KERNEL_CALL(scale_kernel, fours.grid, fours.block, 0, ct_cuda_stream(), x,
                   cap > 0 ? scale / cap : scale, cap, ct_in_fours(x));
    return ct_cuda_launched("scale");
}
