/* Linear layers on the CPU; the contracts stand in ops/ops.h. */
#ifndef CT_CPU_LINEAR_H
#define CT_CPU_LINEAR_H

#include "ops/ops.h"

/* What happens to x W^T + bias, in this order. At most one of multiply and residual. */
typedef struct ct_cpu_epilogue {
    float clip; /* 0: not */
    ct_activation activation;
    const ct_rows *multiply; /* by this, elementwise: gates */
    const ct_rows *residual; /* plus this, f32; may be y itself */
} ct_cpu_epilogue;

CT_MUST_CHECK ct_status ct_cpu_linear_new(ct_linear **out, const ct_linear_desc *desc);
void ct_cpu_linear_free(ct_linear **linear);
ct_dtype ct_cpu_linear_input(const ct_linear *linear, int64_t n_rows);
CT_MUST_CHECK ct_status ct_cpu_linear(const ct_linear *linear, ct_rows x,
                                      const ct_epilogue *epilogue, ct_rows y, ct_arena *arena);

#endif
