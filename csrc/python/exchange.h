/* Memory that crosses the border: NumPy arrays, buffers and DLPack capsules; or goes to another
 * device. */
#ifndef CT_PYTHON_EXCHANGE_H
#define CT_PYTHON_EXCHANGE_H

#include "python/state.h"

/* Shares the array's memory, converted first where its element type is none of ours. */
int ct_import_numpy(PyObject *array, const char *name, ct_tensor **out);
/* Through object.__dlpack__; shares the memory, a CUDA device's, too. */
int ct_import_dlpack(PyObject *object, const char *name, ct_tensor **out);

/* A NumPy array over the tensor's memory; bf16 and quantized tensors as an f32 copy. */
PyObject *ct_export_numpy(ct_tensor *tensor);

/* `copy` of __array__ and __dlpack__, for PyArg_Parse's O&. */
typedef enum ct_copy_policy { CT_COPY_IF_NEEDED, CT_COPY_NEVER, CT_COPY_ALWAYS } ct_copy_policy;
int ct_as_copy_policy(PyObject *object, void *out);

/* Tensor.__dlpack__ and __dlpack_device__. */
PyObject *ct_tensor_dlpack(PyObject *self, PyObject *args, PyObject *keywords);
PyObject *ct_tensor_dlpack_device(PyObject *self, PyObject *unused);

/* ct_tensor_to_device and ct_tensor_copy without the GIL, which whoever has entered the device may
 * be waiting for. */
ct_status ct_move_tensor(ct_tensor **out, const ct_tensor *tensor, ct_device_id device);
ct_status ct_copy_tensor(ct_tensor **out, const ct_tensor *tensor);

int ct_get_buffer(PyObject *self, Py_buffer *view, int flags);
void ct_release_buffer(PyObject *self, Py_buffer *view);

#endif
