/* The formats of bitsandbytes: LLM.int8 rows (Dettmers et al. 2022), FP4 and NF4 blocks with
 * scales that may be quantized in turn (QLoRA: Dettmers et al. 2023). On plain arrays, one thread;
 * the rules of rounding are those that bitsandbytes' published checkpoints were made by. */
#ifndef CT_QUANT_BNB_H
#define CT_QUANT_BNB_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dtype.h"

#define CT_BNB_BLOCK 64     /* 4-bit values that share a scale, unless a checkpoint says otherwise */
#define CT_BNB_MAX_BLOCK 4096

/* The sixteen values of a format, which is CT_FP4 or CT_NF4. */
const float *ct_bnb_codebook(ct_dtype format);
/* The 256 values of the 8-bit codes of nested scales, rising. */
extern const float ct_bnb_dynamic_map[256];

/* absmax [ceil(n / block)] and codes [ceil(n / 2)] of x [n]. Two codes in a byte, the earlier one
 * in its high half; without a second value the low half is the code of 0. A short last block is
 * scaled like any other. */
void ct_bnb_quantize_4bit(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                          ct_dtype format);
/* dst [n] f32 = values [first, first + n) of the matrix with these codes; scales [...] are those of
 * the blocks from first / block on. */
void ct_bnb_dequantize_4bit(float *dst, const uint8_t *codes, const float *scales, int64_t first,
                            int64_t n, int64_t block, ct_dtype format);

/* Scales x [n] to codes: nested_absmax [ceil(n / 256)], codes [n] of the nearest value in
 * ct_bnb_dynamic_map, and the mean of x, which is taken off first. */
void ct_bnb_quantize_scales(uint8_t *codes, float *nested_absmax, float *offset, const float *x,
                            int64_t n);

/* codes [n] in [-127, 127] of x [n] by its largest magnitude, which is returned (not divided by
 * 127). */
float ct_bnb_quantize_int8_row(int8_t *codes, const float *x, int64_t n);

#endif
