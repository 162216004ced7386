/* Linear layers on the CPU; the contracts stand in ops/ops.h. */
#ifndef CT_CPU_LINEAR_H
#define CT_CPU_LINEAR_H

#include "ops/ops.h"

CT_MUST_CHECK ct_status ct_cpu_linear_new(ct_linear **out, const ct_linear_desc *desc);
void ct_cpu_linear_free(ct_linear **linear);
ct_dtype ct_cpu_linear_input(const ct_linear *linear, int64_t n_rows);
CT_MUST_CHECK ct_status ct_cpu_linear(const ct_linear *linear, ct_rows x,
                                      const ct_epilogue *epilogue, ct_rows y, ct_arena *arena);

#endif
