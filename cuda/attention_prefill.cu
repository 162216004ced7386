/* Attention of many rows: a block for a tile of one sequence's rows and one KV head, with all its
 * query heads, so that keys and values are read once for them. Rows of a tile are tokens with their
 * heads inside. Tiles of 64 keys or values go through shared memory, converted to f32, and are
 * multiplied by registers' tiles of 4 by 4; sums stay in registers. Of heads wider than 256 values
 * a block sums 256, and the scores are computed for each such part again. */
#include "attention_tiles.h"

#define SLICE 64                  /* features at a time */
#define ROWS_OF_THREAD 4          /* and as many keys or features */
#define THREADS_OF_ROW 16         /* which share the rows of a thread */
#define LD_WEIGHTS (CT_CHUNK + 4) /* so that two groups of rows do not meet in a bank */
#define LD_QUERIES(d) ((int)((d) + 7) / 8 * 8 + 4)
#define LD_SLICE LD_QUERIES(SLICE) /* of wide heads, whose queries come by slices, too */
#define STAGE (CT_CHUNK * SLICE)

/* Shared memory of a block: where its arrays begin, in units of 4 bytes. Addresses that are
 * constants need no registers. */
template <int ROWS> struct tile {
    enum {
        WEIGHTS = 0,                          /* [ROWS, LD_WEIGHTS]: first products */
        STAGES = WEIGHTS + ROWS * LD_WEIGHTS, /* two: one is filled, one may still be read */
        TOKEN = STAGES + 2 * STAGE,           /* [ROWS] int: row of the sequence */
        HEAD = TOKEN + ROWS,                  /* [ROWS] int: of the model */
        MAX = HEAD + ROWS,                    /* [ROWS] of the span so far */
        TOTAL = MAX + ROWS,
        ALL_MAX = TOTAL + ROWS, /* [ROWS] of the spans before */
        ALL_TOTAL = ALL_MAX + ROWS,
        CORRECTION = ALL_TOTAL + ROWS,
        KEEP = CORRECTION + ROWS,
        TAKE = KEEP + ROWS,
        /* [ROWS, LD_QUERIES], zeros behind the features; of wide heads two of [ROWS, LD_SLICE] */
        QUERIES = TAKE + ROWS
    };
};

CT_DEVICE float *floats(int at)
{
    return (float *)ct_dynamic_shared() + at;
}

CT_DEVICE int *ints(int at)
{
    return (int *)ct_dynamic_shared() + at;
}

/* Rows behind the sequence's last one count as that one, and are not written. */
CT_DEVICE ct_query query_of(const ct_attention_problem &problem, const ct_tile_place &place, int r)
{
    int row = place.first + r;
    return ct_query_of(problem, place, row < place.end ? row : place.end - 1);
}

template <int ROWS>
CT_DEVICE void start_rows(const ct_attention_problem &problem, const ct_tile_place &place)
{
    typedef tile<ROWS> tile;
    int r = threadIdx.x;
    if (r < ROWS) {
        ct_query query = query_of(problem, place, r);
        ints(tile::TOKEN)[r] = query.row;
        ints(tile::HEAD)[r] = query.head;
        floats(tile::MAX)[r] = floats(tile::ALL_MAX)[r] = -INFINITY;
        floats(tile::TOTAL)[r] = floats(tile::ALL_TOTAL)[r] = 0;
    }
}

/* The queries' features from `feature` on, and zeros behind the last one, as far as rows of `ld`
 * hold them. */
template <int ROWS>
CT_DEVICE void load_queries(float *to, const ct_attention_problem &problem,
                            const ct_tile_place &place, int feature, int ld)
{
    int lane = threadIdx.x % CT_WARP, left = (int)problem.args.layout.head_width - feature;
    CT_UNROLL_BY(1)
    for (int r = threadIdx.x / CT_WARP; r < ROWS; r += ROWS * 4 / CT_WARP) {
        const float *from = ct_query_values(problem, place, query_of(problem, place, r)) + feature;
        for (int i = lane; i < ld; i += CT_WARP)
            to[r * ld + i] = i < left ? from[i] : 0;
    }
}

