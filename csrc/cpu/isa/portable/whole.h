/* Blocks of floats as whole numbers times a scale, by the formula. */
#ifndef CT_CPU_ISA_PORTABLE_WHOLE_H
#define CT_CPU_ISA_PORTABLE_WHOLE_H

#include <math.h>

/* The scale that makes the largest magnitude of n values `most`; NaN where one is not finite. */
static inline float block_scale(const float *x, int n, float most)
{
    float absmax = 0, not_finite = 0;
    for (int i = 0; i < n; i++) {
        absmax = fmaxf(absmax, fabsf(x[i]));
        not_finite += 0 * x[i];
    }
    return (absmax + not_finite) / most;
}

/* A value over its block's scale; the quotient by one that is subnormal may lie far above `most`.
 */
static inline float whole(float x, float scale, float most)
{
    return scale > 0 ? rintf(fminf(fmaxf(x / scale, -most), most)) : 0;
}

#endif
