/* Device: where a tensor or model lives. */
#include "python/state.h"

#include "ops/device.h"
#include "python/convert.h"
#include "python/errors.h"

PyObject *ct_wrap_device(ct_state *state, ct_device_id id)
{
    ct_device_object *self = (ct_device_object *)state->device->tp_alloc(state->device, 0);
    if (self)
        self->id = id;
    return (PyObject *)self;
}

static PyObject *device_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"type", "index", NULL};
    PyObject *object, *index = Py_None;
    ct_device_id id;
    ct_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:Device", names, &object, &index) ||
        ct_as_device(state, object, &id) < 0)
        return NULL;
    if (index != Py_None && id.kind != CT_DEVICE_CPU && ct_as_device_index(index, &id.index) < 0)
        return NULL;
    return ct_wrap_device(state, id);
}

static PyObject *device_type(PyObject *self, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(((ct_device_object *)self)->id.kind == CT_DEVICE_CPU ? "cpu"
                                                                                     : "cuda");
}

static PyObject *device_index(PyObject *self, void *closure)
{
    (void)closure;
    ct_device_id id = ((ct_device_object *)self)->id;
    if (id.kind == CT_DEVICE_CPU)
        Py_RETURN_NONE;
    return PyLong_FromLong(id.index);
}

static PyObject *device_text(PyObject *self)
{
    ct_device_id id = ((ct_device_object *)self)->id;
    if (id.kind == CT_DEVICE_CPU)
        return PyUnicode_FromString("cpu");
    return PyUnicode_FromFormat("cuda:%d", id.index);
}

static PyObject *device_repr(PyObject *self)
{
    PyObject *text = device_text(self);
    PyObject *repr = text ? PyUnicode_FromFormat("Device('%U')", text) : NULL;
    Py_XDECREF(text);
    return repr;
}

static PyObject *device_is_available(PyObject *self, PyObject *unused)
{
    (void)unused;
    const ct_ops *ops;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS /* a driver that starts takes its time */
        status = ct_device_ops(((ct_device_object *)self)->id, &ops);
    Py_END_ALLOW_THREADS return PyBool_FromLong(status == CT_OK);
}

static PyObject *device_empty_cache(PyObject *self, PyObject *unused)
{
    (void)unused;
    const ct_ops *ops;
    ct_device_id id = ((ct_device_object *)self)->id;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS /* it may wait for the device */
        status = ct_device_ops(id, &ops);
    if (status == CT_OK)
        status = ops->trim(id.index);
    Py_END_ALLOW_THREADS if (status != CT_OK) return ct_raise(status);
    Py_RETURN_NONE;
}

/* That of the text, with which a device compares equal. */
static Py_hash_t device_hash(PyObject *self)
{
    PyObject *text = device_text(self);
    Py_hash_t hash = text ? PyObject_Hash(text) : -1;
    Py_XDECREF(text);
    return hash;
}

static PyObject *device_compare(PyObject *self, PyObject *other, int operation)
{
    ct_device_id a = ((ct_device_object *)self)->id, b;
    if (operation != Py_EQ && operation != Py_NE)
        Py_RETURN_NOTIMPLEMENTED;
    if (other == Py_None || ct_as_device(ct_state_of(self), other, &b) < 0) {
        PyErr_Clear();
        Py_RETURN_NOTIMPLEMENTED;
    }
    bool same = ct_same_device(a, b);
    return PyBool_FromLong(same == (operation == Py_EQ));
}

static PyObject *device_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *text = device_text(self);
    return text ? Py_BuildValue("O(N)", Py_TYPE(self), text) : NULL;
}

static PyGetSetDef device_getters[] = {
    {"type", device_type, NULL, "\"cpu\" or \"cuda\"", NULL},
    {"index", device_index, NULL, "number of the GPU; None for the CPU", NULL},
    {0},
};

static PyMethodDef device_methods[] = {
    {"is_available", device_is_available, METH_NOARGS,
     "is_available($self, /)\n--\n\nWhether this build and machine have it."},
    {"empty_cache", device_empty_cache, METH_NOARGS,
     "empty_cache($self, /)\n--\n\nGives memory that is kept for reuse back to the system."},
    {"__reduce__", device_reduce, METH_NOARGS, NULL},
    {0},
};

static PyType_Slot device_slots[] = {
    {Py_tp_new, device_new},
    {Py_tp_dealloc, ct_free_object},
    {Py_tp_str, device_text},
    {Py_tp_repr, device_repr},
    {Py_tp_hash, device_hash},
    {Py_tp_richcompare, device_compare},
    {Py_tp_getset, device_getters},
    {Py_tp_methods, device_methods},
    {Py_tp_doc, "Device(type, index=None)\n--\n\nA device: \"cpu\", \"cuda\", \"cuda:1\" or a "
                "torch.device."},
    {0, NULL},
};

PyType_Spec ct_device_spec = {
    .name = "curated_transformers.Device",
    .basicsize = sizeof(ct_device_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = device_slots,
};
