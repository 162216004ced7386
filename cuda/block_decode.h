/* Single values of GGUF blocks, with the bits that quant/gguf_blocks.c and gguf_kquants.c give: of
 * the products here at most the last is rounded, so that a fused multiply-add changes nothing.
 * Blocks may lie at any address. */
#ifndef CT_CUDA_BLOCK_DECODE_H
#define CT_CUDA_BLOCK_DECODE_H

#include <stddef.h>

#include "csrc.h"
#include "device.h"

CT_DEVICE float ct_half_at(const uint8_t *bytes)
{
    return ct_half_to_float((uint16_t)(bytes[0] | bytes[1] << 8));
}

/* Code i of 32 in 16 bytes: the low nibbles come first. */
CT_DEVICE int ct_nibble(const uint8_t *q, int i)
{
    return q[i % 16] >> i / 16 * 4 & 15;
}

CT_DEVICE int ct_bit(const uint8_t *bits, int i)
{
    return bits[i / 8] >> i % 8 & 1;
}

CT_DEVICE float ct_q8_0_value(const uint8_t *block, int i)
{
    return ct_half_at(block) * (float)(int8_t)block[offsetof(ct_block_q8_0, q) + i];
}

CT_DEVICE float ct_q4_0_value(const uint8_t *block, int i)
{
    return ct_half_at(block) * (float)(ct_nibble(block + offsetof(ct_block_q4_0, q), i) - 8);
}

CT_DEVICE float ct_q4_1_value(const uint8_t *block, int i)
{
    float d = ct_half_at(block), m = ct_half_at(block + offsetof(ct_block_q4_1, m));
    return d * (float)ct_nibble(block + offsetof(ct_block_q4_1, q), i) + m;
}

CT_DEVICE float ct_q5_0_value(const uint8_t *block, int i)
{
    int code = ct_nibble(block + offsetof(ct_block_q5_0, q), i) |
               ct_bit(block + offsetof(ct_block_q5_0, high), i) << 4;
    return ct_half_at(block) * (float)(code - 16);
}

CT_DEVICE float ct_q5_1_value(const uint8_t *block, int i)
{
    float d = ct_half_at(block), m = ct_half_at(block + offsetof(ct_block_q5_1, m));
    int code = ct_nibble(block + offsetof(ct_block_q5_1, q), i) |
               ct_bit(block + offsetof(ct_block_q5_1, high), i) << 4;
    return d * (float)code + m;
}

/* ---- K formats: 8 groups of 32 values ---- */

/* A code of group g of q4_k and q5_k, whose blocks begin alike, is worth d * scale * code - m *
 * minimum. */
CT_DEVICE float ct_k_group_value(const uint8_t *block, int g, int code)
{
    const uint8_t *packed = block + offsetof(ct_block_q4_k, scales);
    int scale = packed[g % 4] & 63, minimum = packed[4 + g % 4] & 63;
    if (g >= 4) {
        scale = (packed[4 + g] & 15) | packed[g - 4] >> 6 << 4;
        minimum = packed[4 + g] >> 4 | packed[g] >> 6 << 4;
    }
    float d = ct_half_at(block), m = ct_half_at(block + offsetof(ct_block_q4_k, m));
    return d * (float)scale * (float)code - m * (float)minimum;
}

/* Groups 2i and 2i + 1 are the low and the high nibbles of 32 bytes. */
CT_DEVICE int ct_k_nibble(const uint8_t *q, int i)
{
    return q[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
}

CT_DEVICE float ct_q4_k_value(const uint8_t *block, int i)
{
    return ct_k_group_value(block, i / 32, ct_k_nibble(block + offsetof(ct_block_q4_k, q), i));
}

CT_DEVICE float ct_q5_k_value(const uint8_t *block, int i)
{
    int high = block[offsetof(ct_block_q5_k, high) + i % 32] >> i / 32 & 1;
    int code = ct_k_nibble(block + offsetof(ct_block_q5_k, q), i) | high << 4;
    return ct_k_group_value(block, i / 32, code);
}

CT_DEVICE float ct_q6_k_value(const uint8_t *block, int i)
{
    int half = i / 128, g = i / 32 % 4;
    int low = block[offsetof(ct_block_q6_k, q) + half * 64 + i % 64] >> g / 2 * 4 & 15;
    int high = block[offsetof(ct_block_q6_k, high) + half * 32 + i % 32] >> 2 * g & 3;
    float d = ct_half_at(block + offsetof(ct_block_q6_k, d));
    int8_t scale = (int8_t)block[offsetof(ct_block_q6_k, scales) + i / 16];
    return d * (float)scale * (float)((low | high << 4) - 32);
}

/* Value i of a block of the format. */
template <ct_dtype dtype> CT_DEVICE float ct_block_value(const uint8_t *block, int i)
{
    if constexpr (dtype == CT_Q8_0)
        return ct_q8_0_value(block, i);
    else if constexpr (dtype == CT_Q4_0)
        return ct_q4_0_value(block, i);
    else if constexpr (dtype == CT_Q4_1)
        return ct_q4_1_value(block, i);
    else if constexpr (dtype == CT_Q5_0)
        return ct_q5_0_value(block, i);
    else if constexpr (dtype == CT_Q5_1)
        return ct_q5_1_value(block, i);
    else if constexpr (dtype == CT_Q4_K)
        return ct_q4_k_value(block, i);
    else if constexpr (dtype == CT_Q5_K)
        return ct_q5_k_value(block, i);
    else {
        static_assert(dtype == CT_Q6_K, "a format of GGUF");
        return ct_q6_k_value(block, i);
    }
}

/* Values and bytes of a block, as constants. */
#define CT_BLOCK_VALUES(id, name, values, bytes) dtype == id ? values:
#define CT_BLOCK_BYTES(id, name, values, bytes) dtype == id ? bytes:
template <ct_dtype dtype> struct ct_block_of {
    static const int values = CT_DTYPES(CT_BLOCK_VALUES) 1;
    static const int bytes = CT_DTYPES(CT_BLOCK_BYTES) 1;
};
#undef CT_BLOCK_VALUES
#undef CT_BLOCK_BYTES

#endif
