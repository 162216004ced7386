/* Making quantized matrices, on all threads. */
#ifndef CT_CPU_QUANTIZE_H
#define CT_CPU_QUANTIZE_H

#include "core/status.h"
#include "tensor/tensor.h"

/* `matrix` [n, k] (float, any strides) in `format`: CT_LLM_INT8, CT_FP4 or CT_NF4. As bitsandbytes'
 * users load models, the values are rounded to f16 first; magnitudes beyond f16 count as its
 * largest. `nested` quantizes the scales of 4-bit formats. CT_VALUE for values that are NaN, and
 * for an odd k with 4 bits. */
CT_MUST_CHECK ct_status ct_cpu_quantize(ct_tensor **out, const ct_tensor *matrix, ct_dtype format,
                                        bool nested);

#endif
