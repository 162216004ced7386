/* Tensor: a view of memory. Indexing makes views; arithmetic is left to NumPy and others, with
 * which it shares memory. */
#define NO_IMPORT_ARRAY
#include "python/numpy_api.h"

#include "python/state.h"

#include <string.h>

#include "python/convert.h"
#include "python/errors.h"
#include "python/exchange.h"
#include "python/quantization.h"

static ct_tensor *tensor_of(PyObject *self)
{
    return ((ct_tensor_object *)self)->tensor;
}

PyObject *ct_wrap_tensor(ct_state *state, ct_tensor *taken)
{
    ct_tensor_object *self = (ct_tensor_object *)state->tensor->tp_alloc(state->tensor, 0);
    if (!self)
        ct_tensor_unref(&taken);
    else
        self->tensor = taken;
    return (PyObject *)self;
}

/* `taken` is behind a pointer, since the call that sets it is an argument beside it. */
static PyObject *wrap_or_raise(PyObject *self, ct_status status, ct_tensor **taken)
{
    return status == CT_OK ? ct_wrap_tensor(ct_state_of(self), *taken) : ct_raise(status);
}

static void tensor_free(PyObject *self)
{
    ct_tensor_unref(&((ct_tensor_object *)self)->tensor);
    ct_free_object(self);
}

/* ---- attributes ---- */

static PyObject *tensor_shape(PyObject *self, void *closure)
{
    (void)closure;
    ct_tensor *tensor = tensor_of(self);
    PyObject *shape = PyTuple_New(tensor->n_dims);
    for (int i = 0; shape && i < tensor->n_dims; i++)
        PyTuple_SET_ITEM(shape, i, PyLong_FromLongLong(tensor->shape[i]));
    if (shape && PyErr_Occurred())
        Py_CLEAR(shape);
    return shape;
}

static PyObject *tensor_ndim(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(tensor_of(self)->n_dims);
}

static PyObject *tensor_dim(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(tensor_of(self)->n_dims);
}

static PyObject *tensor_size(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(ct_tensor_size(tensor_of(self)));
}

static PyObject *tensor_numel(PyObject *self, PyObject *unused)
{
    (void)unused;
    return tensor_size(self, NULL);
}

static PyObject *tensor_nbytes(PyObject *self, void *closure)
{
    (void)closure;
    ct_tensor *tensor = tensor_of(self);
    size_t bytes = ct_tensor_bytes(tensor);
    if (tensor->scales && tensor->scales->n_values) /* its share of them */
        bytes += (size_t)((double)ct_scales_bytes(tensor->scales) * (double)ct_tensor_size(tensor) /
                          (double)tensor->scales->n_values);
    return PyLong_FromSize_t(bytes);
}

static PyObject *tensor_codes(PyObject *self, void *closure)
{
    (void)closure;
    return ct_py_tensor_codes(ct_state_of(self), tensor_of(self));
}

static PyObject *tensor_scales(PyObject *self, void *closure)
{
    (void)closure;
    return ct_py_tensor_scales(ct_state_of(self), tensor_of(self));
}

static PyObject *tensor_dtype(PyObject *self, void *closure)
{
    (void)closure;
    return Py_NewRef(ct_state_of(self)->dtype_names[tensor_of(self)->dtype]);
}

static PyObject *tensor_device(PyObject *self, void *closure)
{
    (void)closure;
    return ct_wrap_device(ct_state_of(self), tensor_of(self)->storage->device);
}

/* ---- conversions ---- */

static PyObject *tensor_numpy(PyObject *self, PyObject *unused)
{
    (void)unused;
    return ct_export_numpy(tensor_of(self));
}

/* self.numpy().name() */
static PyObject *through_numpy(PyObject *self, const char *name)
{
    PyObject *array = ct_export_numpy(tensor_of(self));
    PyObject *result = array ? PyObject_CallMethod(array, name, NULL) : NULL;
    Py_XDECREF(array);
    return result;
}

static PyObject *tensor_tolist(PyObject *self, PyObject *unused)
{
    (void)unused;
    return through_numpy(self, "tolist");
}

static PyObject *tensor_item(PyObject *self, PyObject *unused)
{
    (void)unused;
    return through_numpy(self, "item");
}

/* The only element as convert(item) has it. Without these, int() and float() would read the bytes
 * in memory as digits. */
