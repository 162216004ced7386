/* Few rows of x: each weight is read once, and that is what takes the time.
 *
 * A warp has several weight rows, whose reads are all on their way before the first is used, and
 * the next ones before these are, also those of the next rows; where rows are few, several warps
 * share them by k, so that blocks have equally much to do. x lies in shared memory, once for all
 * bands of weight rows that a block has, in f32 and with zeros behind its end. Sums go by lanes,
 * then over the warp, then over the warps that share a row: an order that only n, k and the device
 * decide. */
#include "linear.h"

#include "decode.h"
#include "fours.h"
#include "runtime.h"

#define THREADS 256
#define WARPS (THREADS / CT_WARP)
#define MAX_WEIGHT_ROWS 4
/* Blocks that a multiprocessor has at a time: those that are launched take bands in turn, so that
 * none has to stage x when others are done. */
#define BLOCKS_EACH 2
/* MAX_WEIGHT_ROWS for each warp so many times, or more: with fewer, blocks that have one more to do
 * would take much longer than the others. */
#define TURNS_WANTED 3

/* So many rows of x are staged and normed while the first weights are on their way; more would take
 * the registers that those need. */
#define ROWS_WHILE_READING 2

/* x in shared memory. 4 values in 36 stay empty, so that lanes that are 8 or 32 values apart meet
 * no bank twice in a read of 16 bytes. */
#define PLACE(i) ((i) + (i) / 32 * 4)
#define X_BYTES (72 * 1024) /* of it; three blocks have room on a Hopper multiprocessor */
/* Where all of k does not fit, a multiple of this does; the strides of warps that share a row
 * divide it, so that the order of sums is the same. */
#define TILE 2048

/* More weight rows use what was read of x more often, and take registers, as rows of x and the
 * reads of 32 bytes do. */
CT_CONSTANT int weight_rows(ct_dtype dtype, int m)
{
    return m <= 2 && dtype != CT_F32 && dtype != CT_Q8_0 ? MAX_WEIGHT_ROWS : 2;
}

typedef struct few_plan {
    int split;    /* warps that share weight rows */
    int tile;     /* values of x's rows in shared memory */
    int x_stride; /* from one row there to the next */
    bool x_in_fours;
    int64_t n_bands; /* of WARPS / split * weight_rows */
} few_plan;

/* n values of each of M rows, from `first` on, zeros behind the ends; by all threads. */
template <int M>
CT_DEVICE void stage(float *to, const ct_cuda_product &product, const few_plan &plan,
                     const ct_moments *moments, int64_t first, int n)
{
    const ct_rows &x = product.x;
    for (int m = 0; m < M; m++)
        for (int i = 4 * (int)threadIdx.x; i < n; i += 4 * THREADS) {
            int64_t at = first + i, left = x.width - at;
            float values[4] = {};
            if (m < x.n_rows)
                ct_get4(values, x.dtype, x.data, m * x.stride + at, left, plan.x_in_fours);
            if (m < x.n_rows && product.norm.weight)
                ct_normalize(values, product.norm, moments[m], at, left);
            ct_put4(CT_F32, to + m * plan.x_stride + PLACE(i), 0, values, 4, true);
        }
}

