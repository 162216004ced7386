/* Attention of single rows, by splitting their keys: a block for one span of a row's keys and some
 * query heads of one KV head, a warp for each of its chunks. Lanes run along positions for keys,
 * along features for values, two each, so that a warp reads whole lines straight to registers. A
 * second kernel merges the spans. */
#include "attention.h"

#define THREADS (CT_SPAN_CHUNKS * CT_WARP)
#define AHEAD 16 /* loads under way in a thread */
#define LINE 128 /* bytes */
#define MERGE_THREADS 128

/* What spans gave, [units, n_heads, n_spans] each; a unit is a row or a sequence. */
typedef struct partials {
    float *values; /* and [d] */
    float *max, *total;
    int n_spans; /* 1: there is nothing to merge, and no memory */
} partials;

/* A row, its place in its sequence, which has n_keys. */
typedef struct single_row {
    int64_t sequence, row;
    int place, n_keys;
} single_row;

/* Shared memory of a block. */
typedef struct block_sums {
    float *queries; /* [HEADS, ld_queries] */
    int ld_queries;
    float *weights;                /* [chunks, HEADS, CT_CHUNK] */
    float *values;                 /* [chunks, HEADS, d] */
    float *top, *correction, *sum; /* [chunks, HEADS] */
} block_sums;

#define LD_QUERIES(d) ((int)((d) + 3) / 4 * 4)

static size_t block_bytes(int heads, int64_t d)
{
    return sizeof(float) * (size_t)heads *
           (LD_QUERIES(d) + CT_SPAN_CHUNKS * (CT_CHUNK + (size_t)d + 3));
}

template <int HEADS> CT_DEVICE block_sums new_block_sums(int d)
{
    block_sums sums;
    sums.ld_queries = LD_QUERIES(d);
    sums.queries = (float *)ct_dynamic_shared();
    sums.weights = sums.queries + HEADS * sums.ld_queries;
    sums.values = sums.weights + CT_SPAN_CHUNKS * HEADS * CT_CHUNK;
    sums.top = sums.values + CT_SPAN_CHUNKS * HEADS * d;
    sums.correction = sums.top + CT_SPAN_CHUNKS * HEADS;
    sums.sum = sums.correction + CT_SPAN_CHUNKS * HEADS;
    return sums;
}

/* Unit `unit` is a row of the batch or, of `single_only`, a sequence, which may not count. */
CT_DEVICE bool find_row(single_row *out, const ct_attention_problem &problem, int64_t unit,
                        bool single_only)
{
    const int64_t *offsets = problem.args.offsets;
    out->sequence = single_only ? unit : ct_sequence_of(offsets, problem.args.n_sequences, unit);
    int64_t first = offsets[out->sequence], end = offsets[out->sequence + 1];
    int before = (int)problem.cache.lengths[out->sequence];
    out->row = single_only ? first : unit;
    out->place = before + (int)(out->row - first);
    out->n_keys = before + (int)(end - first);
    return !single_only || end - first == 1;
}

/* ---- keys ---- */

/* Two neighbouring values, the first in the lower half. */
template <ct_dtype dtype> struct pair {
    typedef uint16_t half;
    uint32_t bits;
};
template <> struct pair<CT_F32> {
    typedef uint32_t half;
    uint64_t bits;
};

template <typename T> CT_DEVICE T load_bits(const char *from)
{
    T bits;
    memcpy(&bits, __builtin_assume_aligned(from, sizeof bits), sizeof bits);
    return bits;
}

template <ct_dtype dtype> CT_DEVICE pair<dtype> load_pair(const char *data, int64_t i)
{
    return {load_bits<decltype(pair<dtype>::bits)>(data + i * (sizeof(pair<dtype>) / 2))};
}

/* The same where the address is a multiple of one value's size only, and the second value may be
 * none. */
template <ct_dtype dtype> CT_DEVICE pair<dtype> load_halves(const char *data, int64_t i, bool both)
{
    typedef typename pair<dtype>::half half;
    const char *from = data + i * sizeof(half);
    pair<dtype> loaded = {load_bits<half>(from)};
    if (both)
        loaded.bits |= (decltype(loaded.bits))load_bits<half>(from + sizeof(half))
                       << 8 * sizeof(half);
    return loaded;
}

