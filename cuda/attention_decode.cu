/* Attention of single rows, by splitting their keys: a block for one span of a row's keys and some
 * query heads of one KV head, a warp for each of its chunks. Lanes run along positions for keys,
 * along features for values, two each, so that a warp reads whole lines straight to registers. Of
 * the blocks of a row's heads the one that ends last merges the spans. Where rows are still to be
 * rotated and appended, blocks do that for what they read. So there is one launch. */
#include "attention.h"

#include "rotary.h"

#define THREADS (CT_SPAN_CHUNKS * CT_WARP)
#define AHEAD 16 /* loads under way in a thread */
#define MERGED 4 /* spans whose values are loaded at a time */
#define LINE 128 /* bytes */

/* What spans gave, [units, n_heads, n_spans] each; a unit is a row or a sequence. */
typedef struct partials {
    float *values; /* and [d] */
    float *max, *total;
    float *keep, *take; /* by which the sum of the spans before and the span are multiplied */
    int n_spans;        /* 1: there is nothing to merge, and no memory */
    int64_t first_unit; /* of this launch */
} partials;

/* How many blocks of a unit's tile of heads have ended: of the launch that runs. */
#define MOST_TILES CT_MOST_HEADS
CT_KEPT(unsigned, ended, MOST_TILES);

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

/* Keys and values are on their way while queries are made: a thread reads few of them at a time. */
CT_DEVICE void prefetch(const char *data, int n_bytes)
{
    for (int at = threadIdx.x % CT_WARP * LINE; at < n_bytes; at += CT_WARP * LINE)
        ct_prefetch(data + at);
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

CT_DEVICE const float *values_of(const ct_attention_problem &problem, const single_row &row)
{
    return (const float *)problem.args.qkv.data + row.row * problem.args.qkv.stride;
}

/* Rotated. Heads behind the last one are zeros. */
template <int HEADS>
CT_DEVICE void load_queries(const block_sums &sums, const ct_attention_problem &problem,
                            const single_row &row, const heads &heads)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, in_group = heads.first - heads.kv_head * problem.group;
    const float *from = values_of(problem, row) + layout.q_offset +
                        heads.kv_head * layout.q_group_stride + (int64_t)in_group * d;
    for (int i = threadIdx.x; i < sums.ld_queries; i += THREADS) {
        ct_turn turn = ct_turn_of(problem.args.rotary, row.row, i);
        for (int h = 0; h < HEADS; h++)
            sums.queries[h * sums.ld_queries + i] =
                h < heads.n && i < d ? ct_turned_feature(from + h * d, i, turn) : 0;
    }
}

/* The row's key and value, into the page with `keys`. Every block that reads them there has written
 * them itself: those of other heads of the KV head write the same bytes, and none waits for
 * another. */
template <ct_dtype dtype>
CT_DEVICE void append(char *keys, const ct_attention_problem &problem, const single_row &row,
                      int kv_head)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, column = row.place % CT_CHUNK;
    int64_t block = (int64_t)d * CT_CHUNK;
    const float *from = values_of(problem, row) + kv_head * layout.kv_group_stride;
    for (int i = threadIdx.x; i < d; i += THREADS) {
        ct_turn turn = ct_turn_of(problem.args.rotary, row.row, i);
        ct_put<dtype>(keys, kv_head * block + i * CT_CHUNK + column,
                      ct_turned_feature(from + layout.k_offset, i, turn));
        ct_put<dtype>(keys, (layout.n_kv_heads + kv_head) * block + (int64_t)column * d + i,
                      from[layout.v_offset + i]);
    }
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

CT_DEVICE void put_out(const ct_attention_problem &problem, const single_row &row, int head,
                       int feature, float value)
{
    const ct_rows &out = problem.args.out;
    int64_t d = problem.args.layout.head_width;
    ct_put_as(out.dtype, out.data, row.row * out.stride + head * d + feature, value);
}

/* Adds the chunks that the row sees keys of, in order. The result is the row's where it `is_all`
 * that the row sees. */
