/* Rows of x by 4-bit weights in f32: up to eight rows of x for each time that the weights are read.
 *
 * Codes become pairs of f32 by a table in shared memory that each lane of half a warp has for
 * itself, so that no lookup waits for another. A lane has 32 values of four weight rows at a time,
 * and multiplies their sum by the scale. Beside that, a slow kernel for blocks of any size. */
#include "scaled_products.h"

#include "fours.h"

#define ROWS 4    /* of weights, for a warp at a time */
#define VALUES 32 /* of each, in a lane: 16 bytes */
#define COLUMNS 8 /* rows of x, at most */
#define COPIES 16 /* of the table */
#define TABLE_BYTES (256 * COPIES * 8)

/* Of a block for M rows of x: eight take a thread's registers for 64 sums. */
#define MOST_WARPS 16
#define MOST_SPLIT 8 /* of them for a row: what any M has, so that sums do not depend on it */
#define WARPS_FOR(M) ((M) == COLUMNS ? MOST_SPLIT : MOST_WARPS)

typedef struct alignas(8) pair {
    float first, second;
} pair;

typedef struct shape {
    ct_codebook book;
    int64_t row_codes;   /* bytes */
    int64_t first_scale; /* of the first value, in chunks of 32 */
    int64_t n_tiles;     /* of weight rows that a block of threads has at a time */
    int n_chunks;        /* of 32 in a row */
    int shift;           /* a scale serves 2^shift of them */
    int split;           /* warps that share a row */
    bool aligned;        /* rows of x begin at multiples of 16 bytes */
} shape;

/* ---- what a block of threads makes first ---- */

CT_DEVICE void make_table(pair *table, const ct_codebook &book)
{
    const float *values = ct_shared_codebook(book);
    for (int i = threadIdx.x; i < 256 * COPIES; i += blockDim.x)
        table[i] = {values[i / COPIES >> 4], values[i / COPIES & 15]};
}

/* Four `four` of row m of a chunk of x. Lanes read the same of neighbouring chunks at once, which
 * lie in different banks by this. */
template <int M> CT_DEVICE int x_place(int chunk, int four, int m)
{
    int i = four * M + m;
    return chunk * (8 * M) + (i & ~7) + ((i & 7) ^ (chunk & 7));
}

/* M rows of x, zeros where there is none. */
template <int M> CT_DEVICE void make_x(uint4 *to, const ct_rows &x, bool aligned, int n_chunks)
{
    for (int i = threadIdx.x; i < M * n_chunks * 8; i += blockDim.x) {
        int64_t row = (int64_t)blockIdx.y * M + i / (n_chunks * 8);
        int four = i % (n_chunks * 8);
        const float *from = (const float *)x.data + row * x.stride + four * 4;
        uint4 values = {0, 0, 0, 0};
        if (row < x.n_rows && aligned)
            values = ct_load16(from);
        else if (row < x.n_rows)
            values = {ct_bits_of_float(from[0]), ct_bits_of_float(from[1]),
                      ct_bits_of_float(from[2]), ct_bits_of_float(from[3])};
        to[x_place<M>(four / 8, four % 8, i / (n_chunks * 8))] = values;
    }
}

/* ---- products ---- */

typedef struct pieces {
    uint4 codes[ROWS];
    float scales[ROWS];
} pieces;

/* A lane's chunk of each row; rows behind the last are the last again. */
CT_DEVICE void read_pieces(pieces *to, const ct_cuda_scaled &weight, const shape &s, int64_t first,
                           int chunk)
{
    CT_UNROLL
    for (int r = 0; r < ROWS; r++) {
        int64_t row = first + r < weight.n ? first + r : weight.n - 1;
        to->codes[r] = ct_load_stream(weight.codes + row * s.row_codes + chunk * (VALUES / 2));
        to->scales[r] = weight.scales[(s.first_scale + row * s.n_chunks + chunk) >> s.shift];
    }
}

/* Adds four values of each row of weights, of 16 bits `at` of their words, by those of each row of
 * x. */
template <int M>
CT_DEVICE void add_four(float sums[M][ROWS], const uint32_t words[ROWS], int at, const pair *table,
                        const uint4 *x, int chunk, int four)
{
    pair low[ROWS], high[ROWS];
    CT_UNROLL
    for (int r = 0; r < ROWS; r++) {
        low[r] = table[(words[r] >> at & 255u) * COPIES];
        high[r] = table[(words[r] >> (at + 8) & 255u) * COPIES];
    }
    CT_UNROLL
    for (int m = 0; m < M; m++) {
        uint4 values = x[x_place<M>(chunk, four, m)];
        CT_UNROLL
        for (int r = 0; r < ROWS; r++) {
            sums[m][r] += ct_float_of_bits(values.x) * low[r].first;
            sums[m][r] += ct_float_of_bits(values.y) * low[r].second;
            sums[m][r] += ct_float_of_bits(values.z) * high[r].first;
            sums[m][r] += ct_float_of_bits(values.w) * high[r].second;
        }
    }
}

