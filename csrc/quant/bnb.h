/* The formats of bitsandbytes: LLM.int8 rows (Dettmers et al. 2022), FP4 and NF4 blocks with
 * scales that may be quantized in turn (QLoRA: Dettmers et al. 2023). On plain arrays, one thread;
 * the rules of rounding are those that bitsandbytes' published checkpoints were made by. */
#ifndef CT_QUANT_BNB_H
#define CT_QUANT_BNB_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/scales.h"

#define CT_BNB_BLOCK 64 /* 4-bit values that share a scale, unless a checkpoint says otherwise */
#define CT_BNB_INT8_UNIT (1.0f / 127) /* of a code, in largest magnitudes */

/* The sixteen values of a format, which is CT_FP4 or CT_NF4. */
const float *ct_bnb_codebook(ct_dtype format);
/* The 256 values of the 8-bit codes of nested scales, rising. */
extern const float ct_bnb_dynamic_map[256];

/* absmax [ceil(n / block)] and codes [ceil(n / 2)] of x [n]. Two codes in a byte, the earlier one
 * in its high half; without a second value the low half is the code of 0. Values of a
 * short last block are divided by its absmax, of others multiplied with its reciprocal. */
void ct_bnb_quantize_4bit(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                          ct_dtype format);
/* dst [n] f32 = the values from the matrix' `first` on; codes hold those from `origin` on, which is
 * even, and scales those of the blocks from first / block on. */
void ct_bnb_dequantize_4bit(float *dst, const uint8_t *codes, int64_t origin, const float *scales,
                            int64_t first, int64_t n, int64_t block, ct_dtype format);

/* Scales x [n] to codes: nested_absmax [ceil(n / CT_NESTED_BLOCK)], codes [n] of the nearest value
 * in ct_bnb_dynamic_map, and the mean of x, which is taken off first. */
void ct_bnb_quantize_scales(uint8_t *codes, float *nested_absmax, float *offset, const float *x,
                            int64_t n);

/* codes [n] in [-127, 127] of x [n] by its largest magnitude, which is returned (not divided by
 * 127). */
float ct_bnb_quantize_int8_row(int8_t *codes, const float *x, int64_t n);

#endif
