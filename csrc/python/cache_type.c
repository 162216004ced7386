/* Cache: a snapshot of a batch's keys and values, made by a call or from arrays. */
#include "python/state.h"

#include "core/memory.h"
#include "python/convert.h"
#include "python/errors.h"

static ct_cache_object *cache_of(PyObject *self)
{
    return (ct_cache_object *)self;
}

PyObject *ct_wrap_cache(ct_state *state, ct_kv_cache *taken, int64_t n_layers)
{
    ct_cache_object *self = (ct_cache_object *)state->cache->tp_alloc(state->cache, 0);
    if (!self) {
        ct_kv_cache_unref(&taken);
        return NULL;
    }
    self->cache = taken;
    self->n_layers = n_layers;
    return (PyObject *)self;
}

/* ---- from arrays ---- */

typedef struct tensor_list {
    ct_tensor **tensors;
    int64_t n;
} tensor_list;

static void drop_list(tensor_list *list)
{
    for (int64_t i = 0; i < list->n; i++)
        ct_tensor_unref(&list->tensors[i]);
    ct_free(&list->tensors);
}

/* The tensors of a sequence; what was converted before a failure is to be dropped, too. */
static int as_list(ct_state *state, PyObject *object, const char *name, tensor_list *out)
{
    PyObject *items = PySequence_Fast(object, "");
    if (!items) {
        PyErr_Format(PyExc_TypeError, "%s must be a sequence of tensors, got %s", name,
                     Py_TYPE(object)->tp_name);
        return -1;
    }
    Py_ssize_t n = PySequence_Fast_GET_SIZE(items);
    int result = ct_check(ct_alloc_zeroed((void **)&out->tensors, (size_t)n, sizeof(ct_tensor *)));
    /* Converting may run Python code, which may change a list. */
    while (result == 0 && out->n < n && out->n < PySequence_Fast_GET_SIZE(items)) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, out->n));
        result = ct_as_any_tensor(state, item, name, &out->tensors[out->n++]);
        Py_DECREF(item);
    }
    Py_DECREF(items);
    return result;
}

static PyObject *make_cache(ct_state *state, ct_model *model, const tensor_list *keys,
                            const tensor_list *values, const ct_tensor *mask)
{
    const ct_spec *spec = &model->weights.spec;
    ct_kv_cache *cache;
    ct_status status;
    if (!model->pool)
        return PyErr_Format(PyExc_ValueError, "this model is not causal; it has no cache");
    Py_BEGIN_ALLOW_THREADS status = ct_kv_cache_from_arrays(
        &cache, model->pool, keys->tensors, keys->n, values->tensors, values->n, mask);
    Py_END_ALLOW_THREADS if (status != CT_OK) return ct_raise(status);
    return ct_wrap_cache(state, cache, spec->n_layers * spec->layers_per_group);
}

static PyObject *cache_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"model", "keys", "values", "mask", NULL};
    PyObject *model, *keys_object, *values_object, *mask_object = Py_None, *result = NULL;
    ct_state *state = PyType_GetModuleState(type);
    tensor_list keys = {0}, values = {0};
    ct_tensor *mask = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!OO|O:Cache", names, state->model, &model,
                                     &keys_object, &values_object, &mask_object))
        return NULL;
    if (as_list(state, keys_object, "keys", &keys) == 0 &&
        as_list(state, values_object, "values", &values) == 0 &&
        ct_as_optional_tensor(state, mask_object, "mask", &mask) == 0)
        result = make_cache(state, ((ct_model_object *)model)->model, &keys, &values, mask);
    drop_list(&keys);
    drop_list(&values);
    ct_tensor_unref(&mask);
    return result;
}

static void cache_free(PyObject *self)
{
    ct_kv_cache_unref(&cache_of(self)->cache);
    ct_free_object(self);
}

static PyObject *cache_n_layers(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(cache_of(self)->n_layers);
}

static PyObject *cache_n_sequences(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(cache_of(self)->cache->n_sequences);
}

static PyObject *cache_n_columns(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLongLong(cache_of(self)->cache->columns->shape[1]);
}

static PyObject *read_layer(PyObject *self, PyObject *layer, bool values)
{
    long long index = PyLong_AsLongLong(layer);
    ct_tensor *tensor;
    if (index == -1 && PyErr_Occurred())
        return NULL;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS status = ct_kv_cache_read(&tensor, cache_of(self)->cache, index, values);
    Py_END_ALLOW_THREADS return status == CT_OK ? ct_wrap_tensor(ct_state_of(self), tensor)
                                                : ct_raise(status);
}

static PyObject *cache_key(PyObject *self, PyObject *layer)
{
    return read_layer(self, layer, false);
}

static PyObject *cache_value(PyObject *self, PyObject *layer)
{
    return read_layer(self, layer, true);
}

static PyObject *cache_select(PyObject *self, PyObject *rows_object)
{
    ct_tensor *given, *rows;
    ct_kv_cache *selected;
    if (ct_as_tensor(ct_state_of(self), rows_object, "rows", &given) < 0)
        return NULL;
    ct_status status = ct_tensor_convert(&rows, given, CT_I64);
    ct_tensor_unref(&given);
    if (ct_check(status) < 0)
        return NULL;
    status = ct_kv_cache_select(&selected, cache_of(self)->cache, ct_tensor_data(rows),
                                ct_tensor_size(rows));
    ct_tensor_unref(&rows);
    if (ct_check(status) < 0)
        return NULL;
    return ct_wrap_cache(ct_state_of(self), selected, cache_of(self)->n_layers);
}

static PyGetSetDef cache_getters[] = {
    {"n_layers", cache_n_layers, NULL, NULL, NULL},
    {"n_sequences", cache_n_sequences, NULL, NULL, NULL},
    {"n_columns", cache_n_columns, NULL, NULL, NULL},
    {0},
};

static PyMethodDef cache_methods[] = {
    {"key", cache_key, METH_O, "key(layer): [batch, kv_heads, columns, head_width]"},
    {"value", cache_value, METH_O, "value(layer): [batch, kv_heads, columns, head_width]"},
    {"select", cache_select, METH_O, "select(rows): the cache of these sequences"},
    {0},
};

static PyType_Slot cache_slots[] = {
    {Py_tp_new, cache_new},
    {Py_tp_dealloc, cache_free},
    {Py_tp_getset, cache_getters},
    {Py_tp_methods, cache_methods},
    {Py_tp_doc, "Cache(model, keys, values, mask=None)\n--\n\nA batch's keys and values."},
    {0, NULL},
};

PyType_Spec ct_cache_spec = {
    .name = "curated_transformers._core.Cache",
    .basicsize = sizeof(ct_cache_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = cache_slots,
};
