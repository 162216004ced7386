/* TransferPool: HTTP transfers that run without the GIL. What to do about an answer is Python's. */
#include "python/state.h"

#include <stdatomic.h>
#include <string.h>

#include "core/memory.h"
#include "net/transfer.h"
#include "python/errors.h"
#include "python/signals.h"

typedef struct pool_object {
    PyObject_HEAD ct_transfers *transfers;
    atomic_flag busy;
} pool_object;

static ct_transfers *transfers_of(PyObject *self)
{
    return ((pool_object *)self)->transfers;
}

/* A pool belongs to one thread at a time; 0 when this one has it now. */
static int enter(PyObject *self)
{
    if (!atomic_flag_test_and_set(&((pool_object *)self)->busy))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "this pool of transfers is in use by another thread");
    return -1;
}

static void leave(PyObject *self)
{
    atomic_flag_clear(&((pool_object *)self)->busy);
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, ":TransferPool", names))
        return NULL;
    pool_object *self = (pool_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    atomic_flag_clear(&self->busy);
    if (ct_check(ct_transfers_new(&self->transfers)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void pool_free(PyObject *self)
{
    ct_transfers_free(&((pool_object *)self)->transfers);
    ct_free_object(self);
}

/* ---- a request ---- */

/* *out [*n] borrows from the strings of `sequence`; the caller frees it. A line break would be a
 * header of its own. The value is not told: it may be a secret. */
static int as_headers(PyObject *sequence, const char ***out, size_t *n)
{
    *out = NULL;
    *n = (size_t)PyTuple_GET_SIZE(sequence);
    if (ct_check(ct_alloc_zeroed((void **)out, *n, sizeof **out)) < 0)
        return -1;
    for (size_t i = 0; i < *n; i++) {
        Py_ssize_t size;
        const char *text =
            PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(sequence, (Py_ssize_t)i), &size);
        if (!text)
            return -1;
        if (strpbrk(text, "\r\n") || strlen(text) != (size_t)size) {
            PyErr_Format(PyExc_ValueError, "header %zu holds a line break or a NUL", i);
            return -1;
        }
        (*out)[i] = text;
    }
    return 0;
}

/* None leaves all as it is. */
static int as_region(PyObject *object, const char *name, int *file, long long *first,
                     long long *second)
{
    if (object == Py_None)
        return 0;
    if (PyTuple_Check(object) && PyArg_ParseTuple(object, "iLL", file, first, second))
        return 0;
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s must be three integers, got %R", name, object);
    return -1;
}

static int64_t as_ms(double seconds)
{
    return seconds > 0 && seconds < 1e6 ? (int64_t)(seconds * 1000 + 0.5) : 0;
}

static PyObject *pool_add(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"method",        "url",          "headers",          "body",
                            "upload",        "output",       "fresh_connection", "connect_timeout",
                            "total_timeout", "idle_timeout", "ca_file",          NULL};
    int fresh_connection = 0;
    PyObject *headers, *upload = Py_None, *output = Py_None, *result = NULL;
    Py_buffer body = {0};
    double connect_timeout = 0, total_timeout = 0, idle_timeout = 0;
    long long upload_offset = 0, upload_size = 0, output_offset = 0, output_limit = -1;
    const char **lines = NULL;
    int64_t number;
    ct_transfer_request request = {.upload_file = -1, .output_file = -1};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ssO!|$z*OOpdddz:add", names, &request.method,
                                     &request.url, &PyTuple_Type, &headers, &body, &upload, &output,
                                     &fresh_connection, &connect_timeout, &total_timeout,
                                     &idle_timeout, &request.ca_file) ||
        enter(self) < 0)
        goto released;
    if (as_region(upload, "upload", &request.upload_file, &upload_offset, &upload_size) < 0 ||
        as_region(output, "output", &request.output_file, &output_offset, &output_limit) < 0 ||
        as_headers(headers, &lines, &request.n_headers) < 0)
        goto done;
    request.headers = lines;
    request.fresh_connection = fresh_connection;
    request.body = body.buf;
    request.body_size = (size_t)body.len;
    request.upload_offset = upload_offset;
    request.upload_size = upload_size;
    request.output_offset = output_offset;
    request.output_limit = output_limit;
    request.connect_timeout_ms = as_ms(connect_timeout);
    request.total_timeout_ms = as_ms(total_timeout);
    request.idle_timeout_ms = as_ms(idle_timeout);
    if (ct_check(ct_transfers_add(transfers_of(self), &request, &number)) == 0)
        result = PyLong_FromLongLong(number);
