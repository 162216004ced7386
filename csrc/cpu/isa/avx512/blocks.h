/* Decoding of quantized blocks, 16 lanes. Codes of 4 bits decode by a permute: the 16 possible
 * values make one vector, which the codes index. Those of 5 bits have two such vectors in blocks of
 * 32; blocks of 256 have their codes as bytes at hand, which are converted. */
#ifndef CT_CPU_ISA_AVX512_BLOCKS_H
#define CT_CPU_ISA_AVX512_BLOCKS_H

#include <stddef.h>
#include <string.h>

#include "cpu/isa/avx512/vector.h"
#include "cpu/isa/kquant_codes.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

#define DECODE static inline __attribute__((always_inline))

/* Four f16 as f32, read by the conversion itself: one or two of them would take a shuffle more. */
DECODE __m128 read_f16(const void *p)
{
    return _mm_cvtph_ps(_mm_loadl_epi64(p));
}

/* The f16 at the begin of a block, in all lanes. */
DECODE vec broadcast_first(const char *block)
{
    return _mm512_broadcastss_ps(read_f16(block));
}

DECODE vec codes_0_to_15(void)
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

/* Low nibbles of 16 bytes index `values` for the first half of a block, high ones for the second.
 * The permute looks at 4 bits of each index only. */
DECODE void look_up_nibbles(vec piece[2], const char *codes, vec values)
{
    __m512i low = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    piece[0] = _mm512_permutexvar_ps(low, values);
    piece[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(low, 4), values);
}

/* The same where bit i of `high` says that value i is one of `upper`. */
DECODE void look_up_5_bits(vec piece[2], __m512i low[2], uint32_t high, vec lower, vec upper)
{
    for (int v = 0; v < 2; v++)
        piece[v] = _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(low[v], lower),
                                              (__mmask16)(high >> 16 * v), low[v], upper);
}

/* d and m of a block's first four bytes, converted together. */
DECODE void read_pair(vec *d, vec *m, const char *block)
{
    __m128 both = read_f16(block);
    *d = _mm512_broadcastss_ps(both);
    *m = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
}

/* ---- blocks of 32 ---- */

DECODE void decode_q8_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    const __m128i *codes = (const __m128i *)(block + 2);
    vec d = broadcast_first(block);
    for (int v = 0; v < 2; v++)
        piece[v] = v_mul(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes + v))));
}

DECODE void decode_q4_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    look_up_nibbles(piece, block + 2,
                    v_mul(broadcast_first(block), v_sub(codes_0_to_15(), v_set1(8))));
}

DECODE void decode_q4_1(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d, m;
    read_pair(&d, &m, block);
    /* d times a code has 15 bits: the fused product is the rounded one. */
    look_up_nibbles(piece, block + 4, v_fma(d, codes_0_to_15(), m));
}

/* What follows the scales of q5_0 and q5_1. */
DECODE void look_up_q5(vec piece[2], const char *bits, vec lower, vec upper)
{
    uint32_t high;
    memcpy(&high, bits, sizeof high);
    __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(bits + 4)));
    look_up_5_bits(piece, (__m512i[2]){codes, _mm512_srli_epi32(codes, 4)}, high, lower, upper);
}

DECODE void decode_q5_0(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d = broadcast_first(block);
    look_up_q5(piece, block + 2, v_mul(d, v_sub(codes_0_to_15(), v_set1(16))),
               v_mul(d, codes_0_to_15()));
}

DECODE void decode_q5_1(vec *piece, const char *block, const float *scales, int part)
{
    (void)scales, (void)part;
    vec d, m;
    read_pair(&d, &m, block);
    look_up_q5(piece, block + 4, v_fma(d, codes_0_to_15(), m),
               v_fma(d, v_add(codes_0_to_15(), v_set1(16)), m));
}

/* ---- blocks of 256 ---- */

/* The scales of q4_k and q5_k times d, then their minima times -m. */
DECODE void scales_q4_k(float *scales, const char *block)
{
    vec d, m;
    read_pair(&d, &m, block);
    vec factors = _mm512_mask_blend_ps(0xff00, d, v_neg(m));
    v_store(scales, v_mul(factors, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(
                                       unpack_6_bits(block + offsetof(ct_block_q4_k, scales))))));
}

DECODE void scales_q5_k(float *scales, const char *block)
{
    scales_q4_k(scales, block);
}

/* The codes of a part, in the lower nibbles of wider lanes. */
DECODE void read_nibbles(__m512i low[2], const char *codes, int part)
{
    const __m128i *bytes = (const __m128i *)(codes + part / 2 * 32);
    for (int v = 0; v < 2; v++) {
        low[v] = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes + v));
        if (part & 1)
            low[v] = _mm512_srli_epi32(low[v], 4);
    }
}

DECODE void decode_q4_k(vec *piece, const char *block, const float *scales, int part)
{
    /* 17 bits times a code of 4 are exact: fused is rounded. */
    vec values = v_fma(v_set1(scales[part]), codes_0_to_15(), v_set1(scales[8 + part]));
    __m512i low[2];
    read_nibbles(low, block + offsetof(ct_block_q4_k, q), part);
    for (int v = 0; v < 2; v++)
        piece[v] = _mm512_permutexvar_ps(low[v], values);
}

DECODE void decode_q5_k(vec *piece, const char *block, const float *scales, int part)
{
    vec scale = v_set1(scales[part]), minimum = v_set1(scales[8 + part]);
    const char *q = block + offsetof(ct_block_q5_k, q) + part / 2 * 32;
    __m256i bits = _mm256_loadu_si256((const __m256i *)(block + offsetof(ct_block_q5_k, high)));
    __m256i codes = _mm256_loadu_si256((const __m256i *)q);
    if (part & 1)
        codes = _mm256_srli_epi16(codes, 4);
    codes = _mm256_and_si256(codes, _mm256_set1_epi8(15));
    __mmask32 high = _mm256_test_epi8_mask(bits, _mm256_set1_epi8((char)(1 << part)));
    codes = _mm256_mask_add_epi8(codes, high, codes, _mm256_set1_epi8(16));
    __m128i halves[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
    for (int v = 0; v < 2; v++)
        piece[v] = v_fma(scale, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(halves[v])), minimum);
}

DECODE void scales_q6_k(float *scales, const char *block)
{
    _Static_assert(offsetof(ct_block_q6_k, d) + 2 == sizeof(ct_block_q6_k), "d comes last");
    __m128 last = read_f16(block + sizeof(ct_block_q6_k) - 8);
    vec d = _mm512_broadcastss_ps(_mm_permute_ps(last, 0xff));
    const __m128i *codes = (const __m128i *)(block + offsetof(ct_block_q6_k, scales));
    v_store(scales, v_mul(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes)))));
}

DECODE void decode_q6_k(vec *piece, const char *block, const float *scales, int part)
{
    __m256i codes = codes_q6_k(block, part);
    __m128i halves[2] = {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
    for (int v = 0; v < 2; v++)
        piece[v] = v_mul(v_set1(scales[2 * part + v]),
                         _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(halves[v])));
}

#endif
