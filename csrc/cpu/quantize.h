/* Making quantized matrices, on all threads. */
#ifndef CT_CPU_QUANTIZE_H
#define CT_CPU_QUANTIZE_H

#include "core/status.h"
#include "tensor/tensor.h"

/* `matrix` [n, k] (float) in `format`: CT_LLM_INT8, CT_FP4 or CT_NF4. Values are rounded to f16
 * first, as those who quantize with bitsandbytes load models; magnitudes beyond it count as its
 * largest. `nested` quantizes the scales of a 4-bit format. CT_VALUE for values that are NaN, and
 * for rows that do not fill whole bytes. */
CT_MUST_CHECK ct_status ct_cpu_quantize(ct_tensor **out, const ct_tensor *matrix, ct_dtype format,
                                        bool nested);

#endif
