/* NumPy's C API, one import for all files. module.c imports it; others define NO_IMPORT_ARRAY
 * first. */
#ifndef CT_PYTHON_NUMPY_API_H
#define CT_PYTHON_NUMPY_API_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_1_25_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ct_numpy_api
#include <numpy/arrayobject.h>

#endif