/* sums += group g of a read of each weight row, times the values at x. */
template <ct_dtype dtype, int M, int R>
CT_DEVICE void add_group(float (*sums)[M], const ct_bits *bits, const float *x, int x_stride, int g)
{
    constexpr int FOURS = ct_group_values(dtype) / 4;
    float parts[R][M] = {}, totals[M] = {};
    CT_UNROLL
    for (int j = g * FOURS; j < (g + 1) * FOURS; j++) {
        float values[M][4];
        CT_UNROLL
        for (int m = 0; m < M; m++) {
            ct_load_floats(values[m], x + m * x_stride + 4 * j);
            if (ct_has_minimum(dtype))
                totals[m] += (values[m][0] + values[m][1]) + (values[m][2] + values[m][3]);
        }
        CT_UNROLL
        for (int r = 0; r < R; r++) {
            float weights[4];
            ct_four_values<dtype>(weights, bits[r], j);
            CT_UNROLL
            for (int m = 0; m < M; m++)
                for (int i = 0; i < 4; i++)
                    parts[r][m] += weights[i] * values[m][i];
        }
    }
    CT_UNROLL
    for (int r = 0; r < R; r++)
        CT_UNROLL
    for (int m = 0; m < M; m++) {
        sums[r][m] += ct_scale<dtype>(bits[r], g) * parts[r][m];
        if (ct_has_minimum(dtype))
            sums[r][m] += ct_minimum<dtype>(bits[r]) * totals[m];
    }
}

/* The reads of R weight rows from `row` on; behind the last row, of it. */
template <ct_dtype dtype, int R>
CT_DEVICE void read_rows(ct_bits *bits, const ct_cuda_planes &weight, int64_t row, int step)
{
    CT_UNROLL
    for (int r = 0; r < R; r++)
        ct_read<dtype>(&bits[r], weight, row + r < weight.n ? row + r : weight.n - 1, step);
}

/* Sum i of the warp's, to lanes i * 32 / N and so on. Each step adds the other half of the lanes,
 * and while there are several sums, each half goes on with half of them: the lanes are added in the
 * same order for any N. */
template <int N> CT_DEVICE float hand_out(float *sums, int lane, int mask = CT_WARP / 2)
{
    if constexpr (N == 1) {
        for (; mask > 0; mask /= 2)
            sums[0] += ct_shuffle_xor(sums[0], mask);
        return sums[0];
    } else {
        bool upper = lane & mask;
        CT_UNROLL
        for (int i = 0; i < N / 2; i++) {
            float low = sums[i], high = sums[i + N / 2];
            sums[i] = (upper ? high : low) + ct_shuffle_xor(upper ? low : high, mask);
        }
        return hand_out<N / 2>(sums, lane, mask / 2);
    }
}

/* Shared memory of a block: x as far as it is staged, from value `staged` on. */
typedef struct few_shared {
    float *x, *shares;
    ct_moments *moments;
    int staged; /* -1: nothing is */
} few_shared;

/* Weight rows that a warp has at a time: of part p, or of a gated product's part 1. */
typedef struct few_turn {
    int64_t band; /* plan.n_bands and more: none */
    int64_t row;  /* the first */
    int p;
} few_turn;

template <ct_dtype dtype, int M>
CT_DEVICE few_turn turn_of(const ct_cuda_product &product, const few_plan &plan, int64_t band,
                           bool up)
{
    constexpr int R = weight_rows(dtype, M);
    int64_t index = band, rows = WARPS / plan.split * R;
    int p = ct_part_of(product, rows, &index) + up;
    return {band, index * rows + threadIdx.x / CT_WARP / plan.split * R, p};
}

/* The lane's first step of those that its warp has of k. */
CT_DEVICE int first_step(const few_plan &plan)
{
    return (int)threadIdx.x % (CT_WARP * plan.split);
}

/* The first reads of a turn, while there is something else to do. */
template <ct_dtype dtype, int M>
CT_DEVICE void read_ahead(ct_bits *now, const ct_cuda_product &product, const few_plan &plan,
                          const few_turn &turn)
{
    if (M <= ROWS_WHILE_READING && turn.band < plan.n_bands &&
        first_step(plan) * ct_read_values(dtype) < product.x.width)
        read_rows<dtype, weight_rows(dtype, M)>(now, product.part[turn.p].weight, turn.row,
                                                first_step(plan));
}

