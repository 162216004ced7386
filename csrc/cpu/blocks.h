/* Products with the blocks of GGUF files whose x is rounded to whole numbers of 16 bits, for
 * linear.c. Where a model computes in a 16-bit type, and the processor is faster so, x may lose
 * 1/65534 of the largest of each 32 values, less than the type itself does. */
#ifndef CT_CPU_BLOCKS_H
#define CT_CPU_BLOCKS_H

#include "core/arena.h"
#include "core/status.h"
#include "ops/ops.h"

/* Rows of x as gemv_int16 takes them. */
typedef struct ct_blocks_input {
    int16_t *x;           /* [rows, k]; NULL: x is multiplied as it is */
    float *scales, *sums; /* [rows, k / CT_INT16_BLOCK] */
    int64_t k;
} ct_blocks_input;

/* Whether few rows of x are rounded for this weight. */
bool ct_blocks_round(const ct_tensor *weight, const ct_quantized_compute *how);

/* Fills `input` from rows of f32, memory from the arena. */
CT_MUST_CHECK ct_status ct_blocks_prepare(ct_blocks_input *input, ct_rows x, ct_arena *arena);

/* y[i, j] = rows [first, first + m) of x by rows [begin, begin + n) of `weight`, from any thread;
 * m <= CT_GEMV_MAX_M. */
void ct_blocks_products(float *y, int64_t ldy, const ct_blocks_input *input, int64_t first,
                        int64_t m, const ct_tensor *weight, int64_t begin, int64_t n);

#endif