/* ---- from memory to a stage ---- */

/* A matrix in memory, of which [n, width] go to the upper left of a stage. */
typedef struct source {
    const void *data;
    int64_t ld;
    int n, width;
} source;

/* Rows that are multiplied: by four at a time, so that some are zeros. */
CT_DEVICE int padded(int n)
{
    return (n + 3) / 4 * 4;
}

CT_DEVICE bool is_aligned(const source &from, int per_vector)
{
    return (uintptr_t)from.data % 16 == 0 && from.ld % per_vector == 0 &&
           from.width % per_vector == 0;
}

/* A vector's values as f32. */
template <ct_dtype dtype> CT_DEVICE void store_f32(float *to, uint4 vector)
{
    const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
    float values[2][4];
    if (dtype == CT_F32)
        for (int i = 0; i < 4; i++)
            values[0][i] = ct_float_of_bits(words[i]);
    else
        for (int i = 0; i < 8; i++)
            values[i / 4][i % 4] = ct_float_of_half_word<dtype>(words[i / 2] >> i % 2 * 16);
    ct_store_four(to, values[0]);
    if (dtype != CT_F32)
        ct_store_four(to + 4, values[1]);
}

/* Four loads of a thread are under way before the first value is used. */
template <ct_dtype dtype, int THREADS> CT_DEVICE void fill_vectors(float *to, const source &from)
{
    constexpr int SIZE = dtype == CT_F32 ? 4 : 2, VALUES = 16 / SIZE, VECTORS = SLICE / VALUES;
    constexpr int ALL = STAGE / VALUES / THREADS, N = ALL < 4 ? ALL : 4;
    int row = threadIdx.x / VECTORS, column = threadIdx.x % VECTORS * VALUES;
    CT_UNROLL_BY(1)
    for (int done = 0; done < ALL; done += N) {
        uint4 loaded[N];
        CT_UNROLL
        for (int i = 0; i < N; i++) {
            int at = row + i * (THREADS / VECTORS);
            loaded[i] = {0, 0, 0, 0};
            if (at < from.n && column < from.width)
                loaded[i] = ct_load16((const char *)from.data + (at * from.ld + column) * SIZE);
        }
        CT_UNROLL
        for (int i = 0; i < N; i++) {
            int at = row + i * (THREADS / VECTORS);
            if (at < padded(from.n))
                store_f32<dtype>(to + at * SLICE + column, loaded[i]);
        }
        row += N * (THREADS / VECTORS);
    }
}

template <ct_dtype dtype, int THREADS> CT_DEVICE void fill(float *to, const source &from)
{
    if (is_aligned(from, dtype == CT_F32 ? 4 : 8)) {
        fill_vectors<dtype, THREADS>(to, from);
        return;
    }
    for (int at = threadIdx.x; at < padded(from.n) * SLICE; at += THREADS) {
        int row = at / SLICE, column = at % SLICE;
        if (column < from.width)
            to[at] = row < from.n ? ct_get<dtype>(from.data, row * from.ld + column) : 0;
    }
}

/* The same of rows of keys, whose features become rows. Lanes run along the keys: reads go through
 * whole sectors one after the other, writes do not meet in a bank. */
template <int THREADS> CT_DEVICE void fill_transposed(float *to, const source &from)
{
    for (int at = threadIdx.x; at < SLICE / 4 * CT_CHUNK; at += THREADS) {
        int key = at % CT_CHUNK, feature = at / CT_CHUNK * 4;
        const float *values = (const float *)from.data + key * from.ld + feature;
        if (key >= from.n || feature >= from.width)
            continue;
        ct_four four = {{0, 0, 0, 0}};
        if (is_aligned(from, 4))
            four = ct_load_four(values);
        else
            for (int i = 0; i < 4 && feature + i < from.width; i++)
                four.value[i] = values[i];
        for (int i = 0; i < 4; i++)
            to[(feature + i) * CT_CHUNK + key] = four.value[i];
    }
}

