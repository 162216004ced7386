/* MappedFile: a checkpoint's bytes, and tensors that view them. */
#include "python/state.h"

#include "python/convert.h"
#include "python/errors.h"

typedef struct mapped_file {
    PyObject_HEAD ct_storage *storage;
    PyObject *path;
} mapped_file;

static PyObject *mapped_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    PyObject *encoded = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:MappedFile", names, PyUnicode_FSConverter,
                                     &encoded))
        return NULL;
    mapped_file *self = (mapped_file *)type->tp_alloc(type, 0);
    if (self) {
        self->path = PyUnicode_DecodeFSDefault(PyBytes_AS_STRING(encoded));
        if (!self->path ||
            ct_check(ct_storage_map_file(&self->storage, PyBytes_AS_STRING(encoded))) < 0)
            Py_CLEAR(self);
    }
    Py_DECREF(encoded);
    return (PyObject *)self;
}

static void mapped_free(PyObject *object)
{
    mapped_file *self = (mapped_file *)object;
    ct_storage_unref(&self->storage);
    Py_XDECREF(self->path);
    ct_free_object(object);
}

static PyObject *mapped_size(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(((mapped_file *)self)->storage->size);
}

static PyObject *mapped_path(PyObject *self, void *closure)
{
    (void)closure;
    return Py_NewRef(((mapped_file *)self)->path);
}

static PyObject *mapped_tensor(PyObject *object, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dtype", "shape", "offset", NULL};
    mapped_file *self = (mapped_file *)object;
    PyObject *dtype_object, *shape_object;
    Py_ssize_t offset;
    int64_t shape[CT_MAX_DIMS];
    int n_dims;
    ct_dtype dtype;
    ct_tensor *tensor;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOn:tensor", names, &dtype_object,
                                     &shape_object, &offset) ||
        ct_as_dtype(dtype_object, "dtype", &dtype) < 0 ||
        ct_as_shape(shape_object, "shape", shape, &n_dims) < 0)
        return NULL;
    if (offset < 0)
        return PyErr_Format(PyExc_ValueError, "offset must not be negative, was: %zd", offset);
    ct_status status =
        ct_tensor_from_bytes(&tensor, self->storage, (size_t)offset, dtype, n_dims, shape);
    return status == CT_OK ? ct_wrap_tensor(ct_state_of(object), tensor) : ct_raise(status);
}

static PyObject *mapped_forget_pages(PyObject *self, PyObject *unused)
{
    (void)unused;
    ct_storage_forget_pages(((mapped_file *)self)->storage);
    Py_RETURN_NONE;
}

static int mapped_buffer(PyObject *object, Py_buffer *view, int flags)
{
    mapped_file *self = (mapped_file *)object;
    return PyBuffer_FillInfo(view, object, self->storage->data, (Py_ssize_t)self->storage->size, 1,
                             flags);
}

static PyGetSetDef mapped_getters[] = {
    {"size", mapped_size, NULL, "bytes", NULL},
    {"path", mapped_path, NULL, NULL, NULL},
    {0},
};

static PyMethodDef mapped_methods[] = {
    {"tensor", (PyCFunction)(void (*)(void))mapped_tensor, METH_VARARGS | METH_KEYWORDS,
     "tensor(dtype, shape, offset): a view of the file's bytes."},
    {"forget_pages", mapped_forget_pages, METH_NOARGS,
     "Takes what was read out of this process's memory until it is read again."},
    {0},
};

static PyType_Slot mapped_slots[] = {
    {Py_tp_new, mapped_new},
    {Py_tp_dealloc, mapped_free},
    {Py_tp_getset, mapped_getters},
    {Py_tp_methods, mapped_methods},
    {Py_bf_getbuffer, mapped_buffer},
    {Py_tp_doc, "MappedFile(path)\n--\n\nA whole file, mapped read-only."},
    {0, NULL},
};

PyType_Spec ct_mapped_file_spec = {
    .name = "curated_transformers._core.MappedFile",
    .basicsize = sizeof(mapped_file),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mapped_slots,
};
