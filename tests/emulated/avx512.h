/* AVX-512 and AVX-VNNI for a processor with AVX2 alone: the intrinsics of them that csrc/cpu/isa
 * uses, by those of AVX2 and plain C on the compiler's vectors of 64 bytes, each as the Intel
 * Intrinsics Guide has it. It is included before a file's own headers; nothing else of the file
 * changes. */
#ifndef CT_TESTS_EMULATED_AVX512_H
#define CT_TESTS_EMULATED_AVX512_H

#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* csrc/core/cpuinfo.c is told of an AVX-512 and of both VNNI (EMULATED_VNNI=0: of neither).
 * Instructions for bf16 are there if they are: oneDNN alone uses them. */
static __attribute__((unused)) int emulated_vnni(void)
{
    const char *wanted = getenv("EMULATED_VNNI");
    return !wanted || strcmp(wanted, "0") != 0;
}
static __attribute__((unused)) int emulated_supports(const char *feature, int supported)
{
    if (strncmp(feature, "avx512", 6) != 0 || strcmp(feature, "avx512bf16") == 0)
        return supported;
    return strcmp(feature, "avx512vnni") != 0 || emulated_vnni();
}
static __attribute__((unused)) int emulated_cpuid(unsigned leaf, unsigned more, unsigned *a,
                                                  unsigned *b, unsigned *c, unsigned *d)
{
    const unsigned avx_vnni = 1u << 4;
    if (leaf != 7 || more != 1)
        return __get_cpuid_count(leaf, more, a, b, c, d);
    *a = emulated_vnni() ? avx_vnni : 0;
    *b = *c = *d = 0;
    return 1;
}
#define __builtin_cpu_supports(feature) emulated_supports(feature, __builtin_cpu_supports(feature))
#define __get_cpuid_count emulated_cpuid

/* Functions of the kernels ask for VNNI; here they get what their files have. */
#define target(features)

typedef signed char emulated_bytes __attribute__((vector_size(64)));

#define EMULATED static inline __attribute__((always_inline))
/* What goes lane by lane is long; kernels have hundreds of calls. */
#define EMULATED_CALL static __attribute__((noinline, unused))

/* ---- halves ---- */

EMULATED __m256i emulated_half(__m512i a, int upper)
{
    __m256i half;
    memcpy(&half, (const char *)&a + 32 * upper, sizeof half);
    return half;
}

EMULATED __m512i emulated_join(__m256i lower, __m256i upper)
{
    __m512i both;
    memcpy(&both, &lower, sizeof lower);
    memcpy((char *)&both + 32, &upper, sizeof upper);
    return both;
}

/* A vector whose half h is `value`: the instruction of AVX2, of h. */
#define EMULATED_BY_HALVES(vector, value)                                                          \
    ({                                                                                             \
        __m256i halves[2];                                                                         \
        for (int h = 0; h < 2; h++)                                                                \
            halves[h] = (__m256i)(value);                                                          \
        (vector) emulated_join(halves[0], halves[1]);                                              \
    })
