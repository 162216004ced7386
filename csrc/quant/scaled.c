/* Dequantizing any part of a matrix; kernels do whole rows of common shapes. */
#include "quant/scaled.h"

#include "quant/bnb.h"

#define PIECE 512 /* values at a time; even, so that it begins with a whole byte of codes */

static void int8_to_f32(float *dst, const int8_t *codes, float absmax, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = (float)codes[i] * absmax * CT_BNB_INT8_UNIT;
}

void ct_scaled_to_f32(float *dst, const ct_tensor *tensor, int64_t first, int64_t n)
{
    const ct_scales *scales = tensor->scales;
    const char *codes = ct_tensor_data(tensor);
    float piece_scales[PIECE + 1];
    int64_t from = tensor->first_value; /* of codes' first value */
    while (n > 0) {
        int64_t place = from + first, block = place / scales->block, count = n < PIECE ? n : PIECE;
        if (tensor->dtype == CT_LLM_INT8) {
            int64_t left = scales->block - place % scales->block;
            count = count < left ? count : left;
            ct_scales_restore(piece_scales, scales, block, 1);
            int8_to_f32(dst, (const int8_t *)codes + first, piece_scales[0], count);
        } else {
            int64_t last = (place + count - 1) / scales->block;
            ct_scales_restore(piece_scales, scales, block, last - block + 1);
            ct_bnb_dequantize_4bit(dst, (const uint8_t *)codes, from, piece_scales, place, count,
                                   scales->block, tensor->dtype);
        }
        dst += count, first += count, n -= count;
    }
}
