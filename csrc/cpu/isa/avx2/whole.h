/* Blocks of floats as whole numbers times a scale, on avx2's vectors. */
#ifndef CT_CPU_ISA_AVX2_WHOLE_H
#define CT_CPU_ISA_AVX2_WHOLE_H

#include "cpu/isa/avx2/vector.h"

/* The scale by which the largest magnitude of n values is `most`; NaN when one is not finite. */
static inline float block_scale(const float *x, int n, float most)
{
    vec absmax = v_set1(0), not_finite = v_set1(0);
    for (int v = 0; v < n; v += V_WIDTH) {
        vec value = v_load(x + v);
        absmax = v_max(v_abs(value), absmax);
        not_finite = v_fma(value, v_set1(0), not_finite);
    }
    return (v_top(absmax) + v_sum(not_finite)) / most;
}

/* Values over a block's scale, not rounded yet; far above `most` by a scale that is subnormal. */
static inline vec over_scale(vec x, vec scale, float most)
{
    vec code = v_min(v_max(v_div(x, scale), v_set1(-most)), v_set1(most));
    return _mm256_and_ps(code, _mm256_cmp_ps(scale, v_set1(0), _CMP_GT_OQ));
}

#endif
