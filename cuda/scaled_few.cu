/* Up to eight rows of x by 4-bit weights, each read once from memory, which bounds it.
 *
 * Codes become pairs of bf16 by a table that every lane has for itself, so that no lookup waits for
 * another; a pair is a word of what the tensor cores multiply, weights being the side of 16 rows
 * and x the one of 8. x is the sum of two bf16, high and low, which are multiplied apart: it keeps
 * 16 bits. Sums of 64 values are multiplied by their f32 scale, so blocks must not be smaller. FP4
 * goes in whole numbers of 1/192, which bf16 holds exactly.
 *
 * A block of threads has 16 weight rows of a part at a time, of which each warp takes other 64s of
 * values; it makes table and x once, while its first codes are on their way. */
#include "scaled_products.h"

#include "fours.h"

#define THREADS 512
#define WARPS (THREADS / CT_WARP)
#define ROWS 16   /* of weights, at a time */
#define COLUMNS 8 /* rows of x, at most */
#define VALUES 64 /* of a row of weights that a warp multiplies at a time, 16 in a lane */
#define LOADS 4
#define STEPS 4 /* matrix products for 64 values */
#define TABLE_BYTES (256 * (int)sizeof(entry))
#define FP4_UNIT (1.0f / 192)

/* Of the table, for a byte of codes. */
typedef struct entry {
    uint32_t words[CT_WARP];
} entry;

/* Everything but the numbers that are multiplied. */
typedef struct shape {
    ct_codebook book; /* values in units */
    float unit;
    int64_t row_codes;                        /* bytes */
    int64_t first_scale[CT_LINEAR_MAX_PARTS]; /* of the first value, in blocks of 64 */
    int shift[CT_LINEAR_MAX_PARTS];           /* a scale serves 2^shift of them */
    int64_t n_tiles;                          /* of ROWS weight rows, of all parts */
    int n_blocks;                             /* of 64 in a row */
    bool aligned;                             /* rows of x begin at multiples of 16 bytes */
} shape;

/* ---- what a block of threads makes first ---- */

/* The bf16 of two values in a word, in *low those of what they lack. */
CT_DEVICE uint32_t split_pair(uint32_t *low, float first, float second)
{
    uint32_t high = ct_pack_bfloats(first, second);
    *low = ct_pack_bfloats(first - ct_float_of_bits(high << 16),
                           second - ct_float_of_bits(high & 0xffff0000u));
    return high;
}

/* Entry of a byte: the pair of its values, the same for each lane; `fine`: with the low pair behind
 * it, the same for each two lanes (of half a warp, which is what 8 bytes a lane are read for). */
template <bool fine> CT_DEVICE void make_table(uint32_t *table, const ct_codebook &book)
{
    const float *values = ct_shared_codebook(book);
    for (int i = threadIdx.x; i < TABLE_BYTES / 16; i += THREADS) {
        uint32_t low, high = split_pair(&low, values[i / 8 >> 4], values[i / 8 & 15]);
        uint4 entries = {high, fine ? low : high, high, fine ? low : high};
        ct_store16(table + i * 4, entries);
    }
}

/* The four values of x that a lane multiplies in a step: two high words and two low ones. Lane
 * 4 g + t has values 16 t ... 16 t + 15 of row g's 64, four of them in each step. */
CT_DEVICE int x_place(int block, int step, int row, int t, int n_rows)
{
    return ((block * STEPS + step) * n_rows + row) * 4 + t;
}

CT_DEVICE void make_x(uint4 *to, const ct_rows &x, bool aligned, const ct_cuda_input_norm &norm,
                      const ct_moments *moments)
{
    int n_rows = (int)x.n_rows, fours = (int)x.width / 4;
    for (int row = 0; row < n_rows; row++)
        for (int four = threadIdx.x; four < fours; four += THREADS) {
            float values[4];
            uint4 words;
            ct_get4(values, CT_F32, x.data, row * x.stride + four * 4, 4, aligned);
            if (norm.weight)
                ct_normalize(values, norm, moments[row], four * 4, 4);
            words.x = split_pair(&words.z, values[0], values[1]);
            words.y = split_pair(&words.w, values[2], values[3]);
            to[x_place(four / 16, four % 4, row, four / 4 % 4, n_rows)] = words;
        }
}

/* ---- products ---- */

/* A lane's codes of its two weight rows, and their scales. */
typedef struct pieces {
    uint64_t codes[LOADS][2];
    float scales[LOADS][2];
} pieces;

/* Of the blocks `block`, `block` + WARPS ... of a tile; rows behind the last are the last again.
 * `up`: of a gated layer's second part. */
