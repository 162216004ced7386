/* What leaves holds a reference to the C tensor, not to a Python object, so that it can be released
 * on any thread. What comes from NumPy holds a Python reference and takes the GIL to drop it. */
#define NO_IMPORT_ARRAY
#include "python/numpy_api.h"

#include "python/exchange.h"

#include "python/errors.h"

static const struct {
    ct_dtype dtype;
    int numpy;
    const char *format; /* of the buffer protocol */
} types[] = {
    {CT_F32, NPY_FLOAT32, "f"}, {CT_F16, NPY_FLOAT16, "e"}, {CT_I64, NPY_INT64, "q"},
    {CT_I32, NPY_INT32, "i"},   {CT_I8, NPY_INT8, "b"},     {CT_U8, NPY_UINT8, "B"},
    {CT_BOOL, NPY_BOOL, "?"},
};
#define N_TYPES (sizeof types / sizeof *types)

static bool is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* ---- NumPy ---- */

static void release_python(void *data, size_t size, void *context)
{
    (void)data, (void)size;
    if (!Py_IsInitialized() || is_finalizing())
        return;
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)context);
    PyGILState_Release(gil);
}

/* `array` itself or a copy, aligned, in native byte order and of a type that we have. */
static PyArrayObject *as_known_type(PyArrayObject *array, const char *name, ct_dtype *dtype)
{
    int type = PyArray_TYPE(array);
    if (type == NPY_FLOAT64)
        type = NPY_FLOAT32;
    else if (PyTypeNum_ISINTEGER(type) && type != NPY_INT8 &&
             type != NPY_UINT8) /* long long, too */
        type = PyArray_ITEMSIZE(array) == 4 && PyTypeNum_ISSIGNED(type) ? NPY_INT32 : NPY_INT64;
    for (size_t i = 0; i < N_TYPES; i++) {
        if (types[i].numpy != type)
            continue;
        *dtype = types[i].dtype;
        return (PyArrayObject *)PyArray_FromArray(array, PyArray_DescrFromType(type),
                                                  NPY_ARRAY_ALIGNED | NPY_ARRAY_NOTSWAPPED |
                                                      NPY_ARRAY_FORCECAST);
    }
    PyErr_Format(PyExc_TypeError,
                 "%s has dtype %S; expected float32, float16, an integer type or bool", name,
                 PyArray_DESCR(array));
    return NULL;
}

/* The view of an array whose element strides are whole; storage spans from its lowest to its
 * highest byte. */
static ct_status view_array(ct_tensor **out, PyArrayObject *array, ct_dtype dtype)
{
    int64_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS], low = 0, high = PyArray_ITEMSIZE(array);
    *out = NULL;
    if (PyArray_NDIM(array) > CT_MAX_DIMS)
        return ct_fail(CT_VALUE, "a tensor has at most %d dimensions, not %d", CT_MAX_DIMS,
                       PyArray_NDIM(array));
    for (int i = 0; i < PyArray_NDIM(array); i++) {
        shape[i] = PyArray_DIM(array, i);
        strides[i] = PyArray_STRIDE(array, i) / PyArray_ITEMSIZE(array);
        int64_t span = shape[i] > 0 ? (shape[i] - 1) * PyArray_STRIDE(array, i) : 0;
        *(span < 0 ? &low : &high) += span;
    }
    if (PyArray_SIZE(array) == 0)
        low = high = 0;
    ct_storage *storage;
    CT_TRY(ct_storage_import(&storage, PyArray_BYTES(array) + low, (size_t)(high - low),
                             !PyArray_ISWRITEABLE(array), (ct_device_id){CT_DEVICE_CPU, 0},
                             release_python, array));
    Py_INCREF(array);
    ct_status status =
        ct_tensor_view(out, storage, (size_t)-low, dtype, PyArray_NDIM(array), shape, strides);
    ct_storage_unref(&storage);
    return status;
}

int ct_import_numpy(PyObject *object, const char *name, ct_tensor **out)
{
    ct_dtype dtype = CT_F32;
    PyArrayObject *array = as_known_type((PyArrayObject *)object, name, &dtype);
    if (!array)
        return -1;
    for (int i = 0; i < PyArray_NDIM(array); i++) {
        if (PyArray_STRIDE(array, i) % PyArray_ITEMSIZE(array) != 0) {
            Py_SETREF(array, (PyArrayObject *)PyArray_NewCopy(array, NPY_CORDER));
            if (!array)
                return -1;
            break;
        }
    }
    int result = ct_check(view_array(out, array, dtype));
    Py_DECREF(array);
    return result;
}

static void drop_tensor(PyObject *capsule)
{
    ct_tensor *tensor = PyCapsule_GetPointer(capsule, NULL);
    ct_tensor_unref(&tensor);
}

