/* LLM.int8: rows of x are rounded to bytes once, and their outliers listed, in the order of
 * columns; then products of bytes are summed exactly, by few rows with dot products of words as the
 * weights come, by many with tensor cores: cuBLASLt's way to use them, where it is there, or ours.
 * Outliers are multiplied with the same bytes. The host never learns how many there are.
 *
 * Codes, scales and products have the CPU's bits. */
#include "scaled_products.h"

#include "gemm.h"
#include "rows.h"
#include "tiles.h"

#define F16_MAX 65504.0f
#define MAX_THREADS 1024
#define LISTED CT_WARP /* entries that a list has at least: zeros behind the last outlier */

typedef struct outlier {
    float x;
    int32_t column;
} outlier;

/* Rows of x as bytes. */
typedef struct byte_rows {
    int8_t *codes; /* [rows, stride], zeros behind a row's end */
    int64_t stride;
    float *absmax;       /* [rows] */
    outlier *outliers;   /* [rows, list], rising; NULL: there cannot be any */
    int32_t *n_outliers; /* [rows] */
    int64_t list;
} byte_rows;

/* ---- rows of x ---- */

/* x as f16, magnitudes beyond it as its largest. */
CT_DEVICE float to_f16(float x)
{
    return x != x ? x : ct_half_to_float(ct_float_to_half(fminf(fmaxf(x, -F16_MAX), F16_MAX)));
}

/* A row that is read, and what is normed by. */
typedef struct read_row {
    const float *from;
    int64_t k;
    bool in_fours;
    const ct_moments *moments;
} read_row;

/* Four values from column `first` on, zeros behind the end. */
CT_DEVICE void read_four(float *values, const read_row &row, const ct_cuda_input_norm &norm,
                         int64_t first)
{
    ct_get4(values, CT_F32, row.from, first, row.k - first, row.in_fours);
    if (norm.weight)
        ct_normalize(values, norm, *row.moments, first, row.k - first);
}

CT_DEVICE uint32_t four_codes(const float *values, float limit, float scale)
{
    uint32_t codes = 0;
    CT_UNROLL
    for (int i = 0; i < 4; i++) {
        float value = to_f16(values[i]);
        if (fabsf(value) < limit)
            codes |= ((uint32_t)ct_round_to_int(ct_mul_exact(value, scale)) & 0xffu) << 8 * i;
    }
    return codes;
}

/* Adds the outliers among four values of each thread to the list, behind `n`, which all threads
 * know; returns how many there are then. */
CT_DEVICE int list_outliers(outlier *list, int n, const float *values, int64_t first, float limit)
{
    CT_SHARED(int, totals, CT_WARP);
    int warp = threadIdx.x / CT_WARP, lane = threadIdx.x % CT_WARP;
    uint32_t found[4], before = (1u << lane) - 1;
    int place = n, total = 0;
    CT_UNROLL
    for (int i = 0; i < 4; i++) {
        found[i] = ct_ballot(fabsf(to_f16(values[i])) >= limit);
        place += ct_popcount(found[i] & before);
        total += ct_popcount(found[i]);
    }
    ct_barrier(); /* the call before may still be reading */
    if (lane == 0)
        totals[warp] = total;
    ct_barrier();
    for (int i = 0; i < (int)blockDim.x / CT_WARP; i++) {
        place += i < warp ? totals[i] : 0;
        n += totals[i];
    }
    CT_UNROLL
    for (int i = 0; i < 4; i++)
        if (found[i] >> lane & 1)
            list[place++] = {values[i], (int32_t)(first + i)};
    return n;
}

