/* Attention of many rows by the tensor cores, for models in f16 or bf16 (FlashAttention-2, Dao
 * 2023): queries, keys, values and the softmax's weights are rounded to the model's type; scores,
 * weights' sums and weighted values are f32.
 *
 * A warp has bands of 16 rows of the block's tile, with their scores and sums in registers. Keys
 * and values take turns in shared memory: while keys are multiplied a chunk's values arrive, and
 * the next chunk's keys while values are. Scores count in powers of two. */
#include "attention_tiles.h"

#define WARPS 4
#define THREADS (WARPS * CT_WARP)
#define BAND 16
#define COLUMNS 8                       /* of a product */
#define KEY_GROUPS (CT_CHUNK / COLUMNS) /* products for a chunk's scores */
#define KEY_STEPS (CT_CHUNK / 16)       /* and those for its values, one after the other */
#define EIGHT 8                         /* values in a unit of shared memory, of 16 bytes */
#define KEY_UNITS (CT_CHUNK / EIGHT)    /* of a feature */
/* From row to row, of an even number of units. Of 256 values the units change places instead of
 * leaving gaps, for which GPUs with the least memory have no room. */
#define UNIT_ROW(n_units) ((n_units) == CT_WHOLE_WIDTH / EIGHT ? (n_units) : (n_units) + 1)
#define AHEAD 2 /* units that a thread reads before it converts them */
#define LOG2_E 1.4426950408889634f

/* A kernel: its operands' type, where keys and values are (pages, or rows in f32), the most values
 * of a head, bands of a warp; where its arrays begin in shared memory, in units. */
template <ct_dtype TYPE_, bool IS_CACHED_, int WIDTH_, int BANDS_> struct form {
    static constexpr ct_dtype TYPE = TYPE_;
    static constexpr bool IS_CACHED = IS_CACHED_;
    enum {
        WIDTH = WIDTH_,
        BANDS = BANDS_,
        ROWS = WARPS * BANDS * BAND,
        UNITS = WIDTH / EIGHT,
        QUERIES = 0, /* [ROWS][UNITS] */
        KEYS = QUERIES + ROWS * UNIT_ROW(UNITS),
        /* [CT_CHUNK][UNITS] or, as pages have them, [WIDTH][KEY_UNITS]; behind the features zeros
         */
        VALUES = KEYS + (IS_CACHED ? WIDTH * KEY_UNITS : CT_CHUNK * UNIT_ROW(UNITS)),
        SIZE = VALUES + CT_CHUNK * UNIT_ROW(UNITS) /* [CT_CHUNK][UNITS]; zeros behind the keys */
    };
};

/* Unit `unit` of a row of UNITS. Neither the eight rows of a matrix nor neighbours in a row meet in
 * a bank. */
template <int UNITS> CT_DEVICE uint4 *unit_at(int array, int row, int unit)
{
    int place = UNIT_ROW(UNITS) == UNITS ? unit ^ row % EIGHT : unit;
    return (uint4 *)ct_dynamic_shared() + array + row * UNIT_ROW(UNITS) + place;
}

/* The same of a feature's keys as pages have them. */
CT_DEVICE uint4 *key_unit_at(int array, int feature, int unit)
{
    return (uint4 *)ct_dynamic_shared() + array + feature * KEY_UNITS +
           (unit ^ feature % KEY_UNITS);
}

CT_DEVICE int lane_of_warp()
{
    return threadIdx.x % CT_WARP;
}

/* ---- to shared memory ---- */

template <ct_dtype type> CT_DEVICE uint32_t pack(float first, float second)
{
    return type == CT_F16 ? ct_pack_halves(first, second) : ct_pack_bfloats(first, second);
}

template <ct_dtype type> CT_DEVICE uint4 pack_eight(const float (&values)[EIGHT])
{
    return {pack<type>(values[0], values[1]), pack<type>(values[2], values[3]),
            pack<type>(values[4], values[5]), pack<type>(values[6], values[7])};
}