/* One head's keys or values in the rows of qkv, from a place of the sequence on. */
CT_DEVICE source rows_of(const ct_attention_problem &problem, const ct_tile_place &place, int first,
                         int n, int64_t offset, int width)
{
    const ct_rows &qkv = problem.args.qkv;
    const float *rows = (const float *)qkv.data + (place.first_row + first) * qkv.stride;
    source from;
    from.data = rows + offset + place.kv_head * problem.args.layout.kv_group_stride;
    from.ld = qkv.stride;
    from.n = n;
    from.width = width;
    return from;
}

/* A matrix that begins `offset` values into the layer's part of a page. */
template <ct_dtype dtype>
CT_DEVICE source page_of(const ct_attention_problem &problem, const ct_tile_place &place, int first,
                         int64_t offset, int64_t ld, int n, int width)
{
    source from;
    from.data =
        ct_cached_keys(problem.cache, place.sequence, first) + offset * (dtype == CT_F32 ? 4 : 2);
    from.ld = ld;
    from.n = n;
    from.width = width;
    return from;
}

/* A slice of the chunk's keys [features, keys], and of its values [keys, features]. */
template <ct_dtype dtype, bool is_cached, int THREADS>
CT_DEVICE void fill_keys(float *to, const ct_attention_problem &problem, const ct_tile_place &place,
                         int first, int n, int feature)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, width = d - feature < SLICE ? d - feature : SLICE;
    int64_t head = (int64_t)place.kv_head * d;
    if constexpr (is_cached)
        fill<dtype, THREADS>(to, page_of<dtype>(problem, place, first, (head + feature) * CT_CHUNK,
                                                CT_CHUNK, width, CT_CHUNK));
    else
        fill_transposed<THREADS>(
            to, rows_of(problem, place, first, n, layout.k_offset + feature, width));
}

template <ct_dtype dtype, bool is_cached, int THREADS>
CT_DEVICE void fill_values(float *to, const ct_attention_problem &problem,
                           const ct_tile_place &place, int first, int n, int feature)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, width = d - feature < SLICE ? d - feature : SLICE;
    int64_t head = (layout.n_kv_heads + place.kv_head) * d;
    if constexpr (is_cached)
        fill<dtype, THREADS>(
            to, page_of<dtype>(problem, place, first, head * CT_CHUNK + feature, d, n, width));
    else
        fill<CT_F32, THREADS>(to,
                              rows_of(problem, place, first, n, layout.v_offset + feature, width));
}

/* ---- a chunk ---- */

/* c [4, 4] += a [4, n] b [n, 64], both in shared memory, of which b is the thread's columns. */
CT_DEVICE void multiply(float (&c)[ROWS_OF_THREAD][4], int a, int ld_a, int b, int n)
{
    CT_UNROLL_BY(1)
    for (int k = 0; k < n; k += 4) {
        ct_four x[ROWS_OF_THREAD];
        CT_UNROLL
        for (int r = 0; r < ROWS_OF_THREAD; r++)
            x[r] = ct_load_four(floats(a + r * ld_a + k));
        CT_UNROLL
        for (int i = 0; i < 4; i++) {
            ct_four y = ct_load_four(floats(b + (k + i) * SLICE));
            CT_UNROLL
            for (int r = 0; r < ROWS_OF_THREAD; r++)
                for (int j = 0; j < 4; j++)
                    c[r][j] = fmaf(x[r].value[i], y.value[j], c[r][j]);
        }
    }
}

/* The thread's rows of the tile, of which it has four columns. */
CT_DEVICE int own_row()
{
    return threadIdx.x / THREADS_OF_ROW * ROWS_OF_THREAD;
}

CT_DEVICE int own_column()
{
    return threadIdx.x % THREADS_OF_ROW * 4;
}

