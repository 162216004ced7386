/* Portable decoders and reference quantizers of the simple GGUF blocks. Blocks in a file may lie at
 * odd addresses, so they are copied out before they are read. */
#include "quant/gguf_blocks.h"

#include <math.h>
#include <string.h>

#include "tensor/dtype.h"

void ct_q8_0_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q8_0 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, dst += CT_BLOCK) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        float d = ct_f16_to_f32(block.d);
        for (int j = 0; j < CT_BLOCK; j++)
            dst[j] = d * (float)block.q[j];
    }
}

void ct_q4_0_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q4_0 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, dst += CT_BLOCK) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        float d = ct_f16_to_f32(block.d);
        for (int j = 0; j < CT_BLOCK / 2; j++) {
            dst[j] = d * (float)((block.q[j] & 15) - 8);
            dst[j + CT_BLOCK / 2] = d * (float)((block.q[j] >> 4) - 8);
        }
    }
}

void ct_q4_1_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q4_1 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, dst += CT_BLOCK) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        float d = ct_f16_to_f32(block.d), m = ct_f16_to_f32(block.m);
        for (int j = 0; j < CT_BLOCK / 2; j++) {
            dst[j] = d * (float)(block.q[j] & 15) + m;
            dst[j + CT_BLOCK / 2] = d * (float)(block.q[j] >> 4) + m;
        }
    }
}

/* A code of 8 bits: the nearest of -127..127, halves away from zero. NaN becomes 0. */
static int8_t code8(float value)
{
    if (isnan(value))
        return 0;
    return (int8_t)fmaxf(-127, fminf(127, roundf(value)));
}

void ct_q8_0_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q8_0 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float absmax = 0;
        for (int j = 0; j < CT_BLOCK; j++)
            absmax = fmaxf(absmax, fabsf(src[j]));
        float d = absmax / 127, inverse = d > 0 ? 1 / d : 0;
        block.d = ct_f16_from_f32(d);
        for (int j = 0; j < CT_BLOCK; j++)
            block.q[j] = code8(src[j] * inverse);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

/* A code of 4 bits: the nearest of 0..15, halves up. NaN, which no code says, becomes 0. */
static uint8_t code4(float value)
{
    value += 0.5f;
    return value >= 15 ? 15 : value > 0 ? (uint8_t)value : 0;
}

void ct_q4_0_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q4_0 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float extreme = 0; /* the value of the largest magnitude, with its sign, becomes code 0 */
        for (int j = 0; j < CT_BLOCK; j++)
            if (fabsf(src[j]) > fabsf(extreme))
                extreme = src[j];
        float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
        block.d = ct_f16_from_f32(d);
        for (int j = 0; j < CT_BLOCK / 2; j++)
            block.q[j] = (uint8_t)(code4(src[j] * inverse + 8) |
                                   code4(src[j + CT_BLOCK / 2] * inverse + 8) << 4);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

void ct_q4_1_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q4_1 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float low = src[0], high = src[0];
        for (int j = 1; j < CT_BLOCK; j++) {
            low = fminf(low, src[j]);
            high = fmaxf(high, src[j]);
        }
        float d = (high - low) / 15, inverse = d > 0 ? 1 / d : 0;
        block.d = ct_f16_from_f32(d);
        block.m = ct_f16_from_f32(low);
        for (int j = 0; j < CT_BLOCK / 2; j++)
            block.q[j] = (uint8_t)(code4((src[j] - low) * inverse) |
                                   code4((src[j + CT_BLOCK / 2] - low) * inverse) << 4);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}