/* Eight values, of which those from `left` on are zeros. */
CT_DEVICE void read_eight(float (&values)[EIGHT], const float *from, int left)
{
    if (left >= EIGHT && (uintptr_t)from % 16 == 0) {
        ct_four low = ct_load_four(from), high = ct_load_four(from + 4);
        CT_UNROLL
        for (int i = 0; i < 4; i++) {
            values[i] = low.value[i];
            values[4 + i] = high.value[i];
        }
        return;
    }
    CT_UNROLL
    for (int i = 0; i < EIGHT; i++)
        values[i] = i < left ? from[i] : 0;
}

/* Rows behind the sequence's last one count as that one, and are not written. */
template <typename F>
CT_DEVICE void load_queries(const ct_attention_problem &problem, const ct_tile_place &place)
{
    int d = (int)problem.args.layout.head_width;
    CT_UNROLL_BY(1)
    for (int at = threadIdx.x; at < F::ROWS * F::UNITS; at += THREADS) {
        int r = at / F::UNITS, unit = at % F::UNITS, row = place.first + r;
        ct_query query = ct_query_of(problem, place, row < place.end ? row : place.end - 1);
        float values[EIGHT];
        read_eight(values, ct_query_values(problem, place, query) + unit * EIGHT, d - unit * EIGHT);
        ct_store16(unit_at<F::UNITS>(F::QUERIES, r, unit), pack_eight<F::TYPE>(values));
    }
}

/* A chunk's keys or values from rows of f32: n rows and zeros behind them, d features and zeros. */
template <typename F>
CT_DEVICE void convert_rows(int array, const float *from, int64_t stride, int n, int d)
{
    CT_UNROLL_BY(1)
    for (int first = threadIdx.x; first < CT_CHUNK * F::UNITS; first += AHEAD * THREADS) {
        float values[AHEAD][EIGHT];
        CT_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            int row = (first + i * THREADS) / F::UNITS, unit = (first + i * THREADS) % F::UNITS;
            read_eight(values[i], from + row * stride + unit * EIGHT,
                       row < n ? d - unit * EIGHT : 0);
        }
        CT_UNROLL
        for (int i = 0; i < AHEAD; i++) {
            int row = (first + i * THREADS) / F::UNITS, unit = (first + i * THREADS) % F::UNITS;
            ct_store16(unit_at<F::UNITS>(array, row, unit), pack_eight<F::TYPE>(values[i]));
        }
    }
}

/* A chunk's keys from the page, all positions of it: scores of those that nobody wrote are not
 * looked at. */
CT_DEVICE void copy_keys(int array, const uint16_t *from, int d)
{
    for (int at = threadIdx.x; at < d * KEY_UNITS; at += THREADS)
        ct_copy_async(key_unit_at(array, at / KEY_UNITS, at % KEY_UNITS), from + at * EIGHT, 16);
}

/* Eight values of a page where rows do not begin at multiples of 16 bytes. */
CT_DEVICE uint4 gather_eight(const uint16_t *from, int left)
{
    uint32_t words[4];
    CT_UNROLL
    for (int i = 0; i < 4; i++)
        words[i] = (2 * i < left ? from[2 * i] : 0u) |
                   (2 * i + 1 < left ? (uint32_t)from[2 * i + 1] : 0u) << 16;
    return {words[0], words[1], words[2], words[3]};
}

/* A chunk's values from the page, and zeros for those that nobody wrote: their weights are 0. */
template <typename F> CT_DEVICE void copy_values(int array, const uint16_t *from, int n, int d)
{
    bool aligned = d % EIGHT == 0;
    for (int at = threadIdx.x; at < CT_CHUNK * F::UNITS; at += THREADS) {
        int row = at / F::UNITS, unit = at % F::UNITS, left = d - unit * EIGHT;
        const uint16_t *values = from + row * d + unit * EIGHT;
        uint4 *to = unit_at<F::UNITS>(array, row, unit);
        if (left > 0 && aligned)
            ct_copy_async(to, values, row < n ? 16 : 0);
        else if (left > 0)
            ct_store16(to, gather_eight(values, row < n ? left : 0));
    }
}

/* What a chunk's products are made of, in the page and in the batch's rows. */
CT_DEVICE const uint16_t *page_of(const ct_attention_problem &problem, const ct_tile_place &place,
                                  int first, int matrix)
{
    int64_t block = problem.args.layout.head_width * CT_CHUNK;
    return (const uint16_t *)ct_cached_keys(problem.cache, place.sequence, first) + matrix * block;
}