template <ct_dtype dtype> CT_DEVICE float value_of(pair<dtype> pair, int which)
{
    if constexpr (dtype == CT_F32)
        return ct_float_of_bits((uint32_t)(pair.bits >> which * 32));
    else
        return ct_float_of_half_word<dtype>(pair.bits >> which * 16);
}

/* Four features of two keys, for all heads. */
template <ct_dtype dtype, int HEADS>
CT_DEVICE void multiply_four(float (&products)[HEADS][2], const float *queries, int ld,
                             const pair<dtype> *keys)
{
    CT_UNROLL
    for (int h = 0; h < HEADS; h++) {
        ct_four query = ct_load_four(queries + h * ld);
        CT_UNROLL
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 2; j++)
                products[h][j] = fmaf(query.value[i], value_of<dtype>(keys[i], j), products[h][j]);
    }
}

/* N features, a multiple of 4, from `feature` on; `keys` are the lane's two of the chunk. */
template <ct_dtype dtype, int HEADS, int N>
CT_DEVICE void multiply_features(float (&products)[HEADS][2], const block_sums &sums,
                                 const char *keys, int feature, int d)
{
    pair<dtype> loaded[N];
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        loaded[i].bits = 0;
        if (feature + i < d)
            loaded[i] = load_pair<dtype>(keys, (feature + i) * CT_CHUNK);
    }
    CT_UNROLL
    for (int i = 0; i < N; i += 4)
        multiply_four<dtype, HEADS>(products, sums.queries + feature + i, sums.ld_queries,
                                    loaded + i);
}

template <ct_dtype dtype, int HEADS>
CT_DEVICE void multiply_keys(float (&products)[HEADS][2], const block_sums &sums, const char *keys,
                             int d)
{
    int feature = 0;
    for (; feature + AHEAD <= d; feature += AHEAD)
        multiply_features<dtype, HEADS, AHEAD>(products, sums, keys, feature, d);
    for (; feature < d; feature += 4)
        multiply_features<dtype, HEADS, 4>(products, sums, keys, feature, d);
}

/* ---- values ---- */

/* N keys, a multiple of 4: their weighted values, of the lane's two features. Pairs of an odd
 * number of features are not aligned. */
template <ct_dtype dtype, int HEADS, int N>
CT_DEVICE void add_keys(float (&chunk)[HEADS][2], const float *weights, const char *values,
                        int feature, int first, int n, int d)
{
    pair<dtype> loaded[N];
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        int64_t at = (int64_t)(first + i) * d + feature;
        loaded[i].bits = 0;
        if (first + i < n && d % 2 == 0)
            loaded[i] = load_pair<dtype>(values, at);
        else if (first + i < n)
            loaded[i] = load_halves<dtype>(values, at, feature + 1 < d);
    }
    CT_UNROLL
    for (int i = 0; i < N; i += 4)
        for (int h = 0; h < HEADS; h++) {
            ct_four weight = ct_load_four(weights + h * CT_CHUNK + first + i);
            CT_UNROLL
            for (int k = 0; k < 4; k++)
                for (int j = 0; j < 2; j++)
                    chunk[h][j] =
                        fmaf(weight.value[k], value_of<dtype>(loaded[i + k], j), chunk[h][j]);
        }
}

/* Values are on their way while keys are multiplied. */
CT_DEVICE void prefetch(const char *values, int n_bytes)
{
    for (int at = threadIdx.x % CT_WARP * LINE; at < n_bytes; at += CT_WARP * LINE)
        ct_prefetch(values + at);
}

/* The chunk's weighted values, into [HEADS, d]. */
template <ct_dtype dtype, int HEADS>
CT_DEVICE void add_values(float *to, const float *weights, const char *values, int n, int d)
{
    for (int feature = threadIdx.x % CT_WARP * 2; feature < d; feature += 2 * CT_WARP) {
        float chunk[HEADS][2] = {};
        int first = 0;
        for (; first + AHEAD <= n; first += AHEAD)
            add_keys<dtype, HEADS, AHEAD>(chunk, weights, values, feature, first, n, d);
        for (; first < n; first += 4)
            add_keys<dtype, HEADS, 4>(chunk, weights, values, feature, first, n, d);
        CT_UNROLL
        for (int h = 0; h < HEADS; h++)
            for (int j = 0; j < 2 && feature + j < d; j++)
                to[h * d + feature + j] = chunk[h][j];
    }
}

