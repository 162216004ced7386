/* The CPU's table of operations. */
#ifndef CT_CPU_DEVICE_H
#define CT_CPU_DEVICE_H

#include "core/status.h"
#include "ops/ops.h"

/* Chooses the kernels (see isa/select.h), starts the thread settings and gives the table. */
CT_MUST_CHECK ct_status ct_cpu_ops(const ct_ops **out);

/* The name of the level in use, for reports. */
const char *ct_cpu_isa_name(void);

#endif