CT_DEVICE const float *rows_of(const ct_attention_problem &problem, const ct_tile_place &place,
                               int first, int64_t offset)
{
    const ct_rows &qkv = problem.args.qkv;
    return (const float *)qkv.data + (place.first_row + first) * qkv.stride + offset +
           place.kv_head * problem.args.layout.kv_group_stride;
}

template <typename F>
CT_DEVICE void bring_keys(const ct_attention_problem &problem, const ct_tile_place &place,
                          int first, int n)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width;
    if constexpr (F::IS_CACHED)
        copy_keys(F::KEYS, page_of(problem, place, first, place.kv_head), d);
    else
        convert_rows<F>(F::KEYS, rows_of(problem, place, first, layout.k_offset),
                        problem.args.qkv.stride, n, d);
}

template <typename F>
CT_DEVICE void bring_values(const ct_attention_problem &problem, const ct_tile_place &place,
                            int first, int n)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width;
    if constexpr (F::IS_CACHED)
        copy_values<F>(F::VALUES,
                       page_of(problem, place, first, (int)layout.n_kv_heads + place.kv_head), n,
                       d);
    else
        convert_rows<F>(F::VALUES, rows_of(problem, place, first, layout.v_offset),
                        problem.args.qkv.stride, n, d);
}

/* Features that a page does not have: queries have zeros there, which not everything times is 0. */
template <typename F> CT_DEVICE void clear_features(int d)
{
    if (F::IS_CACHED)
        for (int at = d * KEY_UNITS + threadIdx.x; at < F::WIDTH * KEY_UNITS; at += THREADS)
            ct_store16(key_unit_at(F::KEYS, at / KEY_UNITS, at % KEY_UNITS), {0, 0, 0, 0});
}

/* ---- the warp's rows ---- */

typedef struct warp_rows {
    int in_tile; /* the first one */
    int first_place, last_place;
    ct_keys keys; /* that any of them sees; none where there are no rows */
} warp_rows;

template <typename F>
CT_DEVICE warp_rows find_rows(const ct_attention_problem &problem, const ct_tile_place &place)
{
    warp_rows own;
    own.in_tile = (int)threadIdx.x / CT_WARP * F::BANDS * BAND;
    int first = place.first + own.in_tile, end = first + F::BANDS * BAND;
    end = end < place.end ? end : place.end;
    own.first_place = place.before + first / problem.group;
    own.last_place = place.before + (end - 1) / problem.group;
    own.keys = {0, 0};
    if (first < end)
        own.keys =
            ct_visible_keys(problem.args, own.first_place, own.last_place, place.before + place.n);
    return own;
}

/* Whether all of them see all keys of the chunk. */
CT_DEVICE bool all_see_all(const ct_attention_args &args, const warp_rows &own, int first)
{
    int last = first + CT_CHUNK - 1;
    bool near = own.last_place - first < args.window && last - own.first_place < args.window;
    return !args.mask && last < own.keys.end && (!args.causal || last <= own.first_place) &&
           (args.window == 0 || near);
}

/* The row of band `band` that the lane has the `half`th part of. */
CT_DEVICE int row_of_lane(const warp_rows &own, int band, int half)
{
    return own.in_tile + band * BAND + half * 8 + lane_of_warp() / 4;
}

/* What a warp holds of its rows. Of a product a lane has two columns of two rows, see ct_mma. */
template <typename F> struct row_sums {
    float values[F::BANDS][F::WIDTH / COLUMNS][4];
    float max[F::BANDS][2], total[F::BANDS][2]; /* the latter of the lane's own columns */
};

template <typename F> struct row_scores {
    float value[F::BANDS][KEY_GROUPS][4];
};

/* ---- products ---- */

template <ct_dtype type>
CT_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t *b)
{
    if (type == CT_F16)
        ct_mma_halves(d, a, b);
    else
        ct_mma(d, a, b);
}