/* ---- a span ---- */

/* Heads [first, first + n) of the model, of one KV head. */
typedef struct heads {
    int kv_head, first, n;
} heads;

template <int HEADS> CT_DEVICE heads find_heads(const ct_attention_problem &problem, int tile)
{
    int tiles = (problem.group + HEADS - 1) / HEADS, kv_head = tile / tiles;
    int first = tile % tiles * HEADS, left = problem.group - first;
    return {kv_head, kv_head * problem.group + first, left < HEADS ? left : HEADS};
}

/* Heads behind the last one are zeros. */
template <int HEADS>
CT_DEVICE void load_queries(const block_sums &sums, const ct_attention_problem &problem,
                            const single_row &row, const heads &heads)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, in_group = heads.first - heads.kv_head * problem.group;
    const float *from = (const float *)problem.args.qkv.data + row.row * problem.args.qkv.stride +
                        layout.q_offset + heads.kv_head * layout.q_group_stride +
                        (int64_t)in_group * d;
    for (int h = 0; h < HEADS; h++)
        for (int i = threadIdx.x; i < sums.ld_queries; i += THREADS)
            sums.queries[h * sums.ld_queries + i] = h < heads.n && i < d ? from[h * d + i] : 0;
}

/* Scores of the lane's two keys of a chunk of n. */
template <int HEADS>
CT_DEVICE void score(float (&scores)[HEADS][2], const ct_attention_problem &problem,
                     const single_row &row, const heads &heads, int first, int n)
{
    int key = threadIdx.x % CT_WARP * 2;
    int in_sequence = (int)(row.row - problem.args.offsets[row.sequence]);
    CT_UNROLL
    for (int h = 0; h < HEADS; h++) {
        ct_query query = {row.sequence, in_sequence, row.place,
                          heads.first + (h < heads.n ? h : 0)};
        CT_UNROLL
        for (int j = 0; j < 2; j++)
            scores[h][j] = key + j < n
                               ? ct_score(problem.args, scores[h][j], query, first + key + j)
                               : -INFINITY;
    }
}

/* Makes weights of a chunk's scores, once the largest of every chunk are known. */
template <int HEADS>
CT_DEVICE void weigh(const block_sums &sums, float (&scores)[HEADS][2], int chunk)
{
    int lane = threadIdx.x % CT_WARP;
    CT_UNROLL
    for (int h = 0; h < HEADS; h++) {
        float before = -INFINITY, *weights = sums.weights + (chunk * HEADS + h) * CT_CHUNK;
        for (int c = 0; c < chunk; c++)
            before = fmaxf(before, sums.top[c * HEADS + h]);
        float top = fmaxf(before, sums.top[chunk * HEADS + h]);
        float sum = ct_weigh(scores[h], top);
        weights[2 * lane] = scores[h][0];
        weights[2 * lane + 1] = scores[h][1];
        if (lane == 0) {
            sums.correction[chunk * HEADS + h] = ct_correction(before, top);
            sums.sum[chunk * HEADS + h] = sum;
        }
    }
}

/* Where the results of the unit's head and span go. */
CT_DEVICE int64_t partial_of(const ct_attention_problem &problem, const partials &partials,
                             int64_t unit, int head, int span)
{
    return (unit * problem.args.layout.n_heads + head) * partials.n_spans + span;
}

