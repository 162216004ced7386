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

/* Codes of 5 bits: nibbles, and the highest bits of all in four bytes. */
static void codes5(int codes[CT_BLOCK], const uint8_t *nibbles, const uint8_t *high)
{
    for (int j = 0; j < CT_BLOCK / 2; j++) {
        codes[j] = (nibbles[j] & 15) | (high[j / 8] >> (j & 7) & 1) << 4;
        codes[j + CT_BLOCK / 2] = nibbles[j] >> 4 | (high[j / 8 + 2] >> (j & 7) & 1) << 4;
    }
}

void ct_q5_0_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q5_0 block;
    int codes[CT_BLOCK];
    for (int64_t i = 0; i < n / CT_BLOCK; i++, dst += CT_BLOCK) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        codes5(codes, block.q, block.high);
        float d = ct_f16_to_f32(block.d);
        for (int j = 0; j < CT_BLOCK; j++)
            dst[j] = d * (float)(codes[j] - 16);
    }
}

void ct_q5_1_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q5_1 block;
    int codes[CT_BLOCK];
    for (int64_t i = 0; i < n / CT_BLOCK; i++, dst += CT_BLOCK) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        codes5(codes, block.q, block.high);
        float d = ct_f16_to_f32(block.d), m = ct_f16_to_f32(block.m);
        for (int j = 0; j < CT_BLOCK; j++)
            dst[j] = d * (float)codes[j] + m;
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

/* The nearest of 0..largest, halves up. NaN, which no code says, becomes 0. */
static uint8_t code(float value, int largest)
{
    value += 0.5f;
    return value >= (float)largest ? (uint8_t)largest : value > 0 ? (uint8_t)value : 0;
}

/* The value of the largest magnitude, with its sign. */
static float extreme_of(const float *src)
{
    float extreme = 0;
    for (int j = 0; j < CT_BLOCK; j++)
        if (fabsf(src[j]) > fabsf(extreme))
            extreme = src[j];
    return extreme;
}

static void range_of(float *low, float *high, const float *src)
{
    *low = *high = src[0];
    for (int j = 1; j < CT_BLOCK; j++) {
        *low = fminf(*low, src[j]);
        *high = fmaxf(*high, src[j]);
    }
}

void ct_q4_0_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q4_0 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float d = extreme_of(src) / -8, inverse = d != 0 ? 1 / d : 0; /* it becomes code 0 */
        block.d = ct_f16_from_f32(d);
        for (int j = 0; j < CT_BLOCK / 2; j++)
            block.q[j] = (uint8_t)(code(src[j] * inverse + 8, 15) |
                                   code(src[j + CT_BLOCK / 2] * inverse + 8, 15) << 4);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

void ct_q4_1_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q4_1 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float low, high;
        range_of(&low, &high, src);
        float d = (high - low) / 15, inverse = d > 0 ? 1 / d : 0;
        block.d = ct_f16_from_f32(d);
        block.m = ct_f16_from_f32(low);
        for (int j = 0; j < CT_BLOCK / 2; j++)
            block.q[j] = (uint8_t)(code((src[j] - low) * inverse, 15) |
                                   code((src[j + CT_BLOCK / 2] - low) * inverse, 15) << 4);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

/* (src - low) * inverse + shift in codes of 5 bits. */
static void store_codes5(uint8_t *nibbles, uint8_t *high, const float *src, float low,
                         float inverse, float shift)
{
    memset(nibbles, 0, CT_BLOCK / 2);
    memset(high, 0, CT_BLOCK / 8);
    for (int j = 0; j < CT_BLOCK; j++) {
        int q = code((src[j] - low) * inverse + shift, 31);
        nibbles[j % (CT_BLOCK / 2)] |= (uint8_t)((q & 15) << (j < CT_BLOCK / 2 ? 0 : 4));
        high[j / 8] |= (uint8_t)(q >> 4 << (j & 7));
    }
}

void ct_q5_0_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q5_0 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float d = extreme_of(src) / -16, inverse = d != 0 ? 1 / d : 0;
        block.d = ct_f16_from_f32(d);
        store_codes5(block.q, block.high, src, 0, inverse, 16);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

void ct_q5_1_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q5_1 block;
    for (int64_t i = 0; i < n / CT_BLOCK; i++, src += CT_BLOCK) {
        float low, high;
        range_of(&low, &high, src);
        float d = (high - low) / 31, inverse = d > 0 ? 1 / d : 0;
        block.d = ct_f16_from_f32(d);
        block.m = ct_f16_from_f32(low);
        store_codes5(block.q, block.high, src, low, inverse, 0);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}
