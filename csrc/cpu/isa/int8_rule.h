/* How LLM.int8 rounds a row, for all levels: codes are the values, as f16, times a scale. */
#ifndef CT_CPU_ISA_INT8_RULE_H
#define CT_CPU_ISA_INT8_RULE_H

#define F16_MAX 65504.0f

/* The reciprocal comes first, as torch evaluates 127 / absmax: 127.0f / absmax gives other codes
 * for one value in ten thousand. Where absmax is 0 or NaN, all codes are 0. */
static inline float int8_scale(float absmax)
{
    return absmax > 0 ? 1 / absmax * 127 : 0;
}

#endif