/* Adds the chunks that the row sees keys of, in order. */
template <int HEADS>
CT_DEVICE void add_chunks(const block_sums &sums, const ct_attention_problem &problem,
                          const single_row &row, const heads &heads, const partials &partials,
                          int first_chunk, int end_chunk)
{
    int d = (int)problem.args.layout.head_width;
    const ct_rows &out = problem.args.out;
    for (int at = threadIdx.x; at < heads.n * d; at += THREADS) {
        int h = at / d, feature = at % d, head = heads.first + h;
        float max = -INFINITY, total = 0, value = 0;
        for (int c = first_chunk; c < end_chunk; c++) {
            float correction = sums.correction[c * HEADS + h];
            max = fmaxf(max, sums.top[c * HEADS + h]);
            total = ct_add_chunk(total, correction, sums.sum[c * HEADS + h]);
            value = ct_add_chunk(value, correction, sums.values[c * HEADS * d + at]);
        }
        if (partials.n_spans == 1) {
            ct_put_as(out.dtype, out.data, row.row * out.stride + (int64_t)head * d + feature,
                      value * ct_inverse(total));
            continue;
        }
        int64_t partial = partial_of(problem, partials, blockIdx.x, head, blockIdx.z);
        partials.values[partial * d + feature] = value;
        if (feature == 0) {
            partials.max[partial] = max;
            partials.total[partial] = total;
        }
    }
}

template <ct_dtype dtype, int HEADS>
CT_KERNEL CT_BOUNDS(THREADS, 4)
    span_kernel(ct_attention_problem problem, partials partials, bool single_only)
{
    single_row row;
    if (!find_row(&row, problem, blockIdx.x, single_only))
        return;
    int begin = (int)blockIdx.z * CT_SPAN, chunk = threadIdx.x / CT_WARP;
    ct_keys keys = ct_visible_keys(problem.args, row.place, row.place, row.n_keys);
    if (begin >= keys.end || begin + CT_SPAN <= keys.begin)
        return;
    int d = (int)problem.args.layout.head_width;
    heads heads = find_heads<HEADS>(problem, blockIdx.y);
    block_sums sums = new_block_sums<HEADS>(d);
    load_queries<HEADS>(sums, problem, row, heads);

    int first_chunk = keys.begin > begin ? (keys.begin - begin) / CT_CHUNK : 0;
    int left = keys.end - begin < CT_SPAN ? keys.end - begin : CT_SPAN;
    int end_chunk = (left + CT_CHUNK - 1) / CT_CHUNK, n = left - chunk * CT_CHUNK;
    n = chunk < first_chunk || n < 0 ? 0 : n < CT_CHUNK ? n : CT_CHUNK;
    int first = begin + chunk * CT_CHUNK;
    const char *page = n > 0 ? ct_cached_keys(problem.cache, row.sequence, first) : NULL;
    int64_t block = (int64_t)d * CT_CHUNK * (int64_t)(sizeof(pair<dtype>) / 2);
    const char *page_keys = page + heads.kv_head * block;
    const char *page_values = page_keys + problem.args.layout.n_kv_heads * block;
    prefetch(page_values, (int)(sizeof(pair<dtype>) / 2) * n * d);
    ct_barrier();

    float scores[HEADS][2] = {};
    if (n > 0)
        multiply_keys<dtype, HEADS>(scores, sums,
                                    page_keys + threadIdx.x % CT_WARP * sizeof(pair<dtype>), d);
    score<HEADS>(scores, problem, row, heads, first, n);
    CT_UNROLL
    for (int h = 0; h < HEADS; h++) {
        float top = ct_largest(scores[h]);
        if (threadIdx.x % CT_WARP == 0)
            sums.top[chunk * HEADS + h] = top;
    }
    ct_barrier();
    weigh<HEADS>(sums, scores, chunk);
    ct_warp_barrier();
    add_values<dtype, HEADS>(sums.values + chunk * HEADS * d,
                             sums.weights + chunk * HEADS * CT_CHUNK, page_values, n, d);
    ct_barrier();
    add_chunks<HEADS>(sums, problem, row, heads, partials, first_chunk, end_chunk);
}

/* ---- all spans ---- */

