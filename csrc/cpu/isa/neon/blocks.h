/* Decoding of quantized blocks, 4 lanes. Codes become floats by conversion. */
#ifndef CT_CPU_ISA_NEON_BLOCKS_H
#define CT_CPU_ISA_NEON_BLOCKS_H

#include <stddef.h>
#include <string.h>

#include "cpu/isa/kquant_codes.h"
#include "cpu/isa/neon/vector.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

#define DECODE static inline __attribute__((always_inline))

/* An f16 at any address as f32, in all lanes. */
DECODE vec broadcast_f16(const void *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return v_widen_f16(vdup_n_u16(bits));
}

/* 16 bytes, which lie below 128 or are signed. */
DECODE void convert_16(vec piece[4], int8x16_t codes)
{
    int16x8_t words[2] = {vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes)};
    for (int h = 0; h < 2; h++) {
        piece[2 * h] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(words[h])));
        piece[2 * h + 1] = vcvtq_f32_s32(vmovl_high_s16(words[h]));
    }
}

DECODE void convert_bytes(vec piece[8], uint8x16x2_t codes)
{
    for (int h = 0; h < 2; h++)
        convert_16(piece + 4 * h, vreinterpretq_s8_u8(codes.val[h]));
}

DECODE uint8x16x2_t load_32(const void *p)
{
    return (uint8x16x2_t){{vld1q_u8(p), vld1q_u8((const uint8_t *)p + 16)}};
}

/* Low nibbles of 16 bytes are the first half of a block, high ones the second. */
DECODE uint8x16x2_t read_nibbles(const char *codes)
{
    uint8x16_t bytes = vld1q_u8((const uint8_t *)codes);
    return (uint8x16x2_t){{vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8(bytes, 4)}};
}

/* ---- blocks of 32 ---- */

DECODE void decode_q8_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block);
    convert_bytes(piece, load_32(block + 2));
    for (int v = 0; v < 8; v++)
        piece[v] = v_mul(d, piece[v]);
}

DECODE void decode_q4_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block);
    convert_bytes(piece, read_nibbles(block + 2));
    for (int v = 0; v < 8; v++)
        piece[v] = v_mul(d, v_sub(piece[v], v_set1(8)));
}

DECODE void decode_q4_1(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block), m = broadcast_f16(block + 2);
    convert_bytes(piece, read_nibbles(block + 4));
    for (int v = 0; v < 8; v++)
        piece[v] = v_fma(d, piece[v], m); /* d times a code has 15 bits: fused is rounded */
}

/* The codes of q5_0 and q5_1: 4 bytes of highest bits, then nibbles. */
DECODE uint8x16x2_t read_5_bits(const char *bits)
{
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    uint8x16x2_t codes = read_nibbles(bits + 4);
    for (int h = 0; h < 2; h++) {
        const uint8_t *high = (const uint8_t *)bits + 2 * h;
        uint8x16_t spread = vcombine_u8(vdup_n_u8(high[0]), vdup_n_u8(high[1]));
        uint8x16_t set = vandq_u8(vtstq_u8(spread, bit), vdupq_n_u8(16));
        codes.val[h] = vorrq_u8(codes.val[h], set);
    }
    return codes;
}

DECODE void decode_q5_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block);
    convert_bytes(piece, read_5_bits(block + 2));
    for (int v = 0; v < 8; v++)
        piece[v] = v_mul(d, v_sub(piece[v], v_set1(16)));
}

DECODE void decode_q5_1(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block), m = broadcast_f16(block + 2);
    convert_bytes(piece, read_5_bits(block + 4));
    for (int v = 0; v < 8; v++)
        piece[v] = v_fma(d, piece[v], m);
}

/* ---- blocks of 256 ---- */