/* The first words of `codes`, which are dropped there. */
CT_DEVICE void next_words(uint32_t words[ROWS], uint4 codes[ROWS])
{
    CT_UNROLL
    for (int r = 0; r < ROWS; r++) {
        words[r] = codes[r].x;
        codes[r] = {codes[r].y, codes[r].z, codes[r].w, 0};
    }
}

template <int M>
CT_DEVICE void add_chunk(float sums[M][ROWS], pieces *from, const pair *table, const uint4 *x,
                         int chunk)
{
    float parts[M][ROWS] = {};
    CT_UNROLL_BY(1)
    for (int i = 0; i < VALUES / 8; i++) {
        uint32_t words[ROWS];
        next_words(words, from->codes);
        add_four<M>(parts, words, 0, table, x, chunk, 2 * i);
        add_four<M>(parts, words, 16, table, x, chunk, 2 * i + 1);
    }
    CT_UNROLL
    for (int m = 0; m < M; m++)
        CT_UNROLL
    for (int r = 0; r < ROWS; r++)
        sums[m][r] += from->scales[r] * parts[m][r];
}

/* Sums over the warp of N values at once, a power of two: lane l gets that of value
 * l / (CT_WARP / N). Lanes add up in the same order whatever N is. */
template <int N, int MASK = CT_WARP / 2> CT_DEVICE float warp_sums(float *values)
{
    constexpr int HALF = N / 2;
    bool upper = threadIdx.x & MASK;
    CT_UNROLL
    for (int i = 0; i < (HALF > 0 ? HALF : 1); i++) {
        float kept = upper && HALF ? values[i + HALF] : values[i];
        float given = upper || !HALF ? values[i] : values[i + HALF];
        values[i] = kept + ct_shuffle_xor(given, MASK);
    }
    if constexpr (MASK > 1)
        return warp_sums<(HALF > 0 ? HALF : 1), MASK / 2>(values);
    return values[0];
}

/* Adds up what the warps that share rows have of them. `memory` is not what the call before used.
 */
template <int M>
CT_DEVICE void write_tile(const ct_scaled_product &product, const ct_scaled_part &part,
                          float sums[M][ROWS], float *memory, int64_t tile, int split)
{
    constexpr int N = M * ROWS, SHARE = CT_WARP / N;
    int warp = threadIdx.x / CT_WARP, lane = threadIdx.x % CT_WARP;
    int groups = WARPS_FOR(M) / split;
    float sum = warp_sums<N>(&sums[0][0]);
    if (lane % SHARE == 0)
        memory[warp * N + lane / SHARE] = sum;
    ct_barrier();
    int group = threadIdx.x / N, m = threadIdx.x % N / ROWS;
    int64_t x_row = (int64_t)blockIdx.y * M + m;
    int64_t row = (tile * groups + group) * ROWS + threadIdx.x % ROWS;
    if (group >= groups || x_row >= product.x.n_rows || row >= part.weight.n)
        return;
    sum = 0;
    for (int i = 0; i < split; i++)
        sum += memory[(group * split + i) * N + threadIdx.x % N];
    ct_finish_part(product, part, x_row, row, sum);
}

template <int M>
CT_KERNEL CT_BOUNDS(WARPS_FOR(M) * CT_WARP, M == 1 ? 2 : 1)
    exact_kernel(ct_scaled_product product, ct_scaled_part part, shape s)
{
    CT_SHARED(float, memory, 2 * WARPS_FOR(M) * M * ROWS);
    pair *table = (pair *)ct_dynamic_shared();
    uint4 *values = (uint4 *)(table + 256 * COPIES);
    int warp = threadIdx.x / CT_WARP, lane = threadIdx.x % CT_WARP, turn = 0;
    make_x<M>(values, product.x, s.aligned, s.n_chunks);
    make_table(table, s.book);
    ct_barrier();
    for (int64_t tile = blockIdx.x; tile < s.n_tiles; tile += gridDim.x, turn ^= 1) {
        int64_t row = (tile * (WARPS_FOR(M) / s.split) + warp / s.split) * ROWS;
        float sums[M][ROWS] = {};
        for (int chunk = warp % s.split * CT_WARP + lane; chunk < s.n_chunks;
             chunk += s.split * CT_WARP) {
            pieces next;
            read_pieces(&next, part.weight, s, row, chunk);
            add_chunk<M>(sums, &next, table + lane % COPIES, values, chunk);
        }
        write_tile<M>(product, part, sums, memory + turn * WARPS_FOR(M) * M * ROWS, tile, s.split);
    }
}

/* As many as leave few lanes without a chunk. */
static int split_of(int64_t n_chunks)
{
    int best = 1;
    double best_share = 0;
    for (int split = MOST_SPLIT; split >= 1; split /= 2) {
        int64_t lanes = split * CT_WARP, rounds = (n_chunks + lanes - 1) / lanes;
        double share = (double)n_chunks / (double)(rounds * lanes);
        if (share > best_share * 1.125) {
            best = split;
            best_share = share;
        }
    }
    return best;
}