#define EMULATED_FLOATS(a) ((__m256)emulated_half((__m512i)(a), h))
#define EMULATED_PAIRWISE(name)                                                                    \
    EMULATED __m512i emulated_##name(__m512i a, __m512i b)                                         \
    {                                                                                              \
        return EMULATED_BY_HALVES(__m512i,                                                         \
                                  _mm256_##name(emulated_half(a, h), emulated_half(b, h)));        \
    }

EMULATED_PAIRWISE(shuffle_epi8)
EMULATED_PAIRWISE(unpacklo_epi8)
EMULATED_PAIRWISE(unpackhi_epi8)
EMULATED_PAIRWISE(unpacklo_epi32)
EMULATED_PAIRWISE(unpackhi_epi32)
EMULATED_PAIRWISE(unpacklo_epi64)
EMULATED_PAIRWISE(unpackhi_epi64)
EMULATED __m512i emulated_abs_epi8(__m512i a)
{
    return EMULATED_BY_HALVES(__m512i, _mm256_abs_epi8(emulated_half(a, h)));
}
EMULATED __m512 emulated_max_ps(__m512 a, __m512 b)
{
    return EMULATED_BY_HALVES(__m512, _mm256_max_ps(EMULATED_FLOATS(a), EMULATED_FLOATS(b)));
}
EMULATED __m512 emulated_min_ps(__m512 a, __m512 b)
{
    return EMULATED_BY_HALVES(__m512, _mm256_min_ps(EMULATED_FLOATS(a), EMULATED_FLOATS(b)));
}
EMULATED __m512 emulated_fmadd_ps(__m512 a, __m512 b, __m512 c)
{
    return EMULATED_BY_HALVES(
        __m512, _mm256_fmadd_ps(EMULATED_FLOATS(a), EMULATED_FLOATS(b), EMULATED_FLOATS(c)));
}
#define _mm512_shuffle_epi8 emulated_shuffle_epi8
#define _mm512_unpacklo_epi8 emulated_unpacklo_epi8
#define _mm512_unpackhi_epi8 emulated_unpackhi_epi8
#define _mm512_unpacklo_epi32 emulated_unpacklo_epi32
#define _mm512_unpackhi_epi32 emulated_unpackhi_epi32
#define _mm512_unpacklo_epi64 emulated_unpacklo_epi64
#define _mm512_unpackhi_epi64 emulated_unpackhi_epi64
#define _mm512_abs_epi8 emulated_abs_epi8
#define _mm512_max_ps emulated_max_ps
#define _mm512_min_ps emulated_min_ps
#define _mm512_fmadd_ps emulated_fmadd_ps

/* The upper half is undefined: something that a kernel would notice. */
EMULATED __m512i emulated_castsi256_si512(__m256i a)
{
    return emulated_join(a, _mm256_set1_epi32(0x7fbadbad));
}
EMULATED __m256i emulated_castsi512_si256(__m512i a)
{
    return emulated_half(a, 0);
}
EMULATED __m512i emulated_inserti64x4(__m512i a, __m256i b, int upper)
{
    return emulated_join(upper ? emulated_half(a, 0) : b, upper ? b : emulated_half(a, 1));
}
EMULATED __m512i emulated_broadcast_i64x4(__m256i a)
{
    return emulated_join(a, a);
}
EMULATED __m512i emulated_broadcast_i32x4(__m128i a)
{
    return emulated_broadcast_i64x4(_mm256_broadcastsi128_si256(a));
}
#define _mm512_castsi256_si512 emulated_castsi256_si512
#define _mm512_castsi512_si256 emulated_castsi512_si256
#define _mm512_inserti64x4 emulated_inserti64x4
#define _mm512_extracti64x4_epi64 emulated_half
#define _mm512_broadcast_i64x4 emulated_broadcast_i64x4
#define _mm512_broadcast_i32x4 emulated_broadcast_i32x4

/* ---- values for all lanes ---- */

#undef _mm512_setr_ps
#undef _mm512_setr_epi32
#define _mm512_setzero_ps() ((__m512){0})
#define _mm512_setzero_si512() ((__m512i){0})
#define _mm512_setr_ps(...) ((__m512)(__v16sf){__VA_ARGS__})
#define _mm512_setr_epi32(...) ((__m512i)(__v16si){__VA_ARGS__})
#define _mm512_castps_si512(a) ((__m512i)(a))
#define _mm512_castsi512_ps(a) ((__m512)(a))

EMULATED __m512 emulated_set1_ps(float a)
{
    return (__m512){a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a};
}
EMULATED __m512i emulated_set1_epi32(int a)
{
    return emulated_broadcast_i64x4(_mm256_set1_epi32(a));
}
EMULATED __m512i emulated_set1_epi8(char a)
{
    return emulated_broadcast_i64x4(_mm256_set1_epi8(a));
}
EMULATED __m512 emulated_broadcastss_ps(__m128 a)
{
    return emulated_set1_ps(a[0]);
}
#define _mm512_set1_ps emulated_set1_ps
#define _mm512_set1_epi32 emulated_set1_epi32
#define _mm512_set1_epi8 emulated_set1_epi8
#define _mm512_broadcastss_ps emulated_broadcastss_ps

/* ---- memory ---- */

EMULATED __m512 emulated_loadu_ps(const void *p)
{
    __m512 a;
    memcpy(&a, p, sizeof a);
    return a;
}
EMULATED __m512i emulated_loadu_si512(const void *p)
{
    return (__m512i)emulated_loadu_ps(p);
}
EMULATED void emulated_storeu_ps(void *p, __m512 a)
{
    memcpy(p, &a, sizeof a);
}
EMULATED void emulated_storeu_si512(void *p, __m512i a)
{
    memcpy(p, &a, sizeof a);
}
#define _mm512_loadu_ps emulated_loadu_ps
#define _mm512_loadu_si512 emulated_loadu_si512
#define _mm512_storeu_ps emulated_storeu_ps
#define _mm512_storeu_si512 emulated_storeu_si512

/* Lanes of `size` bytes between memory and a vector. */
EMULATED void emulated_move_lanes(void *to, const void *from, uint64_t mask, int n, size_t size)
{
    for (int i = 0; i < n; i++)
        if (mask >> i & 1)
            memcpy((char *)to + (size_t)i * size, (const char *)from + (size_t)i * size, size);
}
#define EMULATED_MASKED_LOAD(name, vector, mask_type, lane)                                        \
    EMULATED_CALL vector name(mask_type mask, const void *p)                                       \
    {                                                                                              \
        vector a = {0};                                                                            \
        emulated_move_lanes(&a, p, mask, (int)(sizeof a / sizeof(lane)), sizeof(lane));            \
        return a;                                                                                  \
    }
#define EMULATED_MASKED_STORE(name, vector, mask_type, lane)                                       \
    EMULATED_CALL void name(void *p, mask_type mask, vector a)                                     \
    {                                                                                              \
        emulated_move_lanes(p, &a, mask, (int)(sizeof a / sizeof(lane)), sizeof(lane));            \
    }

EMULATED_MASKED_LOAD(emulated_maskz_loadu_ps, __m512, __mmask16, float)
EMULATED_MASKED_LOAD(emulated_maskz_loadu_epi8, __m512i, __mmask64, int8_t)
EMULATED_MASKED_LOAD(emulated_maskz_loadu_epi32, __m512i, __mmask16, int32_t)
EMULATED_MASKED_LOAD(emulated_maskz_loadu_epi16, __m256i, __mmask16, int16_t)
EMULATED_MASKED_STORE(emulated_mask_storeu_ps, __m512, __mmask16, float)
EMULATED_MASKED_STORE(emulated_mask_storeu_epi32, __m512i, __mmask16, int32_t)
EMULATED_MASKED_STORE(emulated_mask_storeu_epi16, __m256i, __mmask16, int16_t)
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_maskz_loadu_epi8 emulated_maskz_loadu_epi8
#define _mm512_maskz_loadu_epi32 emulated_maskz_loadu_epi32
#define _mm256_maskz_loadu_epi16 emulated_maskz_loadu_epi16
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define _mm512_mask_storeu_epi32 emulated_mask_storeu_epi32
#define _mm256_mask_storeu_epi16 emulated_mask_storeu_epi16

/* ---- lanes of floats ---- */

/* A vector whose lane i is `value`. */
#define EMULATED_LANES(type, value)                                                                \
    ({                                                                                             \
        type lanes;                                                                                \
        for (int i = 0; i < (int)(sizeof lanes / sizeof lanes[0]); i++)                            \
            lanes[i] = (value);                                                                    \
        lanes;                                                                                     \
    })
/* The mask of the lanes for which `value` is true. */
#define EMULATED_MASK(type, n, value)                                                              \
    ({                                                                                             \
        uint64_t mask = 0;                                                                         \
        for (int i = 0; i < (n); i++)                                                              \
            mask |= (uint64_t)((value) != 0) << i;                                                 \
        (type) mask;                                                                               \
    })

#define _mm512_add_ps(a, b) ((__m512)((a) + (b)))
#define _mm512_sub_ps(a, b) ((__m512)((a) - (b)))
#define _mm512_mul_ps(a, b) ((__m512)((a) * (b)))
#define _mm512_div_ps(a, b) ((__m512)((a) / (b)))
#define _mm512_xor_ps(a, b) ((__m512)((__v16si)(a) ^ (__v16si)(b)))

EMULATED __m512 emulated_abs_ps(__m512 a)
{
    return (__m512)((__v16si)a & 0x7fffffff);
}
EMULATED_CALL __m512 emulated_mask_blend_ps(__mmask16 mask, __m512 a, __m512 b)
{
    return EMULATED_LANES(__m512, mask >> i & 1 ? b[i] : a[i]);
}
EMULATED_CALL __mmask16 emulated_cmp_ps_mask(__m512 a, __m512 b, int relation)
{
    switch (relation) {
    case _CMP_EQ_OQ:
        return EMULATED_MASK(__mmask16, 16, a[i] == b[i]);
    case _CMP_LT_OQ:
        return EMULATED_MASK(__mmask16, 16, a[i] < b[i]);
    case _CMP_UNORD_Q:
        return EMULATED_MASK(__mmask16, 16, isunordered(a[i], b[i]));
    default:
        abort();
    }
}
EMULATED_CALL __m512 emulated_roundscale_ps(__m512 a, int mode)
{
    if (mode != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
        abort();
    return EMULATED_LANES(__m512, rintf(a[i]));
}
/* a 2^floor(n) for finite n, rounded once. */
EMULATED float emulated_scalef(float a, float n)
{
    if (isnan(a) || isnan(n))
        return NAN;
    return ldexpf(a, (int)fmaxf(fminf(floorf(n), 1000), -1000));
}
EMULATED_CALL __m512 emulated_scalef_ps(__m512 a, __m512 n)
{
    return EMULATED_LANES(__m512, emulated_scalef(a[i], n[i]));
}
#define _mm512_abs_ps emulated_abs_ps
#define _mm512_mask_blend_ps emulated_mask_blend_ps
#define _mm512_cmp_ps_mask emulated_cmp_ps_mask
#define _mm512_roundscale_ps emulated_roundscale_ps
#define _mm512_scalef_ps emulated_scalef_ps

/* No instruction; compilers halve the vector until one lane is left. */
EMULATED_CALL float emulated_reduce_add_ps(__m512 a)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] += a[i + half];
    return a[0];
}
EMULATED_CALL float emulated_reduce_max_ps(__m512 a)
{
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            a[i] = a[i] > a[i + half] ? a[i] : a[i + half];
    return a[0];
}
#define _mm512_reduce_add_ps emulated_reduce_add_ps
#define _mm512_reduce_max_ps emulated_reduce_max_ps

