/* Rows that go elsewhere: scattered, gathered, and pooled by sequence. */
#include "ops.h"

#include "fours.h"
#include "rows.h"
#include "runtime.h"

/* ---- scatter and gather ---- */

/* Where `wanted` stands in the rising map [n], or -1. */
CT_DEVICE int64_t place_in(const int64_t *map, int64_t n, int64_t wanted)
{
    int64_t begin = 0, end = n;
    while (begin < end) {
        int64_t middle = (begin + end) / 2;
        if (map[middle] < wanted)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin < n && map[begin] == wanted ? begin : -1;
}

/* A thread is a place of dst, which is written once: with what belongs there, or with zeros. `map`
 * is of dst's rows when they are gathered, of x's when they are scattered. */
CT_KERNEL move_kernel(ct_rows dst, ct_rows x, const int64_t *map, bool gathers, bool in_fours)
{
    int64_t row = ct_fours_row(), column = ct_fours_column(), left = dst.width - column;
    if (row >= dst.n_rows || left <= 0)
        return;
    int64_t from = row < x.n_rows ? row : -1;
    if (map)
        from = gathers ? map[row] : place_in(map, x.n_rows, row);
    float values[4] = {0};
    if (from >= 0)
        ct_get4(values, x.dtype, x.data, from * x.stride + column, left, in_fours);
    ct_put4(dst.dtype, dst.data, row * dst.stride + column, values, left, in_fours);
}

static ct_status move(ct_rows dst, ct_rows x, const int64_t *map, bool gathers)
{
    if (dst.n_rows == 0 || dst.width == 0)
        return CT_OK;
    ct_fours fours = ct_fours_over(dst.n_rows, dst.width);
    CT_KERNEL_CALL(move_kernel, fours.grid, fours.block, 0, ct_cuda_stream(), dst, x, map, gathers,
                   ct_in_fours(dst) && ct_in_fours(x));
    return ct_cuda_launched("moving rows");
}

ct_status ct_cuda_scatter(ct_rows dst, ct_rows x, const int64_t *map)
{
    return move(dst, x, map, false);
}

ct_status ct_cuda_gather(ct_rows dst, ct_rows x, const int64_t *map)
{
    return move(dst, x, map, true);
}

/* ---- pool ---- */

#define POOL_SHARES 16 /* of a sequence's rows, each a warp's */

/* The largest so far, or NaN once there was one. */
CT_DEVICE double larger(double best, double value)
{
    return value > best || value != value ? value : best;
}

/* A block is a sequence and 32 features. Sums are in double, since thousands of rows of f32 lose
 * digits. */
CT_KERNEL CT_BOUNDS(CT_WARP *POOL_SHARES, 2)
    pool_kernel(ct_pool_kind kind, ct_rows dst, ct_rows x, const int64_t *offsets)
{
    CT_SHARED(double, shares, CT_WARP *POOL_SHARES);
    int64_t column = (int64_t)blockIdx.y * CT_WARP + threadIdx.x;
    int64_t first = offsets[blockIdx.x], end = offsets[blockIdx.x + 1], n_rows = end - first;
    const float *from = (const float *)x.data + column;
    bool inside = column < dst.width && n_rows > 0, is_mean = kind == CT_POOL_MEAN;
    if (kind == CT_POOL_FIRST)
        end = first + 1; /* the largest of one */
    double own = inside && !is_mean ? from[first * x.stride] : 0;
    for (int64_t i = first + threadIdx.y; inside && i < end; i += POOL_SHARES) {
        double value = from[i * x.stride];
        own = is_mean ? own + value : larger(own, value);
    }
    shares[threadIdx.y * CT_WARP + threadIdx.x] = own;
    ct_barrier();
    if (threadIdx.y > 0 || column >= dst.width)
        return;
    for (int i = 1; i < POOL_SHARES; i++) {
        double share = shares[i * CT_WARP + threadIdx.x];
        own = is_mean ? own + share : larger(own, share);
    }
    float *to = (float *)dst.data + blockIdx.x * dst.stride + column;
    *to = (float)(is_mean && n_rows > 0 ? own / (double)n_rows : own);
}

ct_status ct_cuda_pool(ct_pool_kind kind, ct_rows dst, ct_rows x, const int64_t *offsets)
{
    if (dst.n_rows == 0 || dst.width == 0)
        return CT_OK;
    dim3 grid((unsigned)dst.n_rows, (unsigned)((dst.width + CT_WARP - 1) / CT_WARP));
    CT_KERNEL_CALL(pool_kernel, grid, dim3(CT_WARP, POOL_SHARES), 0, ct_cuda_stream(), kind, dst, x,
                   offsets);
    return ct_cuda_launched("pool");
}