template <int HEADS>
CT_DEVICE void add_chunks(const block_sums &sums, const ct_attention_problem &problem,
                          const single_row &row, const heads &heads, const partials &partials,
                          int first_chunk, int end_chunk, bool is_all)
{
    int d = (int)problem.args.layout.head_width;
    for (int at = threadIdx.x; at < heads.n * d; at += THREADS) {
        int h = at / d, feature = at % d, head = heads.first + h;
        float max = -INFINITY, total = 0, value = 0;
        for (int c = first_chunk; c < end_chunk; c++) {
            float correction = sums.correction[c * HEADS + h];
            max = fmaxf(max, sums.top[c * HEADS + h]);
            total = ct_add_chunk(total, correction, sums.sum[c * HEADS + h]);
            value = ct_add_chunk(value, correction, sums.values[c * HEADS * d + at]);
        }
        if (is_all) {
            put_out(problem, row, head, feature, value * ct_inverse(total));
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

/* ---- all spans ---- */

/* Spans [begin, end) of a row. */
typedef struct spans {
    int begin, end;
} spans;

/* Once the largest scores of all spans are known: a warp for a head, lanes along its spans, of
 * which `first` is the first of the sequence. */
CT_DEVICE void weigh_spans(const partials &partials, int64_t first, const spans &spans)
{
    int lane = threadIdx.x % CT_WARP;
    float before = -INFINITY;
    for (int begin = spans.begin; begin < spans.end; begin += CT_WARP) {
        bool is_one = begin + lane < spans.end;
        int64_t partial = first + begin + lane;
        float own = is_one ? partials.max[partial] : -INFINITY, top = fmaxf(before, own);
        for (int step = 1; step < CT_WARP; step *= 2)
            top = fmaxf(top, ct_shuffle(top, lane < step ? lane : lane - step));
        float last = ct_shuffle(top, lane > 0 ? lane - 1 : 0);
        if (is_one) {
            partials.keep[partial] = ct_correction(lane > 0 ? last : before, top);
            partials.take[partial] = ct_correction(own, top);
        }
        before = ct_shuffle(top, CT_WARP - 1);
    }
}

/* 1 float, or 4 that lie at a multiple of 16 bytes. */
template <int N> CT_DEVICE void load_features(float (&values)[N], const float *from)
{
    if constexpr (N == 4)
        ct_load_floats(values, from);
    else
        values[0] = *from;
}

/* N features of a head, 1 or 4: adds the row's spans in order. */
template <int N>
CT_DEVICE void merge_features(const partials &partials, const ct_attention_problem &problem,
                              const single_row &row, int head, int feature, const spans &spans)
{
    int64_t first = partial_of(problem, partials, blockIdx.x, head, 0);
    int64_t d = problem.args.layout.head_width;
    float total = 0, values[N] = {};
    for (int begin = spans.begin; begin < spans.end; begin += MERGED) {
        float loaded[MERGED][N];
        CT_UNROLL
        for (int i = 0; i < MERGED; i++)
            if (begin + i < spans.end)
                load_features<N>(loaded[i], partials.values + (first + begin + i) * d + feature);
        CT_UNROLL
        for (int i = 0; i < MERGED; i++)
            if (begin + i < spans.end) {
                int64_t partial = first + begin + i;
                float keep = partials.keep[partial], take = partials.take[partial];
                total = ct_merge_span(total, keep, partials.total[partial], take);
                CT_UNROLL
                for (int j = 0; j < N; j++)
                    values[j] = ct_merge_span(values[j], keep, loaded[i][j], take);
            }
    }
    CT_UNROLL
    for (int j = 0; j < N; j++)
        put_out(problem, row, head, feature + j, values[j] * ct_inverse(total));
}

template <int N>
CT_DEVICE void merge_heads(const partials &partials, const ct_attention_problem &problem,
                           const single_row &row, const heads &heads, const spans &spans)
{
    int d = (int)problem.args.layout.head_width;
    for (int at = threadIdx.x * N; at < heads.n * d; at += THREADS * N)
        merge_features<N>(partials, problem, row, heads.first + at / d, at % d, spans);
}

/* By all threads of the block that ended last. */
CT_DEVICE void merge(const partials &partials, const ct_attention_problem &problem,
                     const single_row &row, const heads &heads, const spans &spans)
{
    for (int h = threadIdx.x / CT_WARP; h < heads.n; h += THREADS / CT_WARP)
        weigh_spans(partials, partial_of(problem, partials, blockIdx.x, heads.first + h, 0), spans);
    ct_barrier();
    if (problem.args.layout.head_width % 4 == 0)
        merge_heads<4>(partials, problem, row, heads, spans);
    else
        merge_heads<1>(partials, problem, row, heads, spans);
}

/* ---- a block ---- */

/* That a multiprocessor has at a time, at least: bandwidth comes from loads under way in many of
 * them, and what merges, once, must not take registers from that. */
template <ct_dtype dtype, int HEADS> CT_CONSTANT int resident_blocks()
{
    if (dtype == CT_F32)
        return HEADS == 1 ? 6 : HEADS < 8 ? 5 : 4;
    return HEADS == 1 ? 8 : HEADS == 2 ? 7 : HEADS == 4 ? 6 : 5;
}

template <ct_dtype dtype, int HEADS>
CT_KERNEL CT_BOUNDS(THREADS, (resident_blocks<dtype, HEADS>()))
    span_kernel(ct_attention_problem problem, partials partials, bool single_only)
{
    single_row row;
    int begin = (int)blockIdx.z * CT_SPAN, chunk = threadIdx.x / CT_WARP;
    ct_keys keys = {};
    if (find_row(&row, problem, partials.first_unit + blockIdx.x, single_only))
        keys = ct_visible_keys(problem.args, row.place, row.place, row.n_keys);
    if (begin >= keys.end || begin + CT_SPAN <= keys.begin) {
        ct_wait_for_earlier();
        return;
    }
    int d = (int)problem.args.layout.head_width;
    heads heads = find_heads<HEADS>(problem, blockIdx.y);
    block_sums sums = new_block_sums<HEADS>(d);

    int first_chunk = keys.begin > begin ? (keys.begin - begin) / CT_CHUNK : 0;
    int left = keys.end - begin < CT_SPAN ? keys.end - begin : CT_SPAN;
    int end_chunk = (left + CT_CHUNK - 1) / CT_CHUNK, n = left - chunk * CT_CHUNK;
    n = chunk < first_chunk || n < 0 ? 0 : n < CT_CHUNK ? n : CT_CHUNK;
    int first = begin + chunk * CT_CHUNK;
    const char *page = n > 0 ? ct_cached_keys(problem.cache, row.sequence, first) : NULL;
    int64_t block = (int64_t)d * CT_CHUNK * (int64_t)(sizeof(pair<dtype>) / 2);
    const char *page_keys = page + heads.kv_head * block;
    const char *page_values = page_keys + problem.args.layout.n_kv_heads * block;
    prefetch(page_keys, n > 0 ? (int)block : 0);
    prefetch(page_values, (int)(sizeof(pair<dtype>) / 2) * n * d);
    ct_wait_for_earlier();
    load_queries<HEADS>(sums, problem, row, heads);
    if (problem.appends && row.place - begin < CT_SPAN) /* the last span */
        append<dtype>(ct_cached_keys(problem.cache, row.sequence, row.place), problem, row,
                      heads.kv_head);
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
    spans spans = {keys.begin / CT_SPAN, (keys.end + CT_SPAN - 1) / CT_SPAN};
    int n_spans = spans.end - spans.begin; /* whose blocks come as far as this */
    add_chunks<HEADS>(sums, problem, row, heads, partials, first_chunk, end_chunk, n_spans == 1);
    if (n_spans > 1 &&
        ct_block_is_last(&ended[blockIdx.x * gridDim.y + blockIdx.y], (unsigned)n_spans))
        merge(partials, problem, row, heads, spans);
}

/* ---- the host's part ---- */

/* Of `n_units` at a time. */
static ct_status new_partials(partials *out, const ct_attention_problem *problem, int64_t n_units,
                              ct_arena *arena)
{
    size_t n = (size_t)(n_units * problem->args.layout.n_heads * out->n_spans);
    size_t d = (size_t)problem->args.layout.head_width;
    CT_TRY(ct_arena_alloc(arena, (void **)&out->values, sizeof(float) * n * d));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->max, sizeof(float) * n));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->total, sizeof(float) * n));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->keep, sizeof(float) * n));
    return ct_arena_alloc(arena, (void **)&out->take, sizeof(float) * n);
}