/* Only the bits of an index count that a lane's number has. */
EMULATED_CALL __m512 emulated_permutexvar_ps(__m512i index, __m512 a)
{
    return EMULATED_LANES(__m512, a[((__v16si)index)[i] & 15]);
}
EMULATED __m512 emulated_mask_permutexvar_ps(__m512 src, __mmask16 mask, __m512i index, __m512 a)
{
    return emulated_mask_blend_ps(mask, src, emulated_permutexvar_ps(index, a));
}
EMULATED_CALL __m512 emulated_permutex2var_ps(__m512 a, __m512i index, __m512 b)
{
    return EMULATED_LANES(__m512, ((__v16si)index)[i] & 16 ? b[((__v16si)index)[i] & 15]
                                                           : a[((__v16si)index)[i] & 15]);
}
EMULATED_CALL __m512i emulated_permutexvar_epi16(__m512i index, __m512i a)
{
    return (__m512i)EMULATED_LANES(__v32hi, ((__v32hi)a)[((__v32hi)index)[i] & 31]);
}
#define _mm512_permutexvar_ps emulated_permutexvar_ps
#define _mm512_mask_permutexvar_ps emulated_mask_permutexvar_ps
#define _mm512_permutex2var_ps emulated_permutex2var_ps
#define _mm512_permutexvar_epi16 emulated_permutexvar_epi16