/* Sums of the lane's products; `now` is what was read ahead. */
template <ct_dtype dtype, int M, int R>
CT_DEVICE void add_products(float (*sums)[M], ct_bits *now, const ct_cuda_product &product,
                            const few_plan &plan, const few_turn &turn, few_shared *shared)
{
    constexpr int VALUES = ct_read_values(dtype);
    const ct_cuda_planes &weight = product.part[turn.p].weight;
    int64_t row = turn.row;
    int stride = CT_WARP * plan.split;
    int k = (int)product.x.width, steps = (k + VALUES - 1) / VALUES;
    for (int first = 0; first < k; first += plan.tile) {
        int begin = first / VALUES, step = begin + first_step(plan);
        int end = k - first > plan.tile ? begin + plan.tile / VALUES : steps;
        ct_bits next[R] = {};
        if (M <= ROWS_WHILE_READING && first > 0 && step < end)
            read_rows<dtype, R>(now, weight, row, step);
        if (shared->staged != first) { /* for all threads alike */
            if (M <= ROWS_WHILE_READING && shared->staged < 0)
                ct_wait_for_earlier();
            if (M <= ROWS_WHILE_READING && shared->staged < 0 && product.norm.weight)
                ct_find_moments<M>(shared->moments, shared->shares, product.norm, product.x,
                                   plan.x_in_fours);
            ct_barrier();
            stage<M>(shared->x, product, plan, shared->moments, first, (end - begin) * VALUES);
            ct_barrier();
            shared->staged = first;
        }
        if (M > ROWS_WHILE_READING && step < end)
            read_rows<dtype, R>(now, weight, row, step);
        for (; step < end; step += stride) {
            if (step + stride < end)
                read_rows<dtype, R>(next, weight, row, step + stride);
            const float *from = shared->x + PLACE(step * VALUES - first);
            CT_UNROLL
            for (int g = 0; g < VALUES / ct_group_values(dtype); g++)
                add_group<dtype, M, R>(sums, now, from, plan.x_stride, g);
            CT_UNROLL
            for (int r = 0; r < R; r++)
                now[r] = next[r];
        }
    }
}

/* Adds up what the warps have that share weight rows; the first of them gets it. */
CT_DEVICE float shared_sum(float sum, int split, float *shares)
{
    int thread = (int)threadIdx.x;
    ct_barrier(); /* the last turn's may still be read */
    shares[thread] = sum;
    ct_barrier();
    if (thread / CT_WARP % split == 0)
        for (int s = 1; s < split; s++)
            sum += shares[thread + s * CT_WARP];
    return sum;
}

template <ct_dtype dtype, int M>
CT_KERNEL CT_BOUNDS(THREADS, 2) few_kernel(ct_cuda_product product, few_plan plan)
{
    constexpr int R = weight_rows(dtype, M), HOLDERS = CT_WARP / (R * M);
    CT_SHARED(float, shares, THREADS);
    static_assert(CT_MOMENTS_SCRATCH(M, THREADS) <= THREADS, "moments are found in shares");
    CT_SHARED(ct_moments, moments, M);
    few_shared shared = {(float *)ct_dynamic_shared(), shares, moments, -1};
    int lane = (int)threadIdx.x % CT_WARP, warp = (int)threadIdx.x / CT_WARP;
    int m = lane / HOLDERS % M; /* HOLDERS lanes have the same sum */
    few_turn turn = turn_of<dtype, M>(product, plan, blockIdx.x, false);
    ct_bits now[R] = {};
    read_ahead<dtype, M>(now, product, plan, turn);
    ct_prefetch_norm(product.norm, product.x.width);
    if (M > ROWS_WHILE_READING)
        ct_wait_for_earlier();
    if (M > ROWS_WHILE_READING && product.norm.weight)
        ct_find_moments<M>(moments, shares, product.norm, product.x, plan.x_in_fours);
    bool writes = warp % plan.split == 0 && lane % HOLDERS == 0 && m < product.x.n_rows;
    float gate = 0;
    while (turn.band < plan.n_bands) {
        float sums[R][M] = {};
        add_products<dtype, M, R>(sums, now, product, plan, turn, &shared);
        bool up = product.gated && turn.p == 0; /* what comes next */
        few_turn next = turn_of<dtype, M>(product, plan, turn.band + (up ? 0 : gridDim.x), up);
        read_ahead<dtype, M>(now, product, plan, next);
        float sum = hand_out<R * M>(&sums[0][0], lane);
        if (plan.split > 1)
            sum = shared_sum(sum, plan.split, shares);
        const ct_cuda_part &part = product.part[turn.p];
        int64_t mine = turn.row + lane / HOLDERS / M;
        turn = next;
        if (!writes || mine >= part.weight.n)
            continue;
        if (part.bias)
            sum += part.bias[mine];
        if (up)
            gate = sum;
        else if (product.gated)
            ct_finish_gated(product.epilogue, product.y, m, part.column + mine, gate, sum);
        else
            ct_finish(product.epilogue, product.y, m, part.column + mine, sum);
    }
}

