/* The table of quantized formats: what a row of blocks decodes to.
 *
 * A format is a row here plus a packed struct whose size is asserted in its family's file. The
 * portable decoder makes a format work everywhere; kernels/ has faster ones. */
#ifndef CT_QUANT_FORMAT_H
#define CT_QUANT_FORMAT_H

#include <stdint.h>

#include "tensor/dtype.h"

/* dst [n] f32 from n / block_values blocks at src (any alignment); n is a multiple of the block. */
typedef void (*ct_dequantize_row)(float *dst, const void *src, int64_t n);
/* The other way, as the format's family says. */
typedef void (*ct_quantize_row)(void *dst, const float *src, int64_t n);

typedef struct ct_format {
    ct_dtype dtype;
    ct_dequantize_row dequantize;
    ct_quantize_row quantize;
} ct_format;

/* NULL for an element type that is not quantized. */
const ct_format *ct_format_get(ct_dtype dtype);

#endif