/* A block for each row. */
CT_KERNEL bytes_kernel(byte_rows to, ct_rows x, ct_cuda_input_norm norm, float threshold,
                       bool in_fours)
{
    CT_SHARED(float, scratch, CT_MOMENTS_SCRATCH(1, MAX_THREADS));
    CT_SHARED(ct_moments, moments, 1);
    int64_t row = blockIdx.x, step = (int64_t)blockDim.x * 4;
    x.data = (float *)x.data + row * x.stride;
    x.n_rows = 1;
    const read_row from = {(const float *)x.data, x.width, in_fours, moments};
    float limit = threshold > 0 ? threshold : INFINITY;
    float largest = 0, not_a_number = 0, beyond = 0;
    ct_prefetch_norm(norm, x.width);
    ct_wait_for_earlier();
    if (norm.weight)
        ct_find_moments<1>(moments, scratch, norm, x, in_fours);
    for (int64_t first = 4 * (int64_t)threadIdx.x; first < x.width; first += step) {
        float values[4];
        read_four(values, from, norm, first);
        CT_UNROLL
        for (int i = 0; i < 4; i++) {
            float value = to_f16(values[i]);
            not_a_number += 0 * value;
            if (fabsf(value) >= limit)
                beyond = 1;
            else
                largest = fmaxf(largest, fabsf(value));
        }
    }
    float absmax = ct_block_max(largest) + ct_block_sum(not_a_number);
    float scale = absmax > 0 ? ct_mul_exact(ct_div_exact(1, absmax), 127) : 0;
    bool any = to.outliers && ct_block_max(beyond) > 0;
    outlier *list = to.outliers ? to.outliers + row * to.list : NULL;
    int n = 0;
    /* All threads go round equally often: lists are made together. */
    for (int64_t base = 0; base < to.stride; base += step) {
        int64_t first = base + 4 * (int64_t)threadIdx.x;
        float values[4];
        read_four(values, from, norm, first);
        if (first < to.stride)
            *(uint32_t *)(to.codes + row * to.stride + first) = four_codes(values, limit, scale);
        if (any)
            n = list_outliers(list, n, values, first, limit);
    }
    if (list && threadIdx.x >= (unsigned)n && threadIdx.x < LISTED)
        list[threadIdx.x] = {0, 0};
    if (threadIdx.x == 0) {
        to.absmax[row] = absmax;
        if (list)
            to.n_outliers[row] = n;
    }
}

static int64_t list_length(int64_t k)
{
    return k > LISTED ? k : LISTED;
}

static ct_status new_byte_rows(byte_rows *out, int64_t n_rows, int64_t k, float threshold,
                               ct_arena *arena)
{
    size_t size, n = (size_t)n_rows;
    *out = {};
    out->stride = (k + 15) / 16 * 16;
    out->list = list_length(k);
    CT_TRY(ct_mul_size(&size, n, (size_t)out->stride));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->codes, size));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->absmax, n * sizeof *out->absmax));
    if (threshold <= 0)
        return CT_OK;
    CT_TRY(ct_mul_size(&size, n * sizeof *out->outliers, (size_t)out->list));
    CT_TRY(ct_arena_alloc(arena, (void **)&out->outliers, size));
    return ct_arena_alloc(arena, (void **)&out->n_outliers, n * sizeof *out->n_outliers);
}

static ct_status fill_byte_rows(byte_rows to, ct_rows x, const ct_cuda_input_norm &norm,
                                float threshold)
{
    unsigned threads = x.width <= 512 ? 64 : x.width <= 2048 ? 256 : MAX_THREADS;
    CT_KERNEL_EARLY(bytes_kernel, (unsigned)x.n_rows, threads, 0, ct_cuda_stream(), to, x, norm,
                    threshold, ct_in_fours(x));
    return ct_cuda_launched("LLM.int8, bytes");
}

/* ---- products ---- */

#define UNIT CT_BNB_INT8_UNIT

CT_DEVICE float product_of(int sum, float x_absmax, float w_absmax)
{
    return ct_mul_exact(ct_mul_exact((float)sum, ct_mul_exact(x_absmax, w_absmax)), UNIT * UNIT);
}

/* What outliers add to a product, from the sum of theirs with codes. */
CT_DEVICE float with_outliers(float product, float sum, float w_absmax)
{
    return ct_add_exact(product, ct_mul_exact(sum, ct_mul_exact(w_absmax, UNIT)));
}

CT_DEVICE int warp_sum(int value)
{
    for (int mask = CT_WARP / 2; mask > 0; mask /= 2)
        value += ct_shuffle_xor(value, mask);
    return value;
}

CT_DEVICE int dot16(uint4 a, uint4 b, int sum)
{
    return ct_dot4(a.w, b.w, ct_dot4(a.z, b.z, ct_dot4(a.y, b.y, ct_dot4(a.x, b.x, sum))));
}

/* ---- few rows ---- */

#define FEW_THREADS 256
#define FEW_WEIGHT_ROWS 2 /* of a warp */
#define FEW_BAND (FEW_THREADS / CT_WARP * FEW_WEIGHT_ROWS)
#define STEP 512 /* bytes of a row that the warp takes at once */

