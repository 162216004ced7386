/* NEON of 64-bit ARM as the shared kernel bodies see it: a vector of 4 floats. Tails go through a
 * small buffer. */
#ifndef CT_CPU_ISA_NEON_VECTOR_H
#define CT_CPU_ISA_NEON_VECTOR_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define V_WIDTH 4
#define V_TILE_ROWS 6
#define V_TILE_VECTORS 4

typedef float32x4_t vec;
typedef uint16x4_t vec_u16;

static inline size_t v_lanes(int64_t n)
{
    return (size_t)(n > V_WIDTH ? V_WIDTH : n < 0 ? 0 : n);
}

static inline vec v_load(const float *p)
{
    return vld1q_f32(p);
}
static inline vec v_load_n(const float *p, int64_t n)
{
    if (n >= V_WIDTH)
        return vld1q_f32(p);
    float buffer[V_WIDTH] = {0};
    memcpy(buffer, p, sizeof *p * v_lanes(n));
    return vld1q_f32(buffer);
}
static inline void v_store(float *p, vec a)
{
    vst1q_f32(p, a);
}
static inline void v_store_n(float *p, vec a, int64_t n)
{
    if (n >= V_WIDTH) {
        vst1q_f32(p, a);
        return;
    }
    float buffer[V_WIDTH];
    vst1q_f32(buffer, a);
    memcpy(p, buffer, sizeof *p * v_lanes(n));
}
/* The first n lanes of a, the others of b. */
static inline vec v_first_n(vec a, vec b, int64_t n)
{
    const int32x4_t lanes = {0, 1, 2, 3};
    return vbslq_f32(vcltq_s32(lanes, vdupq_n_s32((int)v_lanes(n))), a, b);
}
static inline vec v_set1(float a)
{
    return vdupq_n_f32(a);
}
static inline vec v_add(vec a, vec b)
{
    return vaddq_f32(a, b);
}
static inline vec v_sub(vec a, vec b)
{
    return vsubq_f32(a, b);
}
static inline vec v_mul(vec a, vec b)
{
    return vmulq_f32(a, b);
}
static inline vec v_div(vec a, vec b)
{
    return vdivq_f32(a, b);
}
static inline vec v_fma(vec a, vec b, vec c)
{
    return vfmaq_f32(c, a, b);
}
/* max and min give b where a lane of a is NaN. */
static inline vec v_max(vec a, vec b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline vec v_min(vec a, vec b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline vec v_abs(vec a)
{
    return vabsq_f32(a);
}
static inline vec v_neg(vec a)
{
    return vnegq_f32(a);
}
/* a where x < 0, else b */
static inline vec v_if_negative(vec x, vec a, vec b)
{
    return vbslq_f32(vcltzq_f32(x), a, b);
}
static inline vec v_round(vec a)
{
    return vrndnq_f32(a);
}
static inline vec v_power_of_2(int32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
/* a * 2^n for whole n in [-252, 254], in two steps so that subnormals and infinity come out right
 */
static inline vec v_ldexp(vec a, vec n)
{
    int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return v_mul(v_mul(a, v_power_of_2(half)), v_power_of_2(vsubq_s32(whole, half)));
}
static inline float v_sum(vec a)
{
    return vaddvq_f32(a);
}
static inline float v_top(vec a)
{
    vec two = v_max(a, vextq_f32(a, a, 2));
    return vgetq_lane_f32(v_max(two, vextq_f32(two, two, 1)), 0);
}
/* The first lane that equals b, or -1. */
static inline int v_find(vec a, vec b)
{
    uint64_t mask = vget_lane_u64(vreinterpret_u64_u16(vmovn_u32(vceqq_f32(a, b))), 0);
    return mask ? __builtin_ctzll(mask) / 16 : -1;
}

static inline uint16x4_t v_load_u16_n(const uint16_t *p, int64_t n)
{
    uint16_t buffer[V_WIDTH] = {0};
    memcpy(buffer, p, sizeof *p * v_lanes(n));
    return vld1_u16(buffer);
}
static inline vec v_widen_bf16(uint16x4_t bits)
{
    return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}
static inline vec v_widen_f16(uint16x4_t bits)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}
static inline vec v_load_bf16(const uint16_t *p)
{
    return v_widen_bf16(vld1_u16(p));
}
static inline vec v_load_bf16_n(const uint16_t *p, int64_t n)
{
    return v_widen_bf16(v_load_u16_n(p, n));
}
static inline vec v_load_f16(const uint16_t *p)
{
    return v_widen_f16(vld1_u16(p));
}
static inline vec v_load_f16_n(const uint16_t *p, int64_t n)
{
    return v_widen_f16(v_load_u16_n(p, n));
}
static inline vec_u16 v_to_f16(vec a)
{
    return vreinterpret_u16_f16(vcvt_f16_f32(a));
}
static inline vec_u16 v_to_bf16(vec a)
{
    uint32x4_t bits = vreinterpretq_u32_f32(a);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(a, a), rounded, quiet), 16);
}
static inline void v_store_u16(uint16_t *p, vec_u16 a)
{
    vst1_u16(p, a);
}
static inline void v_store_u16_n(uint16_t *p, vec_u16 a, int64_t n)
{
    uint16_t buffer[V_WIDTH];
    vst1_u16(buffer, a);
    memcpy(p, buffer, sizeof *p * v_lanes(n));
}

#endif