static PyObject *number_of(PyObject *self, PyObject *(*convert)(PyObject *))
{
    PyObject *item = through_numpy(self, "item");
    PyObject *number = item ? convert(item) : NULL;
    Py_XDECREF(item);
    return number;
}

static PyObject *tensor_int(PyObject *self)
{
    return number_of(self, PyNumber_Long);
}

static PyObject *tensor_float(PyObject *self)
{
    return number_of(self, PyNumber_Float);
}

/* Not of a row of one element, which indexes as the array that it is. */
static PyObject *tensor_index(PyObject *self)
{
    if (tensor_of(self)->n_dims > 0)
        return PyErr_Format(PyExc_TypeError, "only a tensor without dimensions is an index");
    return number_of(self, PyNumber_Index);
}

static int tensor_truth(PyObject *self)
{
    if (ct_tensor_size(tensor_of(self)) != 1) {
        PyErr_SetString(PyExc_ValueError, "only a tensor of one element is true or false; ask "
                                          "np.asarray(tensor).any() or .all()");
        return -1;
    }
    PyObject *item = through_numpy(self, "item");
    int truth = item ? PyObject_IsTrue(item) : -1;
    Py_XDECREF(item);
    return truth;
}

static PyObject *tensor_array(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dtype", "copy", NULL};
    PyArray_Descr *wanted = NULL;
    ct_copy_policy copy = CT_COPY_IF_NEEDED;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&O&:__array__", names,
                                     PyArray_DescrConverter2, &wanted, ct_as_copy_policy, &copy)) {
        Py_XDECREF(wanted);
        return NULL;
    }
    ct_tensor *tensor = tensor_of(self);
    PyArrayObject *array = (PyArrayObject *)ct_export_numpy(tensor);
    bool converts = array && (tensor->storage->device.kind != CT_DEVICE_CPU ||
                              tensor->dtype == CT_BF16 || ct_dtype_is_quantized(tensor->dtype) ||
                              (wanted && !PyArray_EquivTypes(wanted, PyArray_DESCR(array))));
    if (converts && copy == CT_COPY_NEVER) {
        PyErr_SetString(PyExc_ValueError, "this tensor cannot become such an array without a copy");
        Py_CLEAR(array);
    }
    if (array && (wanted || copy == CT_COPY_ALWAYS)) {
        int flags = copy == CT_COPY_ALWAYS ? NPY_ARRAY_ENSURECOPY : 0;
        PyObject *cast = PyArray_FromArray(array, wanted, flags | NPY_ARRAY_FORCECAST);
        wanted = NULL; /* taken */
        Py_SETREF(array, (PyArrayObject *)cast);
    }
    Py_XDECREF(wanted);
    return (PyObject *)array;
}

/* Types are converted on the host. */
static ct_status convert_to(ct_tensor **out, const ct_tensor *tensor, ct_dtype dtype,
                            ct_device_id device, bool copy)
{
    ct_device_id cpu = {CT_DEVICE_CPU, 0};
    ct_tensor *host, *converted;
    if (dtype == tensor->dtype)
        return copy && ct_same_device(tensor->storage->device, device)
                   ? ct_copy_tensor(out, tensor)
                   : ct_move_tensor(out, tensor, device);
    CT_TRY(ct_move_tensor(&host, tensor, cpu));
    ct_status status = ct_tensor_convert(&converted, host, dtype);
    ct_tensor_unref(&host);
    CT_TRY(status);
    status = ct_move_tensor(out, converted, device);
    ct_tensor_unref(&converted);
    return status;
}

static PyObject *tensor_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"data", "dtype", NULL};
    PyObject *data, *dtype_object = Py_None;
    ct_state *state = PyType_GetModuleState(type);
    ct_tensor *tensor, *converted;
    ct_dtype dtype;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:Tensor", names, &data, &dtype_object) ||
        ct_as_any_tensor(state, data, "data", &tensor) < 0)
        return NULL;
    if (dtype_object == Py_None)
        return ct_wrap_tensor(state, tensor);
    ct_status status = CT_TYPE;
    if (ct_as_dtype(dtype_object, "dtype", &dtype) == 0) {
        if (dtype == tensor->dtype)
            return ct_wrap_tensor(state, tensor);
        status = convert_to(&converted, tensor, dtype, tensor->storage->device, false);
    }
    ct_tensor_unref(&tensor);
    return status == CT_OK ? ct_wrap_tensor(state, converted) : ct_raise(status);
}

