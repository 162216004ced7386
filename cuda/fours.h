/* Four neighbours of a row at a time: by one load or store where addresses allow it, and laid over
 * rows for kernels that look at each value once. */
#ifndef CT_CUDA_FOURS_H
#define CT_CUDA_FOURS_H

#include "csrc.h"
#include "device.h"
#include "rows.h"

/* Whether four values lie at a multiple of their size, in every row. */
static inline bool ct_in_fours(ct_rows rows)
{
    uintptr_t four = rows.dtype == CT_F32 ? 16 : 8;
    return (uintptr_t)rows.data % four == 0 && rows.stride % 4 == 0;
}

/* Values i ... i + 3 of data, of which `n` exist; zeros stand for the others. */
CT_DEVICE void ct_get4(float values[4], ct_dtype dtype, const void *data, int64_t i, int64_t n,
                       bool in_fours)
{
    if (!in_fours || n < 4) {
        for (int j = 0; j < 4; j++)
            values[j] = j < n ? ct_get_as(dtype, data, i + j) : 0;
    } else if (dtype == CT_F32) {
        ct_load_floats(values, (const float *)data + i);
    } else {
        uint64_t four = *(const uint64_t *)((const uint16_t *)data + i);
        for (int j = 0; j < 4; j++) {
            uint16_t bits = (uint16_t)(four >> 16 * j);
            values[j] = dtype == CT_F16 ? ct_half_to_float(bits) : ct_bfloat_to_float(bits);
        }
    }
}

CT_DEVICE void ct_put4(ct_dtype dtype, void *data, int64_t i, const float values[4], int64_t n,
                       bool in_fours)
{
    if (!in_fours || n < 4) {
        for (int j = 0; j < 4; j++)
            if (j < n)
                ct_put_as(dtype, data, i + j, values[j]);
    } else if (dtype == CT_F32) {
        *(uint4 *)((float *)data + i) = {ct_bits_of_float(values[0]), ct_bits_of_float(values[1]),
                                         ct_bits_of_float(values[2]), ct_bits_of_float(values[3])};
    } else {
        uint64_t four = 0;
        for (int j = 0; j < 4; j++)
            four |= (uint64_t)(dtype == CT_F16 ? ct_float_to_half(values[j])
                                               : ct_float_to_bfloat(values[j]))
                    << 16 * j;
        *(uint64_t *)((uint16_t *)data + i) = four;
    }
}

/* Values i ... i + 7 of data, which lie at a multiple of 16 bytes. */
CT_DEVICE void ct_put8(ct_dtype dtype, void *data, int64_t i, const float values[8])
{
    if (dtype == CT_F32) {
        ct_put4(dtype, data, i, values, 4, true);
        ct_put4(dtype, data, i + 4, values + 4, 4, true);
        return;
    }
    uint32_t words[4];
    for (int j = 0; j < 4; j++)
        words[j] = dtype == CT_F16 ? ct_pack_halves(values[2 * j], values[2 * j + 1])
                                   : ct_pack_bfloats(values[2 * j], values[2 * j + 1]);
    ct_store16((uint16_t *)data + i, {words[0], words[1], words[2], words[3]});
}

/* ---- a thread for each four of rows ---- */

#define CT_FOURS_THREADS 256

/* Blocks lie over rows in x and over columns in y; narrow rows share a block. */
typedef struct ct_fours {
    dim3 grid, block;
} ct_fours;

static inline ct_fours ct_fours_over(int64_t n_rows, int64_t width)
{
    int64_t fours = (width + 3) / 4, columns = CT_WARP;
    while (columns < CT_FOURS_THREADS && columns < fours)
        columns *= 2;
    int64_t rows = CT_FOURS_THREADS / columns;
    return {
        dim3((unsigned)((n_rows + rows - 1) / rows), (unsigned)((fours + columns - 1) / columns)),
        dim3((unsigned)columns, (unsigned)rows)};
}

/* Where the thread's four begins; both may lie outside of the rows. */
CT_DEVICE int64_t ct_fours_row()
{
    return (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
}

CT_DEVICE int64_t ct_fours_column()
{
    return 4 * ((int64_t)blockIdx.y * blockDim.x + threadIdx.x);
}

#endif
