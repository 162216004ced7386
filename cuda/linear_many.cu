/* Many rows of x: tiles of the weights are decoded to f32 in shared memory, and multiplied with
 * tiles of x there. Takes any sizes, types and addresses. */
#include "linear.h"

#include "decode.h"
#include "fours.h"
#include "runtime.h"

#define THREADS 256
#define TILE_N 64 /* weight rows */
#define TILE_M 64 /* rows of x */
#define TILE_K 32 /* values of both: eight for each thread */
#define SIDE 4    /* of the sums of a thread */
/* Tiles lie by k, rows in sequence; the rest keeps fours aligned. */
#define TILE_STRIDE (64 + 4)

/* What a thread brings of the next tiles: eight values of a weight row, eight of one of x. */
typedef struct pieces {
    ct_bits weights;
    float x[8];
} pieces;

CT_DEVICE void read_x(float *values, const ct_rows &x, bool aligned, int64_t row, int64_t first)
{
    int64_t at = row * x.stride + first;
    if (row < x.n_rows && aligned && first + 8 <= x.width) {
        const float *from = (const float *)x.data + at;
        uint4 a = ct_load16(from), b = ct_load16(from + 4);
        const uint32_t bits[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        for (int i = 0; i < 8; i++)
            values[i] = ct_float_of_bits(bits[i]);
        return;
    }
    for (int i = 0; i < 8; i++)
        values[i] = row < x.n_rows && first + i < x.width ? ct_get_as(x.dtype, x.data, at + i) : 0;
}

/* Rows behind the last are the last again: their sums go nowhere. */
template <ct_dtype dtype>
CT_DEVICE void read_pieces(pieces *to, const ct_cuda_planes &weight, int64_t weight_row,
                           const ct_rows &x, bool x_aligned, int64_t x_row, int eight)
{
    int64_t row = weight_row < weight.n ? weight_row : weight.n - 1;
    if ((int64_t)eight * 8 < weight.k)
        ct_read_eight<dtype>(&to->weights, weight, row, eight);
    else
        to->weights = {};
    read_x(to->x, x, x_aligned, x_row, (int64_t)eight * 8);
}

/* To place (k, row) of their tiles, k from 8 * part on. */
template <ct_dtype dtype>
CT_DEVICE void store_pieces(float *weights, float *x, const pieces &from, int row, int part)
{
    float scale = ct_scale<dtype>(from.weights, 0), minimum = ct_minimum<dtype>(from.weights);
    CT_UNROLL
    for (int j = 0; j < 2; j++) {
        float values[4];
        ct_four_values<dtype>(values, from.weights, j);
        CT_UNROLL
        for (int i = 0; i < 4; i++)
            weights[(8 * part + 4 * j + i) * TILE_STRIDE + row] = scale * values[i] + minimum;
    }
    CT_UNROLL
    for (int i = 0; i < 8; i++)
        x[(8 * part + i) * TILE_STRIDE + row] = from.x[i];
}

/* sums [of x's rows][of weight rows] += tiles at the thread's place. */
CT_DEVICE void multiply_tiles(float (*sums)[SIDE], const float *weights, const float *x)
{
    for (int k = 0; k < TILE_K; k++) {
        float w[SIDE], v[SIDE];
        ct_load_floats(w, weights + k * TILE_STRIDE);
        ct_load_floats(v, x + k * TILE_STRIDE);
        CT_UNROLL
        for (int i = 0; i < SIDE; i++)
            CT_UNROLL
        for (int j = 0; j < SIDE; j++)
            sums[i][j] += v[i] * w[j];
    }
}

/* Blocks that follow each other share weights: tiles of x change first. */
template <ct_dtype dtype>
CT_KERNEL CT_BOUNDS(THREADS, 2)
    many_kernel(ct_cuda_product product, int64_t x_tiles, bool x_aligned)
{
    CT_SHARED(uint4, weight_tile, TILE_K * TILE_STRIDE / 4);
    CT_SHARED(uint4, x_tile, TILE_K * TILE_STRIDE / 4);
    float *weights = (float *)weight_tile, *x = (float *)x_tile;
    int thread = (int)threadIdx.x, row = thread % TILE_N, piece = thread / TILE_N;
    int64_t index = blockIdx.x / x_tiles, x_first = blockIdx.x % x_tiles * TILE_M;
    const ct_cuda_part &part = product.part[ct_part_of(product, TILE_N, &index)];
    int64_t first = index * TILE_N;
    int k = (int)product.x.width;
    int at_n = thread % 16 * SIDE, at_m = thread / 16 * SIDE;
    float sums[SIDE][SIDE] = {};
    pieces brought = {};
    read_pieces<dtype>(&brought, part.weight, first + row, product.x, x_aligned, x_first + row,
                       piece);
    for (int at = 0; at < k; at += TILE_K) {
        ct_barrier(); /* the tiles before may still be read */
        store_pieces<dtype>(weights, x, brought, row, piece);
        ct_barrier();
        if (at + TILE_K < k)
            read_pieces<dtype>(&brought, part.weight, first + row, product.x, x_aligned,
                               x_first + row, (at + TILE_K) / 8 + piece);
        multiply_tiles(sums, weights + at_n, x + at_m);
    }
    CT_UNROLL
    for (int j = 0; j < SIDE; j++) {
        int64_t n = first + at_n + j;
        float bias = part.bias && n < part.weight.n ? part.bias[n] : 0;
        CT_UNROLL
        for (int i = 0; i < SIDE; i++) {
            int64_t m = x_first + at_m + i;
            if (m < product.x.n_rows && n < part.weight.n)
                ct_finish(product.epilogue, product.y, m, part.column + n, sums[i][j] + bias);
        }
    }
}

/* ---- the host's part ---- */

typedef void (*kernel_function)(ct_cuda_product, int64_t, bool);

#define KERNEL(dtype)                                                                              \
    case dtype:                                                                                    \
        return many_kernel<dtype>;
static kernel_function kernel_of(ct_dtype dtype)
{
    switch (dtype) {
        CT_PLAIN_WEIGHTS(KERNEL)
    default:
        return NULL;
    }
}

ct_status ct_cuda_product_many(const ct_cuda_product *product)
{
    const ct_rows *x = &product->x;
    int64_t x_tiles = (x->n_rows + TILE_M - 1) / TILE_M;
    int64_t blocks = x_tiles * ct_count_bands(product, TILE_N);
    bool x_aligned = x->dtype == CT_F32 && ct_in_fours(*x);
    kernel_function kernel = kernel_of(product->dtype);
    CT_KERNEL_CALL(kernel, (unsigned)blocks, THREADS, 0, ct_cuda_stream(), *product, x_tiles,
                   x_aligned);
    return ct_cuda_launched("linear, many rows");
}