static PyObject *tensor_to(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"target", "other", "dtype", "device", "copy", NULL};
    PyObject *targets[2] = {NULL, NULL}, *dtype_object = NULL, *device_object = NULL;
    int copy = 0;
    ct_tensor *tensor = tensor_of(self), *converted;
    ct_dtype dtype = tensor->dtype;
    ct_device_id device = tensor->storage->device;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|OO$OOp:to", names, &targets[0], &targets[1],
                                     &dtype_object, &device_object, &copy))
        return NULL;
    for (int i = 0; i < 2 && targets[i]; i++) { /* a device, or else a dtype */
        ct_device_id named;
        if (ct_as_device(ct_state_of(self), targets[i], &named) == 0) {
            device = named;
            continue;
        }
        PyErr_Clear();
        if (ct_as_dtype(targets[i], "dtype", &dtype) < 0)
            return NULL;
    }
    if ((dtype_object && dtype_object != Py_None &&
         ct_as_dtype(dtype_object, "dtype", &dtype) < 0) ||
        (device_object && ct_as_device(ct_state_of(self), device_object, &device) < 0))
        return NULL;
    if (dtype == tensor->dtype && ct_same_device(tensor->storage->device, device) && !copy)
        return Py_NewRef(self);
    return wrap_or_raise(self, convert_to(&converted, tensor, dtype, device, copy), &converted);
}

static PyObject *tensor_reshape(PyObject *self, PyObject *args)
{
    int64_t shape[CT_MAX_DIMS];
    int n_dims;
    ct_tensor *reshaped;
    PyObject *first = PyTuple_GET_SIZE(args) == 1 ? PyTuple_GET_ITEM(args, 0) : NULL;
    if (ct_as_shape(first && !PyLong_Check(first) ? first : args, "shape", shape, &n_dims) < 0)
        return NULL;
    return wrap_or_raise(self, ct_tensor_reshape(&reshaped, tensor_of(self), n_dims, shape),
                         &reshaped);
}

static PyObject *tensor_contiguous(PyObject *self, PyObject *unused)
{
    (void)unused;
    ct_tensor *tensor = tensor_of(self), *contiguous;
    if (ct_tensor_is_contiguous(tensor))
        return Py_NewRef(self);
    ct_status status = tensor->storage->device.kind == CT_DEVICE_CPU
                           ? ct_tensor_contiguous(&contiguous, tensor)
                           : ct_copy_tensor(&contiguous, tensor);
    return wrap_or_raise(self, status, &contiguous);
}

static PyObject *tensor_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (ct_dtype_is_quantized(tensor_of(self)->dtype))
        return PyErr_Format(PyExc_TypeError, "a quantized tensor cannot be pickled");
    PyObject *array = ct_export_numpy(tensor_of(self));
    return array ? Py_BuildValue("O(NN)", Py_TYPE(self), array, tensor_dtype(self, NULL)) : NULL;
}

/* ---- indexing ---- */

static int refuse_indices(void)
{
    PyErr_SetString(PyExc_IndexError, "too many indices for the tensor's dimensions");
    return -1;
}

/* An ellipsis: *dim moves to where the `n_left` indices behind it take the last dimensions. */
static int skip_dims(const ct_tensor *view, int *dim, Py_ssize_t n_left)
{
    if (view->n_dims - *dim < n_left)
        return refuse_indices();
    *dim = view->n_dims - (int)n_left;
    return 0;
}

/* Applies one index to dimension `dim` of *view; *dim moves on. */
static int index_one(ct_tensor **view, int *dim, PyObject *index)
{
    ct_tensor *next;
    ct_status status;
    if (*dim >= (*view)->n_dims)
        return refuse_indices();
    if (PySlice_Check(index)) {
        Py_ssize_t start, stop, step;
        if (PySlice_Unpack(index, &start, &stop, &step) < 0)
            return -1;
        Py_ssize_t length =
            PySlice_AdjustIndices((Py_ssize_t)(*view)->shape[*dim], &start, &stop, step);
        status = ct_tensor_slice(&next, *view, *dim, length ? start : 0, length, step);
        (*dim)++;
    } else {
        Py_ssize_t i = PyNumber_AsSsize_t(index, PyExc_IndexError);
        if (i == -1 && PyErr_Occurred())
            return -1;
        status = ct_tensor_select(&next, *view, *dim, i);
    }
    if (ct_check(status) < 0)
        return -1;
    ct_tensor_unref(view);
    *view = next;
    return 0;
}

