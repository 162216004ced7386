/* DLPack both ways: capsules, and the order between other libraries' streams and our operations.
 *
 * What leaves holds a reference to the C tensor, not to a Python object, so that it can be released
 * on any thread. */
#include "tensor/dlpack.h"

#include "ops/device.h"
#include "ops/memory.h"
#include "python/errors.h"
#include "python/exchange.h"

#define DEFAULT_STREAM 1 /* what None stands for with CUDA */
#define UNORDERED (-1)

/* ---- arguments ---- */

int ct_as_copy_policy(PyObject *object, void *out)
{
    int truth = object == Py_None ? 0 : PyObject_IsTrue(object);
    if (truth < 0)
        return 0;
    *(ct_copy_policy *)out = object == Py_None ? CT_COPY_IF_NEEDED
                             : truth           ? CT_COPY_ALWAYS
                                               : CT_COPY_NEVER;
    return 1;
}

/* None leaves what the two integers are. */
static int as_pair(PyObject *object, const char *name, int *first, int *second)
{
    if (object == Py_None)
        return 0;
    if (PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 2)
        return PyArg_ParseTuple(object, "ii", first, second) ? 0 : -1;
    PyErr_Format(PyExc_TypeError, "%s must be a pair of integers or None, got %R", name, object);
    return -1;
}

static int as_stream(PyObject *object, intptr_t *out)
{
    *out = DEFAULT_STREAM;
    if (object == Py_None)
        return 0;
    if (!PyLong_Check(object)) {
        PyErr_Format(PyExc_TypeError, "stream must be an integer or None, got %s",
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    *out = PyLong_AsSsize_t(object);
    if (*out == -1 && PyErr_Occurred())
        return -1;
    if (*out > 0 || *out == UNORDERED)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "stream must be 1 (the default stream), 2 (that of the thread), a stream's handle "
                 "or -1 (no order), was: %R",
                 object);
    return -1;
}

/* ---- what leaves ---- */

static DLDevice device_of(const ct_tensor *tensor)
{
    ct_device_id device = tensor->storage->device;
    return (DLDevice){device.kind == CT_DEVICE_CPU ? kDLCPU : kDLCUDA, device.index};
}

PyObject *ct_tensor_dlpack_device(PyObject *self, PyObject *unused)
{
    (void)unused;
    DLDevice device = device_of(((ct_tensor_object *)self)->tensor);
    return Py_BuildValue("(ii)", device.device_type, device.device_id);
}

static void free_capsule(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, "dltensor")) {
        DLManagedTensor *managed = PyCapsule_GetPointer(capsule, "dltensor");
        managed->deleter(managed);
    } else if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        DLManagedTensorVersioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        managed->deleter(managed);
    }
}

static PyObject *make_capsule(ct_tensor *tensor, bool versioned, bool copied)
{
    if (versioned) {
        DLManagedTensorVersioned *managed;
        if (ct_check(ct_dlpack_export_versioned(&managed, tensor, copied)) < 0)
            return NULL;
        PyObject *capsule = PyCapsule_New(managed, "dltensor_versioned", free_capsule);
        if (!capsule)
            managed->deleter(managed);
        return capsule;
    }
    DLManagedTensor *managed;
    if (ct_check(ct_dlpack_export(&managed, tensor)) < 0)
        return NULL;
    PyObject *capsule = PyCapsule_New(managed, "dltensor", free_capsule);
    if (!capsule)
        managed->deleter(managed);
    return capsule;
}

/* *out is what leaves: the tensor, or its copy there or on the host. */
static int take_exported(ct_tensor **out, ct_tensor *tensor, DLDevice wanted, ct_copy_policy copy,
                         bool *copied)
{
    DLDevice own = device_of(tensor);
    bool same = wanted.device_type == own.device_type && wanted.device_id == own.device_id;
    bool to_host = wanted.device_type == kDLCPU && wanted.device_id == 0;
    if (!same && (!to_host || copy == CT_COPY_NEVER)) {
        PyErr_Format(PyExc_BufferError,
                     "cannot export a tensor of DLPack device (%d, %d) to DLPack device (%d, %d)%s",
                     own.device_type, own.device_id, wanted.device_type, wanted.device_id,
                     to_host ? " without a copy" : "");
        return -1;
    }
    *copied = !same || copy == CT_COPY_ALWAYS;
    if (!*copied) {
        *out = ct_tensor_ref(tensor);
        return 0;
    }
    return ct_check(same ? ct_copy_tensor(out, tensor)
                         : ct_move_tensor(out, tensor, (ct_device_id){CT_DEVICE_CPU, 0}));
}

/* The consumer's stream waits for our operations so far. Memory that it shares is used again when
 * it has let go of it and that stream has done what it was asked for by then. */
static PyObject *export_ordered(ct_tensor *tensor, intptr_t stream, bool versioned, bool copied)
{
    ct_tensor *lent;
    if (tensor->storage->device.kind == CT_DEVICE_CPU)
        return make_capsule(tensor, versioned, copied);
    if (ct_check(ct_tensor_lend(&lent, tensor, stream)) < 0)
        return NULL;
    PyObject *capsule = make_capsule(lent, versioned, copied);
    ct_tensor_unref(&lent);
    return capsule;
}

