/* ForwardResult: what a call computed, packed; a hidden state is padded when it is read. */
#include "python/state.h"

#include "python/errors.h"

typedef struct result_object {
    PyObject_HEAD ct_model *model;
    ct_batch batch;
    ct_tensor *hidden, *logits; /* packed; NULL where not asked for */
    PyObject *cache;            /* or NULL */
} result_object;

static result_object *result_of(PyObject *self)
{
    return (result_object *)self;
}

PyObject *ct_wrap_result(ct_state *state, ct_model *model, ct_batch *taken, ct_tensor *hidden,
                         ct_tensor *logits, ct_kv_cache *cache)
{
    const ct_spec *spec = &model->weights.spec;
    result_object *self = (result_object *)state->result->tp_alloc(state->result, 0);
    if (!self) {
        ct_batch_clear(taken);
        ct_tensor_unref(&hidden);
        ct_tensor_unref(&logits);
        ct_kv_cache_unref(&cache);
        return NULL;
    }
    self->model = ct_model_ref(model);
    self->batch = *taken;
    self->hidden = hidden;
    self->logits = logits;
    if (cache) {
        self->cache = ct_wrap_cache(state, cache, spec->n_layers * spec->layers_per_group);
        if (!self->cache)
            Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void result_free(PyObject *object)
{
    result_object *self = result_of(object);
    ct_batch_clear(&self->batch);
    ct_tensor_unref(&self->hidden);
    ct_tensor_unref(&self->logits);
    Py_XDECREF(self->cache);
    ct_model_unref(&self->model);
    ct_free_object(object);
}

static PyObject *scatter(PyObject *object, ct_tensor *rows)
{
    result_object *self = result_of(object);
    ct_tensor *padded;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS status =
        ct_batch_scatter(&padded, &self->batch, rows, (ct_dtype)self->model->weights.spec.dtype);
    Py_END_ALLOW_THREADS return status == CT_OK ? ct_wrap_tensor(ct_state_of(object), padded)
                                                : ct_raise(status);
}

static PyObject *result_n_hidden(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(result_of(self)->hidden ? result_of(self)->hidden->shape[0] : 0);
}

static PyObject *result_cache(PyObject *self, void *closure)
{
    (void)closure;
    return Py_NewRef(result_of(self)->cache ? result_of(self)->cache : Py_None);
}

/* The packed rows of a hidden state; NULL with an exception. */
static ct_tensor *select_hidden(PyObject *self, long long index)
{
    ct_tensor *rows;
    if (!result_of(self)->hidden) {
        PyErr_SetString(PyExc_IndexError, "no hidden states were kept");
        return NULL;
    }
    return ct_check(ct_tensor_select(&rows, result_of(self)->hidden, 0, index)) < 0 ? NULL : rows;
}

static PyObject *result_hidden(PyObject *self, PyObject *index_object)
{
    long long index = PyLong_AsLongLong(index_object);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    ct_tensor *rows = select_hidden(self, index);
    if (!rows)
        return NULL;
    PyObject *padded = scatter(self, rows);
    ct_tensor_unref(&rows);
    return padded;
}

static int parse_kind(const char *text, ct_pool_kind *out)
{
    static const char *const names[] = {"mean", "cls", "max"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = (ct_pool_kind)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "kind must be \"mean\", \"cls\" or \"max\", was: %s", text);
    return -1;
}

static PyObject *result_pooled(PyObject *object, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"index", "kind", NULL};
    result_object *self = result_of(object);
    long long index;
    const char *text;
    ct_pool_kind kind;
    ct_tensor *pooled;
    ct_status status;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "Ls:pooled", names, &index, &text) ||
        parse_kind(text, &kind) < 0)
        return NULL;
    ct_tensor *rows = select_hidden(object, index);
    if (!rows)
        return NULL;
    Py_BEGIN_ALLOW_THREADS status = ct_batch_pool(&pooled, &self->batch, rows, kind);
    Py_END_ALLOW_THREADS ct_tensor_unref(&rows);
    return status == CT_OK ? ct_wrap_tensor(ct_state_of(object), pooled) : ct_raise(status);
}

static PyObject *result_logits(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (!result_of(self)->logits)
        Py_RETURN_NONE;
    return scatter(self, result_of(self)->logits);
}

static PyGetSetDef result_getters[] = {
    {"n_hidden", result_n_hidden, NULL, NULL, NULL},
    {"cache", result_cache, NULL, NULL, NULL},
    {0},
};

static PyMethodDef result_methods[] = {
    {"hidden", result_hidden, METH_O, "hidden(index): [batch, seq, width]"},
    {"pooled", (PyCFunction)(void (*)(void))result_pooled, METH_VARARGS | METH_KEYWORDS,
     "pooled(index, kind): [batch, width]"},
    {"logits", result_logits, METH_NOARGS, "[batch, seq, pieces] or None"},
    {0},
};

static PyType_Slot result_slots[] = {
    {Py_tp_dealloc, result_free},
    {Py_tp_getset, result_getters},
    {Py_tp_methods, result_methods},
    {0, NULL},
};

PyType_Spec ct_result_spec = {
    .name = "curated_transformers._core.ForwardResult",
    .basicsize = sizeof(result_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = result_slots,
};
