/* AVX-512 as the shared kernel bodies see it: a vector of 16 floats. Tails are masked. */
#ifndef CT_CPU_ISA_AVX512_VECTOR_H
#define CT_CPU_ISA_AVX512_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

#define V_WIDTH 16
#define V_TILE_ROWS 6
#define V_TILE_VECTORS 4

typedef __m512 vec;

static inline __mmask16 v_mask(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xffff : (1u << n) - 1);
}

static inline vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline vec v_load_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(v_mask(n), p);
}
static inline void v_store(float *p, vec a)
{
    _mm512_storeu_ps(p, a);
}
static inline void v_store_n(float *p, vec a, int64_t n)
{
    _mm512_mask_storeu_ps(p, v_mask(n), a);
}
/* The first n lanes of a, the others of b. */
static inline vec v_first_n(vec a, vec b, int64_t n)
{
    return _mm512_mask_blend_ps(v_mask(n), b, a);
}
static inline vec v_set1(float a)
{
    return _mm512_set1_ps(a);
}
static inline vec v_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
static inline vec v_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
static inline vec v_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
static inline vec v_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* max and min give b where a lane of a is NaN. */
static inline vec v_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
static inline vec v_min(vec a, vec b)
{
    return _mm512_min_ps(a, b);
}
static inline vec v_abs(vec a)
{
    return _mm512_abs_ps(a);
}
static inline vec v_neg(vec a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
/* a where x < 0, else b */
static inline vec v_if_negative(vec x, vec a, vec b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), b, a);
}
static inline vec v_round(vec a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^n for whole n; overflows to infinity, underflows through the subnormals */
static inline vec v_ldexp(vec a, vec n)
{
    return _mm512_scalef_ps(a, n);
}
static inline float v_sum(vec a)
{
    return _mm512_reduce_add_ps(a);
}
static inline float v_top(vec a)
{
    return _mm512_reduce_max_ps(a);
}
/* The first lane that equals b, or -1. */
static inline int v_find(vec a, vec b)
{
    unsigned mask = _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
    return mask ? __builtin_ctz(mask) : -1;
}

static inline vec v_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vec v_load_bf16_n(const uint16_t *p, int64_t n)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(v_mask(n), p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vec v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vec v_load_f16_n(const uint16_t *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_mask(n), p));
}
static inline __m256i v_to_f16(vec a)
{
    return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline __m256i v_to_bf16(vec a)
{
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16));
}
static inline void v_store_u16(uint16_t *p, __m256i a)
{
    _mm256_storeu_si256((__m256i *)p, a);
}
static inline void v_store_u16_n(uint16_t *p, __m256i a, int64_t n)
{
    _mm256_mask_storeu_epi16(p, v_mask(n), a);
}
typedef __m256i vec_u16;

#endif
