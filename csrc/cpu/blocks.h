/* Products with the blocks of GGUF files whose x is in whole numbers, for linear.c, where the
 * processor is faster so. They have 31 bits, with a scale for each 32 values, which lose less than
 * sums in f32 do; or 16, where a model computes in a 16-bit type, which itself loses more. */
#ifndef CT_CPU_BLOCKS_H
#define CT_CPU_BLOCKS_H

#include "core/arena.h"
#include "core/status.h"
#include "ops/ops.h"

/* Rows of x as gemv_int16 takes them, or gemv_int31. */
typedef struct ct_blocks_input {
    int n_words;          /* of a value: 1 or 2; 0: x is multiplied as it is */
    int16_t *x;           /* [rows, n_words * k] */
    float *scales, *sums; /* [rows, k / CT_INT16_BLOCK] */
    int64_t k;
} ct_blocks_input;

/* The n_words of few rows of x for this weight. */
int ct_blocks_words(const ct_tensor *weight, const ct_quantized_compute *how);

/* Fills `input` from rows of f32, n_words being 1 or 2, memory from the arena. */
CT_MUST_CHECK ct_status ct_blocks_prepare(ct_blocks_input *input, ct_rows x, int n_words,
                                          ct_arena *arena);

/* y[i, j] = rows [first, first + m) of x by rows [begin, begin + n) of `weight`, from any thread;
 * m <= CT_GEMV_MAX_M. */
void ct_blocks_products(float *y, int64_t ldy, const ct_blocks_input *input, int64_t first,
                        int64_t m, const ct_tensor *weight, int64_t begin, int64_t n);

#endif
