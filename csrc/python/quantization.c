/* Functions that make quantized matrices, and what tensors tell of theirs. */
#include "python/quantization.h"

#include "cpu/quantize.h"
#include "python/convert.h"
#include "python/errors.h"

PyObject *ct_py_quantize(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"matrix", "dtype", "nested", NULL};
    ct_state *state = PyModule_GetState(module);
    PyObject *object, *dtype_object;
    int nested = 0;
    ct_dtype dtype;
    ct_tensor *matrix, *quantized;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|$p:quantize", names, &object,
                                     &dtype_object, &nested) ||
        ct_as_dtype(dtype_object, "dtype", &dtype) < 0 ||
        ct_as_tensor(state, object, "matrix", &matrix) < 0)
        return NULL;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = ct_cpu_quantize(&quantized, matrix, dtype, nested);
    Py_END_ALLOW_THREADS;
    ct_tensor_unref(&matrix);
    return status == CT_OK ? ct_wrap_tensor(state, quantized) : ct_raise(status);
}

/* The tensors among scaled_tensor's arguments; the last two may be None. */
typedef struct parts {
    PyObject *codes, *absmax, *nested_absmax, *nested_map;
} parts;

static int take_parts(ct_state *state, const parts *objects, ct_tensor **codes, ct_scales *scales)
{
    return ct_as_tensor(state, objects->codes, "codes", codes) < 0 ||
                   ct_as_tensor(state, objects->absmax, "absmax", &scales->absmax) < 0 ||
                   ct_as_optional_tensor(state, objects->nested_absmax, "nested_absmax",
                                         &scales->nested_absmax) < 0 ||
                   ct_as_optional_tensor(state, objects->nested_map, "nested_map",
                                         &scales->nested_map) < 0
               ? -1
               : 0;
}

static ct_status new_scaled(ct_tensor **out, ct_tensor *codes, ct_dtype dtype, int n_dims,
                            const int64_t *shape, ct_scales *parts)
{
    ct_scales *scales;
    CT_TRY(ct_scales_new(&scales, parts));
    ct_status status = ct_tensor_scaled(out, codes, dtype, n_dims, shape, scales);
    ct_scales_unref(&scales);
    return status;
}

PyObject *ct_py_scaled_tensor(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"codes",         "dtype",      "shape",         "absmax", "block",
                            "nested_absmax", "nested_map", "nested_offset", "origin", NULL};
    ct_state *state = PyModule_GetState(module);
    parts objects = {.nested_absmax = Py_None, .nested_map = Py_None};
    PyObject *dtype_object, *shape_object, *origin = NULL, *result = NULL;
    long long block;
    ct_dtype dtype;
    ct_scales scales = {.origin = CT_F16};
    ct_tensor *codes = NULL, *scaled;
    int64_t shape[CT_MAX_DIMS];
    int n_dims;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOOOL|$OOfO:scaled_tensor", names,
                                     &objects.codes, &dtype_object, &shape_object, &objects.absmax,
                                     &block, &objects.nested_absmax, &objects.nested_map,
                                     &scales.nested_offset, &origin) ||
        ct_as_dtype(dtype_object, "dtype", &dtype) < 0 ||
        (origin && ct_as_dtype(origin, "origin", &scales.origin) < 0) ||
        ct_as_shape(shape_object, "shape", shape, &n_dims) < 0)
        return NULL;
    if (!ct_dtype_has_scales(dtype))
        return PyErr_Format(PyExc_ValueError, "a tensor of %s has no scales beside it",
                            ct_dtype_name(dtype));
    scales.block = block;
    if (take_parts(state, &objects, &codes, &scales) == 0) {
        scales.n_values = 1;
        bool fits = true;
        for (int i = 0; i < n_dims && fits; i++)
            fits = !__builtin_mul_overflow(scales.n_values, shape[i], &scales.n_values);
        ct_status status = fits ? new_scaled(&scaled, codes, dtype, n_dims, shape, &scales)
                                : ct_fail(CT_VALUE, "the shape has too many elements");
        result = status == CT_OK ? ct_wrap_tensor(state, scaled) : ct_raise(status);
    }
    ct_tensor_unref(&codes);
    ct_tensor_unref(&scales.absmax);
    ct_tensor_unref(&scales.nested_absmax);
    ct_tensor_unref(&scales.nested_map);
    return result;
}

PyObject *ct_py_tensor_codes(ct_state *state, const ct_tensor *tensor)
{
    if (!tensor->scales)
        Py_RETURN_NONE;
    ct_tensor *codes;
    bool rows = tensor->dtype == CT_LLM_INT8;
    int64_t n = (int64_t)ct_tensor_bytes(tensor);
    ct_status status = ct_tensor_view(&codes, tensor->storage, tensor->offset, rows ? CT_I8 : CT_U8,
                                      rows ? tensor->n_dims : 1, rows ? tensor->shape : &n, NULL);
    return status == CT_OK ? ct_wrap_tensor(state, codes) : ct_raise(status);
}

/* Sets `key` of `dict` to the tensor, if there is one. */
static int set_tensor(ct_state *state, PyObject *dict, const char *key, ct_tensor *tensor)
{
    if (!tensor)
        return 0;
    PyObject *wrapped = ct_wrap_tensor(state, ct_tensor_ref(tensor));
    int result = wrapped ? PyDict_SetItemString(dict, key, wrapped) : -1;
    Py_XDECREF(wrapped);
    return result;
}

PyObject *ct_py_tensor_scales(ct_state *state, const ct_tensor *tensor)
{
    ct_scales *scales = tensor->scales;
    if (!scales)
        Py_RETURN_NONE;
    PyObject *dict =
        Py_BuildValue("{s:L,s:L,s:f,s:s}", "block", (long long)scales->block, "first_value",
                      (long long)tensor->first_value, "nested_offset",
                      (double)scales->nested_offset, "origin", ct_dtype_name(scales->origin));
    if (dict && (set_tensor(state, dict, "absmax", scales->absmax) < 0 ||
                 set_tensor(state, dict, "nested_absmax", scales->nested_absmax) < 0 ||
                 set_tensor(state, dict, "nested_map", scales->nested_map) < 0))
        Py_CLEAR(dict);
    return dict;
}
