/* Attention over ragged rows and cache pages. The contract stands in ops/ops.h. */
#ifndef CT_CPU_ATTENTION_H
#define CT_CPU_ATTENTION_H

#include "ops/ops.h"

CT_MUST_CHECK ct_status ct_cpu_attention(const ct_attention_args *args, ct_arena *arena);

#endif
