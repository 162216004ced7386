/* The rules of rounding, for the plain quantizers and for the kernels: bitsandbytes' bounds between
 * the values of a codebook, each exceeded by what takes a higher one (csrc/kernels.cu:
 * dQuantizeNF4, dQuantizeFP4), and the scale of a row in bytes. */
#ifndef CT_QUANT_BNB_RULES_H
#define CT_QUANT_BNB_RULES_H

#include <stdint.h>

#define CT_F16_MAX 65504.0f

/* A value is multiplied by 1 / absmax first; magnitudes beyond 1 need no clamping, since no bound
 * is that large. */
#define CT_BNB_MIN_ABSMAX 1e-38f /* of which the reciprocal is taken */

/* A code is the number of bounds that lie below the value. */
static const float ct_nf4_bounds[15] = {-0.8480964f, -0.6106329f,  -0.45999527f,  -0.33967942f,
                                        -0.2346074f, -0.13791174f, -0.045525018f, 0.03979015f,
                                        0.12025525f, 0.20352125f,  0.29201376f,   0.38931254f,
                                        0.50166345f, 0.6427869f,   0.86147845f};

/* Bounds of magnitudes, and the code of each rank; bit 3 is the sign of values below 0. */
static const float ct_fp4_bounds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                       0.4166667f,  0.583333f,  0.8333333f};
static const uint8_t ct_fp4_codes[8] = {0, 1, 6, 7, 4, 5, 2, 3};

/* The reciprocal comes first, as torch evaluates 127 / absmax: 127.0f / absmax gives other codes
 * for one value in ten thousand. Where absmax is 0 or NaN, all codes are 0. */
static inline float ct_int8_scale(float absmax)
{
    return absmax > 0 ? 1 / absmax * 127 : 0;
}

#endif