/* In one launch, unless there is more to count than counters. */
template <ct_dtype dtype, int HEADS>
static ct_status launch_spans(const ct_attention_problem *problem, int64_t n_units,
                              bool single_only, ct_arena *arena)
{
    const ct_head_layout *layout = &problem->args.layout;
    size_t shared = block_bytes(HEADS, layout->head_width);
    int64_t tiles = layout->n_kv_heads * ((problem->group + HEADS - 1) / HEADS), at_once = n_units;
    partials partials = {};
    partials.n_spans = (int)((problem->args.max_places + CT_SPAN - 1) / CT_SPAN);
    if (partials.n_spans > 1) {
        at_once = n_units < MOST_TILES / tiles ? n_units : MOST_TILES / tiles;
        CT_TRY(new_partials(&partials, problem, at_once, arena));
    }
    CT_TRY(ct_cuda_allow_shared((const void *)span_kernel<dtype, HEADS>, shared));
    for (; partials.first_unit < n_units; partials.first_unit += at_once) {
        int64_t left = n_units - partials.first_unit;
        dim3 grid((unsigned)(left < at_once ? left : at_once), (unsigned)tiles,
                  (unsigned)partials.n_spans);
        CT_KERNEL_EARLY((span_kernel<dtype, HEADS>), grid, THREADS, shared, ct_cuda_stream(),
                        *problem, partials, single_only);
    }
    return ct_cuda_launched("attention");
}

template <ct_dtype dtype>
static ct_status launch_heads(const ct_attention_problem *problem, int64_t n_units,
                              bool single_only, ct_arena *arena)
{
    if (problem->group == 1)
        return launch_spans<dtype, 1>(problem, n_units, single_only, arena);
    if (problem->group == 2)
        return launch_spans<dtype, 2>(problem, n_units, single_only, arena);
    if (problem->group <= 4)
        return launch_spans<dtype, 4>(problem, n_units, single_only, arena);
    return launch_spans<dtype, 8>(problem, n_units, single_only, arena);
}

ct_status ct_cuda_attention_decode(const ct_attention_problem *problem, bool single_only,
                                   ct_arena *arena)
{
    const ct_attention_args *args = &problem->args;
    int64_t n_units = single_only ? args->n_sequences : args->qkv.n_rows;
    if (problem->cache.dtype == CT_F32)
        return launch_heads<CT_F32>(problem, n_units, single_only, arena);
    if (problem->cache.dtype == CT_F16)
        return launch_heads<CT_F16>(problem, n_units, single_only, arena);
    return launch_heads<CT_BF16>(problem, n_units, single_only, arena);
}
