/* Arguments: what users may pass for a device, an element type, a shape or an array. Every
 * converter names the argument when it refuses one. They return 0, or -1 with an exception. */
#ifndef CT_PYTHON_CONVERT_H
#define CT_PYTHON_CONVERT_H

#include "python/state.h"

/* None (the CPU), "cpu", "cuda:1", a Device, or anything with `type` and `index` (torch.device). */
int ct_as_device(ct_state *state, PyObject *object, ct_device_id *out);

/* The number of a GPU. */
int ct_as_device_index(PyObject *object, int *out);

/* "bfloat16", a NumPy dtype or scalar type, or a torch.dtype. */
int ct_as_dtype(PyObject *object, const char *name, ct_dtype *out);

int ct_as_shape(PyObject *object, const char *name, int64_t shape[CT_MAX_DIMS], int *n_dims);

/* A tensor in the host's memory that shares that of `object` where it can: our tensors, NumPy
 * arrays, anything with
 * __dlpack__ or the buffer protocol; lists and numbers are copied. float64 becomes float32, integer
 * types that we do not have become int64. *out is a new reference.
 * What a device holds is copied. */
int ct_as_tensor(ct_state *state, PyObject *object, const char *name, ct_tensor **out);

/* The same, but what a device holds is shared as well. */
int ct_as_any_tensor(ct_state *state, PyObject *object, const char *name, ct_tensor **out);

/* The same, but None gives NULL. */
int ct_as_optional_tensor(ct_state *state, PyObject *object, const char *name, ct_tensor **out);

#endif
