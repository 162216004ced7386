/* Attention of many rows: a block for a tile of one sequence's rows and one KV head, with all its
 * query heads, so that keys and values are read once for them. Rows of a tile are tokens with their
 * heads inside. Tiles of 64 keys or values go through shared memory, converted to f32, and are
 * multiplied by registers' tiles of 4 by 4; sums stay in registers. */
#include "attention.h"

#define SLICE 64                  /* features at a time */
#define ROWS_OF_THREAD 4          /* and as many keys or features */
#define THREADS_OF_ROW 16         /* which share the rows of a thread */
#define LD_WEIGHTS (CT_CHUNK + 4) /* so that two groups of rows do not meet in a bank */
#define LD_QUERIES(d) ((int)((d) + 7) / 8 * 8 + 4)
#define STAGE (CT_CHUNK * SLICE)

/* Shared memory of a block, all of it f32 or int. */
typedef struct tile {
    float *queries; /* [ROWS, ld_queries], zeros behind features and rows */
    int ld_queries;
    float *weights;     /* [ROWS, LD_WEIGHTS]: first products */
    float *stages;      /* two of [64, 64]: one is filled while the other may still be read */
    int stage;          /* the next to fill */
    int *row, *head;    /* [ROWS] of the sequence; of the model */
    float *max, *total; /* [ROWS] of the span so far */
    float *all_max, *all_total; /* and of the spans before */
    float *correction, *keep, *take;
} tile;

/* Where a block works. */
typedef struct tile_place {
    int64_t sequence, first_row; /* of the batch */
    int n, before;               /* rows of the sequence and positions before them */
    int first, end;              /* rows of the tile, counted by heads */
    int kv_head;
} tile_place;

static size_t tile_bytes(int rows, int64_t d)
{
    return sizeof(float) * ((size_t)rows * (LD_QUERIES(d) + LD_WEIGHTS + 9) + 2 * STAGE);
}

template <int ROWS> CT_DEVICE tile new_tile(int64_t d)
{
    float *memory = (float *)ct_dynamic_shared();
    tile tile;
    tile.ld_queries = LD_QUERIES(d);
    tile.queries = memory;
    tile.weights = tile.queries + ROWS * tile.ld_queries;
    tile.stages = tile.weights + ROWS * LD_WEIGHTS;
    tile.stage = 0;
    tile.row = (int *)(tile.stages + 2 * STAGE);
    tile.head = tile.row + ROWS;
    tile.max = (float *)(tile.head + ROWS);
    tile.total = tile.max + ROWS;
    tile.all_max = tile.total + ROWS;
    tile.all_total = tile.all_max + ROWS;
    tile.correction = tile.all_total + ROWS;
    tile.keep = tile.correction + ROWS;
    tile.take = tile.keep + ROWS;
    return tile;
}

/* ---- who does what ---- */

/* Sequence s has its tiles from here on: at least as many as its rows fill, so that nobody has to
 * add up the lengths of the sequences before. */
template <int ROWS>
CT_DEVICE int64_t first_tile(const ct_attention_problem &problem, int64_t sequence)
{
    return problem.args.offsets[sequence] * problem.group / ROWS + sequence;
}

/* False where the block has nothing to do. Blocks that start late get early rows, which in a causal
 * model see few keys. */
template <int ROWS>
CT_DEVICE bool find_tile(tile_place *out, const ct_attention_problem &problem, bool long_only)
{
    const ct_attention_args &args = problem.args;
    int64_t wanted = (int64_t)gridDim.x - 1 - blockIdx.x, first = 0, end = args.n_sequences;
    while (end - first > 1) {
        int64_t middle = first + (end - first) / 2;
        if (first_tile<ROWS>(problem, middle) <= wanted)
            first = middle;
        else
            end = middle;
    }
    out->sequence = first;
    out->first_row = args.offsets[first];
    out->n = (int)(args.offsets[first + 1] - args.offsets[first]);
    out->before = problem.is_cached ? (int)problem.cache.lengths[first] : 0;
    int64_t row = (wanted - first_tile<ROWS>(problem, first)) * ROWS;
    int64_t n_rows = (int64_t)out->n * problem.group;
    out->first = (int)row;
    out->end = (int)(row + ROWS < n_rows ? row + ROWS : n_rows);
    out->kv_head = blockIdx.y;
    return row < n_rows && !(long_only && out->n == 1);
}