/* Of the steps that are in flight together. */
CT_CONSTANT int few_loads(int m)
{
    return m == 1 ? 4 : 2;
}

/* A lane's codes of them. */
template <int M> struct few_codes {
    uint4 of[FEW_WEIGHT_ROWS][few_loads(M)];
};

/* The steps from the lane's byte `base` on; rows behind the last are the last again. */
template <int M>
CT_DEVICE void read_codes(few_codes<M> *codes, const ct_cuda_scaled &weight, int64_t row, int base)
{
    CT_UNROLL
    for (int r = 0; r < FEW_WEIGHT_ROWS; r++) {
        int64_t last = weight.n - 1;
        const uint8_t *from = weight.codes + (row + r < last ? row + r : last) * weight.stride;
        CT_UNROLL
        for (int i = 0; i < few_loads(M); i++) {
            int at = base + i * STEP;
            codes->of[r][i] = {};
            if (at < weight.stride)
                codes->of[r][i] = ct_load_stream(from + at);
        }
    }
}

CT_DEVICE int first_byte()
{
    return (int)threadIdx.x % CT_WARP * 16;
}

/* A lane's part of the sums; `codes` are the first. */
template <int M>
CT_DEVICE void few_sums(int sums[M][FEW_WEIGHT_ROWS], few_codes<M> *codes,
                        const ct_cuda_scaled &weight, int64_t row, const byte_rows &x, int n_rows)
{
    constexpr int LOADS = few_loads(M);
    int stride = (int)x.stride; /* also the weight's: k, padded the same way */
    for (int base = first_byte(); base < stride; base += LOADS * STEP) {
        if (base >= LOADS * STEP)
            read_codes<M>(codes, weight, row, base);
        CT_UNROLL
        for (int i = 0; i < LOADS; i++) {
            int at = base + i * STEP < stride ? base + i * STEP : 0;
            CT_UNROLL
            for (int m = 0; m < M; m++) {
                uint4 bytes = ct_load16(x.codes + (m < n_rows ? m : 0) * x.stride + at);
                CT_UNROLL
                for (int r = 0; r < FEW_WEIGHT_ROWS; r++)
                    sums[m][r] = dot16(bytes, codes->of[r][i], sums[m][r]);
            }
        }
    }
}

/* A lane's part of what row m's outliers have with a row of codes; `first` is the list's entry of
 * this lane. */
CT_DEVICE float outlier_part(const byte_rows &x, int m, int n, outlier first, const uint8_t *codes)
{
    const int8_t *weights = (const int8_t *)codes;
    float sum = first.x * (float)weights[first.column];
    for (int i = CT_WARP + threadIdx.x % CT_WARP; i < n; i += CT_WARP) {
        outlier one = x.outliers[m * x.list + i];
        sum += one.x * (float)weights[one.column];
    }
    return sum;
}

/* The lane's entry of a list's beginning. */
CT_DEVICE outlier first_of(const byte_rows &x, int m, int n_rows)
{
    if (!x.outliers || m >= n_rows)
        return {0, 0};
    return x.outliers[m * x.list + threadIdx.x % CT_WARP];
}

/* Up to this many rows the lists' beginnings are asked for before the sums are made, and are there
 * when those are. More would take too many registers. */
#define ROWS_ASKED_BEFORE 4

/* Of the products of a part's two weight rows from `row` on, that of x's row m by weight row
 * row + r: lane m * FEW_WEIGHT_ROWS + r has it. `codes` are the rows' first. */
template <int M>
CT_DEVICE float few_value(const ct_cuda_scaled &weight, int64_t row, few_codes<M> *codes,
                          const byte_rows &x, int n_rows, const outlier first[M])
{
    int sums[M][FEW_WEIGHT_ROWS] = {}, lane = threadIdx.x % CT_WARP;
    float mine = 0;
    few_sums<M>(sums, codes, weight, row, x, n_rows);
    CT_UNROLL
    for (int r = 0; r < FEW_WEIGHT_ROWS; r++) {
        int64_t from = row + r < weight.n ? row + r : weight.n - 1;
        float absmax = weight.scales[from];
        CT_UNROLL
        for (int m = 0; m < M; m++) {
            if (m >= n_rows)
                continue;
            float value = product_of(warp_sum(sums[m][r]), x.absmax[m], absmax);
            int n_outliers = x.outliers ? x.n_outliers[m] : 0;
            if (n_outliers) {
                const uint8_t *codes = weight.codes + from * weight.stride;
                outlier one = M <= ROWS_ASKED_BEFORE ? first[m] : first_of(x, m, n_rows);
                float sum = ct_warp_sum(outlier_part(x, m, n_outliers, one, codes));
                value = with_outliers(value, sum, absmax);
            }
            if (lane == m * FEW_WEIGHT_ROWS + r)
                mine = value;
        }
    }
    return mine;
}