/* 16 features of 16 keys, as two products' right sides. */
template <typename F> CT_DEVICE void load_keys(uint32_t (&keys)[4], int feature_step, int key_step)
{
    int lane = lane_of_warp();
    if constexpr (F::IS_CACHED)
        ct_load_transposed(
            keys, key_unit_at(F::KEYS, feature_step * 16 + lane % 16, key_step * 2 + lane / 16));
    else
        ct_load_matrices(keys, unit_at<F::UNITS>(F::KEYS, key_step * 16 + lane / 16 * 8 + lane % 8,
                                                 feature_step * 2 + lane / 8 % 2));
}

template <typename F> CT_DEVICE void multiply_keys(row_scores<F> &scores, const warp_rows &own)
{
    int lane = lane_of_warp();
    CT_UNROLL
    for (int step = 0; step < F::WIDTH / 16; step++) {
        uint32_t queries[F::BANDS][4], keys[4];
        CT_UNROLL
        for (int band = 0; band < F::BANDS; band++)
            ct_load_matrices(queries[band],
                             unit_at<F::UNITS>(F::QUERIES, own.in_tile + band * BAND + lane % 16,
                                               step * 2 + lane / 16));
        CT_UNROLL
        for (int pair = 0; pair < KEY_GROUPS / 2; pair++) {
            load_keys<F>(keys, step, pair);
            CT_UNROLL
            for (int band = 0; band < F::BANDS; band++) {
                multiply_add<F::TYPE>(scores.value[band][2 * pair], queries[band], keys);
                multiply_add<F::TYPE>(scores.value[band][2 * pair + 1], queries[band], keys + 2);
            }
        }
    }
}

/* Weights of 16 keys, where the lane has them as scores, are a left side as they lie. */
template <typename F>
CT_DEVICE void multiply_values(row_sums<F> &sums, const row_scores<F> &weights)
{
    int lane = lane_of_warp();
    CT_UNROLL
    for (int step = 0; step < KEY_STEPS; step++) {
        uint32_t left[F::BANDS][4], values[4];
        CT_UNROLL
        for (int band = 0; band < F::BANDS; band++)
            CT_UNROLL
        for (int i = 0; i < 4; i++) {
            const float *two = weights.value[band][2 * step + i / 2] + i % 2 * 2;
            left[band][i] = pack<F::TYPE>(two[0], two[1]);
        }
        CT_UNROLL
        for (int pair = 0; pair < F::WIDTH / 16; pair++) {
            ct_load_transposed(
                values, unit_at<F::UNITS>(F::VALUES, step * 16 + lane % 16, pair * 2 + lane / 16));
            CT_UNROLL
            for (int band = 0; band < F::BANDS; band++) {
                multiply_add<F::TYPE>(sums.values[band][2 * pair], left[band], values);
                multiply_add<F::TYPE>(sums.values[band][2 * pair + 1], left[band], values + 2);
            }
        }
    }
}

/* ---- softmax ---- */

/* Products of one row become scores, times log2 e; -INFINITY where a key is not seen. Roundings are
 * those of any kernel and chunk. */
CT_DEVICE void score_row(float (&scores)[KEY_GROUPS][4], int half, const ct_attention_args &args,
                         const ct_query &query, int first, int end, bool sees_all)
{
    bool is_product = !args.alibi_slopes && !args.distance_bias && !(args.logit_softcap > 0);
    float scale = args.scale * LOG2_E;
    int key = first + lane_of_warp() % 4 * 2;
    CT_UNROLL
    for (int at = 0; at < 2 * KEY_GROUPS; at++) {
        float &score = scores[at / 2][2 * half + at % 2];
        if (is_product)
            score = ct_mul_exact(score, scale);
        else
            score = ct_mul_exact(ct_seen_score(args, score, query, key + at / 2 * COLUMNS + at % 2),
                                 LOG2_E);
    }
    if (sees_all)
        return;
    CT_UNROLL
    for (int at = 0; at < 2 * KEY_GROUPS; at++) {
        int own = key + at / 2 * COLUMNS + at % 2;
        if (own >= end || !ct_sees(args, query, own))
            scores[at / 2][2 * half + at % 2] = -INFINITY;
    }
}

