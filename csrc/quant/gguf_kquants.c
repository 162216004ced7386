/* Portable decoders and simple quantizers of the K formats. */
#include "quant/gguf_kquants.h"

#include <math.h>
#include <string.h>

#include "tensor/dtype.h"

#define GROUP 32
#define GROUPS (CT_KBLOCK / GROUP)

/* ---- scales and minima in 6 bits ---- */

static void unpack_scales(uint8_t scales[GROUPS], uint8_t minima[GROUPS], const uint8_t *packed)
{
    for (int i = 0; i < 4; i++) {
        scales[i] = packed[i] & 63;
        minima[i] = packed[4 + i] & 63;
        scales[4 + i] = (uint8_t)((packed[8 + i] & 15) | packed[i] >> 6 << 4);
        minima[4 + i] = (uint8_t)(packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4);
    }
}

static void pack_scales(uint8_t *packed, const uint8_t scales[GROUPS], const uint8_t minima[GROUPS])
{
    for (int i = 0; i < 4; i++) {
        packed[i] = (uint8_t)(scales[i] | scales[4 + i] >> 4 << 6);
        packed[4 + i] = (uint8_t)(minima[i] | minima[4 + i] >> 4 << 6);
        packed[8 + i] = (uint8_t)((scales[4 + i] & 15) | (minima[4 + i] & 15) << 4);
    }
}

/* ---- decoders ---- */

/* Both have the same first 16 bytes; `high` is NULL where codes have 4 bits. */
static void decode_groups(float *dst, const ct_block_q4_k *head, const uint8_t *q,
                          const uint8_t *high)
{
    uint8_t scales[GROUPS], minima[GROUPS];
    unpack_scales(scales, minima, head->scales);
    float d = ct_f16_to_f32(head->d), m = ct_f16_to_f32(head->m);
    for (int g = 0; g < GROUPS; g++) {
        /* Both products are exact: 11 bits times 6. */
        float scale = d * (float)scales[g], minimum = m * (float)minima[g];
        for (int i = 0; i < GROUP; i++) {
            int code = q[g / 2 * GROUP + i] >> (g & 1) * 4 & 15;
            if (high)
                code |= (high[i] >> g & 1) << 4;
            *dst++ = scale * (float)code - minimum;
        }
    }
}

void ct_q4_k_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q4_k block;
    for (int64_t i = 0; i < n / CT_KBLOCK; i++) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        decode_groups(dst + i * CT_KBLOCK, &block, block.q, NULL);
    }
}

void ct_q5_k_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q5_k block;
    ct_block_q4_k head;
    for (int64_t i = 0; i < n / CT_KBLOCK; i++) {
        memcpy(&block, (const char *)src + i * (int64_t)sizeof block, sizeof block);
        memcpy(&head, &block, offsetof(ct_block_q4_k, q));
        decode_groups(dst + i * CT_KBLOCK, &head, block.q, block.high);
    }
}

void ct_q6_k_dequantize(float *dst, const void *src, int64_t n)
{
    ct_block_q6_k block;
    for (int64_t b = 0; b < n / CT_KBLOCK; b++) {
        memcpy(&block, (const char *)src + b * (int64_t)sizeof block, sizeof block);
        float d = ct_f16_to_f32(block.d);
        for (int j = 0; j < CT_KBLOCK; j++) {
            int half = j / 128, g = j / GROUP % 4, i = j % GROUP;
            int low = block.q[half * 64 + (g & 1) * GROUP + i] >> g / 2 * 4 & 15;
            int high = block.high[half * GROUP + i] >> 2 * g & 3;
            /* d times the scale is exact */
            *dst++ = d * (float)block.scales[j / 16] * (float)((low | high << 4) - 32);
        }
    }
}

/* ---- quantizers ---- */

/* The nearest of low..high. NaN, which no code says, becomes low. */
static int nearest(float value, int low, int high)
{
    value = roundf(value);
    return value >= (float)high ? high : value > (float)low ? (int)value : low;
}

static float inverse_of(float value)
{
    float inverse = 1 / value;
    return isfinite(inverse) ? inverse : 0; /* of 0, and of what is too small */
}

