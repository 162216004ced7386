/* The arrays are copies, because Python may keep them for longer than the step lasts. */
#define NO_IMPORT_ARRAY
#include "python/numpy_api.h"

#include "python/session_hook.h"

#include <string.h>

static PyObject *new_array(int type, const void *data, int64_t n, size_t size)
{
    npy_intp length = (npy_intp)n;
    PyObject *array = PyArray_SimpleNew(1, &length, type);
    if (array)
        memcpy(PyArray_DATA((PyArrayObject *)array), data, size * (size_t)n);
    return array;
}

static int call_with(PyObject *callable, int64_t sequence, PyObject *ids, PyObject *array,
                     float *logits, int64_t n_pieces)
{
    PyObject *result = PyObject_CallFunction(callable, "LOO", (long long)sequence, ids, array);
    if (!result)
        return -1;
    Py_DECREF(result);
    PyArrayObject *left = (PyArrayObject *)array;
    if (PyArray_SIZE(left) != n_pieces || PyArray_ITEMSIZE(left) != (npy_intp)sizeof *logits ||
        !PyArray_IS_C_CONTIGUOUS(left)) {
        PyErr_SetString(PyExc_ValueError, "the array of logits must keep its shape and type");
        return -1;
    }
    memcpy(logits, PyArray_DATA(left), sizeof *logits * (size_t)n_pieces);
    return 0;
}

static ct_status call(void *context, int64_t sequence, const int32_t *ids, int64_t n_ids,
                      float *logits, int64_t n_pieces)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *id_array = new_array(NPY_INT32, ids, n_ids, sizeof *ids);
    PyObject *array = new_array(NPY_FLOAT32, logits, n_pieces, sizeof *logits);
    int result =
        id_array && array ? call_with(context, sequence, id_array, array, logits, n_pieces) : -1;
    Py_XDECREF(id_array);
    Py_XDECREF(array);
    PyGILState_Release(gil);
    /* The exception stays with the thread, and says more than this message. */
    return result < 0 ? ct_fail(CT_INTERRUPTED, "the hook failed") : CT_OK;
}

ct_logits_hook ct_python_hook(PyObject *callable)
{
    if (!callable || callable == Py_None)
        return (ct_logits_hook){0};
    return (ct_logits_hook){call, callable};
}