/* Scores of one row become weights relative to the largest so far, and so do its sums. */
template <typename F>
CT_DEVICE void weigh_row(row_sums<F> &sums, row_scores<F> &scores, int band, int half)
{
    float before = sums.max[band][half], top = before, sum = 0;
    CT_UNROLL
    for (int at = 0; at < 2 * KEY_GROUPS; at++)
        top = fmaxf(top, scores.value[band][at / 2][2 * half + at % 2]);
    top = fmaxf(top, ct_shuffle_xor(top, 1));
    top = fmaxf(top, ct_shuffle_xor(top, 2));
    float base = ct_relative_to(top), correction = ct_exp2(before - base);
    CT_UNROLL
    for (int at = 0; at < 2 * KEY_GROUPS; at++) {
        float &score = scores.value[band][at / 2][2 * half + at % 2];
        score = ct_exp2(score - base);
        sum += score;
    }
    sums.max[band][half] = top;
    sums.total[band][half] = fmaf(sums.total[band][half], correction, sum);
    CT_UNROLL
    for (int at = 0; at < 2 * F::WIDTH / COLUMNS; at++)
        sums.values[band][at / 2][2 * half + at % 2] *= correction;
}

template <typename F>
CT_DEVICE void weigh(row_sums<F> &sums, row_scores<F> &scores, const ct_attention_problem &problem,
                     const ct_tile_place &place, const warp_rows &own, int first)
{
    bool sees_all = all_see_all(problem.args, own, first);
    CT_UNROLL
    for (int band = 0; band < F::BANDS; band++)
        CT_UNROLL
    for (int half = 0; half < 2; half++) {
        int row = place.first + row_of_lane(own, band, half);
        ct_query query = ct_query_of(problem, place, row < place.end ? row : place.end - 1);
        score_row(scores.value[band], half, problem.args, query, first, own.keys.end, sees_all);
        weigh_row<F>(sums, scores, band, half);
    }
}

/* ---- the results ---- */

/* Two neighbours, the first at an even place of memory where pairs are aligned. */
CT_DEVICE void write_pair(const ct_rows &out, int64_t at, float first, float second, bool both)
{
    bool aligned = both && at % 2 == 0 && (uintptr_t)out.data % 8 == 0;
    if (aligned && out.dtype == CT_F32) {
        const float values[2] = {first, second};
        char *bytes = (char *)out.data + at * (int64_t)sizeof(float);
        memcpy(__builtin_assume_aligned(bytes, 8), values, sizeof values);
        return;
    }
    ct_put_as(out.dtype, out.data, at, first);
    if (both)
        ct_put_as(out.dtype, out.data, at + 1, second);
}

template <typename F>
CT_DEVICE void write_row(row_sums<F> &sums, const ct_attention_problem &problem,
                         const ct_tile_place &place, const ct_query &query, int band, int half,
                         float inverse)
{
    const ct_rows &out = problem.args.out;
    int d = (int)problem.args.layout.head_width;
    int64_t to = (place.first_row + query.row) * out.stride + (int64_t)query.head * d;
    CT_UNROLL
    for (int group = 0; group < F::WIDTH / COLUMNS; group++) {
        int feature = group * COLUMNS + lane_of_warp() % 4 * 2;
        const float *two = sums.values[band][group] + 2 * half;
        if (feature < d)
            write_pair(out, to + feature, two[0] * inverse, two[1] * inverse, feature + 1 < d);
    }
}

template <typename F>
CT_DEVICE void write(row_sums<F> &sums, const ct_attention_problem &problem,
                     const ct_tile_place &place, const warp_rows &own)
{
    CT_UNROLL
    for (int band = 0; band < F::BANDS; band++)
        CT_UNROLL
    for (int half = 0; half < 2; half++) {
        float total = sums.total[band][half];
        total += ct_shuffle_xor(total, 1);
        total += ct_shuffle_xor(total, 2);
        int row = place.first + row_of_lane(own, band, half);
        if (row < place.end)
            write_row<F>(sums, problem, place, ct_query_of(problem, place, row), band, half,
                         ct_inverse(total));
    }
}

/* ---- the kernel ---- */

template <typename F> CT_DEVICE void start(row_sums<F> &sums)
{
    sums = {};
    CT_UNROLL
    for (int at = 0; at < 2 * F::BANDS; at++)
        sums.max[at / 2][at % 2] = -INFINITY;
}

