/* AVX2 with FMA and F16C as the shared kernel bodies see it: a vector of 8 floats. Tails of f32 are
 * masked, tails of 16-bit elements go through a small buffer. */
#ifndef CT_CPU_ISA_AVX2_VECTOR_H
#define CT_CPU_ISA_AVX2_VECTOR_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define V_WIDTH 8
#define V_TILE_ROWS 6
#define V_TILE_VECTORS 2

typedef __m256 vec;
typedef __m128i vec_u16;

static inline __m256i v_mask(int64_t n)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : (int)n), lanes);
}

static inline vec v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline vec v_load_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, v_mask(n));
}
static inline void v_store(float *p, vec a)
{
    _mm256_storeu_ps(p, a);
}
static inline void v_store_n(float *p, vec a, int64_t n)
{
    _mm256_maskstore_ps(p, v_mask(n), a);
}
/* The first n lanes of a, the others of b. */
static inline vec v_first_n(vec a, vec b, int64_t n)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(v_mask(n)));
}
static inline vec v_set1(float a)
{
    return _mm256_set1_ps(a);
}
static inline vec v_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
/* max and min give b where a lane of a is NaN. */
static inline vec v_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
static inline vec v_min(vec a, vec b)
{
    return _mm256_min_ps(a, b);
}
static inline vec v_abs(vec a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vec v_neg(vec a)
{
    return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f));
}
/* a where x < 0, else b */
static inline vec v_if_negative(vec x, vec a, vec b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}
static inline vec v_round(vec a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_power_of_2(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
/* a * 2^n for whole n in [-252, 254], in two steps so that subnormals and infinity come out right
 */
static inline vec v_ldexp(vec a, vec n)
{
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    vec rest = v_power_of_2(_mm256_sub_epi32(whole, half));
    return v_mul(v_mul(a, v_power_of_2(half)), rest);
}
static inline float v_sum(vec a)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float v_top(vec a)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
/* The first lane that equals b, or -1. */
static inline int v_find(vec a, vec b)
{
    int mask = _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
    return mask ? __builtin_ctz((unsigned)mask) : -1;
}

static inline __m128i v_load_u16_n(const uint16_t *p, int64_t n)
{
    uint16_t buffer[8] = {0};
    memcpy(buffer, p, sizeof *p * (size_t)(n > 8 ? 8 : n));
    return _mm_loadu_si128((const __m128i *)buffer);
}
static inline vec v_widen_bf16(__m128i bits)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
static inline vec v_load_bf16(const uint16_t *p)
{
    return v_widen_bf16(_mm_loadu_si128((const __m128i *)p));
}
static inline vec v_load_bf16_n(const uint16_t *p, int64_t n)
{
    return v_widen_bf16(v_load_u16_n(p, n));
}
static inline vec v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vec v_load_f16_n(const uint16_t *p, int64_t n)
{
    return _mm256_cvtph_ps(v_load_u16_n(p, n));
}
static inline vec_u16 v_to_f16(vec a)
{
    return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec_u16 v_to_bf16(vec a)
{
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    __m256i top = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
}
static inline void v_store_u16(uint16_t *p, vec_u16 a)
{
    _mm_storeu_si128((__m128i *)p, a);
}
static inline void v_store_u16_n(uint16_t *p, vec_u16 a, int64_t n)
{
    uint16_t buffer[8];
    _mm_storeu_si128((__m128i *)buffer, a);
    memcpy(p, buffer, sizeof *p * (size_t)n);
}

#endif