/* Rows behind the sequence's last one count as that one, and are not written. */
template <int ROWS>
CT_DEVICE void load_queries(const tile &tile, const ct_attention_problem &problem,
                            const tile_place &place)
{
    const ct_attention_args &args = problem.args;
    const ct_head_layout &layout = args.layout;
    int lane = threadIdx.x % CT_WARP, d = (int)layout.head_width;
    for (int r = threadIdx.x / CT_WARP; r < ROWS; r += ROWS * 4 / CT_WARP) {
        int row = place.first + r < place.end ? place.first + r : place.end - 1;
        int token = row / problem.group, head = row % problem.group;
        const float *from = (const float *)args.qkv.data +
                            (place.first_row + token) * args.qkv.stride + layout.q_offset +
                            place.kv_head * layout.q_group_stride + (int64_t)head * d;
        for (int i = lane; i < tile.ld_queries; i += CT_WARP)
            tile.queries[r * tile.ld_queries + i] = i < d ? from[i] : 0;
        if (lane == 0) {
            tile.row[r] = token;
            tile.head[r] = place.kv_head * problem.group + head;
            tile.max[r] = tile.all_max[r] = -INFINITY;
            tile.total[r] = tile.all_total[r] = 0;
        }
    }
}

/* ---- from memory to a stage ---- */

