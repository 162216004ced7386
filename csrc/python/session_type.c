/* Session: the generation loop. Steps run without the GIL; between them signals are looked at. */
#include "python/state.h"

#include <stdatomic.h>

#include "generation/session.h"
#include "python/convert.h"
#include "python/errors.h"
#include "python/signals.h"

typedef struct session_object {
    PyObject_HEAD ct_session *session;
    PyObject *kept; /* events of a call that failed afterwards, or NULL */
    atomic_flag busy;
} session_object;

static session_object *session_of(PyObject *self)
{
    return (session_object *)self;
}

/* A session belongs to one thread at a time; 0 when this one has it now. */
static int enter(PyObject *self)
{
    if (!atomic_flag_test_and_set(&session_of(self)->busy))
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "this session is in use by another thread");
    return -1;
}

static void leave(PyObject *self)
{
    atomic_flag_clear(&session_of(self)->busy);
}

static PyObject *session_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"model", "max_slots", "max_batch_tokens", "max_cache_tokens", NULL};
    PyObject *model;
    long long max_slots = 0, max_batch_tokens = 0, max_cache_tokens = 0;
    ct_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!|$LLL:Session", names, state->model, &model,
                                     &max_slots, &max_batch_tokens, &max_cache_tokens))
        return NULL;
    session_object *self = (session_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    atomic_flag_clear(&self->busy);
    ct_session_config config = {max_slots, max_batch_tokens, max_cache_tokens};
    if (ct_check(ct_session_new(&self->session, ((ct_model_object *)model)->model, &config)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void session_free(PyObject *self)
{
    ct_session_free(&session_of(self)->session);
    Py_CLEAR(session_of(self)->kept);
    ct_free_object(self);
}

/* Ids are kept in 32 bits; what does not fit would become another id. */
static int check_range(const ct_tensor *ids, const char *name)
{
    for (int64_t i = 0; ids->dtype == CT_I64 && i < ids->shape[0]; i++) {
        int64_t id = ((const int64_t *)ct_tensor_data(ids))[i * ids->strides[0]];
        if (id == (int32_t)id)
            continue;
        PyErr_Format(PyExc_IndexError, "%s: %lld at [%lld] is no piece id", name, (long long)id,
                     (long long)i);
        return -1;
    }
    return 0;
}

/* A contiguous one-dimensional tensor of `dtype`. */
static int as_vector(PyObject *self, PyObject *object, const char *name, ct_dtype dtype,
                     ct_tensor **out)
{
    ct_tensor *given;
    *out = NULL;
    if (ct_as_tensor(ct_state_of(self), object, name, &given) < 0)
        return -1;
    int result = -1;
    if (given->n_dims != 1)
        PyErr_Format(PyExc_ValueError, "%s must be 1D, has %d dimensions", name, given->n_dims);
    else if (ct_tensor_size(given) == 0) /* an empty list has no useful type */
        result = ct_check(ct_tensor_new(out, dtype, 1, (int64_t[]){0}));
    else if (dtype != CT_I32 || check_range(given, name) == 0)
        result = ct_check(ct_tensor_convert(out, given, dtype));
    ct_tensor_unref(&given);
    return result;
}

static PyObject *session_add(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"ids", "temperature", "top_k",   "top_p",      "seed",
                            "row", "banned",      "eos_ids", "max_pieces", NULL};
    PyObject *ids_object, *banned_object = Py_None, *eos_object = NULL, *result = NULL;
    float temperature = 0, top_p = 1;
    int top_k = 0;
    unsigned long long seed = 0, row = 0;
    long long max_pieces = 0;
    ct_tensor *ids = NULL, *banned = NULL, *eos = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$fifKKOOL:add", names, &ids_object,
                                     &temperature, &top_k, &top_p, &seed, &row, &banned_object,
                                     &eos_object, &max_pieces) ||
        enter(self) < 0)
        return NULL;
    if (as_vector(self, ids_object, "ids", CT_I32, &ids) < 0 ||
        (banned_object != Py_None &&
         as_vector(self, banned_object, "banned", CT_BOOL, &banned) < 0) ||
        (eos_object && as_vector(self, eos_object, "eos_ids", CT_I32, &eos) < 0))
        goto done;
    ct_request request = {
        .prompt = ct_tensor_data(ids),
        .n_prompt = ct_tensor_size(ids),
        .sampling = {.temperature = temperature,
                     .top_k = top_k,
                     .top_p = top_p,
                     .seed = seed,
                     .row = row,
                     .banned = banned ? ct_tensor_data(banned) : NULL},
        .n_banned = banned ? ct_tensor_size(banned) : 0,
        .eos_ids = eos ? ct_tensor_data(eos) : NULL,
        .n_eos = eos ? ct_tensor_size(eos) : 0,
        .max_pieces = max_pieces,
    };
    int64_t number;
    if (ct_check(ct_session_add(session_of(self)->session, &request, &number)) == 0)
        result = PyLong_FromLongLong(number);
done:
    ct_tensor_unref(&ids);
    ct_tensor_unref(&banned);
    ct_tensor_unref(&eos);
    leave(self);
    return result;
}

