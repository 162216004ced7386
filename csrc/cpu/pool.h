/* One row for each sequence. The contract stands in ops/ops.h. */
#ifndef CT_CPU_POOL_H
#define CT_CPU_POOL_H

#include "ops/ops.h"

CT_MUST_CHECK ct_status ct_cpu_pool(ct_pool_kind kind, ct_rows dst, ct_rows x,
                                    const int64_t *offsets);

#endif
