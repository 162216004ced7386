/* Floats to signed bytes, and products of signed bytes, on avx2's vectors. */
#ifndef CT_CPU_ISA_AVX2_BYTES_H
#define CT_CPU_ISA_AVX2_BYTES_H

#include "cpu/isa/avx2/vector.h"

/* Rounded to nearest, ties to even, within a byte's range. */
static inline void v_store_i8(int8_t *p, vec a)
{
    __m256i whole = _mm256_cvtps_epi32(a);
    __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}
static inline void v_store_i8_n(int8_t *p, vec a, int64_t n)
{
    int8_t buffer[V_WIDTH];
    v_store_i8(buffer, a);
    memcpy(p, buffer, (size_t)(n < V_WIDTH ? n : V_WIDTH));
}

#define INT8_STEP 32 /* bytes of a vector */

typedef __m256i int8_lanes;

static inline __m256i load_bytes(const int8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* n < INT8_STEP of them, and zeros. */
static inline __m256i load_bytes_n(const int8_t *p, int64_t n)
{
    int8_t buffer[INT8_STEP] = {0};
    memcpy(buffer, p, (size_t)n);
    return load_bytes(buffer);
}

static inline int32_t sum_of_lanes(int8_lanes a)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}

/* The sum of each four products of bytes, x in [-127, 127], with the magnitudes of w at hand.
 * The instruction takes bytes without a sign by such with one, so w's sign moves to x; its 16 bits
 * hold 2 * 127 * 128, a w of -128 included. */
static inline __m256i sums_of_4(__m256i magnitudes, __m256i w, __m256i x)
{
    __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, w));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

#endif
