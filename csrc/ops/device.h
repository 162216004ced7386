/* The registry of devices. python/module.c (or a test's main) registers the CPU's table; that of
 * CUDA comes with its plugin, which is loaded when it is first asked for. */
#ifndef CT_OPS_DEVICE_H
#define CT_OPS_DEVICE_H

#include "core/status.h"
#include "ops/ops.h"
#include "tensor/storage.h"

#define CT_DEVICE_LIMIT 1024 /* indices of a kind are below */

/* CT_VALUE when the table is of another ABI. The table must stay valid. */
CT_MUST_CHECK ct_status ct_device_register(ct_device_kind kind, const ct_ops *ops);

/* The operations of a device that is there. CT_UNSUPPORTED, with what is missing and what to do,
 * when this build or machine has none of its kind; CT_VALUE when there are fewer. From any thread;
 * what was missing may be there the next time. */
CT_MUST_CHECK ct_status ct_device_ops(ct_device_id device, const ct_ops **out);

/* Its memory for an arena or a storage, valid for good; *out is NULL for the CPU's, which is the
 * heap. */
CT_MUST_CHECK ct_status ct_device_memory(ct_device_id device, const ct_memory **out);

/* "cpu", "cuda", "cuda:1" -> id; CT_VALUE for anything else. */
CT_MUST_CHECK ct_status ct_device_parse(ct_device_id *out, const char *text);

#endif