CT_DEVICE void read_pieces(pieces *to, const ct_scaled_product &product, const shape &s, int tile,
                           bool up, int block)
{
    int group = threadIdx.x % CT_WARP / 4, t = threadIdx.x % 4;
    int64_t place = tile;
    int p = ct_part_of(product, ROWS, &place) + up, first = (int)place * ROWS;
    const ct_cuda_scaled &weight = product.part[p].weight;
    CT_UNROLL
    for (int r = 0; r < 2; r++) {
        int row = first + group + r * 8, last = (int)weight.n - 1;
        row = row < last ? row : last;
        const uint8_t *codes = weight.codes + row * s.row_codes + t * 8;
        /* In 32 bits: 2^32 blocks are more than a GPU has memory for. */
        unsigned scale = (unsigned)s.first_scale[p] + (unsigned)row * (unsigned)s.n_blocks;
        CT_UNROLL
        for (int i = 0; i < LOADS; i++) {
            int at = block + i * WARPS;
            if (at < s.n_blocks) {
                to->codes[i][r] = *(const uint64_t *)(codes + at * (VALUES / 2));
                to->scales[i][r] = weight.scales[(scale + (unsigned)at) >> s.shift[p]];
            }
        }
    }
}

/* The words of a step's weights: their pairs, and what those lack; `table` is the lane's own. As
 * few instructions as can be: they take the time, where what comes from memory is so little. */
template <bool fine>
CT_DEVICE void decode(uint32_t *high, uint32_t *low, const entry *table, const uint64_t codes[2],
                      int step)
{
    CT_UNROLL
    for (int i = 0; i < 4; i++) {
        uint32_t four = (uint32_t)(codes[i % 2] >> (step / 2 * 32));
        const entry &pairs = table[ct_byte(four, step % 2 * 2 + i / 2)];
        high[i] = pairs.words[0];
        if (fine)
            low[i] = pairs.words[1];
    }
}

template <bool fine>
CT_DEVICE void multiply_block(float *sums, const uint64_t codes[2], const float scales[2],
                              const entry *table, const uint4 *x, int block, int n_rows)
{
    int group = threadIdx.x % CT_WARP / 4, t = threadIdx.x % 4;
    float parts[4] = {}, low_parts[4] = {};
    /* Columns without a row of x have the first one's: nobody looks at them. */
    x += x_place(block, 0, group < n_rows ? group : 0, t, n_rows);
    CT_UNROLL
    for (int step = 0; step < STEPS; step++) {
        uint32_t high[4], low[4];
        uint4 words = x[x_place(0, step, 0, 0, n_rows)];
        const uint32_t x_high[2] = {words.x, words.y}, x_low[2] = {words.z, words.w};
        decode<fine>(high, low, table, codes, step);
        ct_mma(parts, high, x_high);
        ct_mma(low_parts, high, x_low);
        if (fine)
            ct_mma(low_parts, low, x_high);
    }
    CT_UNROLL
    for (int i = 0; i < 4; i++)
        sums[i] += scales[i / 2] * (parts[i] + low_parts[i]);
}

/* Adds up what the warps have of a tile: thread ROWS m + r gets the sum of row m of x by the tile's
 * row r. `memory` is not what the call before used. */
CT_DEVICE float tile_sum(const float *sums, float *memory)
{
    int warp = threadIdx.x / CT_WARP, group = threadIdx.x % CT_WARP / 4, t = threadIdx.x % 4;
    CT_UNROLL
    for (int i = 0; i < 4; i++)
        memory[(warp * COLUMNS + t * 2 + i % 2) * ROWS + group + i / 2 * 8] = sums[i];
    ct_barrier();
    float sum = 0;
    if (threadIdx.x < COLUMNS * ROWS)
        for (int i = 0; i < WARPS; i++)
            sum += memory[i * COLUMNS * ROWS + threadIdx.x];
    return sum;
}

/* What tile_sum gave, of a gated layer's first part `gate`. */
CT_DEVICE void write_tile(const ct_scaled_product &product, int64_t tile, float gate, float sum)
{
    int p = ct_part_of(product, ROWS, &tile), column = threadIdx.x / ROWS;
    const ct_scaled_part &part = product.part[p];
    int64_t row = tile * ROWS + threadIdx.x % ROWS;
    if (column >= product.x.n_rows || row >= part.weight.n)
        return;
    if (product.gated)
        ct_finish_gated(product.epilogue, product.y, column, part.column + row,
                        ct_add_bias(part, row, gate), ct_add_bias(product.part[1], row, sum));
    else
        ct_finish_part(product, part, column, row, sum);
}

