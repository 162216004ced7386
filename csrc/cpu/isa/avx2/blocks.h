/* Decoding of quantized blocks, 8 lanes. Codes become floats by conversion: eight lanes do not hold
 * the 16 values of a 4-bit code. */
#ifndef CT_CPU_ISA_AVX2_BLOCKS_H
#define CT_CPU_ISA_AVX2_BLOCKS_H

#include <string.h>

#include "cpu/isa/avx2/vector.h"
#include "quant/gguf_blocks.h"

#define DECODE static inline __attribute__((always_inline))

/* An f16 at any address as f32, in all lanes. */
DECODE vec broadcast_f16(const void *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/* Low nibbles of 16 bytes are the first half of a block, high ones the second. */
DECODE void convert_nibbles(vec piece[4], const char *codes)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)codes), mask = _mm_set1_epi8(15);
    __m128i halves[2] = {_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16(bytes, 4), mask)};
    for (int h = 0; h < 2; h++) {
        piece[2 * h] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(halves[h]));
        piece[2 * h + 1] = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(halves[h], 8)));
    }
}

DECODE void decode_q8_0(vec piece[4], const char *block)
{
    vec d = broadcast_f16(block);
    for (int v = 0; v < 4; v++) {
        __m128i codes = _mm_loadl_epi64((const __m128i *)(block + 2 + 8 * v));
        piece[v] = v_mul(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
    }
}

DECODE void decode_q4_0(vec piece[4], const char *block)
{
    vec d = broadcast_f16(block);
    convert_nibbles(piece, block + 2);
    for (int v = 0; v < 4; v++)
        piece[v] = v_mul(d, v_sub(piece[v], v_set1(8)));
}

DECODE void decode_q4_1(vec piece[4], const char *block)
{
    vec d = broadcast_f16(block), m = broadcast_f16(block + 2);
    convert_nibbles(piece, block + 4);
    for (int v = 0; v < 4; v++)
        piece[v] = v_fma(d, piece[v], m); /* d times a code has 15 bits: fused is rounded */
}

#endif
