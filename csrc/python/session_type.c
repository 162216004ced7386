/* Session: the generation loop. Steps run without the GIL; between them signals are looked at. */
#include "python/state.h"

#include <math.h>
#include <stdatomic.h>

#include "generation/session.h"
#include "python/convert.h"
#include "python/errors.h"
#include "python/session_hook.h"
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
    static char *names[] = {"ids",
                            "temperature",
                            "top_k",
                            "top_p",
                            "min_p",
                            "repetition_penalty",
                            "presence_penalty",
                            "frequency_penalty",
                            "seed",
                            "row",
                            "banned",
                            "bad_words",
                            "eos_ids",
                            "max_pieces",
                            "logprobs",
                            NULL};
    PyObject *ids_object, *objects[3] = {NULL}, *result = NULL;
    unsigned long long seed = 0, row = 0;
    long long max_pieces = 0;
    int logprobs = -1;
    ct_request request = {.sampling = {.top_p = 1}};
    ct_sampling *sampling = &request.sampling;
    ct_tensor *ids = NULL, *lists[3] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "O|$fifffffKKOOOLi:add", names, &ids_object, &sampling->temperature,
            &sampling->top_k, &sampling->top_p, &sampling->min_p, &sampling->repetition_penalty,
            &sampling->presence_penalty, &sampling->frequency_penalty, &seed, &row, &objects[0],
            &objects[1], &objects[2], &max_pieces, &logprobs) ||
        enter(self) < 0)
        return NULL;
    if (as_vector(self, ids_object, "ids", CT_I32, &ids) < 0)
        goto done;
    request.prompt = ct_tensor_data(ids);
    request.n_prompt = ct_tensor_size(ids);
    struct {
        const char *name;
        const int32_t **ids;
        int64_t *n;
    } places[] = {
        {"banned", &sampling->banned, &sampling->n_banned},
        {"bad_words", &sampling->bad_words, &sampling->n_bad_words},
        {"eos_ids", &request.eos_ids, &request.n_eos},
    };
    for (int i = 0; i < 3; i++) {
        if (!objects[i])
            continue;
        if (as_vector(self, objects[i], places[i].name, CT_I32, &lists[i]) < 0)
            goto done;
        *places[i].ids = ct_tensor_data(lists[i]);
        *places[i].n = ct_tensor_size(lists[i]);
    }
    sampling->seed = seed;
    sampling->row = row;
    sampling->logprobs = logprobs >= 0;
    sampling->n_top = logprobs > 0 ? logprobs : 0;
    request.max_pieces = max_pieces;
    int64_t number;
    if (ct_check(ct_session_add(session_of(self)->session, &request, &number)) == 0)
        result = PyLong_FromLongLong(number);
done:
    ct_tensor_unref(&ids);
    for (int i = 0; i < 3; i++)
        ct_tensor_unref(&lists[i]);
    leave(self);
    return result;
}

/* ---- events ---- */

static PyStructSequence_Field event_fields[] = {
    {"sequence", "the number that add gave"},
    {"piece", "the new piece, or -1 when only the end is told"},
    {"finish", "why the sequence ended, or FINISH_NONE"},
    {"logprob", "of the piece, or None"},
    {"top", "pairs (piece, logprob) of the most probable pieces"},
    {0},
};

/* A tuple of the first three, so that who wants no more can unpack it. */
PyStructSequence_Desc ct_event_desc = {
    .name = "curated_transformers._core.Event",
    .doc = "What happened to one sequence in one step.",
    .fields = event_fields,
    .n_in_sequence = 3,
};

static PyObject *top_of(const ct_event *event)
{
    int64_t n = 0;
    while (n < event->n_top && event->top[n].piece >= 0)
        n++;
    PyObject *top = PyTuple_New(n);
    for (int64_t i = 0; top && i < n; i++) {
        PyObject *pair = Py_BuildValue("(if)", event->top[i].piece, event->top[i].logprob);
        if (!pair)
            Py_CLEAR(top);
        else
            PyTuple_SET_ITEM(top, i, pair);
    }
    return top;
}

static PyObject *new_event(ct_state *state, const ct_event *event)
{
    PyObject *members[] = {
        PyLong_FromLongLong(event->sequence),
        PyLong_FromLong(event->piece),
        PyLong_FromLong(event->finish),
        isnan(event->logprob) ? Py_NewRef(Py_None) : PyFloat_FromDouble(event->logprob),
        top_of(event),
    };
    PyObject *result = PyStructSequence_New(state->event);
    bool complete = result != NULL;
    for (int i = 0; i < 5; i++) {
        complete = complete && members[i];
        if (result)
            PyStructSequence_SetItem(result, i, members[i]);
        else
            Py_XDECREF(members[i]);
    }
    if (!complete)
        Py_CLEAR(result);
    return result;
}

static int append_events(ct_state *state, PyObject *list, const ct_event *events, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        PyObject *event = new_event(state, &events[i]);
        if (!event || PyList_Append(list, event) < 0) {
            Py_XDECREF(event);
            return -1;
        }
        Py_DECREF(event);
    }
    return 0;
}

static PyObject *session_run(PyObject *self, PyObject *args)
{
    long long max_steps = -1;
    int64_t last_ms, n_events;
    ct_poll poll = ct_signal_poll(&last_ms);
    ct_session *session = session_of(self)->session;
    PyObject *hook = NULL;
    if (!PyArg_ParseTuple(args, "|LO:run", &max_steps, &hook) || enter(self) < 0)
        return NULL;
    ct_session_set_hook(session, ct_python_hook(hook));
    PyObject *list = session_of(self)->kept;
    session_of(self)->kept = NULL;
    if (!list)
        list = PyList_New(0);
    for (long long step = 0; list && !ct_session_is_done(session) && step != max_steps; step++) {
        const ct_event *events;
        ct_status status;
        Py_BEGIN_ALLOW_THREADS status = ct_session_step(session, poll, &events, &n_events);
        Py_END_ALLOW_THREADS if (ct_check(status) == 0 &&
                                 append_events(ct_state_of(self), list, events, n_events) == 0 &&
                                 PyErr_CheckSignals() == 0) continue;
        session_of(self)->kept = list;
        list = NULL;
    }
    ct_session_set_hook(session, (ct_logits_hook){0});
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
    {"run", session_run, METH_VARARGS, "run(max_steps=-1, hook=None): the events of the steps"},
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