PyObject *ct_tensor_dlpack(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"stream", "max_version", "dl_device", "copy", NULL};
    PyObject *stream_object = Py_None, *version = Py_None, *device = Py_None;
    ct_copy_policy copy = CT_COPY_IF_NEEDED;
    ct_tensor *tensor = ((ct_tensor_object *)self)->tensor, *exported;
    DLDevice wanted = device_of(tensor);
    int major = 0, minor = 0;
    intptr_t stream;
    bool copied;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$OOOO&:__dlpack__", names, &stream_object,
                                     &version, &device, ct_as_copy_policy, &copy))
        return NULL;
    if (wanted.device_type == kDLCPU && stream_object != Py_None)
        return PyErr_Format(PyExc_BufferError, "a CPU tensor has no stream, got stream=%R",
                            stream_object);
    if (as_stream(stream_object, &stream) < 0 ||
        as_pair(device, "dl_device", &wanted.device_type, &wanted.device_id) < 0 ||
        as_pair(version, "max_version", &major, &minor) < 0 ||
        take_exported(&exported, tensor, wanted, copy, &copied) < 0)
        return NULL;
    PyObject *capsule = export_ordered(exported, stream, major >= 1, copied);
    ct_tensor_unref(&exported);
    return capsule;
}

/* ---- what comes in ---- */

/* Where the producer says that it is; the CPU where it says nothing, and for what is neither CPU
 * nor CUDA, which its struct will say again. */
static int announced_device(PyObject *object, ct_device_id *out)
{
    int type = kDLCPU, index = 0;
    *out = (ct_device_id){CT_DEVICE_CPU, 0};
    if (!PyObject_HasAttrString(object, "__dlpack_device__"))
        return 0;
    PyObject *pair = PyObject_CallMethod(object, "__dlpack_device__", NULL);
    int result = pair ? as_pair(pair, "__dlpack_device__()", &type, &index) : -1;
    Py_XDECREF(pair);
    if (result == 0 && type == kDLCUDA && index >= 0 && index < CT_DEVICE_LIMIT)
        *out = (ct_device_id){CT_DEVICE_CUDA, index};
    return result;
}

/* The producer makes our stream wait for its own. NULL for the CPU, with which there is none. */
static int own_stream(ct_device_id device, PyObject **out)
{
    const ct_ops *ops;
    intptr_t stream;
    *out = NULL;
    if (device.kind == CT_DEVICE_CPU)
        return 0;
    if (ct_check(ct_device_ops(device, &ops)) < 0 ||
        ct_check(ops->stream(device.index, &stream)) < 0)
        return -1;
    *out = PyLong_FromSsize_t(stream);
    return *out ? 0 : -1;
}

static PyObject *call_producer(PyObject *object, PyObject *stream, bool knows_versions)
{
    PyObject *method = PyObject_GetAttrString(object, "__dlpack__");
    PyObject *none = PyTuple_New(0), *keywords = PyDict_New(), *capsule = NULL;
    PyObject *version = Py_BuildValue("(ii)", DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION);
    if (method && none && keywords && version &&
        (!stream || PyDict_SetItemString(keywords, "stream", stream) == 0) &&
        (!knows_versions || PyDict_SetItemString(keywords, "max_version", version) == 0))
        capsule = PyObject_Call(method, none, keywords);
    Py_XDECREF(method);
    Py_XDECREF(none);
    Py_XDECREF(keywords);
    Py_XDECREF(version);
    return capsule;
}

/* Older producers do not know about versions. */
static PyObject *ask_for_capsule(PyObject *object, PyObject *stream)
{
    PyObject *capsule = call_producer(object, stream, true);
    if (capsule || !PyErr_ExceptionMatches(PyExc_TypeError))
        return capsule;
    PyErr_Clear();
    return call_producer(object, stream, false);
}

static int take_capsule(PyObject *capsule, const char *name, ct_device_id device, ct_tensor **out)
{
    int result = -1;
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        DLManagedTensorVersioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        result = ct_check(ct_dlpack_import_versioned(out, managed, device));
        if (result == 0)
            PyCapsule_SetName(capsule, "used_dltensor_versioned");
    } else if (PyCapsule_IsValid(capsule, "dltensor")) {
        DLManagedTensor *managed = PyCapsule_GetPointer(capsule, "dltensor");
        result = ct_check(ct_dlpack_import(out, managed, device));
        if (result == 0)
            PyCapsule_SetName(capsule, "used_dltensor");
    } else {
        PyErr_Format(PyExc_TypeError, "%s.__dlpack__() did not return a DLPack capsule", name);
    }
    return result;
}

int ct_import_dlpack(PyObject *object, const char *name, ct_tensor **out)
{
    ct_device_id device;
    PyObject *stream;
    ct_tensor *taken = NULL;
    *out = NULL;
    if (announced_device(object, &device) < 0 || own_stream(device, &stream) < 0)
        return -1;
    PyObject *capsule = ask_for_capsule(object, stream);
    int result = capsule ? take_capsule(capsule, name, device, &taken) : -1;
    Py_XDECREF(stream);
    Py_XDECREF(capsule);
    if (result < 0 || device.kind == CT_DEVICE_CPU) {
        *out = taken;
        return result;
    }
    result = ct_check(ct_tensor_borrow(out, taken));
    ct_tensor_unref(&taken);
    return result;
}

/* ---- other devices ---- */

ct_status ct_move_tensor(ct_tensor **out, const ct_tensor *tensor, ct_device_id device)
{
    ct_device_id own = tensor->storage->device;
    ct_status status;
    if (ct_same_device(own, device)) /* nothing to wait for */
        return ct_tensor_to_device(out, tensor, device);
    Py_BEGIN_ALLOW_THREADS status = ct_tensor_to_device(out, tensor, device);
    Py_END_ALLOW_THREADS return status;
}

ct_status ct_copy_tensor(ct_tensor **out, const ct_tensor *tensor)
{
    ct_status status;
    Py_BEGIN_ALLOW_THREADS status = ct_tensor_copy(out, tensor);
    Py_END_ALLOW_THREADS return status;
}
