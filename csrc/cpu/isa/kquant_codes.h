/* What levels share in decoding K blocks: bits that are taken apart as bytes. */
#ifndef CT_CPU_ISA_KQUANT_CODES_H
#define CT_CPU_ISA_KQUANT_CODES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "quant/gguf_kquants.h"

/* The 8 scales and 8 minima of q4_k and q5_k, four at a time in the bytes of a word. */
static inline __attribute__((always_inline)) void unpack_6_bit_words(uint32_t unpacked[4],
                                                                     const char *packed)
{
    uint32_t word[3];
    _Static_assert(sizeof word == CT_KSCALE_BYTES, "three words of codes");
    memcpy(word, packed, sizeof word);
    unpacked[0] = word[0] & 0x3f3f3f3f;
    unpacked[1] = (word[2] & 0x0f0f0f0f) | (word[0] >> 6 & 0x03030303) << 4;
    unpacked[2] = word[1] & 0x3f3f3f3f;
    unpacked[3] = (word[2] >> 4 & 0x0f0f0f0f) | (word[1] >> 6 & 0x03030303) << 4;
}

#ifdef __x86_64__
#include <immintrin.h>

static inline __attribute__((always_inline)) __m128i unpack_6_bits(const char *packed)
{
    uint32_t word[4];
    unpack_6_bit_words(word, packed);
    return _mm_setr_epi32((int)word[0], (int)word[1], (int)word[2], (int)word[3]);
}

/* The codes of a part of a q6_k block, from -32 on. */
static inline __attribute__((always_inline)) __m256i codes_q6_k(const char *block, int part)
{
    const char *half = block + part / 4 * 64;
    const char *high = block + offsetof(ct_block_q6_k, high) + part / 4 * 32;
    int group = part % 4;
    __m256i low = _mm256_loadu_si256((const __m256i *)(half + (group & 1) * 32));
    __m256i bits = _mm256_loadu_si256((const __m256i *)high);
    if (group >= 2)
        low = _mm256_srli_epi16(low, 4);
    bits = _mm256_and_si256(bits, _mm256_set1_epi8((char)(3 << 2 * group)));
    bits =
        group < 2 ? _mm256_slli_epi16(bits, 4 - 2 * group) : _mm256_srli_epi16(bits, 2 * group - 4);
    low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    return _mm256_sub_epi8(_mm256_or_si256(low, bits), _mm256_set1_epi8(32));
}

#endif

#endif
