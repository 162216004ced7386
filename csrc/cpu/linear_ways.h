/* The ways in which linear.c multiplies, and what they share. */
#ifndef CT_CPU_LINEAR_WAYS_H
#define CT_CPU_LINEAR_WAYS_H

#include "cpu/isa/kernels.h"
#include "cpu/linear.h"
#include "cpu/onednn.h"

#define CT_LINEAR_GRAIN CT_GEMM_BLOCK_W /* weight rows that stay with one thread */

struct ct_linear {
    int n_parts;
    ct_tensor *weight[CT_LINEAR_MAX_PARTS]; /* NULL when packed */
    ct_tensor *bias[CT_LINEAR_MAX_PARTS];
    int64_t n[CT_LINEAR_MAX_PARTS];
    int64_t n_total, k;
    ct_dtype dtype[CT_LINEAR_MAX_PARTS];
    size_t row_bytes[CT_LINEAR_MAX_PARTS];
    bool uniform; /* all parts have the dtype of the first */
    bool int8;    /* a part is LLM.int8 */
    bool scaled;  /* a part has scales */
    ct_quantized_compute quantized;
    ct_packed *packed;
    ct_tensor *joined_bias; /* [n_total] beside packed, or NULL */
    ct_input_norm norm;     /* owned */
    ct_linear *gate;        /* of a gated layer, which is `up` then; or NULL */
};

/* y = x W^T + bias and the epilogue, x being of the type that the way takes. */

/* By our own kernels, x of f32; `many`: by gemm, else by gemv. */
CT_MUST_CHECK ct_status ct_linear_own(const ct_linear *linear, ct_rows x,
                                      const ct_cpu_epilogue *epilogue, ct_rows y, bool many,
                                      ct_arena *arena);
/* By oneDNN, x of the weights' type: all of them packed, or part by part as they lie. */
CT_MUST_CHECK ct_status ct_linear_onednn(const ct_linear *linear, ct_rows x,
                                         const ct_cpu_epilogue *epilogue, ct_rows y,
                                         ct_arena *arena);
/* By oneDNN, x of bf16, weights decoded to it. */
CT_MUST_CHECK ct_status ct_linear_panel(const ct_linear *linear, ct_rows x,
                                        const ct_cpu_epilogue *epilogue, ct_rows y,
                                        ct_arena *arena);
/* By oneDNN's products of bytes, x of f32. */
CT_MUST_CHECK ct_status ct_linear_bytes(const ct_linear *linear, ct_rows x,
                                        const ct_cpu_epilogue *epilogue, ct_rows y,
                                        ct_arena *arena);

/* A copy of `rows` in another type, its memory from the arena, filled unless `empty`. */
CT_MUST_CHECK ct_status ct_linear_as_dtype(ct_rows *rows, ct_dtype dtype, bool empty,
                                           ct_arena *arena);
/* `factor` holds the rows that an epilogue in f32 multiplies by. */
CT_MUST_CHECK ct_status ct_linear_widen_factor(ct_cpu_epilogue *epilogue, ct_rows *factor,
                                               ct_arena *arena);
/* Applies bias and epilogue to the columns [first, first + n) of one row of products. */
void ct_linear_finish(float *y, int64_t row, int64_t first, int64_t n, const float *bias,
                      const ct_cpu_epilogue *epilogue);

static inline float *ct_linear_row(const ct_rows *rows, int64_t row)
{
    return (float *)rows->data + row * rows->stride;
}

#endif