/* The scales of q4_k and q5_k times d, then their minima times -m. */
DECODE void scales_q4_k(float *scales, const char *block)
{
    uint32_t codes[4];
    unpack_6_bit_words(codes, block + offsetof(ct_block_q4_k, scales));
    vec factors[2] = {broadcast_f16(block), v_neg(broadcast_f16(block + 2))}, piece[4];
    convert_16(piece, vreinterpretq_s8_u32(vld1q_u32(codes)));
    for (int v = 0; v < 4; v++)
        v_store(scales + v * V_WIDTH, v_mul(factors[v / 2], piece[v]));
}

DECODE void scales_q5_k(float *scales, const char *block)
{
    scales_q4_k(scales, block);
}

/* The lower four bits of a part's codes. */
DECODE uint8x16x2_t read_part(const char *codes, int part)
{
    uint8x16x2_t bytes = load_32(codes + part / 2 * 32);
    for (int h = 0; h < 2; h++)
        bytes.val[h] =
            part & 1 ? vshrq_n_u8(bytes.val[h], 4) : vandq_u8(bytes.val[h], vdupq_n_u8(15));
    return bytes;
}

/* 17 bits times a code of 5 are exact: fused is rounded. */
DECODE void scale_part(vec piece[8], const float *scales, int part)
{
    vec scale = v_set1(scales[part]), minimum = v_set1(scales[8 + part]);
    for (int v = 0; v < 8; v++)
        piece[v] = v_fma(scale, piece[v], minimum);
}

DECODE void decode_q4_k(vec *piece, const char *block, const float *scales, int part)
{
    convert_bytes(piece, read_part(block + offsetof(ct_block_q4_k, q), part));
    scale_part(piece, scales, part);
}

DECODE void decode_q5_k(vec *piece, const char *block, const float *scales, int part)
{
    const uint8x16_t bit = vdupq_n_u8((uint8_t)(1 << part));
    uint8x16x2_t high = load_32(block + offsetof(ct_block_q5_k, high));
    uint8x16x2_t codes = read_part(block + offsetof(ct_block_q5_k, q), part);
    for (int h = 0; h < 2; h++) {
        uint8x16_t set = vandq_u8(vtstq_u8(high.val[h], bit), vdupq_n_u8(16));
        codes.val[h] = vorrq_u8(codes.val[h], set);
    }
    convert_bytes(piece, codes);
    scale_part(piece, scales, part);
}

DECODE void scales_q6_k(float *scales, const char *block)
{
    vec d = broadcast_f16(block + offsetof(ct_block_q6_k, d)), piece[4];
    convert_16(piece, vld1q_s8((const int8_t *)block + offsetof(ct_block_q6_k, scales)));
    for (int v = 0; v < 4; v++)
        v_store(scales + v * V_WIDTH, v_mul(d, piece[v]));
}

/* A part's codes lie in either nibble of 32 bytes; their upper bits are two of another 32. */
DECODE void decode_q6_k(vec *piece, const char *block, const float *scales, int part)
{
    const int half = part / 4, group = part % 4;
    uint8x16x2_t low = load_32(block + half * 64 + (group & 1) * 32);
    uint8x16x2_t high = load_32(block + offsetof(ct_block_q6_k, high) + half * 32);
    const int8x16_t to_bit_4 = vdupq_n_s8((int8_t)(4 - 2 * group));
    for (int h = 0; h < 2; h++) {
        uint8x16_t nibble =
            group < 2 ? vandq_u8(low.val[h], vdupq_n_u8(15)) : vshrq_n_u8(low.val[h], 4);
        uint8x16_t bits = vandq_u8(vshlq_u8(high.val[h], to_bit_4), vdupq_n_u8(0x30));
        low.val[h] = vsubq_u8(vorrq_u8(nibble, bits), vdupq_n_u8(32));
    }
    convert_bytes(piece, low);
    for (int v = 0; v < 8; v++)
        piece[v] = v_mul(v_set1(scales[2 * part + v / 4]), piece[v]);
}

#endif