template <bool fine>
CT_KERNEL CT_BOUNDS(THREADS, fine ? 1 : 2) few_kernel(ct_scaled_product product, shape s)
{
    CT_SHARED(float, memory, 2 * WARPS * COLUMNS * ROWS);
    CT_SHARED(ct_moments, moments, COLUMNS);
    uint32_t *table = (uint32_t *)ct_dynamic_shared();
    uint4 *words = (uint4 *)(table + TABLE_BYTES / 4);
    int warp = threadIdx.x / CT_WARP, turn = 0;
    pieces next;
    /* One row is normed while codes are on their way; more would take the registers of those. */
    if (product.norm.weight && product.x.n_rows > 1) {
        ct_wait_for_earlier();
        ct_find_moments<COLUMNS>(moments, memory, product.norm, product.x, s.aligned);
    }
    read_pieces(&next, product, s, blockIdx.x, false, warp);
    make_table<fine>(table, s.book);
    ct_prefetch_norm(product.norm, product.x.width);
    ct_wait_for_earlier();
    if (product.norm.weight && product.x.n_rows == 1)
        ct_find_moments<1>(moments, memory, product.norm, product.x, s.aligned);
    make_x(words, product.x, s.aligned, product.norm, moments);
    ct_barrier();
    int lane = threadIdx.x % CT_WARP;
    const entry *mine = (const entry *)(table + (fine ? lane % 16 * 2 : lane));
    float gate = 0;
    /* A gated layer's tile is done twice: when it is the second part's turn, that is `up`. */
    for (int tile = blockIdx.x; tile < s.n_tiles; turn ^= 1) {
        bool up = product.gated && turn, last = !product.gated || turn;
        float sums[4] = {};
        for (int block = warp; block < s.n_blocks; block += WARPS * LOADS) {
            if (block != warp)
                read_pieces(&next, product, s, tile, up, block);
            CT_UNROLL
            for (int i = 0; i < LOADS; i++)
                if (block + i * WARPS < s.n_blocks)
                    multiply_block<fine>(sums, next.codes[i], next.scales[i], mine, words,
                                         block + i * WARPS, (int)product.x.n_rows);
        }
        float sum = tile_sum(sums, memory + turn * WARPS * COLUMNS * ROWS) * s.unit;
        if (last) {
            write_tile(product, tile, gate, sum);
            tile += (int)gridDim.x;
        }
        gate = sum;
        /* Behind what finishes a tile: both at once would take too many registers. */
        if (tile < s.n_tiles)
            read_pieces(&next, product, s, tile, !last, warp);
    }
}

static shape shape_of(const ct_scaled_product *product)
{
    shape s = {};
    ct_dtype format = product->part[0].weight.dtype;
    s.book = ct_cuda_codebook(format);
    s.unit = 1;
    if (format == CT_FP4) {
        s.unit = FP4_UNIT;
        for (int i = 0; i < 16; i++)
            s.book.values[i] = rintf(s.book.values[i] * 192);
    }
    s.row_codes = product->x.width / 2;
    s.n_tiles = ct_count_bands(product, ROWS);
    s.n_blocks = (int)(product->x.width / VALUES);
    s.aligned = ct_in_fours(product->x);
    for (int p = 0; p < product->n_parts; p++) {
        s.first_scale[p] = product->part[p].weight.first_value / VALUES;
        s.shift[p] = ct_cuda_block_shift(&product->part[p].weight, VALUES);
    }
    return s;
}

#define STATIC_BYTES                                                                               \
    (2 * WARPS * COLUMNS * ROWS * sizeof(float) + COLUMNS * sizeof(ct_moments) + 64)

static size_t shared_bytes(int64_t n_rows, int64_t k)
{
    return TABLE_BYTES + (size_t)(n_rows * k) * 4;
}

int64_t ct_cuda_codes_few_rows(int64_t k)
{
    size_t limit = ct_cuda_shared_limit() - STATIC_BYTES;
    int64_t n = limit > TABLE_BYTES ? (int64_t)(limit - TABLE_BYTES) / (k * 4) : 0;
    return n < COLUMNS ? n : COLUMNS;
}

template <bool fine> static ct_status launch(const ct_scaled_product *product, const shape &s)
{
    size_t shared = shared_bytes(product->x.n_rows, product->x.width);
    int64_t at_once = !fine && 2 * (shared + STATIC_BYTES + 1024) <= ct_cuda_shared_limit() ? 2 : 1;
    at_once *= ct_cuda_multiprocessors();
    unsigned blocks = (unsigned)(s.n_tiles < at_once ? s.n_tiles : at_once);
    CT_TRY(ct_cuda_allow_shared((const void *)few_kernel<fine>, shared));
    CT_KERNEL_EARLY((few_kernel<fine>), blocks, THREADS, shared, ct_cuda_stream(), *product, s);
    return ct_cuda_launched("4 bits, few rows");
}

ct_status ct_cuda_codes_few(const ct_scaled_product *product, bool fine)
{
    shape s = shape_of(product);
    return fine && product->part[0].weight.dtype == CT_NF4 ? launch<true>(product, s)
                                                           : launch<false>(product, s);
}
