/* Many rows of x by 4-bit weights, where cuBLASLt does not do it: tiles of both become bf16 in
 * shared memory, weights multiplied by their scales, and are multiplied by the tensor cores. Or
 * they become sums of two bf16, high and low, of which all products but that of the low ones are
 * taken. */
#include "scaled_products.h"

#include "fours.h"
#include "tiles.h"

#define VALUES (CT_TILE_WORDS * 2) /* of a row at a time */
#define HALF (VALUES / 2)          /* a thread's */

typedef struct shape {
    ct_codebook book;
    int64_t first_scale; /* of the first value, in blocks of 32 */
    int shift;           /* a scale serves 2^shift of them */
    bool aligned;        /* rows of x begin at multiples of 16 bytes */
} shape;

typedef struct pieces {
    uint64_t codes;
    float scale, x[HALF];
} pieces;

CT_DEVICE void read_x(float *values, const ct_rows &x, bool aligned, int64_t row, int64_t first)
{
    const float *from = (const float *)x.data + row * x.stride + first;
    CT_UNROLL
    for (int i = 0; i < HALF; i += 4) {
        uint4 four = {0, 0, 0, 0};
        if (row < x.n_rows && aligned)
            four = ct_load16(from + i);
        values[i] = ct_float_of_bits(four.x);
        values[i + 1] = ct_float_of_bits(four.y);
        values[i + 2] = ct_float_of_bits(four.z);
        values[i + 3] = ct_float_of_bits(four.w);
    }
    if (row < x.n_rows && !aligned) {
        CT_UNROLL
        for (int i = 0; i < HALF; i++)
            values[i] = from[i];
    }
}

/* Rows behind the last are the last again: their products go nowhere. */
CT_DEVICE void read_pieces(pieces *to, const ct_cuda_scaled &weight, const ct_rows &x,
                           const shape &s, int64_t first)
{
    int64_t row = (int64_t)blockIdx.x * CT_TILE + ct_tile_row();
    row = row < weight.n ? row : weight.n - 1;
    int64_t value = row * weight.k + first + ct_tile_half() * HALF;
    to->codes = *(const uint64_t *)(weight.codes + value / 2);
    to->scale = weight.scales[(s.first_scale + value / 32) >> s.shift];
    read_x(to->x, x, s.aligned, (int64_t)blockIdx.y * CT_TILE + ct_tile_row(),
           first + ct_tile_half() * HALF);
}

/* Pairs of 16 values to `high`, those of what they lack to `low` where it is given. */
template <bool fine> CT_DEVICE void store_pairs(uint32_t *high, uint32_t *low, const float *values)
{
    uint32_t words[8], rest[8];
    CT_UNROLL
    for (int i = 0; i < 8; i++) {
        float first = values[2 * i], second = values[2 * i + 1];
        words[i] = ct_pack_bfloats(first, second);
        if (fine)
            rest[i] = ct_pack_bfloats(first - ct_float_of_bits(words[i] << 16),
                                      second - ct_float_of_bits(words[i] & 0xffff0000u));
    }
    const uint4 two[2] = {{words[0], words[1], words[2], words[3]},
                          {words[4], words[5], words[6], words[7]}};
    ct_tile_store(high, two);
    if constexpr (fine) {
        const uint4 two_more[2] = {{rest[0], rest[1], rest[2], rest[3]},
                                   {rest[4], rest[5], rest[6], rest[7]}};
        ct_tile_store(low, two_more);
    }
}

/* Sixteen words in sixteen banks: lanes do not wait for each other's lookups. */
CT_DEVICE void decode(float *values, const pieces &from, const float *book)
{
    CT_UNROLL
    for (int i = 0; i < 8; i++) {
        uint32_t byte = (uint32_t)(from.codes >> 8 * i) & 255u;
        values[2 * i] = book[byte >> 4] * from.scale;
        values[2 * i + 1] = book[byte & 15u] * from.scale;
    }
}

/* Tiles lie twice: while one is multiplied, the next is read. Of each: weights, x, and the low
 * parts of both. */
template <bool fine>
CT_KERNEL CT_BOUNDS(CT_TILE_THREADS, 4)
    many_kernel(ct_scaled_product product, ct_scaled_part part, shape s)
{
    const ct_cuda_scaled &weight = part.weight;
    const ct_rows &x = product.x;
    constexpr int PLANES = fine ? 4 : 2;
    CT_SHARED(uint4, memory, 2 * PLANES * CT_TILE_SIZE / 4);
    CT_SHARED(float, book, 16);
    uint32_t *tiles = (uint32_t *)memory;
    pieces next;
    float sums[2][4][4] = {}, values[HALF];
    int turn = 0;
    read_pieces(&next, weight, x, s, 0);
    if (threadIdx.x == 0) {
        CT_UNROLL
        for (int i = 0; i < 16; i++)
            book[i] = s.book.values[i];
    }
    ct_barrier();
    for (int64_t first = 0; first < weight.k; first += VALUES, turn ^= 1) {
        uint32_t *w_tile = tiles + turn * PLANES * CT_TILE_SIZE, *x_tile = w_tile + CT_TILE_SIZE;
        uint32_t *w_low = fine ? x_tile + CT_TILE_SIZE : NULL;
        uint32_t *x_low = fine ? w_low + CT_TILE_SIZE : NULL;
        decode(values, next, book);
        store_pairs<fine>(w_tile, w_low, values);
        store_pairs<fine>(x_tile, x_low, next.x);
        ct_barrier();
        if (first + VALUES < weight.k)
            read_pieces(&next, weight, x, s, first + VALUES);
        ct_tile_multiply(sums, w_tile, x_tile);
        if (fine) {
            ct_tile_multiply(sums, w_tile, x_low);
            ct_tile_multiply(sums, w_low, x_tile);
        }
    }
    CT_UNROLL
    for (int at = 0; at < 32; at++) {
        int band = at / 16, i = at / 4 % 4, quarter = at % 4;
        int64_t row = (int64_t)blockIdx.x * CT_TILE + ct_tile_weight_row(band, quarter);
        int64_t x_row = (int64_t)blockIdx.y * CT_TILE + ct_tile_x_row(i, quarter);
        if (row < weight.n && x_row < x.n_rows)
            ct_finish_part(product, part, x_row, row, sums[band][i][quarter]);
    }
}

ct_status ct_cuda_codes_many(const ct_scaled_product *product, int part, bool fine)
{
    const ct_cuda_scaled *weight = &product->part[part].weight;
    shape s = {ct_cuda_codebook(weight->dtype), weight->first_value / 32,
               ct_cuda_block_shift(weight, 32), ct_in_fours(product->x)};
    dim3 grid((unsigned)((weight->n + CT_TILE - 1) / CT_TILE),
              (unsigned)((product->x.n_rows + CT_TILE - 1) / CT_TILE));
    if (fine)
        CT_KERNEL_CALL((many_kernel<true>), grid, CT_TILE_THREADS, 0, ct_cuda_stream(), *product,
                       product->part[part], s);
    else
        CT_KERNEL_CALL((many_kernel<false>), grid, CT_TILE_THREADS, 0, ct_cuda_stream(), *product,
                       product->part[part], s);
    return ct_cuda_launched("4 bits, many rows");
}