/* Products of the chunk's keys with the queries go to the weights. */
template <ct_dtype dtype, bool is_cached, int ROWS, bool WIDE>
CT_DEVICE void multiply_keys(int *stage, const ct_attention_problem &problem,
                             const ct_tile_place &place, int first, int n)
{
    typedef tile<ROWS> tile;
    int d = (int)problem.args.layout.head_width, ld = WIDE ? LD_SLICE : LD_QUERIES(d);
    float products[ROWS_OF_THREAD][4] = {};
    CT_UNROLL_BY(1)
    for (int feature = 0; feature < d; feature += SLICE) {
        int keys = tile::STAGES + *stage * STAGE;
        int queries = tile::QUERIES + (WIDE ? *stage * ROWS * ld : feature);
        if (WIDE)
            load_queries<ROWS>(floats(queries), problem, place, feature, ld);
        fill_keys<dtype, is_cached, ROWS * 4>(floats(keys), problem, place, first, n, feature);
        ct_barrier();
        multiply(products, queries + own_row() * ld, ld, keys + own_column(),
                 padded(d - feature < SLICE ? d - feature : SLICE));
        *stage ^= 1;
    }
    CT_UNROLL
    for (int r = 0; r < ROWS_OF_THREAD; r++)
        ct_store_four(floats(tile::WEIGHTS) + (own_row() + r) * LD_WEIGHTS + own_column(),
                      products[r]);
}

/* Products become scores, and those weights: a warp for a row. */
template <int ROWS>
CT_DEVICE void weigh_chunk(const ct_attention_problem &problem, const ct_tile_place &place,
                           int first, int n)
{
    typedef tile<ROWS> tile;
    int key = threadIdx.x % CT_WARP * 2;
    CT_UNROLL_BY(1)
    for (int r = threadIdx.x / CT_WARP; r < ROWS; r += ROWS * 4 / CT_WARP) {
        float *weights = floats(tile::WEIGHTS) + r * LD_WEIGHTS + key, scores[2];
        int token = ints(tile::TOKEN)[r];
        ct_query query = {place.sequence, token, place.before + token, ints(tile::HEAD)[r]};
        CT_UNROLL
        for (int i = 0; i < 2; i++)
            scores[i] = key + i < n ? ct_score(problem.args, weights[i], query, first + key + i)
                                    : -INFINITY;
        float before = floats(tile::MAX)[r], top = fmaxf(before, ct_largest(scores));
        float correction = ct_correction(before, top), sum = ct_weigh(scores, top);
        weights[0] = scores[0];
        weights[1] = scores[1];
        ct_warp_barrier(); /* all have read the largest score of before */
        if (key == 0) {
            floats(tile::MAX)[r] = top;
            floats(tile::TOTAL)[r] = ct_add_chunk(floats(tile::TOTAL)[r], correction, sum);
            floats(tile::CORRECTION)[r] = correction;
        }
    }
}

/* A thread's sums: its rows by four features of each slice. */
template <int SLICES> struct sums {
    float value[SLICES][ROWS_OF_THREAD][4];
};

/* The first of the features that a block sums. */
template <int SLICES, bool WIDE> CT_DEVICE int first_feature()
{
    return WIDE ? (int)blockIdx.z * SLICES * SLICE : 0;
}

template <ct_dtype dtype, bool is_cached, int SLICES, int ROWS, bool WIDE>
CT_DEVICE void add_values(sums<SLICES> &span, int *stage, const ct_attention_problem &problem,
                          const ct_tile_place &place, int first, int n)
{
    typedef tile<ROWS> tile;
    CT_UNROLL
    for (int s = 0; s < SLICES; s++) {
        int feature = first_feature<SLICES, WIDE>() + s * SLICE;
        if (feature >= problem.args.layout.head_width)
            break;
        int values = tile::STAGES + *stage * STAGE;
        float chunk[ROWS_OF_THREAD][4] = {};
        fill_values<dtype, is_cached, ROWS * 4>(floats(values), problem, place, first, n, feature);
        ct_barrier(); /* weights have become what they are, too */
        multiply(chunk, tile::WEIGHTS + own_row() * LD_WEIGHTS, LD_WEIGHTS, values + own_column(),
                 padded(n));
        *stage ^= 1;
        CT_UNROLL
        for (int r = 0; r < ROWS_OF_THREAD; r++)
            for (int j = 0; j < 4; j++)
                span.value[s][r][j] = ct_add_chunk(
                    span.value[s][r][j], floats(tile::CORRECTION)[own_row() + r], chunk[r][j]);
    }
}

