/* Decoding of quantized blocks, 8 lanes. Codes become floats by conversion: eight lanes do not hold
 * the 16 values of a 4-bit code. */
#ifndef CT_CPU_ISA_AVX2_BLOCKS_H
#define CT_CPU_ISA_AVX2_BLOCKS_H

#include <stddef.h>
#include <string.h>

#include "cpu/isa/avx2/vector.h"
#include "cpu/isa/kquant_codes.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

#define DECODE static inline __attribute__((always_inline))

/* An f16 at any address as f32, in all lanes. */
DECODE vec broadcast_f16(const void *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/* The bytes of a block's codes, which lie below 128 or are signed. */
DECODE void convert_bytes(vec piece[4], __m256i codes)
{
    __m128i halves[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
    for (int h = 0; h < 2; h++) {
        piece[2 * h] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(halves[h]));
        piece[2 * h + 1] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(halves[h], 8)));
    }
}

/* Low nibbles of 16 bytes are the first half of a block, high ones the second. */
DECODE __m256i read_nibbles(const char *codes)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)codes);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes),
                            _mm256_set1_epi8(15));
}

/* ---- blocks of 32 ---- */

DECODE void decode_q8_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block);
    for (int v = 0; v < 4; v++) {
        __m128i codes = _mm_loadl_epi64((const __m128i *)(block + 2 + 8 * v));
        piece[v] = v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
    }
}

DECODE void decode_q4_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block);
    convert_bytes(piece, read_nibbles(block + 2));
    for (int v = 0; v < 4; v++)
        piece[v] = v_mul(d, v_sub(piece[v], v_set1(8)));
}

DECODE void decode_q4_1(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block), m = broadcast_f16(block + 2);
    convert_bytes(piece, read_nibbles(block + 4));
    for (int v = 0; v < 4; v++)
        piece[v] = v_fma(d, piece[v], m); /* d times a code has 15 bits: fused is rounded */
}

/* The codes of q5_0 and q5_1: 4 bytes of highest bits, then nibbles. */
DECODE __m256i read_5_bits(const char *bits)
{
    int high;
    memcpy(&high, bits, sizeof high);
    const __m256i byte_of_bit =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(high), byte_of_bit);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
    return _mm256_or_si256(read_nibbles(bits + 4), _mm256_and_si256(set, _mm256_set1_epi8(16)));
}

DECODE void decode_q5_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block);
    convert_bytes(piece, _mm256_sub_epi8(read_5_bits(block + 2), _mm256_set1_epi8(16)));
    for (int v = 0; v < 4; v++)
        piece[v] = v_mul(d, piece[v]);
}

DECODE void decode_q5_1(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_f16(block), m = broadcast_f16(block + 2);
    convert_bytes(piece, read_5_bits(block + 4));
    for (int v = 0; v < 4; v++)
        piece[v] = v_fma(d, piece[v], m);
}

/* ---- blocks of 256 ---- */

/* The scales of q4_k and q5_k times d, then their minima times -m. */
DECODE void scales_q4_k(float *scales, const char *block)
{
    vec factors[2] = {broadcast_f16(block), v_neg(broadcast_f16(block + 2))};
    __m128i codes = unpack_6_bits(block + offsetof(ct_block_q4_k, scales));
    v_store(scales, v_mul(factors[0], _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes))));
    codes = _mm_srli_si128(codes, 8);
    v_store(scales + 8, v_mul(factors[1], _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes))));
}

DECODE void scales_q5_k(float *scales, const char *block)
{
    scales_q4_k(scales, block);
}

/* The lower four bits of a part's codes. */
DECODE __m256i read_part(const char *codes, int part)
{
    __m256i bytes = _mm256_loadu_si256((const __m256i *)(codes + part / 2 * 32));
    if (part & 1)
        bytes = _mm256_srli_epi16(bytes, 4);
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}

/* 17 bits times a code of 5 are exact: fused is rounded. */
DECODE void scale_part(vec piece[4], const float *scales, int part)
{
    vec scale = v_set1(scales[part]), minimum = v_set1(scales[8 + part]);
    for (int v = 0; v < 4; v++)
        piece[v] = v_fma(scale, piece[v], minimum);
}

DECODE void decode_q4_k(vec *piece, const char *block, const float *scales, int part)
{
    convert_bytes(piece, read_part(block + offsetof(ct_block_q4_k, q), part));
    scale_part(piece, scales, part);
}

DECODE void decode_q5_k(vec *piece, const char *block, const float *scales, int part)
{
    __m256i bits = _mm256_loadu_si256((const __m256i *)(block + offsetof(ct_block_q5_k, high)));
    __m256i bit = _mm256_set1_epi8((char)(1 << part));
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
    convert_bytes(piece, _mm256_or_si256(read_part(block + offsetof(ct_block_q5_k, q), part),
                                         _mm256_and_si256(set, _mm256_set1_epi8(16))));
    scale_part(piece, scales, part);
}

DECODE void scales_q6_k(float *scales, const char *block)
{
    vec d = broadcast_f16(block + offsetof(ct_block_q6_k, d));
    __m128i codes = _mm_loadu_si128((const __m128i *)(block + offsetof(ct_block_q6_k, scales)));
    v_store(scales, v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))));
    codes = _mm_srli_si128(codes, 8);
    v_store(scales + 8, v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))));
}

DECODE void decode_q6_k(vec *piece, const char *block, const float *scales, int part)
{
    convert_bytes(piece, codes_q6_k(block, part));
    for (int v = 0; v < 4; v++)
        piece[v] = v_mul(v_set1(scales[2 * part + v / 2]), piece[v]);
}

#endif
