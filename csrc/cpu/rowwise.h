/* What works row by row: norms, sums, rotation, copies. Contracts stand in ops/ops.h. */
#ifndef CT_CPU_ROWWISE_H
#define CT_CPU_ROWWISE_H

#include "ops/ops.h"

CT_MUST_CHECK ct_status ct_cpu_norm(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                                    const float *bias, float eps, int64_t groups);
CT_MUST_CHECK ct_status ct_cpu_add(ct_rows y, ct_rows x, ct_rows z);
CT_MUST_CHECK ct_status ct_cpu_scale(ct_rows x, float scale, float cap);
/* The part of attention that comes first: queries and keys rotate, in place, and keys and values go
 * to the cache. */
void ct_cpu_rotary_append(const ct_attention_args *args);
CT_MUST_CHECK ct_status ct_cpu_scatter(ct_rows dst, ct_rows x, const int64_t *map);
CT_MUST_CHECK ct_status ct_cpu_gather(ct_rows dst, ct_rows x, const int64_t *map);

#endif