/* A warp for each two weight rows of a part, or of both parts of a gated layer. */
template <int M>
CT_KERNEL CT_BOUNDS(FEW_THREADS, M <= 2 ? 3 : 2)
    few_kernel(ct_scaled_product product, byte_rows x, int n_rows)
{
    int warp = threadIdx.x / CT_WARP, lane = threadIdx.x % CT_WARP;
    int64_t band = blockIdx.x;
    int p = ct_part_of(product, FEW_BAND, &band);
    int64_t row = band * FEW_BAND + warp * FEW_WEIGHT_ROWS, mine = row + lane % FEW_WEIGHT_ROWS;
    few_codes<M> codes;
    read_codes<M>(&codes, product.part[p].weight, row, first_byte());
    ct_wait_for_earlier();
    outlier first[M];
    CT_UNROLL
    for (int m = 0; m < M && M <= ROWS_ASKED_BEFORE; m++)
        first[m] = first_of(x, m, n_rows);
    float gate = 0, value = 0;
    CT_UNROLL_BY(1)
    for (int begin = p, last = product.gated ? p + 1 : p; p <= last; p++) {
        gate = value;
        if (p > begin)
            read_codes<M>(&codes, product.part[p].weight, row, first_byte());
        value = few_value<M>(product.part[p].weight, row, &codes, x, n_rows, first);
        value = mine < product.part[p].weight.n ? ct_add_bias(product.part[p], mine, value) : 0;
    }
    const ct_scaled_part &part = product.part[p - 1];
    int m = lane / FEW_WEIGHT_ROWS;
    if (m >= n_rows || mine >= part.weight.n)
        return;
    if (product.gated)
        ct_finish_gated(product.epilogue, product.y, m, part.column + mine, gate, value);
    else
        ct_finish(product.epilogue, product.y, m, part.column + mine, value);
}

template <int M> static ct_status few(const ct_scaled_product *product, byte_rows x)
{
    CT_KERNEL_EARLY((few_kernel<M>), (unsigned)ct_count_bands(product, FEW_BAND), FEW_THREADS, 0,
                    ct_cuda_stream(), *product, x, (int)product->x.n_rows);
    return ct_cuda_launched("LLM.int8, few rows");
}

static ct_status few_products(const ct_scaled_product *product, byte_rows x)
{
    int64_t n_rows = product->x.n_rows;
    return n_rows == 1   ? few<1>(product, x)
           : n_rows == 2 ? few<2>(product, x)
           : n_rows <= 4 ? few<4>(product, x)
                         : few<8>(product, x);
}

/* ---- many rows ---- */

#define TILE_BYTES (CT_TILE_WORDS * 4)

typedef struct tile_pieces {
    uint4 w[2], x[2];
} tile_pieces;

/* 32 bytes of a row from `first` on, zeros behind its end and where there is no row. */
CT_DEVICE void read_piece(uint4 *piece, const void *rows, int64_t row, int64_t n, int64_t stride,
                          int64_t first)
{
    const uint8_t *from = (const uint8_t *)rows + row * stride + first;
    CT_UNROLL
    for (int i = 0; i < 2; i++) {
        piece[i] = {};
        if (row < n && first + i * 16 < stride)
            piece[i] = ct_load16(from + i * 16);
    }
}

CT_DEVICE void read_pieces(tile_pieces *to, const ct_cuda_scaled &weight, const byte_rows &x,
                           int64_t n_rows, int64_t first)
{
    first += ct_tile_half() * 32;
    read_piece(to->w, weight.codes, (int64_t)blockIdx.x * CT_TILE + ct_tile_row(), weight.n,
               weight.stride, first);
    read_piece(to->x, x.codes, (int64_t)blockIdx.y * CT_TILE + ct_tile_row(), n_rows, x.stride,
               first);
}

