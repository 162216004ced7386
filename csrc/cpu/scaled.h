/* Products with matrices in bitsandbytes' formats, for linear.c.
 *
 * LLM.int8: each row of x is rounded to bytes by its own largest magnitude, products of bytes are
 * summed exactly, and the columns in which the row has outliers are multiplied in f32. FP4 and NF4:
 * codes become floats in registers; sums are f32, of one block at a time, times its scale. Where
 * 16-bit types are computed with, both factors may be whole numbers of 15 bits instead. */
#ifndef CT_CPU_SCALED_H
#define CT_CPU_SCALED_H

#include "core/arena.h"
#include "core/status.h"
#include "ops/ops.h"

/* The rows of x in each form that a weight of the linear asks for; the others are NULL. */
typedef struct ct_scaled_input {
    ct_rows x; /* f32 */
    const ct_quantized_compute *how;
    float *ordered;      /* [rows, k] for gemv_codebook, */
    int16_t *words;      /* or for gemv_codebook_int16, */
    int8_t *bytes;       /* or for gemv_codebook_int8; */
    float *code_scales;  /* [rows, k / CT_CODEBOOK_BLOCK] of words or bytes */
    int8_t *codes;       /* [rows, k] of LLM.int8 */
    float *absmax;       /* [rows] */
    int32_t *outliers;   /* [rows, k] places of outliers, */
    int64_t *n_outliers; /* [rows] of them */
    float *decoded;      /* [threads, k] */
} ct_scaled_input;

/* CT_VALUE when the kernels cannot sum rows as long as `weight`'s. */
CT_MUST_CHECK ct_status ct_scaled_check(const ct_tensor *weight);

/* Fills `input` for these weights, memory from the arena. */
CT_MUST_CHECK ct_status ct_scaled_prepare(ct_scaled_input *input, ct_rows x,
                                          ct_tensor *const *weights, int n_weights,
                                          const ct_quantized_compute *how, ct_arena *arena);

/* Rows of x by LLM.int8 that share what is read for their outliers. */
#define CT_SCALED_GROUP 64

/* y[i, j] = rows [first, first + m) of x by rows [begin, begin + n) of `weight`, from any thread;
 * m <= CT_GEMV_MAX_M, by LLM.int8 CT_SCALED_GROUP. */
void ct_scaled_products(float *y, int64_t ldy, const ct_scaled_input *input, int64_t first,
                        int64_t m, const ct_tensor *weight, int64_t begin, int64_t n);

/* The same from sums [m, n] of products of bytes by LLM.int8's; m <= CT_SCALED_GROUP. */
void ct_scaled_int8_finish(float *y, int64_t ldy, const int32_t *sums, int64_t lds,
                           const ct_scaled_input *input, int64_t first, int64_t m,
                           const ct_tensor *weight, int64_t begin, int64_t n);

/* dst [k] f32 = one row of `weight`. */
void ct_scaled_row(float *dst, const ct_tensor *weight, int64_t row, ct_dtype compute);

/* dst [n, k] bf16 = n rows of 4-bit codes, from `row` on; wide [k] is scratch. */
void ct_scaled_rows_bf16(uint16_t *dst, float *wide, const ct_tensor *weight, int64_t row,
                         int64_t n);

#endif
