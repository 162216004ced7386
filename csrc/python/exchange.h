/* Memory that crosses the border: NumPy arrays, buffers and DLPack capsules. */
#ifndef CT_PYTHON_EXCHANGE_H
#define CT_PYTHON_EXCHANGE_H

#include "python/state.h"

/* Shares the array's memory, converted first where its element type is none of ours. */
int ct_import_numpy(PyObject *array, const char *name, ct_tensor **out);
/* Through object.__dlpack__. */
int ct_import_dlpack(PyObject *object, const char *name, ct_tensor **out);

/* A NumPy array over the tensor's memory; bf16 and quantized tensors as an f32 copy. */
PyObject *ct_export_numpy(ct_tensor *tensor);
/* A capsule "dltensor", or "dltensor_versioned". */
PyObject *ct_export_dlpack(ct_tensor *tensor, bool versioned, bool copied);

int ct_get_buffer(PyObject *self, Py_buffer *view, int flags);
void ct_release_buffer(PyObject *self, Py_buffer *view);

#endif