CT_DEVICE float outlier_sum(const byte_rows &x, int64_t row, const uint8_t *codes)
{
    float sum = 0;
    for (int i = 0; i < x.n_outliers[row]; i++) {
        outlier one = x.outliers[row * x.list + i];
        sum += one.x * (float)(int8_t)codes[one.column];
    }
    return sum;
}

CT_DEVICE void write_product(const ct_scaled_product &all, const ct_scaled_part &part,
                             const byte_rows &x, int64_t x_row, int64_t weight_row, int sum)
{
    const ct_cuda_scaled &weight = part.weight;
    if (x_row >= all.x.n_rows || weight_row >= weight.n)
        return;
    float absmax = weight.scales[weight_row];
    float product = product_of(sum, x.absmax[x_row], absmax);
    if (x.outliers && x.n_outliers[x_row])
        product = with_outliers(
            product, outlier_sum(x, x_row, weight.codes + weight_row * weight.stride), absmax);
    ct_finish_part(all, part, x_row, weight_row, product);
}

/* Tiles lie twice: while one is multiplied, the next is read. */
CT_KERNEL CT_BOUNDS(CT_TILE_THREADS, 4)
    many_kernel(ct_scaled_product product, ct_scaled_part part, byte_rows x)
{
    const ct_cuda_scaled &weight = part.weight;
    int64_t n_rows = product.x.n_rows;
    CT_SHARED(uint4, memory, 4 * CT_TILE_SIZE / 4);
    uint32_t *tiles = (uint32_t *)memory;
    tile_pieces pieces;
    int sums[2][4][4] = {};
    read_pieces(&pieces, weight, x, n_rows, 0);
    int turn = 0;
    for (int64_t first = 0; first < weight.stride; first += TILE_BYTES, turn ^= 1) {
        uint32_t *w_tile = tiles + turn * 2 * CT_TILE_SIZE, *x_tile = w_tile + CT_TILE_SIZE;
        ct_tile_store(w_tile, pieces.w);
        ct_tile_store(x_tile, pieces.x);
        ct_barrier();
        if (first + TILE_BYTES < weight.stride)
            read_pieces(&pieces, weight, x, n_rows, first + TILE_BYTES);
        ct_tile_multiply(sums, w_tile, x_tile);
    }
    int64_t weight_row = (int64_t)blockIdx.x * CT_TILE, x_row = (int64_t)blockIdx.y * CT_TILE;
    CT_UNROLL
    for (int band = 0; band < 2; band++)
        CT_UNROLL
    for (int i = 0; i < 4; i++)
        CT_UNROLL
    for (int quarter = 0; quarter < 4; quarter++)
        write_product(product, part, x, x_row + ct_tile_x_row(i, quarter),
                      weight_row + ct_tile_weight_row(band, quarter), sums[band][i][quarter]);
}

static ct_status many(const ct_scaled_product *product, int p, byte_rows x)
{
    dim3 grid((unsigned)((product->part[p].weight.n + CT_TILE - 1) / CT_TILE),
              (unsigned)((product->x.n_rows + CT_TILE - 1) / CT_TILE));
    CT_KERNEL_CALL(many_kernel, grid, CT_TILE_THREADS, 0, ct_cuda_stream(), *product,
                   product->part[p], x);
    return ct_cuda_launched("LLM.int8, many rows");
}

/* ---- many rows by cuBLASLt ---- */

/* A block finishes the products of 32 rows of x by 64 weight rows. */
#define SUMS_THREADS 256
#define SUMS_ROWS CT_WARP
#define SUMS_COLUMNS 64
#define SUMS_FOURS (SUMS_COLUMNS / 4)
#define SUMS_WARPS (SUMS_THREADS / CT_WARP)
#define SUMS_OF_WARP (SUMS_COLUMNS / SUMS_WARPS) /* weight rows */
/* Of a row of x in shared memory; odd, so that lanes' places lie in different banks. */
#define SUMS_STRIDE (SUMS_COLUMNS + 1)
#define STAGED_STRIDE (CT_WARP + 1)
#define SUMS_SIZE (SUMS_ROWS * SUMS_STRIDE)
#define STAGED_SIZE (SUMS_ROWS * STAGED_STRIDE)

typedef struct sums_shape {
    ct_rows y; /* the part's columns, as in: */
    ct_cuda_epilogue epilogue;
    const int32_t *sums; /* [rows of y, its width] */
    bool in_fours;
} sums_shape;