done:
    leave(self);
    ct_free(&lines);
released:
    if (body.obj)
        PyBuffer_Release(&body);
    return result;
}

/* ---- answers ---- */

/* (number, status, code, refusal, errno, message, header, body, position) */
static PyObject *as_answer(const ct_transfer *transfer)
{
    static const char *const refusals[] = {"", "file", "range", "length", "header", "memory"};
    const ct_sink *sink = &transfer->sink;
    return Py_BuildValue(
        "(Lliziyy#y#L)", (long long)transfer->number, transfer->http_status, transfer->code,
        refusals[sink->refusal], sink->file_errno, transfer->message,
        transfer->header.lines.data ? transfer->header.lines.data : "",
        (Py_ssize_t)transfer->header.lines.size, sink->memory.data ? sink->memory.data : "",
        (Py_ssize_t)sink->memory.size, (long long)sink->position);
}

static PyObject *pool_run(PyObject *self, PyObject *timeout)
{
    double seconds = PyFloat_AsDouble(timeout);
    int64_t last_ms;
    ct_poll poll = ct_signal_poll(&last_ms);
    ct_transfers *transfers = transfers_of(self);
    ct_status status;
    if ((seconds == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    PyObject *list = NULL;
    Py_BEGIN_ALLOW_THREADS status = ct_transfers_run(transfers, as_ms(seconds), poll);
    Py_END_ALLOW_THREADS if (ct_check(status) == 0) list = PyList_New(0);
    for (ct_transfer *done; list && (done = ct_transfers_take_done(transfers));) {
        PyObject *answer = as_answer(done);
        ct_transfer_free(&done);
        if (!answer || PyList_Append(list, answer) < 0)
            Py_CLEAR(list);
        Py_XDECREF(answer);
    }
    leave(self);
    return list;
}

static PyObject *pool_progress(PyObject *self, PyObject *argument)
{
    long long number = PyLong_AsLongLong(argument);
    if ((number == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    const ct_transfer *it = ct_transfers_find(transfers_of(self), number);
    long long position = it ? it->sink.position : -1, sent = it ? it->sent : -1;
    leave(self);
    if (!it)
        return PyErr_Format(PyExc_ValueError, "transfer %lld is not active", number);
    return Py_BuildValue("(LL)", position, sent);
}

static PyObject *pool_cancel(PyObject *self, PyObject *argument)
{
    long long number = PyLong_AsLongLong(argument);
    if ((number == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    ct_transfers_cancel(transfers_of(self), number);
    leave(self);
    Py_RETURN_NONE;
}

static PyObject *pool_ca_file(PyObject *self, void *closure)
{
    (void)closure;
    char path[4096];
    const char *found = ct_transfers_ca_file(transfers_of(self), path, sizeof path);
    return found ? PyUnicode_DecodeFSDefault(found) : Py_NewRef(Py_None);
}

static PyGetSetDef pool_getters[] = {
    {"ca_file", pool_ca_file, NULL, NULL, NULL},
    {0},
};

static PyMethodDef pool_methods[] = {
    {"add", (PyCFunction)(void (*)(void))pool_add, METH_VARARGS | METH_KEYWORDS,
     "Starts a transfer and returns its number."},
    {"run", pool_run, METH_O, "run(timeout): answers of those that are done"},
    {"progress", pool_progress, METH_O, "progress(number): (position in the file, bytes sent)"},
    {"cancel", pool_cancel, METH_O, "cancel(number)"},
    {0},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_new, pool_new},
    {Py_tp_dealloc, pool_free},
    {Py_tp_getset, pool_getters},
    {Py_tp_methods, pool_methods},
    {Py_tp_doc, "TransferPool()\n--\n\nHTTP transfers over connections that are kept."},
    {0, NULL},
};

PyType_Spec ct_transfer_pool_spec = {
    .name = "curated_transformers._core.TransferPool",
    .basicsize = sizeof(pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};
