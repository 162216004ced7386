/* LLM.int8 on avx2's vectors. */
#include "cpu/isa/avx2/bytes.h"
#include "cpu/isa/avx2/table.h"
#include "cpu/isa/avx2/vector.h"

#include "quant/bnb_rules.h"

#include <math.h>

#define INT8_FUNCTION static
#define INT8_INLINE INT8_FUNCTION inline __attribute__((always_inline))

/* ---- products ---- */

/* sums [m, rows] += products of 32 bytes, or of the n < 32 last ones. */
INT8_INLINE void int8_step(int8_lanes sums[4][4], const int8_t *x, int64_t ldx, const int8_t *w,
                           int64_t w_stride, const int rows, const int m, const bool whole,
                           int64_t n)
{
    __m256i weights[4], magnitudes[4];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const int8_t *row = w + r * w_stride;
        weights[r] = whole ? load_bytes(row) : load_bytes_n(row, n);
        magnitudes[r] = _mm256_abs_epi8(weights[r]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        __m256i piece = whole ? load_bytes(x + i * ldx) : load_bytes_n(x + i * ldx, n);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            sums[r][i] = _mm256_add_epi32(sums[r][i], sums_of_4(magnitudes[r], weights[r], piece));
    }
}

#include "cpu/isa/avx2/int8_tile.h"

/* ---- rows of activations and of weights ---- */

/* x as f16, magnitudes beyond it as its largest; NaN stays. */
INT8_INLINE vec rounded_to_f16(vec x)
{
    vec within = v_min(v_set1(CT_F16_MAX), v_max(v_set1(-CT_F16_MAX), x));
    return _mm256_cvtph_ps(v_to_f16(within));
}

INT8_INLINE vec load_rounded(const float *x, int64_t n)
{
    return rounded_to_f16(n >= V_WIDTH ? v_load(x) : v_load_n(x, n));
}

/* The lanes whose magnitude is below the limit, the others 0. */
INT8_INLINE vec below(vec value, vec limit)
{
    return _mm256_and_ps(value, _mm256_cmp_ps(v_abs(value), limit, _CMP_LT_OQ));
}

static int64_t int8_input(int8_t *codes, float *absmax, int32_t *outliers, const float *x,
                          int64_t k, float threshold)
{
    const vec limit = v_set1(threshold > 0 ? threshold : INFINITY);
    vec largest = v_set1(0), not_a_number = v_set1(0);
    int64_t n_outliers = 0;
    for (int64_t i = 0; i < k; i += V_WIDTH) {
        vec value = load_rounded(x + i, k - i), magnitude = v_abs(value);
        not_a_number = v_fma(value, v_set1(0), not_a_number);
        largest = v_max(below(magnitude, limit), largest);
        int found = _mm256_movemask_ps(_mm256_cmp_ps(magnitude, limit, _CMP_GE_OQ));
        for (; found; found &= found - 1)
            outliers[n_outliers++] = (int32_t)i + __builtin_ctz((unsigned)found);
    }
    *absmax = v_top(largest) + v_sum(not_a_number);
    const vec scale = v_set1(ct_int8_scale(*absmax));
    for (int64_t i = 0; i < k; i += V_WIDTH)
        v_store_i8_n(codes + i, v_mul(below(load_rounded(x + i, k - i), limit), scale), k - i);
    return n_outliers;
}

static float int8_quantize(int8_t *codes, const float *x, int64_t k)
{
    vec largest = v_set1(0);
    for (int64_t i = 0; i < k; i += V_WIDTH)
        largest = v_max(v_abs(v_load_n(x + i, k - i)), largest);
    const float absmax = v_top(largest);
    const vec scale = v_set1(ct_int8_scale(absmax));
    for (int64_t i = 0; i < k; i += V_WIDTH)
        v_store_i8_n(codes + i, v_mul(v_load_n(x + i, k - i), scale), k - i);
    return absmax;
}

void ct_avx2_fill_int8(ct_kernels *table)
{
    table->int8_input = int8_input;
    table->gemv_int8 = gemv_int8;
    table->int8_quantize = int8_quantize;
}
