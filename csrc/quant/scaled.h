/* Values of a matrix whose scales lie beside it. */
#ifndef CT_QUANT_SCALED_H
#define CT_QUANT_SCALED_H

#include "tensor/tensor.h"

/* dst [n] f32 = values [first, first + n) of `tensor`, one that has scales, row by row. */
void ct_scaled_to_f32(float *dst, const ct_tensor *tensor, int64_t first, int64_t n);

#endif