static int append_events(PyObject *list, const ct_event *events, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        PyObject *event = Py_BuildValue("(Lii)", (long long)events[i].sequence, events[i].piece,
                                        (int)events[i].finish);
        if (!event || PyList_Append(list, event) < 0) {
            Py_XDECREF(event);
            return -1;
        }
        Py_DECREF(event);
    }
    return 0;
}

/* The events of the steps that succeeded before a failure come with the next call. */
static PyObject *session_run(PyObject *self, PyObject *args)
{
    long long max_steps = -1;
    int64_t last_ms, n_events;
    ct_poll poll = ct_signal_poll(&last_ms);
    ct_session *session = session_of(self)->session;
    if (!PyArg_ParseTuple(args, "|L:run", &max_steps) || enter(self) < 0)
        return NULL;
    PyObject *list = session_of(self)->kept;
    session_of(self)->kept = NULL;
    if (!list)
        list = PyList_New(0);
    for (long long step = 0; list && !ct_session_is_done(session) && step != max_steps; step++) {
        const ct_event *events;
        ct_status status;
        Py_BEGIN_ALLOW_THREADS status = ct_session_step(session, poll, &events, &n_events);
        Py_END_ALLOW_THREADS if (ct_check(status) == 0 &&
                                 append_events(list, events, n_events) == 0 &&
                                 PyErr_CheckSignals() == 0) continue;
        session_of(self)->kept = list;
        list = NULL;
    }
    leave(self);
    return list;
}

static PyObject *session_cancel(PyObject *self, PyObject *number)
{
    long long sequence = PyLong_AsLongLong(number);
    if ((sequence == -1 && PyErr_Occurred()) || enter(self) < 0)
        return NULL;
    ct_session_cancel(session_of(self)->session, sequence);
    leave(self);
    Py_RETURN_NONE;
}

static PyObject *session_is_done(PyObject *self, void *closure)
{
    (void)closure;
    const session_object *session = session_of(self);
    return PyBool_FromLong(!session->kept && ct_session_is_done(session->session));
}

static PyGetSetDef session_getters[] = {
    {"is_done", session_is_done, NULL, NULL, NULL},
    {0},
};

static PyMethodDef session_methods[] = {
    {"add", (PyCFunction)(void (*)(void))session_add, METH_VARARGS | METH_KEYWORDS,
     "Queues a prompt and returns its number."},
    {"run", session_run, METH_VARARGS, "run(max_steps=-1): events (sequence, piece, finish)"},
    {"cancel", session_cancel, METH_O, "cancel(sequence)"},
    {0},
};

static PyType_Slot session_slots[] = {
    {Py_tp_new, session_new},
    {Py_tp_dealloc, session_free},
    {Py_tp_getset, session_getters},
    {Py_tp_methods, session_methods},
    {Py_tp_doc, "Session(model, *, max_slots=0, max_batch_tokens=0, max_cache_tokens=0)\n--\n\n"
                "The generation loop; 0: by the memory of the machine."},
    {0, NULL},
};

PyType_Spec ct_session_spec = {
    .name = "curated_transformers._core.Session",
    .basicsize = sizeof(session_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = session_slots,
};
