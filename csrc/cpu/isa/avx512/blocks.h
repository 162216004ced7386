/* Decoding of quantized blocks, 16 lanes. The 4-bit formats decode by a permute: a block's 16
 * possible values make one vector, which the codes index. */
#ifndef CT_CPU_ISA_AVX512_BLOCKS_H
#define CT_CPU_ISA_AVX512_BLOCKS_H

#include <string.h>

#include "cpu/isa/avx512/vector.h"
#include "quant/gguf_blocks.h"

#define DECODE static inline __attribute__((always_inline))

/* An f16 at any address as f32, in all lanes. */
DECODE vec broadcast_f16(const void *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
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

DECODE void decode_q8_0(vec piece[2], const char *block)
{
    const __m128i *codes = (const __m128i *)(block + 2);
    vec d = broadcast_f16(block);
    for (int v = 0; v < 2; v++)
        piece[v] = v_mul(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes + v))));
}

DECODE void decode_q4_0(vec piece[2], const char *block)
{
    look_up_nibbles(piece, block + 2,
                    v_mul(broadcast_f16(block), v_sub(codes_0_to_15(), v_set1(8))));
}

DECODE void decode_q4_1(vec piece[2], const char *block)
{
    int header; /* d and m, read and converted together */
    memcpy(&header, block, sizeof header);
    __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(header));
    vec d = _mm512_broadcastss_ps(both), m = _mm512_broadcastss_ps(_mm_movehdup_ps(both));
    /* d times a code has 15 bits: the fused product is the rounded one. */
    look_up_nibbles(piece, block + 4, v_fma(d, codes_0_to_15(), m));
}

#endif