/* A matrix in memory, of which [n, width] go to the upper left of a stage. */
typedef struct source {
    const void *data;
    int64_t ld;
    int n, width;
    ct_dtype dtype;
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

/* All loads of a thread are under way before the first value is used. */
template <ct_dtype dtype, int THREADS> CT_DEVICE void fill_vectors(float *to, const source &from)
{
    constexpr int SIZE = dtype == CT_F32 ? 4 : 2, VALUES = 16 / SIZE, VECTORS = SLICE / VALUES;
    constexpr int N = STAGE / VALUES / THREADS;
    uint4 loaded[N];
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        int at = threadIdx.x + i * THREADS, row = at / VECTORS, column = at % VECTORS * VALUES;
        loaded[i] = {0, 0, 0, 0};
        if (row < from.n && column < from.width)
            loaded[i] = ct_load16((const char *)from.data + (row * from.ld + column) * SIZE);
    }
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        int at = threadIdx.x + i * THREADS, row = at / VECTORS, column = at % VECTORS * VALUES;
        if (row < padded(from.n))
            store_f32<dtype>(to + row * SLICE + column, loaded[i]);
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

template <int THREADS> CT_DEVICE void fill_any(float *to, const source &from)
{
    if (from.dtype == CT_F32)
        fill<CT_F32, THREADS>(to, from);
    else if (from.dtype == CT_F16)
        fill<CT_F16, THREADS>(to, from);
    else
        fill<CT_BF16, THREADS>(to, from);
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

/* A slice of the chunk's keys [features, keys], and of its values [keys, features]. */
template <int THREADS>
CT_DEVICE void fill_keys(float *to, const ct_attention_problem &problem, const tile_place &place,
                         int first, int n, int feature)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, width = d - feature < SLICE ? d - feature : SLICE;
    if (!problem.is_cached) {
        const float *keys = (const float *)problem.args.qkv.data +
                            (place.first_row + first) * problem.args.qkv.stride + layout.k_offset +
                            place.kv_head * layout.kv_group_stride + feature;
        fill_transposed<THREADS>(to,
                                 {(const void *)keys, problem.args.qkv.stride, n, width, CT_F32});
        return;
    }
    const char *keys =
        ct_cached_keys(problem.cache, place.sequence, first) +
        ((int64_t)place.kv_head * d + feature) * CT_CHUNK * ct_cached_value_bytes(problem.cache);
    fill_any<THREADS>(to, {keys, CT_CHUNK, width, CT_CHUNK, problem.cache.dtype});
}

template <int THREADS>
CT_DEVICE void fill_values(float *to, const ct_attention_problem &problem, const tile_place &place,
                           int first, int n, int feature)
{
    const ct_head_layout &layout = problem.args.layout;
    int d = (int)layout.head_width, width = d - feature < SLICE ? d - feature : SLICE;
    if (!problem.is_cached) {
        const float *values = (const float *)problem.args.qkv.data +
                              (place.first_row + first) * problem.args.qkv.stride +
                              layout.v_offset + place.kv_head * layout.kv_group_stride + feature;
        fill<CT_F32, THREADS>(to,
                              {(const void *)values, problem.args.qkv.stride, n, width, CT_F32});
        return;
    }
    const char *values = ct_cached_keys(problem.cache, place.sequence, first) +
                         ((layout.n_kv_heads + place.kv_head) * d * CT_CHUNK + feature) *
                             ct_cached_value_bytes(problem.cache);
    fill_any<THREADS>(to, {values, d, n, width, problem.cache.dtype});
}

/* ---- a chunk ---- */

/* c [4, 4] += a [4, n] b [n, 64], of which b is the thread's four columns. */
CT_DEVICE void multiply(float (&c)[ROWS_OF_THREAD][4], const float *a, int ld_a, const float *b,
                        int n)
{
    for (int k = 0; k < n; k += 4) {
        ct_four x[ROWS_OF_THREAD];
        CT_UNROLL
        for (int r = 0; r < ROWS_OF_THREAD; r++)
            x[r] = ct_load_four(a + r * ld_a + k);
        CT_UNROLL
        for (int i = 0; i < 4; i++) {
            ct_four y = ct_load_four(b + (k + i) * SLICE);
            CT_UNROLL
            for (int r = 0; r < ROWS_OF_THREAD; r++)
                CT_UNROLL
            for (int j = 0; j < 4; j++)
                c[r][j] = fmaf(x[r].value[i], y.value[j], c[r][j]);
        }
    }
}

/* Products of the chunk's keys with the queries go to tile.weights. */
template <int THREADS>
CT_DEVICE void multiply_keys(tile &tile, const ct_attention_problem &problem,
                             const tile_place &place, int first, int n)
{
    int d = (int)problem.args.layout.head_width;
    int row = threadIdx.x / THREADS_OF_ROW * ROWS_OF_THREAD, key = threadIdx.x % THREADS_OF_ROW * 4;
    float products[ROWS_OF_THREAD][4] = {};
    for (int feature = 0; feature < d; feature += SLICE) {
        float *stage = tile.stages + tile.stage * STAGE;
        fill_keys<THREADS>(stage, problem, place, first, n, feature);
        ct_barrier();
        multiply(products, tile.queries + row * tile.ld_queries + feature, tile.ld_queries,
                 stage + key, padded(d - feature < SLICE ? d - feature : SLICE));
        tile.stage ^= 1;
    }
    CT_UNROLL
    for (int r = 0; r < ROWS_OF_THREAD; r++)
        ct_store_four(tile.weights + (row + r) * LD_WEIGHTS + key, products[r]);
}

/* Products become scores, and those weights: a warp for a row. */
template <int ROWS>
CT_DEVICE void weigh_chunk(const tile &tile, const ct_attention_problem &problem,
                           const tile_place &place, int first, int n)
{
    int key = threadIdx.x % CT_WARP * 2;
    for (int r = threadIdx.x / CT_WARP; r < ROWS; r += ROWS * 4 / CT_WARP) {
        float *weights = tile.weights + r * LD_WEIGHTS + key, before = tile.max[r];
        ct_query query = {place.sequence, tile.row[r], place.before + tile.row[r], tile.head[r]};
        float scores[2];
        for (int i = 0; i < 2; i++)
            scores[i] = key + i < n ? ct_score(problem.args, weights[i], query, first + key + i)
                                    : -INFINITY;
        float top = fmaxf(before, ct_largest(scores)), correction = ct_correction(before, top);
        float sum = ct_weigh(scores, top);
        weights[0] = scores[0];
        weights[1] = scores[1];
        if (key == 0) {
            tile.max[r] = top;
            tile.total[r] = ct_add_chunk(tile.total[r], correction, sum);
            tile.correction[r] = correction;
        }
    }
}

/* A thread's sums: its rows by four features of each slice. */
template <int SLICES> struct sums {
    float value[SLICES][ROWS_OF_THREAD][4];
};

template <int SLICES, int THREADS>
CT_DEVICE void add_values(sums<SLICES> &span, tile &tile, const ct_attention_problem &problem,
                          const tile_place &place, int first, int n)
{
    int row = threadIdx.x / THREADS_OF_ROW * ROWS_OF_THREAD;
    CT_UNROLL
    for (int s = 0; s < SLICES; s++) {
        if (s * SLICE >= problem.args.layout.head_width)
            break;
        float *stage = tile.stages + tile.stage * STAGE, chunk[ROWS_OF_THREAD][4] = {};
        fill_values<THREADS>(stage, problem, place, first, n, s * SLICE);
        ct_barrier(); /* weights have become what they are, too */
        multiply(chunk, tile.weights + row * LD_WEIGHTS, LD_WEIGHTS,
                 stage + threadIdx.x % THREADS_OF_ROW * 4, padded(n));
        tile.stage ^= 1;
        CT_UNROLL
        for (int r = 0; r < ROWS_OF_THREAD; r++)
            CT_UNROLL
        for (int j = 0; j < 4; j++)
            span.value[s][r][j] =
                ct_add_chunk(span.value[s][r][j], tile.correction[row + r], chunk[r][j]);
    }
}

/* ---- spans ---- */

/* Adds the span to those before; the next one begins with nothing. */
template <int SLICES, int ROWS>
CT_DEVICE void merge(sums<SLICES> &all, sums<SLICES> &span, const tile &tile)
{
    int row = threadIdx.x / THREADS_OF_ROW * ROWS_OF_THREAD, own = threadIdx.x;
    if (own < ROWS) {
        float top = fmaxf(tile.all_max[own], tile.max[own]);
        float keep = ct_correction(tile.all_max[own], top);
        float take = ct_correction(tile.max[own], top);
        tile.all_max[own] = top;
        tile.all_total[own] = ct_merge_span(tile.all_total[own], keep, tile.total[own], take);
        tile.keep[own] = keep;
        tile.take[own] = take;
        tile.max[own] = -INFINITY;
        tile.total[own] = 0;
    }
    ct_barrier();
    CT_UNROLL
    for (int s = 0; s < SLICES; s++)
        CT_UNROLL
    for (int r = 0; r < ROWS_OF_THREAD; r++)
        CT_UNROLL
    for (int j = 0; j < 4; j++) {
        all.value[s][r][j] = ct_merge_span(all.value[s][r][j], tile.keep[row + r],
                                           span.value[s][r][j], tile.take[row + r]);
        span.value[s][r][j] = 0;
    }
}

template <int SLICES>
CT_DEVICE void write(const sums<SLICES> &all, const tile &tile, const ct_attention_problem &problem,
                     const tile_place &place)
{
    const ct_rows &out = problem.args.out;
    int d = (int)problem.args.layout.head_width;
    int row = threadIdx.x / THREADS_OF_ROW * ROWS_OF_THREAD;
    int column = threadIdx.x % THREADS_OF_ROW * 4;
    CT_UNROLL
    for (int r = 0; r < ROWS_OF_THREAD; r++) {
        if (place.first + row + r >= place.end)
            continue;
        int64_t to =
            (place.first_row + tile.row[row + r]) * out.stride + (int64_t)tile.head[row + r] * d;
        float inverse = ct_inverse(tile.all_total[row + r]);
        CT_UNROLL
        for (int s = 0; s < SLICES; s++)
            CT_UNROLL
        for (int j = 0; j < 4; j++)
            if (s * SLICE + column + j < d)
                ct_put_as(out.dtype, out.data, to + s * SLICE + column + j,
                          all.value[s][r][j] * inverse);
    }
}

template <int SLICES, int ROWS>
CT_KERNEL CT_BOUNDS(ROWS * 4, SLICES == 4 ? 1 : 2)
    prefill_kernel(ct_attention_problem problem, bool long_only)
{
    constexpr int THREADS = ROWS / ROWS_OF_THREAD * THREADS_OF_ROW;
    tile_place place;
    if (!find_tile<ROWS>(&place, problem, long_only))
        return;
    tile tile = new_tile<ROWS>(problem.args.layout.head_width);
    load_queries<ROWS>(tile, problem, place);
    ct_keys keys =
        ct_visible_keys(problem.args, place.before + place.first / problem.group,
                        place.before + (place.end - 1) / problem.group, place.before + place.n);
    sums<SLICES> all = {}, span = {};
    for (int first = keys.begin / CT_CHUNK * CT_CHUNK; first < keys.end; first += CT_CHUNK) {
        int n = keys.end - first < CT_CHUNK ? keys.end - first : CT_CHUNK;
        multiply_keys<THREADS>(tile, problem, place, first, n);
        ct_barrier();
        weigh_chunk<ROWS>(tile, problem, place, first, n);
        add_values<SLICES, THREADS>(span, tile, problem, place, first, n);
        if ((first + CT_CHUNK) % CT_SPAN == 0 || first + CT_CHUNK >= keys.end)
            merge<SLICES, ROWS>(all, span, tile);
    }
    write(all, tile, problem, place);
}

/* ---- the host's part ---- */

template <int SLICES, int ROWS>
static ct_status launch(const ct_attention_problem *problem, bool long_only)
{
    const ct_attention_args *args = &problem->args;
    size_t shared = tile_bytes(ROWS, args->layout.head_width);
    CT_TRY(ct_cuda_allow_shared((const void *)prefill_kernel<SLICES, ROWS>, shared));
    int64_t n_tiles = args->qkv.n_rows * problem->group / ROWS + args->n_sequences;
    dim3 grid((unsigned)n_tiles, (unsigned)args->layout.n_kv_heads);
    CT_KERNEL_CALL((prefill_kernel<SLICES, ROWS>), grid, ROWS * 4, shared, ct_cuda_stream(),
                   *problem, long_only);
    return ct_cuda_launched("attention");
}

ct_status ct_cuda_attention_prefill(const ct_attention_problem *problem, bool long_only)
{
    int64_t d = problem->args.layout.head_width;
    bool is_short = problem->args.qkv.n_rows * problem->group <= 32 * problem->args.n_sequences;
    if (d > 4 * SLICE)
        return ct_fail(CT_UNSUPPORTED, "attention with heads of %lld values", (long long)d);
    if (d > 2 * SLICE)
        return launch<4, 32>(problem, long_only);
    if (d > SLICE)
        return is_short ? launch<2, 32>(problem, long_only) : launch<2, 64>(problem, long_only);
    return is_short ? launch<1, 32>(problem, long_only) : launch<1, 64>(problem, long_only);
}
