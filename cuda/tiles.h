/* Products of tiles in shared memory by the tensor cores: 64 weight rows by 64 rows of x, 16 words
 * of each at a time. A word is two bf16 or four bytes, see ct_mma. Four warps have a quarter of the
 * sums each; a thread brings 8 words of a row of either side. */
#ifndef CT_CUDA_TILES_H
#define CT_CUDA_TILES_H

#include "device.h"

#define CT_TILE 64
#define CT_TILE_THREADS 128
#define CT_TILE_WORDS 16
#define CT_TILE_STRIDE 20 /* words; so that the lanes' reads lie in different banks */
#define CT_TILE_SIZE (CT_TILE * CT_TILE_STRIDE)

/* Where this thread's 8 words go: row ct_tile_row(), the half ct_tile_half() of its 16 words. */
CT_DEVICE int ct_tile_row()
{
    return threadIdx.x / 2;
}

CT_DEVICE int ct_tile_half()
{
    return threadIdx.x % 2;
}

CT_DEVICE void ct_tile_store(uint32_t *tile, const uint4 words[2])
{
    uint32_t *to = tile + ct_tile_row() * CT_TILE_STRIDE + ct_tile_half() * 8;
    ct_store16(to, words[0]);
    ct_store16(to + 4, words[1]);
}

/* Of a thread: in 2 bands of 16 weight rows, for 4 groups of 8 rows of x, what ct_mma gives. */
template <typename T>
CT_DEVICE void ct_tile_multiply(T sums[2][4][4], const uint32_t *w, const uint32_t *x)
{
    int warp = threadIdx.x / CT_WARP, group = threadIdx.x % CT_WARP / 4, place = threadIdx.x % 4;
    w += (warp / 2 * 32 + group) * CT_TILE_STRIDE + place;
    x += (warp % 2 * 32 + group) * CT_TILE_STRIDE + place;
    CT_UNROLL
    for (int first = 0; first < CT_TILE_WORDS; first += 8) {
        uint32_t a[2][4], b[4][2];
        CT_UNROLL
        for (int band = 0; band < 2; band++)
            CT_UNROLL
        for (int i = 0; i < 4; i++)
            a[band][i] = w[(band * 16 + i % 2 * 8) * CT_TILE_STRIDE + first + i / 2 * 4];
        CT_UNROLL
        for (int i = 0; i < 4; i++) {
            b[i][0] = x[i * 8 * CT_TILE_STRIDE + first];
            b[i][1] = x[i * 8 * CT_TILE_STRIDE + first + 4];
        }
        CT_UNROLL
        for (int band = 0; band < 2; band++)
            CT_UNROLL
        for (int i = 0; i < 4; i++)
            ct_mma(sums[band][i], a[band], b[i]);
    }
}

/* The places in the tiles of a thread's sums [band][i][part]. */
CT_DEVICE int ct_tile_weight_row(int band, int part)
{
    return threadIdx.x / CT_WARP / 2 * 32 + band * 16 + part / 2 * 8 + threadIdx.x % CT_WARP / 4;
}

CT_DEVICE int ct_tile_x_row(int i, int part)
{
    return threadIdx.x / CT_WARP % 2 * 32 + i * 8 + threadIdx.x % 4 * 2 + part % 2;
}

#endif