/* ---- spans ---- */

/* Adds the span to those before; the next one begins with nothing. */
template <int SLICES, int ROWS> CT_DEVICE void merge(sums<SLICES> &all, sums<SLICES> &span)
{
    typedef tile<ROWS> tile;
    int own = threadIdx.x;
    if (own < ROWS) {
        float before = floats(tile::ALL_MAX)[own], max = floats(tile::MAX)[own];
        float top = fmaxf(before, max);
        float keep = ct_correction(before, top), take = ct_correction(max, top);
        floats(tile::ALL_MAX)[own] = top;
        floats(tile::ALL_TOTAL)[own] =
            ct_merge_span(floats(tile::ALL_TOTAL)[own], keep, floats(tile::TOTAL)[own], take);
        floats(tile::KEEP)[own] = keep;
        floats(tile::TAKE)[own] = take;
        floats(tile::MAX)[own] = -INFINITY;
        floats(tile::TOTAL)[own] = 0;
    }
    ct_barrier();
    CT_UNROLL
    for (int r = 0; r < ROWS_OF_THREAD; r++) {
        float keep = floats(tile::KEEP)[own_row() + r], take = floats(tile::TAKE)[own_row() + r];
        CT_UNROLL
        for (int s = 0; s < SLICES; s++)
            for (int j = 0; j < 4; j++) {
                all.value[s][r][j] =
                    ct_merge_span(all.value[s][r][j], keep, span.value[s][r][j], take);
                span.value[s][r][j] = 0;
            }
    }
}

/* Four features of a row that begins at `to`, of which some may lie behind the last one. */
CT_DEVICE void write_four(const ct_rows &out, int64_t to, int feature, int d,
                          const float (&sums)[4], float inverse)
{
    float *f32 = (float *)out.data + to + feature, values[4];
    CT_UNROLL
    for (int j = 0; j < 4; j++)
        values[j] = sums[j] * inverse;
    if (out.dtype == CT_F32 && feature + 4 <= d && (uintptr_t)f32 % 16 == 0) {
        ct_store_four(f32, values);
        return;
    }
    CT_UNROLL
    for (int j = 0; j < 4; j++)
        if (feature + j < d)
            ct_put_as(out.dtype, out.data, to + feature + j, values[j]);
}

template <int SLICES, int ROWS, bool WIDE>
CT_DEVICE void write(const sums<SLICES> &all, const ct_attention_problem &problem,
                     const ct_tile_place &place)
{
    typedef tile<ROWS> tile;
    const ct_rows &out = problem.args.out;
    int d = (int)problem.args.layout.head_width;
    CT_UNROLL
    for (int r = 0; r < ROWS_OF_THREAD; r++) {
        int row = own_row() + r;
        if (place.first + row >= place.end)
            break;
        int64_t to = (place.first_row + ints(tile::TOKEN)[row]) * out.stride +
                     (int64_t)ints(tile::HEAD)[row] * d;
        float inverse = ct_inverse(floats(tile::ALL_TOTAL)[row]);
        CT_UNROLL
        for (int s = 0; s < SLICES; s++)
            write_four(out, to, first_feature<SLICES, WIDE>() + s * SLICE + own_column(), d,
                       all.value[s][r], inverse);
    }
}