#define STATIC_BYTES (2 * MOST_WARPS * COLUMNS * ROWS * sizeof(float) + 64)

int64_t ct_cuda_codes_exact_rows(int64_t k)
{
    size_t limit = ct_cuda_shared_limit() - STATIC_BYTES;
    int64_t n = limit > TABLE_BYTES ? (int64_t)(limit - TABLE_BYTES) / (k * 4) : 0;
    return n < COLUMNS ? n : COLUMNS;
}

template <int M> static ct_status launch(const ct_scaled_product *product, int part, shape s)
{
    constexpr int WARPS = WARPS_FOR(M);
    size_t shared = TABLE_BYTES + (size_t)(M * product->x.width) * 4;
    s.split = split_of(s.n_chunks);
    int64_t rows = WARPS / s.split * ROWS;
    s.n_tiles = (product->part[part].weight.n + rows - 1) / rows;
    int64_t at_once =
        M == 1 && 2 * (shared + STATIC_BYTES + 1024) <= ct_cuda_shared_limit() ? 2 : 1;
    int64_t groups = (product->x.n_rows + M - 1) / M;
    at_once = (at_once * ct_cuda_multiprocessors() + groups - 1) / groups;
    dim3 grid((unsigned)(s.n_tiles < at_once ? s.n_tiles : at_once), (unsigned)groups);
    CT_TRY(ct_cuda_allow_shared((const void *)exact_kernel<M>, shared));
    CT_KERNEL_CALL((exact_kernel<M>), grid, WARPS * CT_WARP, shared, ct_cuda_stream(), *product,
                   product->part[part], s);
    return ct_cuda_launched("4 bits in f32");
}

ct_status ct_cuda_codes_exact(const ct_scaled_product *product, int part)
{
    const ct_cuda_scaled *weight = &product->part[part].weight;
    const ct_rows &x = product->x;
    shape s = {};
    s.book = ct_cuda_codebook(weight->dtype);
    s.row_codes = weight->k / 2;
    s.first_scale = weight->first_value / VALUES;
    s.n_chunks = (int)(weight->k / VALUES);
    s.shift = ct_cuda_block_shift(weight, VALUES);
    s.aligned = ct_in_fours(x);
    int64_t most = ct_cuda_codes_exact_rows(x.width);
    most = most < x.n_rows ? most : x.n_rows;
    return most == 1  ? launch<1>(product, part, s)
           : most < 4 ? launch<2>(product, part, s)
           : most < 8 ? launch<4>(product, part, s)
                      : launch<8>(product, part, s);
}

/* ---- blocks of any size ---- */

#define ANY_THREADS 256

/* A warp for each weight row, by eight rows of x. */
CT_KERNEL any_kernel(ct_scaled_product product, ct_scaled_part part, ct_codebook book)
{
    const ct_cuda_scaled &weight = part.weight;
    const ct_rows &x = product.x;
    CT_SHARED(float, values, 16);
    int lane = threadIdx.x % CT_WARP;
    int64_t row = (int64_t)blockIdx.x * (ANY_THREADS / CT_WARP) + threadIdx.x / CT_WARP;
    int64_t from = row < weight.n ? row : weight.n - 1, first = (int64_t)blockIdx.y * COLUMNS;
    float sums[COLUMNS] = {};
    if (threadIdx.x == 0) {
        CT_UNROLL
        for (int i = 0; i < 16; i++)
            values[i] = book.values[i];
    }
    ct_barrier();
    for (int64_t i = lane; i < weight.k; i += CT_WARP) {
        int64_t value = from * weight.k + i;
        uint32_t code = weight.codes[value / 2] >> (value % 2 ? 0 : 4) & 15u;
        float w = values[code] * weight.scales[(weight.first_value + value) / weight.block];
        CT_UNROLL
        for (int m = 0; m < COLUMNS; m++)
            if (first + m < x.n_rows)
                sums[m] += ((const float *)x.data)[(first + m) * x.stride + i] * w;
    }
    CT_UNROLL
    for (int m = 0; m < COLUMNS; m++) {
        float sum = ct_warp_sum(sums[m]);
        if (lane == 0 && row < weight.n && first + m < x.n_rows)
            ct_finish_part(product, part, first + m, row, sum);
    }
}

ct_status ct_cuda_codes_any(const ct_scaled_product *product, int part)
{
    const int64_t rows = ANY_THREADS / CT_WARP;
    const ct_cuda_scaled *weight = &product->part[part].weight;
    dim3 grid((unsigned)((weight->n + rows - 1) / rows),
              (unsigned)((product->x.n_rows + COLUMNS - 1) / COLUMNS));
    CT_KERNEL_CALL(any_kernel, grid, ANY_THREADS, 0, ct_cuda_stream(), *product,
                   product->part[part], ct_cuda_codebook(weight->dtype));
    return ct_cuda_launched("4 bits, any blocks");
}