/* What NumPy can show: a tensor of the host's memory in a type that it has. */
static ct_status as_shown(ct_tensor **out, ct_tensor *tensor)
{
    ct_tensor *host;
    CT_TRY(ct_move_tensor(&host, tensor, (ct_device_id){CT_DEVICE_CPU, 0}));
    if (host->dtype != CT_BF16 && !ct_dtype_is_quantized(host->dtype)) {
        *out = host;
        return CT_OK;
    }
    ct_status status = ct_tensor_convert(out, host, CT_F32);
    ct_tensor_unref(&host);
    return status;
}

PyObject *ct_export_numpy(ct_tensor *tensor)
{
    ct_tensor *shown;
    size_t type = 0;
    if (ct_check(as_shown(&shown, tensor)) < 0)
        return NULL;
    while (types[type].dtype != shown->dtype)
        type++;
    npy_intp shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
    for (int i = 0; i < shown->n_dims; i++) {
        shape[i] = (npy_intp)shown->shape[i];
        strides[i] = (npy_intp)(shown->strides[i] * (int64_t)ct_dtype_block_bytes(shown->dtype));
    }
    PyObject *owner = PyCapsule_New(shown, NULL, drop_tensor);
    if (!owner) {
        ct_tensor_unref(&shown);
        return NULL;
    }
    int flags = shown->storage->read_only ? 0 : NPY_ARRAY_WRITEABLE;
    PyObject *array = PyArray_New(&PyArray_Type, shown->n_dims, shape, types[type].numpy, strides,
                                  ct_tensor_data(shown), 0, flags, NULL);
    if (!array) {
        Py_DECREF(owner);
        return NULL;
    }
    if (PyArray_SetBaseObject((PyArrayObject *)array, owner) < 0) { /* has dropped owner */
        Py_DECREF(array);
        return NULL;
    }
    return array;
}

/* ---- the buffer protocol ---- */

typedef struct buffer_shape {
    Py_ssize_t shape[CT_MAX_DIMS], strides[CT_MAX_DIMS];
} buffer_shape;

static int refuse_buffer(Py_buffer *view, const char *why)
{
    PyErr_SetString(PyExc_BufferError, why);
    view->obj = NULL;
    return -1;
}

int ct_get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    ct_tensor *tensor = ((ct_tensor_object *)self)->tensor;
    size_t type = 0;
    if (tensor->storage->device.kind != CT_DEVICE_CPU)
        return refuse_buffer(view, "this tensor is not in the CPU's memory; use numpy()");
    while (type < N_TYPES && types[type].dtype != tensor->dtype)
        type++;
    if (type == N_TYPES)
        return refuse_buffer(view, "this tensor's dtype has no buffer format; use numpy()");
    if ((flags & PyBUF_WRITABLE) && tensor->storage->read_only)
        return refuse_buffer(view, "this tensor is read-only");
    bool strided = (flags & PyBUF_STRIDES) == PyBUF_STRIDES &&
                   (flags & PyBUF_C_CONTIGUOUS) != PyBUF_C_CONTIGUOUS &&
                   (flags & PyBUF_ANY_CONTIGUOUS) != PyBUF_ANY_CONTIGUOUS;
    if (!strided && !ct_tensor_is_contiguous(tensor))
        return refuse_buffer(view, "this tensor is not contiguous");
    if ((flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS &&
        (tensor->n_dims > 1 || !ct_tensor_is_contiguous(tensor)))
        return refuse_buffer(view, "this tensor is not Fortran-contiguous");
    buffer_shape *dims = PyMem_Malloc(sizeof *dims);
    if (!dims) {
        PyErr_NoMemory();
        view->obj = NULL;
        return -1;
    }
    Py_ssize_t item = (Py_ssize_t)ct_dtype_block_bytes(tensor->dtype);
    for (int i = 0; i < tensor->n_dims; i++) {
        dims->shape[i] = (Py_ssize_t)tensor->shape[i];
        dims->strides[i] = (Py_ssize_t)tensor->strides[i] * item;
    }
    *view = (Py_buffer){
        .buf = ct_tensor_data(tensor),
        .obj = Py_NewRef(self),
        .len = (Py_ssize_t)ct_tensor_size(tensor) * item,
        .itemsize = item,
        .readonly = tensor->storage->read_only,
        .ndim = tensor->n_dims,
        .format = flags & PyBUF_FORMAT ? (char *)types[type].format : NULL,
        .shape = flags & PyBUF_ND ? dims->shape : NULL,
        .strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? dims->strides : NULL,
        .internal = dims,
    };
    return 0;
}

void ct_release_buffer(PyObject *self, Py_buffer *view)
{
    (void)self;
    PyMem_Free(view->internal);
}