template <ct_dtype dtype, bool is_cached, int SLICES, int ROWS, bool WIDE>
CT_KERNEL CT_BOUNDS(ROWS * 4, SLICES == 2 ? 3 : 2)
    prefill_kernel(ct_attention_problem problem, bool long_only)
{
    ct_tile_place place;
    if (!ct_find_tile<ROWS>(&place, problem, long_only))
        return;
    start_rows<ROWS>(problem, place);
    if (!WIDE)
        load_queries<ROWS>(floats(tile<ROWS>::QUERIES), problem, place, 0,
                           LD_QUERIES(problem.args.layout.head_width));
    ct_keys keys =
        ct_visible_keys(problem.args, place.before + place.first / problem.group,
                        place.before + (place.end - 1) / problem.group, place.before + place.n);
    sums<SLICES> all = {}, span = {};
    int stage = 0;
    CT_UNROLL_BY(1)
    for (int first = keys.begin / CT_CHUNK * CT_CHUNK; first < keys.end; first += CT_CHUNK) {
        int n = keys.end - first < CT_CHUNK ? keys.end - first : CT_CHUNK;
        multiply_keys<dtype, is_cached, ROWS, WIDE>(&stage, problem, place, first, n);
        ct_barrier();
        weigh_chunk<ROWS>(problem, place, first, n);
        add_values<dtype, is_cached, SLICES, ROWS, WIDE>(span, &stage, problem, place, first, n);
        if ((first + CT_CHUNK) % CT_SPAN == 0 || first + CT_CHUNK >= keys.end)
            merge<SLICES, ROWS>(all, span);
    }
    write<SLICES, ROWS, WIDE>(all, problem, place);
}

/* ---- the host's part ---- */

template <ct_dtype dtype, bool is_cached, int SLICES, int ROWS, bool WIDE>
static ct_status launch(const ct_attention_problem *problem, bool long_only)
{
    const ct_head_layout *layout = &problem->args.layout;
    int queries = ROWS * (WIDE ? 2 * LD_SLICE : LD_QUERIES(layout->head_width));
    size_t shared = sizeof(float) * (size_t)(tile<ROWS>::QUERIES + queries);
    CT_TRY(ct_cuda_allow_shared((const void *)prefill_kernel<dtype, is_cached, SLICES, ROWS, WIDE>,
                                shared));
    int64_t parts = WIDE ? (layout->head_width + SLICES * SLICE - 1) / (SLICES * SLICE) : 1;
    dim3 grid((unsigned)ct_count_tiles(problem, ROWS), (unsigned)layout->n_kv_heads,
              (unsigned)parts);
    CT_KERNEL_CALL((prefill_kernel<dtype, is_cached, SLICES, ROWS, WIDE>), grid, ROWS * 4, shared,
                   ct_cuda_stream(), *problem, long_only);
    return ct_cuda_launched("attention");
}

template <ct_dtype dtype, bool is_cached>
static ct_status launch_width(const ct_attention_problem *problem, bool long_only)
{
    int64_t d = problem->args.layout.head_width;
    if (d <= SLICE)
        return launch<dtype, is_cached, 1, 64, false>(problem, long_only);
    if (d <= 2 * SLICE)
        return launch<dtype, is_cached, 2, 32, false>(problem, long_only);
    if (d <= 4 * SLICE)
        return launch<dtype, is_cached, 4, 32, false>(problem, long_only);
    return launch<dtype, is_cached, 4, 32, true>(problem, long_only);
}

ct_status ct_cuda_attention_prefill(const ct_attention_problem *problem, bool long_only)
{
    const ct_attention_args *args = &problem->args;
    if (problem->is_cached && problem->cache.dtype == CT_F32)
        return launch_width<CT_F32, true>(problem, long_only);
    if (problem->is_cached && problem->cache.dtype == CT_F16)
        return launch_width<CT_F16, true>(problem, long_only);
    if (problem->is_cached)
        return launch_width<CT_BF16, true>(problem, long_only);
    bool is_short = args->qkv.n_rows * problem->group <= 32 * args->n_sequences;
    if (is_short && args->layout.head_width <= SLICE) /* sentences for an encoder */
        return launch<CT_F32, false, 1, 32, false>(problem, long_only);
    return launch_width<CT_F32, false>(problem, long_only);
}