/* ---- conversions ---- */

#define _mm512_cvtepi32_ps(a) ((__m512) __builtin_convertvector((__v16si)(a), __v16sf))
#define _mm512_cvtepi32_epi16(a) ((__m256i) __builtin_convertvector((__v16si)(a), __v16hi))
#define _mm512_cvtepu16_epi32(a) ((__m512i) __builtin_convertvector((__v16hu)(a), __v16si))

EMULATED __m512i emulated_cvtepi8_epi32(__m128i a)
{
    return emulated_join(_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_srli_si128(a, 8)));
}
EMULATED __m512i emulated_cvtepu8_epi32(__m128i a)
{
    return emulated_join(_mm256_cvtepu8_epi32(a), _mm256_cvtepu8_epi32(_mm_srli_si128(a, 8)));
}
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32

EMULATED __m512 emulated_cvtph_ps(__m256i a)
{
    return (__m512)emulated_join((__m256i)_mm256_cvtph_ps(_mm256_castsi256_si128(a)),
                                 (__m256i)_mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}
EMULATED __m256i emulated_cvtps_ph(__m512 a, int mode)
{
    if (mode != (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))
        abort();
    __m128i halves[2];
    for (int h = 0; h < 2; h++)
        halves[h] = _mm256_cvtps_ph(EMULATED_FLOATS(a), _MM_FROUND_TO_NEAREST_INT);
    return _mm256_set_m128i(halves[1], halves[0]);
}
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtps_ph emulated_cvtps_ph

/* ---- whole numbers ---- */

#define _mm512_and_si512(a, b) ((__m512i)((a) & (b)))
#define _mm512_or_si512(a, b) ((__m512i)((a) | (b)))
#define _mm512_xor_si512(a, b) ((__m512i)((a) ^ (b)))
#define _mm512_add_epi32(a, b) ((__m512i)((__v16su)(a) + (__v16su)(b)))
#define _mm512_sub_epi32(a, b) ((__m512i)((__v16su)(a) - (__v16su)(b)))
#define _mm512_slli_epi32(a, n) ((__m512i)((__v16su)(a) << (n)))
#define _mm512_srli_epi32(a, n) ((__m512i)((__v16su)(a) >> (n)))
#define _mm512_srli_epi16(a, n) ((__m512i)((__v32hu)(a) >> (n)))

EMULATED __m512i emulated_mask_blend_epi32(__mmask16 mask, __m512i a, __m512i b)
{
    return (__m512i)emulated_mask_blend_ps(mask, (__m512)a, (__m512)b);
}
EMULATED_CALL __mmask64 emulated_movepi8_mask(__m512i a)
{
    return EMULATED_MASK(__mmask64, 64, ((emulated_bytes)a)[i] < 0);
}
EMULATED_CALL __m512i emulated_mask_sub_epi8(__m512i src, __mmask64 mask, __m512i a, __m512i b)
{
    __v64qu difference = (__v64qu)a - (__v64qu)b;
    return (__m512i)EMULATED_LANES(__v64qu, mask >> i & 1 ? difference[i] : ((__v64qu)src)[i]);
}
EMULATED_CALL __m256i emulated_mask_add_epi8(__m256i src, __mmask32 mask, __m256i a, __m256i b)
{
    __v32qu sum = (__v32qu)a + (__v32qu)b;
    return (__m256i)EMULATED_LANES(__v32qu, mask >> i & 1 ? sum[i] : ((__v32qu)src)[i]);
}
EMULATED_CALL __mmask32 emulated_test_epi8_mask(__m256i a, __m256i b)
{
    __v32qu both = (__v32qu)a & (__v32qu)b;
    return EMULATED_MASK(__mmask32, 32, both[i]);
}
/* Products of four bytes without a sign by four with one, added to a lane without saturation. */
EMULATED_CALL __m512i emulated_dpbusd_epi32(__m512i sums, __m512i a, __m512i b)
{
    __v16su out = (__v16su)sums;
    for (int i = 0; i < 64; i++)
        out[i / 4] += (uint32_t)(((__v64qu)a)[i] * ((emulated_bytes)b)[i]);
    return (__m512i)out;
}
EMULATED __m256i emulated_dpbusd_avx_epi32(__m256i sums, __m256i a, __m256i b)
{
    return emulated_half(
        emulated_dpbusd_epi32(emulated_join(sums, sums), emulated_join(a, a), emulated_join(b, b)),
        0);
}
/* The same of two words. */
EMULATED_CALL __m512i emulated_dpwssd_epi32(__m512i sums, __m512i a, __m512i b)
{
    __v16su out = (__v16su)sums;
    for (int i = 0; i < 32; i++)
        out[i / 2] += (uint32_t)(((__v32hi)a)[i] * ((__v32hi)b)[i]);
    return (__m512i)out;
}
#define _mm512_mask_blend_epi32 emulated_mask_blend_epi32
#define _mm512_movepi8_mask emulated_movepi8_mask
#define _mm512_mask_sub_epi8 emulated_mask_sub_epi8
#define _mm256_mask_add_epi8 emulated_mask_add_epi8
#define _mm256_test_epi8_mask emulated_test_epi8_mask
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd_avx_epi32
#define _mm512_dpwssd_epi32 emulated_dpwssd_epi32

#endif