/* Up to CT_WARP entries of the lists of the block's rows from `base` on, zeros behind the last. */
CT_DEVICE void stage_outliers(outlier *staged, const byte_rows &x, int64_t n_rows, int base)
{
    int lane = threadIdx.x % CT_WARP;
    for (int m = threadIdx.x / CT_WARP; m < SUMS_ROWS; m += SUMS_WARPS) {
        int64_t row = (int64_t)blockIdx.x * SUMS_ROWS + m;
        outlier one = {0, 0};
        if (row < n_rows && base + lane < x.n_outliers[row])
            one = x.outliers[row * x.list + base + lane];
        staged[m * STAGED_STRIDE + lane] = one;
    }
}

/* What the outliers of the block's rows, `most` in one of them, have with its weight rows. A lane
 * has a row of x and all lanes the same weight row: where rows have outliers in the same columns,
 * as those of models do, they read the same byte. */
CT_DEVICE void sum_outliers(float *to, const byte_rows &x, int64_t n_rows,
                            const ct_cuda_scaled &weight, int most)
{
    CT_SHARED(outlier, staged, STAGED_SIZE);
    int lane = threadIdx.x % CT_WARP, first = threadIdx.x / CT_WARP * SUMS_OF_WARP;
    const int8_t *codes[SUMS_OF_WARP];
    float sums[SUMS_OF_WARP] = {};
    CT_UNROLL
    for (int i = 0; i < SUMS_OF_WARP; i++) {
        int64_t row = (int64_t)blockIdx.y * SUMS_COLUMNS + first + i;
        row = row < weight.n ? row : weight.n - 1;
        codes[i] = (const int8_t *)weight.codes + row * weight.stride;
    }
    for (int base = 0; base < most; base += CT_WARP) {
        ct_barrier(); /* the entries before may still be read */
        stage_outliers(staged, x, n_rows, base);
        ct_barrier();
        for (int j = 0; j < CT_WARP && base + j < most; j++) {
            outlier one = staged[lane * STAGED_STRIDE + j];
            CT_UNROLL
            for (int i = 0; i < SUMS_OF_WARP; i++)
                sums[i] += one.x * (float)codes[i][one.column];
        }
    }
    CT_UNROLL
    for (int i = 0; i < SUMS_OF_WARP; i++)
        to[lane * SUMS_STRIDE + first + i] = sums[i];
}

/* Four neighbours, of which `left` exist. */
CT_DEVICE void read_sums(int sums[4], const int32_t *from, int64_t left, bool in_fours)
{
    if (in_fours) {
        uint4 four = ct_load16(from);
        sums[0] = (int)four.x;
        sums[1] = (int)four.y;
        sums[2] = (int)four.z;
        sums[3] = (int)four.w;
        return;
    }
    CT_UNROLL
    for (int j = 0; j < 4; j++)
        sums[j] = j < left ? from[j] : 0;
}

/* The most outliers that a row of the block has. */
CT_DEVICE int most_outliers(const byte_rows &x, int64_t n_rows)
{
    int64_t row = (int64_t)blockIdx.x * SUMS_ROWS + threadIdx.x % CT_WARP;
    int n = x.outliers && row < n_rows ? x.n_outliers[row] : 0;
    return (int)ct_warp_max((float)n);
}

CT_KERNEL CT_BOUNDS(SUMS_THREADS, 4)
    finish_sums_kernel(sums_shape s, ct_scaled_part part, byte_rows x)
{
    CT_SHARED(float, outlier_sums, SUMS_SIZE);
    const ct_cuda_scaled &weight = part.weight;
    int most = most_outliers(x, s.y.n_rows);
    if (most > 0) { /* for all threads of a block, or none */
        sum_outliers(outlier_sums, x, s.y.n_rows, weight, most);
        ct_barrier();
    }
    CT_UNROLL
    for (int i = 0; i < SUMS_ROWS * SUMS_FOURS / SUMS_THREADS; i++) {
        int m = (threadIdx.x + i * SUMS_THREADS) / SUMS_FOURS, four = threadIdx.x % SUMS_FOURS;
        int64_t row = (int64_t)blockIdx.x * SUMS_ROWS + m;
        int64_t column = (int64_t)blockIdx.y * SUMS_COLUMNS + four * 4, left = weight.n - column;
        if (row >= s.y.n_rows || left <= 0)
            continue;
        int sums[4];
        float values[4] = {}, x_absmax = x.absmax[row];
        const float *added = outlier_sums + m * SUMS_STRIDE + four * 4;
        bool has_outliers = most > 0 && x.n_outliers[row];
        read_sums(sums, s.sums + row * weight.n + column, left, s.in_fours);
        CT_UNROLL
        for (int j = 0; j < 4; j++) {
            if (j >= left)
                continue;
            float absmax = weight.scales[column + j];
            values[j] = product_of(sums[j], x_absmax, absmax);
            if (has_outliers)
                values[j] = with_outliers(values[j], added[j], absmax);
            values[j] = ct_add_bias(part, column + j, values[j]);
        }
        ct_finish4(s.epilogue, s.y, row, column, values, left, s.in_fours);
    }
}