template <typename F>
CT_KERNEL CT_BOUNDS(THREADS, 2) tensor_kernel(ct_attention_problem problem, bool long_only)
{
    /* What all threads or lanes would have alike, and no registers for. */
    CT_SHARED(ct_tile_place, found, 1);
    CT_SHARED(bool, is_there, 1);
    CT_SHARED(warp_rows, rows_of_warps, WARPS);
    if (threadIdx.x == 0)
        *is_there = ct_find_tile<F::ROWS>(found, problem, long_only);
    ct_barrier();
    if (!*is_there)
        return;
    const ct_tile_place &place = *found;
    ct_keys keys =
        ct_visible_keys(problem.args, place.before + place.first / problem.group,
                        place.before + (place.end - 1) / problem.group, place.before + place.n);
    warp_rows &own = rows_of_warps[threadIdx.x / CT_WARP];
    if (lane_of_warp() == 0)
        own = find_rows<F>(problem, place);
    ct_warp_barrier();
    int first = keys.begin / CT_CHUNK * CT_CHUNK;
    bring_keys<F>(problem, place, first, keys.end - first);
    clear_features<F>((int)problem.args.layout.head_width);
    load_queries<F>(problem, place);
    row_sums<F> sums;
    start<F>(sums);
    CT_UNROLL_BY(1)
    for (; first < keys.end; first += CT_CHUNK) {
        row_scores<F> scores = {};
        ct_wait_copies();
        ct_barrier(); /* keys are there, and no warp reads the values before */
        bool sees_any = first < own.keys.end && first + CT_CHUNK > own.keys.begin;
        bring_values<F>(problem, place, first, keys.end - first);
        if (sees_any) {
            multiply_keys<F>(scores, own);
            weigh<F>(sums, scores, problem, place, own, first);
        }
        ct_wait_copies();
        ct_barrier(); /* values are there, and no warp reads these keys any more */
        int next = first + CT_CHUNK;
        if (next < keys.end)
            bring_keys<F>(problem, place, next, keys.end - next);
        if (sees_any)
            multiply_values<F>(sums, scores);
    }
    write<F>(sums, problem, place, own);
}

/* ---- the host's part ---- */

template <typename F> static ct_status launch(const ct_attention_problem *problem, bool long_only)
{
    size_t shared = sizeof(uint4) * (size_t)F::SIZE;
    CT_TRY(ct_cuda_allow_shared((const void *)tensor_kernel<F>, shared));
    dim3 grid((unsigned)ct_count_tiles(problem, F::ROWS),
              (unsigned)problem->args.layout.n_kv_heads);
    CT_KERNEL_CALL(tensor_kernel<F>, grid, THREADS, shared, ct_cuda_stream(), *problem, long_only);
    return ct_cuda_launched("attention");
}

template <ct_dtype type, bool is_cached>
static ct_status launch_width(const ct_attention_problem *problem, bool long_only)
{
    const ct_attention_args *args = &problem->args;
    int64_t d = args->layout.head_width;
    bool is_short = args->qkv.n_rows * problem->group <= WARPS * BAND * args->n_sequences;
    if (d <= 64 && is_short) /* sentences for an encoder */
        return launch<form<type, is_cached, 64, 1>>(problem, long_only);
    if (d <= 64)
        return launch<form<type, is_cached, 64, 2>>(problem, long_only);
    if (d <= 96)
        return launch<form<type, is_cached, 96, 2>>(problem, long_only);
    if (d <= 128)
        return launch<form<type, is_cached, 128, 2>>(problem, long_only);
    return launch<form<type, is_cached, CT_WHOLE_WIDTH, 1>>(problem, long_only);
}

ct_status ct_cuda_attention_tensor(const ct_attention_problem *problem, bool long_only)
{
    bool is_half = problem->args.compute == CT_F16;
    if (problem->is_cached)
        return is_half ? launch_width<CT_F16, true>(problem, long_only)
                       : launch_width<CT_BF16, true>(problem, long_only);
    return is_half ? launch_width<CT_F16, false>(problem, long_only)
                   : launch_width<CT_BF16, false>(problem, long_only);
}
