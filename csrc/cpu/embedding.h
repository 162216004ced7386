/* Rows of an embedding table. The contract stands in ops/ops.h. */
#ifndef CT_CPU_EMBEDDING_H
#define CT_CPU_EMBEDDING_H

#include "ops/ops.h"

CT_MUST_CHECK ct_status ct_cpu_embed(ct_rows y, const ct_tensor *table, const int32_t *ids,
                                     float scale, bool accumulate);

#endif
