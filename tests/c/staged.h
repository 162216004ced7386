/* The operations of cuda/ as the tests call every other level: with arrays of the host. What a call
 * names is copied to memory of the device, and what it may have written comes back. */
#ifndef CT_TEST_STAGED_H
#define CT_TEST_STAGED_H

#include "ops/ops.h"

#ifdef CT_WITH_CUDA
/* Makes the first CUDA device this thread's, until staged_leave. One thread at a time. */
CT_MUST_CHECK ct_status staged_enter(const ct_ops **out);
void staged_leave(void);

/* The contiguous tensor in the device's memory; while it is entered. */
CT_MUST_CHECK ct_status staged_tensor(ct_tensor **out, const ct_tensor *tensor);
#endif

#endif
