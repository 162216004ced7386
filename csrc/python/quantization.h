/* Quantized matrices for Python: quantize and scaled_tensor of the module, codes and scales of a
 * tensor. */
#ifndef CT_PYTHON_QUANTIZATION_H
#define CT_PYTHON_QUANTIZATION_H

#include "python/state.h"

PyObject *ct_py_quantize(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *ct_py_scaled_tensor(PyObject *module, PyObject *args, PyObject *keywords);

/* None for a tensor without scales. */
PyObject *ct_py_tensor_codes(ct_state *state, const ct_tensor *tensor);
PyObject *ct_py_tensor_scales(ct_state *state, const ct_tensor *tensor);

#endif