/* *done = false where the library has no way. `sums` has place for those of all rows. */
static ct_status many_by_blas(bool *done, const ct_scaled_product *product, int p, byte_rows x,
                              int32_t *sums, ct_arena *arena)
{
    const ct_scaled_part *part = &product->part[p];
    int64_t n_rows = product->x.n_rows, n = part->weight.n;
    ct_gemm gemm = {};
    gemm.dtype = CT_I8;
    gemm.weight = part->weight.codes;
    gemm.x = {x.codes, CT_I8, n_rows, x.stride, x.stride};
    gemm.y = {sums, CT_I32, n_rows, n, n};
    CT_TRY(ct_cuda_gemm(done, &gemm, arena));
    if (!*done)
        return CT_OK;
    sums_shape s = {};
    s.y = ct_columns_from(product->y, part->column, n);
    s.epilogue = ct_epilogue_columns(product->epilogue, part->column, n);
    s.sums = sums;
    s.in_fours = n % 4 == 0 && ct_finish_in_fours(&s.epilogue, s.y);
    dim3 grid((unsigned)((n_rows + SUMS_ROWS - 1) / SUMS_ROWS),
              (unsigned)((n + SUMS_COLUMNS - 1) / SUMS_COLUMNS));
    CT_KERNEL_CALL(finish_sums_kernel, grid, SUMS_THREADS, 0, ct_cuda_stream(), s, *part, x);
    return ct_cuda_launched("LLM.int8, sums");
}

/* `sums` NULL: not by cuBLASLt. */
static ct_status many_products(const ct_scaled_product *product, byte_rows x, int32_t *sums,
                               ct_arena *arena)
{
    for (int p = 0; p < product->n_parts; p++) {
        bool done = false;
        if (sums)
            CT_TRY(many_by_blas(&done, product, p, x, sums, arena));
        if (!done)
            CT_TRY(many(product, p, x));
    }
    return CT_OK;
}

/* ---- all products ---- */

static int64_t widest_part(const ct_scaled_product *product)
{
    int64_t n = 0;
    for (int p = 0; p < product->n_parts; p++)
        n = product->part[p].weight.n > n ? product->part[p].weight.n : n;
    return n;
}

/* Rows of x go in bands: all of a row may be outliers, and sums lie beside y. */
ct_status ct_cuda_int8_products(const ct_scaled_product *product, float threshold, bool blas,
                                ct_arena *arena)
{
    byte_rows bytes;
    int32_t *sums = NULL;
    int64_t n_rows = product->x.n_rows, k = product->x.width;
    int64_t list_bytes = list_length(k) * (int64_t)sizeof(outlier);
    int64_t sums_bytes = widest_part(product) * (int64_t)sizeof *sums;
    int64_t at_once = ct_band_rows(n_rows, list_bytes + sums_bytes);
    CT_TRY(new_byte_rows(&bytes, at_once, k, threshold, arena));
    if (blas && at_once > CT_FEW_ROWS)
        CT_TRY(ct_arena_alloc(arena, (void **)&sums, (size_t)(at_once * sums_bytes)));
    for (int64_t i = 0; i < n_rows; i += at_once) {
        ct_scaled_product band = ct_scaled_rows(*product, i, at_once);
        CT_TRY(fill_byte_rows(bytes, band.x, band.norm, threshold));
        CT_TRY(band.x.n_rows <= CT_FEW_ROWS ? few_products(&band, bytes)
                                            : many_products(&band, bytes, sums, arena));
    }
    return CT_OK;
}
