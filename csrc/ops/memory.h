/* Tensors in a device's memory, and what host code hands to its operations. */
#ifndef CT_OPS_MEMORY_H
#define CT_OPS_MEMORY_H

#include "core/arena.h"
#include "core/status.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

/* Contiguous, uninitialised, in memory of the device. */
CT_MUST_CHECK ct_status ct_device_tensor(ct_tensor **out, ct_device_id device, ct_dtype dtype,
                                         int n_dims, const int64_t *shape);

/* A contiguous copy of `tensor` in memory of `device`, or the tensor itself where it is there
 * already. Between two GPUs it goes through the host. CT_TYPE for a type that has scales. */
CT_MUST_CHECK ct_status ct_tensor_to_device(ct_tensor **out, const ct_tensor *tensor,
                                            ct_device_id device);

/* A contiguous copy in the same memory. CT_TYPE as above. */
CT_MUST_CHECK ct_status ct_tensor_copy(ct_tensor **out, const ct_tensor *tensor);

/* The same elements, a device's, for another library, which uses them in its `stream` (see ct_ops)
 * behind our operations so far. When *out goes, our operations wait for that stream: what the other
 * library has asked for by then is done before the memory is used again. */
CT_MUST_CHECK ct_status ct_tensor_lend(ct_tensor **out, ct_tensor *tensor, intptr_t stream);

/* The same elements, of a device's memory that belongs to another library. It is let go of when our
 * operations are done, which whoever drops the last view of *out waits for. */
CT_MUST_CHECK ct_status ct_tensor_borrow(ct_tensor **out, ct_tensor *tensor);

/* An array of the host, and where its users look for it. */
typedef struct ct_staged {
    const void **place;
    const void *array; /* NULL stays NULL */
    size_t size;
} ct_staged;

/* Sets the places to the arrays as operations of a device that was entered can read them: the
 * arrays themselves, or copies from `device`, an arena of the device's memory, which come there all
 * at once by way of `host`. */
CT_MUST_CHECK ct_status ct_stage(const ct_staged *arrays, size_t n, const ct_ops *ops,
                                 ct_arena *host, ct_arena *device);

#endif
