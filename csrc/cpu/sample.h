/* One choice from each row of logits. The contract stands in ops/ops.h. */
#ifndef CT_CPU_SAMPLE_H
#define CT_CPU_SAMPLE_H

#include "ops/ops.h"

CT_MUST_CHECK ct_status ct_cpu_sample(ct_logprob *chosen, int32_t *ids, ct_rows logits,
                                      const ct_sampling *params, ct_arena *arena);

#endif
