/* Rows of weights in the blocks of GGUF files. */
#include "check.h"

#include <stdlib.h>

#include "quant/format.h"
#include "quant/gguf_kquants.h"

/* One block of a K format: any codes, and scales by which sums stay exact where `whole`. Elsewhere
 * weights are of the order of 1. */
static void fill_kblock(char *block, ct_dtype dtype, bool whole)
{
    char *d = block + (dtype == CT_Q6_K ? offsetof(ct_block_q6_k, d) : 0);
    uint16_t scale = ct_f16_from_f32(whole ? 1 : 0x1p-10f), minimum = scale;
    for (size_t i = 0; i < ct_dtype_block_bytes(dtype); i++)
        block[i] = (char)random_bits();
    memcpy(d, &scale, sizeof scale);
    if (dtype != CT_Q6_K)
        memcpy(d + sizeof scale, &minimum, sizeof minimum);
    else if (whole)
        for (int i = 0; i < CT_KBLOCK / 16; i++)
            block[offsetof(ct_block_q6_k, scales) + (size_t)i] = (char)(random_below(16) - 8);
}

/* The values that give each format the scale 1. */
static void set_extremes(float *block, ct_dtype dtype)
{
    float low = dtype == CT_Q8_0 ? -127 : dtype == CT_Q5_0 || dtype == CT_Q5_1 ? -16 : -8;
    block[0] = low;
    block[1] = dtype == CT_Q5_1 ? 15 : 7;
}

void fill_gguf_row(char *w, ct_dtype dtype, int64_t k, bool whole)
{
    const int64_t n_values = ct_dtype_block_values(dtype);
    const int64_t n_bytes = (int64_t)ct_dtype_block_bytes(dtype);
    float values[CT_DTYPE_MAX_BLOCK];
    for (int64_t i = 0; i < k; i += n_values, w += n_bytes) {
        if (n_values == CT_KBLOCK) {
            fill_kblock(w, dtype, whole);
            continue;
        }
        fill_random(values, n_values, 1);
        if (whole) { /* as the scale is 1 and the minimum is whole */
            fill_whole(values, n_values, 7);
            set_extremes(values, dtype);
        }
        ct_format_get(dtype)->quantize(w, values, n_values);
    }
}