static bool is_basic(PyObject *index)
{
    return PySlice_Check(index) || index == Py_Ellipsis || PyArray_IsScalar(index, Integer) ||
           (PyIndex_Check(index) && !PyBool_Check(index) && !PyArray_Check(index) &&
            !PyObject_HasAttrString(index, "shape"));
}

/* What views cannot say (index arrays, masks) NumPy does, with a copy; also new axes. */
static PyObject *index_through_numpy(PyObject *self, PyObject *key)
{
    ct_tensor *tensor = tensor_of(self), *host, *moved;
    PyObject *array = ct_export_numpy(tensor);
    PyObject *picked = array ? PyObject_GetItem(array, key) : NULL;
    Py_XDECREF(array);
    if (!picked)
        return NULL;
    int result = ct_as_tensor(ct_state_of(self), picked, "values", &host);
    Py_DECREF(picked);
    if (result < 0)
        return NULL;
    ct_status status = convert_to(&moved, host, tensor->dtype, tensor->storage->device, false);
    ct_tensor_unref(&host);
    return wrap_or_raise(self, status, &moved);
}

static PyObject *tensor_getitem(PyObject *self, PyObject *key)
{
    PyObject *items = PyTuple_Check(key) ? Py_NewRef(key) : PyTuple_Pack(1, key);
    if (!items)
        return NULL;
    Py_ssize_t n = PyTuple_GET_SIZE(items), n_ellipses = 0;
    PyObject *result = NULL;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        n_ellipses += item == Py_Ellipsis;
        if (!is_basic(item) || n_ellipses > 1) {
            result = index_through_numpy(self, key);
            Py_DECREF(items);
            return result;
        }
    }
    ct_tensor *view = ct_tensor_ref(tensor_of(self));
    int dim = 0, failed = 0;
    for (Py_ssize_t i = 0; i < n && !failed; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        failed =
            item == Py_Ellipsis ? skip_dims(view, &dim, n - i - 1) : index_one(&view, &dim, item);
    }
    Py_DECREF(items);
    if (failed)
        ct_tensor_unref(&view);
    else
        result = ct_wrap_tensor(ct_state_of(self), view);
    return result;
}

static Py_ssize_t tensor_length(PyObject *self)
{
    if (tensor_of(self)->n_dims == 0) {
        PyErr_SetString(PyExc_TypeError, "len() of a tensor without dimensions");
        return -1;
    }
    return (Py_ssize_t)tensor_of(self)->shape[0];
}

/* Makes iteration stop at the end. */
static PyObject *tensor_sequence_item(PyObject *self, Py_ssize_t index)
{
    ct_tensor *row;
    if (tensor_of(self)->n_dims == 0)
        return PyErr_Format(PyExc_TypeError, "a tensor without dimensions cannot be iterated");
    return wrap_or_raise(self, ct_tensor_select(&row, tensor_of(self), 0, index), &row);
}

/* ---- repr ---- */

/* numpy.array2string of the values; long tensors are summarised. */
static PyObject *values_text(ct_tensor *tensor)
{
    PyObject *text = NULL, *numpy = NULL, *show = NULL, *args = NULL, *keywords = NULL;
    PyObject *array = ct_export_numpy(tensor);
    if (array && (numpy = PyImport_ImportModule("numpy")) &&
        (show = PyObject_GetAttrString(numpy, "array2string")) && (args = PyTuple_Pack(1, array)) &&
        (keywords = Py_BuildValue("{s:i,s:i,s:s,s:s}", "threshold", 60, "precision", 4, "separator",
                                  ", ", "prefix", "Tensor(")))
        text = PyObject_Call(show, args, keywords);
    Py_XDECREF(array);
    Py_XDECREF(numpy);
    Py_XDECREF(show);
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    return text;
}