/* Codes 0..largest of a block. d, m and the scales go to *head. */
static void encode_groups(ct_block_q4_k *head, uint8_t codes[CT_KBLOCK], const float *src,
                          int largest)
{
    float scale[GROUPS], minimum[GROUPS], top_scale = 0, top_minimum = 0;
    uint8_t scales[GROUPS], minima[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
        float low = 0, high = 0; /* a minimum is never positive, and 0 has a code */
        for (int i = 0; i < GROUP; i++) {
            low = fminf(low, src[g * GROUP + i]);
            high = fmaxf(high, src[g * GROUP + i]);
        }
        scale[g] = (high - low) / (float)largest;
        minimum[g] = -low;
        top_scale = fmaxf(top_scale, scale[g]);
        top_minimum = fmaxf(top_minimum, minimum[g]);
    }
    head->d = ct_f16_from_f32(top_scale / 63);
    head->m = ct_f16_from_f32(top_minimum / 63);
    float d = ct_f16_to_f32(head->d), m = ct_f16_to_f32(head->m);
    for (int g = 0; g < GROUPS; g++) {
        scales[g] = (uint8_t)nearest(scale[g] * inverse_of(d), 0, 63);
        minima[g] = (uint8_t)nearest(minimum[g] * inverse_of(m), 0, 63);
        float inverse = inverse_of(d * (float)scales[g]), low = m * (float)minima[g];
        for (int i = g * GROUP; i < (g + 1) * GROUP; i++)
            codes[i] = (uint8_t)nearest((src[i] + low) * inverse, 0, largest);
    }
    pack_scales(head->scales, scales, minima);
}

/* The lower four bits of the codes; `high`, unless it is NULL, gets the fifth ones. */
static void store_codes(uint8_t *q, uint8_t *high, const uint8_t codes[CT_KBLOCK])
{
    for (int j = 0; j < CT_KBLOCK / 2; j++) {
        int group = j / GROUP * 2, i = j % GROUP;
        q[j] = (uint8_t)((codes[group * GROUP + i] & 15) | codes[(group + 1) * GROUP + i] << 4);
    }
    if (!high)
        return;
    memset(high, 0, CT_KBLOCK / 8);
    for (int j = 0; j < CT_KBLOCK; j++)
        high[j % GROUP] |= (uint8_t)(codes[j] >> 4 << j / GROUP);
}

void ct_q4_k_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q4_k block;
    uint8_t codes[CT_KBLOCK];
    for (int64_t i = 0; i < n / CT_KBLOCK; i++) {
        encode_groups(&block, codes, src + i * CT_KBLOCK, 15);
        store_codes(block.q, NULL, codes);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

void ct_q5_k_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q5_k block;
    ct_block_q4_k head;
    uint8_t codes[CT_KBLOCK];
    for (int64_t i = 0; i < n / CT_KBLOCK; i++) {
        encode_groups(&head, codes, src + i * CT_KBLOCK, 31);
        memcpy(&block, &head, offsetof(ct_block_q4_k, q));
        store_codes(block.q, block.high, codes);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}

static void quantize_q6_k(ct_block_q6_k *block, const float *src)
{
    float scale[CT_KBLOCK / 16], top = 0;
    for (int g = 0; g < CT_KBLOCK / 16; g++) {
        float extreme = 0; /* the value of the largest magnitude, with its sign, becomes code 0 */
        for (int i = 0; i < 16; i++)
            if (fabsf(src[g * 16 + i]) > fabsf(extreme))
                extreme = src[g * 16 + i];
        scale[g] = extreme / -32;
        if (fabsf(scale[g]) > fabsf(top))
            top = scale[g];
    }
    block->d = ct_f16_from_f32(top / -128);
    float d = ct_f16_to_f32(block->d);
    memset(block->q, 0, sizeof block->q);
    memset(block->high, 0, sizeof block->high);
    for (int j = 0; j < CT_KBLOCK; j++) {
        int half = j / 128, g = j / GROUP % 4, i = j % GROUP;
        int s = nearest(scale[j / 16] * inverse_of(d), -128, 127);
        int code = nearest(src[j] * inverse_of(d * (float)s), -32, 31) + 32;
        block->scales[j / 16] = (int8_t)s;
        block->q[half * 64 + (g & 1) * GROUP + i] |= (uint8_t)((code & 15) << g / 2 * 4);
        block->high[half * GROUP + i] |= (uint8_t)(code >> 4 << 2 * g);
    }
}

void ct_q6_k_quantize(void *dst, const float *src, int64_t n)
{
    ct_block_q6_k block;
    for (int64_t i = 0; i < n / CT_KBLOCK; i++) {
        quantize_q6_k(&block, src + i * CT_KBLOCK);
        memcpy((char *)dst + i * (int64_t)sizeof block, &block, sizeof block);
    }
}