/* ---- the host's part ---- */

typedef void (*kernel_function)(ct_cuda_product, few_plan);

template <ct_dtype dtype> static kernel_function kernel_for(int m)
{
    return m == 1   ? few_kernel<dtype, 1>
           : m == 2 ? few_kernel<dtype, 2>
           : m == 4 ? few_kernel<dtype, 4>
                    : few_kernel<dtype, 8>;
}

#define KERNEL(dtype)                                                                              \
    case dtype:                                                                                    \
        return kernel_for<dtype>(m);
static kernel_function kernel_of(ct_dtype dtype, int m)
{
    switch (dtype) {
        CT_PLAIN_WEIGHTS(KERNEL)
    default:
        return NULL;
    }
}

/* Warps that share a row: as many as make enough turns, while each has something to do. */
static int split_of(const ct_cuda_product *product)
{
    int64_t warps = ct_count_bands(product, MAX_WEIGHT_ROWS);
    int64_t wanted = (int64_t)TURNS_WANTED * BLOCKS_EACH * WARPS * ct_cuda_multiprocessors();
    int64_t values = (int64_t)CT_WARP * ct_read_values(product->dtype); /* of a warp's reads */
    int split = 1;
    while (split < WARPS && warps * split < wanted && values * split < product->x.width &&
           values * split * 2 <= TILE)
        split *= 2;
    return split;
}

static few_plan make_plan(const ct_cuda_product *product, int m)
{
    const ct_rows *x = &product->x;
    few_plan plan;
    int64_t fits = X_BYTES / (m * PLACE(TILE) * (int64_t)sizeof(float)) * TILE;
    plan.split = split_of(product);
    plan.tile = (int)(x->width <= fits ? (x->width + 31) / 32 * 32 : fits);
    plan.x_stride = PLACE(plan.tile);
    plan.x_in_fours = ct_in_fours(*x);
    plan.n_bands = ct_count_bands(product, WARPS / plan.split * weight_rows(product->dtype, m));
    return plan;
}

ct_status ct_cuda_product_few(const ct_cuda_product *product)
{
    int64_t n_rows = product->x.n_rows, most = (int64_t)BLOCKS_EACH * ct_cuda_multiprocessors();
    int m = n_rows == 1 ? 1 : n_rows == 2 ? 2 : n_rows <= 4 ? 4 : CT_FEW_ROWS;
    few_plan plan = make_plan(product, m);
    size_t shared = sizeof(float) * (size_t)m * (size_t)plan.x_stride;
    kernel_function kernel = kernel_of(product->dtype, m);
    unsigned blocks = (unsigned)(plan.n_bands < most ? plan.n_bands : most);
    CT_TRY(ct_cuda_allow_shared((const void *)kernel, shared));
    CT_KERNEL_EARLY(kernel, blocks, THREADS, shared, ct_cuda_stream(), *product, plan);
    return ct_cuda_launched("linear, few rows");
}