static PyObject *tensor_repr(PyObject *self)
{
    ct_tensor *tensor = tensor_of(self);
    bool hidden = ct_dtype_is_quantized(tensor->dtype);
    PyObject *shape = tensor_shape(self, NULL), *result = NULL;
    PyObject *text = !shape ? NULL : hidden ? PyUnicode_FromString("") : values_text(tensor);
    if (text)
        result = PyUnicode_FromFormat("Tensor(%U%sshape=%R, dtype=%s)", text, hidden ? "" : ", ",
                                      shape, ct_dtype_name(tensor->dtype));
    Py_XDECREF(shape);
    Py_XDECREF(text);
    return result;
}

static PyGetSetDef tensor_getters[] = {
    {"shape", tensor_shape, NULL, "The length of each dimension.", NULL},
    {"ndim", tensor_ndim, NULL, "The number of dimensions.", NULL},
    {"size", tensor_size, NULL, "The number of elements.", NULL},
    {"nbytes", tensor_nbytes, NULL, "The bytes of its elements.", NULL},
    {"dtype", tensor_dtype, NULL, "The name of the element type.", NULL},
    {"device", tensor_device, NULL, "Where the elements lie.", NULL},
    {"codes", tensor_codes, NULL, "What lies in memory of a matrix with scales, else None.", NULL},
    {"scales", tensor_scales, NULL, "What the codes are scaled by, as a dict, else None.", NULL},
    {0},
};

#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef tensor_methods[] = {
    {"dim", tensor_dim, METH_NOARGS, "dim($self, /)\n--\n\nThe number of dimensions."},
    {"numel", tensor_numel, METH_NOARGS,
     "numel($self, /)\n--\n\nThe number of elements, as `size`."},
    {"numpy", tensor_numpy, METH_NOARGS,
     "numpy($self, /)\n--\n\nA NumPy array that shares memory; bfloat16 as float32."},
    {"tolist", tensor_tolist, METH_NOARGS,
     "tolist($self, /)\n--\n\nNested lists of Python numbers."},
    {"item", tensor_item, METH_NOARGS,
     "item($self, /)\n--\n\nThe only element as a Python number."},
    {"to", KEYWORDS(tensor_to), METH_VARARGS | METH_KEYWORDS,
     "to($self, /, *args, dtype=None, device=None, copy=False)\n--\n\nAnother dtype or device."},
    {"reshape", tensor_reshape, METH_VARARGS,
     "reshape($self, /, *shape)\n--\n\nA view of another shape."},
    {"contiguous", tensor_contiguous, METH_NOARGS,
     "contiguous($self, /)\n--\n\nItself, or a contiguous copy."},
    {"__array__", KEYWORDS(tensor_array), METH_VARARGS | METH_KEYWORDS,
     "__array__($self, /, dtype=None, copy=None)\n--\n\nAs `numpy`, for NumPy."},
    {"__dlpack__", KEYWORDS(ct_tensor_dlpack), METH_VARARGS | METH_KEYWORDS,
     "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
     "Its memory, for what takes it by DLPack."},
    {"__dlpack_device__", ct_tensor_dlpack_device, METH_NOARGS,
     "__dlpack_device__($self, /)\n--\n\nWhere its memory lies, for DLPack."},
    {"__reduce__", tensor_reduce, METH_NOARGS, NULL},
    {0},
};

static PyType_Slot tensor_slots[] = {
    {Py_tp_new, tensor_new},
    {Py_tp_dealloc, tensor_free},
    {Py_tp_repr, tensor_repr},
    {Py_tp_getset, tensor_getters},
    {Py_tp_methods, tensor_methods},
    {Py_nb_int, tensor_int},
    {Py_nb_float, tensor_float},
    {Py_nb_index, tensor_index},
    {Py_nb_bool, tensor_truth},
    {Py_mp_subscript, tensor_getitem},
    {Py_mp_length, tensor_length},
    {Py_sq_length, tensor_length},
    {Py_sq_item, tensor_sequence_item},
    {Py_bf_getbuffer, ct_get_buffer},
    {Py_bf_releasebuffer, ct_release_buffer},
    {Py_tp_doc, "Tensor(data, dtype=None)\n--\n\nAn n-dimensional array over shared memory."},
    {0, NULL},
};

PyType_Spec ct_tensor_spec = {
    .name = "curated_transformers.Tensor",
    .basicsize = sizeof(ct_tensor_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tensor_slots,
};
