/* Cache: a snapshot of a batch's keys and values. */
#include "python/state.h"

#include <string.h>

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
    if (ct_check(ct_kv_cache_read(&tensor, cache_of(self)->cache, index, values)) < 0)
        return NULL;
    return ct_wrap_tensor(ct_state_of(self), tensor);
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
    {Py_tp_dealloc, cache_free},
    {Py_tp_getset, cache_getters},
    {Py_tp_methods, cache_methods},
    {0, NULL},
};

PyType_Spec ct_cache_spec = {
    .name = "curated_transformers._core.Cache",
    .basicsize = sizeof(ct_cache_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = cache_slots,
};
