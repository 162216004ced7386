/* Duck typing throughout: neither torch nor anything else is imported to recognise what a user
 * holds. */
#define NO_IMPORT_ARRAY
#include "python/numpy_api.h"

#include "python/convert.h"

#include <string.h>

#include "ops/device.h"
#include "python/errors.h"
#include "python/exchange.h"

int ct_as_device_index(PyObject *object, int *out)
{
    long index = PyLong_AsLong(object);
    if (index == -1 && PyErr_Occurred())
        return -1;
    if (index < 0 || index >= CT_DEVICE_LIMIT) {
        PyErr_Format(PyExc_ValueError, "a device's index must be between 0 and %d, was: %ld",
                     CT_DEVICE_LIMIT - 1, index);
        return -1;
    }
    *out = (int)index;
    return 0;
}

int ct_as_device(ct_state *state, PyObject *object, ct_device_id *out)
{
    *out = (ct_device_id){CT_DEVICE_CPU, 0};
    if (!object || object == Py_None)
        return 0;
    if (Py_IS_TYPE(object, state->device)) {
        *out = ((ct_device_object *)object)->id;
        return 0;
    }
    if (PyUnicode_Check(object)) {
        const char *text = PyUnicode_AsUTF8(object);
        return text ? ct_check(ct_device_parse(out, text)) : -1;
    }
    PyObject *type = PyObject_GetAttrString(object, "type");
    PyObject *index = type ? PyObject_GetAttrString(object, "index") : NULL;
    int result = -1;
    if (type && index && PyUnicode_Check(type)) {
        const char *text = PyUnicode_AsUTF8(type);
        result = text ? ct_check(ct_device_parse(out, text)) : -1;
        if (result == 0 && index != Py_None && out->kind != CT_DEVICE_CPU)
            result = ct_as_device_index(index, &out->index);
    } else {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "device must be a string, Device or torch.device, got %s",
                     Py_TYPE(object)->tp_name);
    }
    Py_XDECREF(type);
    Py_XDECREF(index);
    return result;
}

static int dtype_from_text(PyObject *text, ct_dtype *out)
{
    const char *name = PyUnicode_AsUTF8(text);
    if (!name)
        return -1;
    return ct_check(ct_dtype_from_name(out, strncmp(name, "torch.", 6) == 0 ? name + 6 : name));
}

int ct_as_dtype(PyObject *object, const char *name, ct_dtype *out)
{
    if (PyUnicode_Check(object))
        return dtype_from_text(object, out);
    PyObject *text = NULL;
    if (strcmp(Py_TYPE(object)->tp_name, "torch.dtype") == 0) {
        text = PyObject_Str(object);
    } else {
        PyArray_Descr *descr = NULL;
        if (!PyArray_DescrConverter(object, &descr)) {
            PyErr_Clear();
            PyErr_Format(PyExc_TypeError,
                         "%s must be a dtype name, a NumPy dtype or a torch.dtype, got %s", name,
                         Py_TYPE(object)->tp_name);
            return -1;
        }
        text = PyObject_GetAttrString((PyObject *)descr, "name");
        Py_DECREF(descr);
    }
    int result = text ? dtype_from_text(text, out) : -1;
    Py_XDECREF(text);
    return result;
}

int ct_as_shape(PyObject *object, const char *name, int64_t shape[CT_MAX_DIMS], int *n_dims)
{
    PyObject *items = PySequence_Fast(object, "");
    if (!items) {
        PyErr_Format(PyExc_TypeError, "%s must be a sequence of integers, got %s", name,
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    int result = 0;
    if (n > CT_MAX_DIMS) {
        PyErr_Format(PyExc_ValueError, "%s has %zd dimensions; a tensor has at most %d", name, n,
                     CT_MAX_DIMS);
        result = -1;
    }
    for (Py_ssize_t i = 0; i < n && result == 0; i++) {
        shape[i] = PyLong_AsLongLong(PySequence_Fast_GET_ITEM(items, i));
        if (shape[i] == -1 && PyErr_Occurred())
            result = -1;
    }
    *n_dims = (int)n;
    Py_DECREF(items);
    return result;
}

int ct_as_any_tensor(ct_state *state, PyObject *object, const char *name, ct_tensor **out)
{
    *out = NULL;
    if (Py_IS_TYPE(object, state->tensor)) {
        *out = ct_tensor_ref(((ct_tensor_object *)object)->tensor);
        return 0;
    }
    if (!PyArray_Check(object) && !PyArray_CheckScalar(object) &&
        PyObject_HasAttrString(object, "__dlpack__"))
        return ct_import_dlpack(object, name, out);
    PyObject *array = PyArray_FROM_O(object);
    if (!array) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError))
            return -1;
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError,
                     "%s must be an array, or nested lists of numbers of equal lengths", name);
        return -1;
    }
    int result = ct_import_numpy(array, name, out);
    Py_DECREF(array);
    return result;
}

int ct_as_tensor(ct_state *state, PyObject *object, const char *name, ct_tensor **out)
{
    ct_tensor *there;
    *out = NULL;
    if (ct_as_any_tensor(state, object, name, &there) < 0)
        return -1;
    ct_status status = ct_move_tensor(out, there, (ct_device_id){CT_DEVICE_CPU, 0});
    ct_tensor_unref(&there);
    return ct_check(status);
}

int ct_as_optional_tensor(ct_state *state, PyObject *object, const char *name, ct_tensor **out)
{
    *out = NULL;
    return !object || object == Py_None ? 0 : ct_as_tensor(state, object, name, out);
}