/* A block for a head of a row: merges the spans that the row sees keys of, in order. */
CT_KERNEL merge_kernel(ct_attention_problem problem, partials partials, bool single_only)
{
    single_row row;
    if (!find_row(&row, problem, blockIdx.x, single_only))
        return;
    ct_keys keys = ct_visible_keys(problem.args, row.place, row.place, row.n_keys);
    int d = (int)problem.args.layout.head_width, head = blockIdx.y;
    const ct_rows &out = problem.args.out;
    for (int feature = threadIdx.x; feature < d; feature += MERGE_THREADS) {
        float max = -INFINITY, total = 0, value = 0;
        for (int span = keys.begin / CT_SPAN; span * CT_SPAN < keys.end; span++) {
            int64_t partial = partial_of(problem, partials, blockIdx.x, head, span);
            float top = fmaxf(max, partials.max[partial]);
            float keep = ct_correction(max, top);
            float take = ct_correction(partials.max[partial], top);
            total = ct_merge_span(total, keep, partials.total[partial], take);
            value = ct_merge_span(value, keep, partials.values[partial * d + feature], take);
            max = top;
        }
        ct_put_as(out.dtype, out.data, row.row * out.stride + (int64_t)head * d + feature,
                  value * ct_inverse(total));
    }
}

/* ---- the host's part ---- */

static ct_status new_partials(partials *out, const ct_attention_problem *problem, int64_t n_units,
                              ct_arena *arena)
{
    int64_t d = problem->args.layout.head_width;
    int64_t n_spans = (problem->args.max_places + CT_SPAN - 1) / CT_SPAN;
    size_t n = (size_t)(n_units * problem->args.layout.n_heads * n_spans);
    *out = {NULL, NULL, NULL, (int)n_spans};
    if (n_spans == 1)
        return CT_OK;
    CT_TRY(ct_arena_alloc(arena, (void **)&out->values, sizeof(float) * n * (size_t)d));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->max, sizeof(float) * n));
    return ct_arena_alloc(arena, (void **)&out->total, sizeof(float) * n);
}

template <ct_dtype dtype, int HEADS>
static ct_status launch_spans(const ct_attention_problem *problem, const partials &partials,
                              int64_t n_units, bool single_only)
{
    const ct_head_layout *layout = &problem->args.layout;
    size_t shared = block_bytes(HEADS, layout->head_width);
    CT_TRY(ct_cuda_allow_shared((const void *)span_kernel<dtype, HEADS>, shared));
    int64_t tiles = layout->n_kv_heads * ((problem->group + HEADS - 1) / HEADS);
    dim3 grid((unsigned)n_units, (unsigned)tiles, (unsigned)partials.n_spans);
    CT_KERNEL_CALL((span_kernel<dtype, HEADS>), grid, THREADS, shared, ct_cuda_stream(), *problem,
                   partials, single_only);
    return ct_cuda_launched("attention");
}

template <ct_dtype dtype>
static ct_status launch_heads(const ct_attention_problem *problem, const partials &partials,
                              int64_t n_units, bool single_only)
{
    if (problem->group == 1)
        return launch_spans<dtype, 1>(problem, partials, n_units, single_only);
    if (problem->group == 2)
        return launch_spans<dtype, 2>(problem, partials, n_units, single_only);
    if (problem->group <= 4)
        return launch_spans<dtype, 4>(problem, partials, n_units, single_only);
    return launch_spans<dtype, 8>(problem, partials, n_units, single_only);
}

ct_status ct_cuda_attention_decode(const ct_attention_problem *problem, bool single_only,
                                   ct_arena *arena)
{
    const ct_attention_args *args = &problem->args;
    int64_t n_units = single_only ? args->n_sequences : args->qkv.n_rows;
    partials partials;
    CT_TRY(new_partials(&partials, problem, n_units, arena));
    if (problem->cache.dtype == CT_F32)
        CT_TRY(launch_heads<CT_F32>(problem, partials, n_units, single_only));
    else if (problem->cache.dtype == CT_F16)
        CT_TRY(launch_heads<CT_F16>(problem, partials, n_units, single_only));
    else
        CT_TRY(launch_heads<CT_BF16>(problem, partials, n_units, single_only));
    if (partials.n_spans == 1)
        return CT_OK;
    dim3 grid((unsigned)n_units, (unsigned)args->layout.n_heads);
    CT_KERNEL_CALL(merge_kernel, grid, MERGE_THREADS, 0, ct_cuda_stream(), *problem, partials,
                   single_only);
    return ct_cuda_launched("attention");
}
