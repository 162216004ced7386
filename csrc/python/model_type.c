/* Model: a spec, its weights by role, and calls. */
#include "python/state.h"

#include <string.h>

#include "core/memory.h"

#include "python/convert.h"
#include "python/errors.h"
#include "python/exchange.h"
#include "python/signals.h"

static ct_model *model_of(PyObject *self)
{
    return ((ct_model_object *)self)->model;
}

static int spec_from_mapping(PyObject *mapping, ct_spec *spec)
{
    PyObject *items = PyMapping_Items(mapping);
    ct_spec_init(spec);
    int result = items ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(items); i++) {
        const char *name;
        double value;
        result = PyArg_ParseTuple(PyList_GET_ITEM(items, i), "sd", &name, &value)
                     ? ct_check(ct_spec_set(spec, name, value))
                     : -1;
    }
    Py_XDECREF(items);
    return result;
}

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"spec", "device", NULL};
    PyObject *mapping, *device_object = Py_None;
    ct_device_id device;
    ct_spec spec;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:Model", names, &mapping,
                                     &device_object) ||
        ct_as_device(PyType_GetModuleState(type), device_object, &device) < 0 ||
        spec_from_mapping(mapping, &spec) < 0)
        return NULL;
    ct_model_object *self = (ct_model_object *)type->tp_alloc(type, 0);
    if (self && ct_check(ct_model_new(&self->model, &spec, device)) < 0)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void model_free(PyObject *self)
{
    ct_model_unref(&((ct_model_object *)self)->model);
    ct_free_object(self);
}

static PyObject *model_device(PyObject *self, void *closure)
{
    (void)closure;
    return ct_wrap_device(ct_state_of(self), model_of(self)->device);
}

/* In the model's memory, or else the host's. */
static int as_weight(ct_state *state, ct_device_id device, PyObject *object, ct_tensor **out)
{
    ct_tensor *given;
    *out = NULL;
    if (ct_as_any_tensor(state, object, "tensor", &given) < 0)
        return -1;
    bool there = ct_same_device(given->storage->device, device);
    ct_status status =
        ct_move_tensor(out, given, there ? device : (ct_device_id){CT_DEVICE_CPU, 0});
    ct_tensor_unref(&given);
    return ct_check(status);
}

static PyObject *model_set_weight(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"role", "tensor", "layer", "source", NULL};
    const char *role, *source = "";
    long long layer = -1;
    PyObject *object;
    ct_tensor *tensor;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "sO|$Ls:set_weight", names, &role, &object,
                                     &layer, &source))
        return NULL;
    if (model_of(self)->ready)
        return PyErr_Format(PyExc_RuntimeError, "the model's weights are complete already");
    if (as_weight(ct_state_of(self), model_of(self)->device, object, &tensor) < 0)
        return NULL;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS status =
        ct_weights_set(&model_of(self)->weights, role, layer, tensor, source);
    Py_END_ALLOW_THREADS ct_tensor_unref(&tensor);
    if (status != CT_OK)
        return ct_raise(status);
    Py_RETURN_NONE;
}

static PyObject *model_missing(PyObject *self, PyObject *unused)
{
    (void)unused;
    const ct_weights *weights = &model_of(self)->weights;
    PyObject *list = PyList_New(0);
    int64_t layer = -1;
    for (ct_role role = 0; list && ct_weights_next_missing(weights, &role, &layer); role++) {
        PyObject *item = Py_BuildValue("(sL)", ct_role_name(role), (long long)layer);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *model_finish(PyObject *self, PyObject *unused)
{
    (void)unused;
    ct_status status;
    Py_BEGIN_ALLOW_THREADS status = ct_model_finish(model_of(self));
    Py_END_ALLOW_THREADS if (status != CT_OK) return ct_raise(status);
    Py_RETURN_NONE;
}

/* ---- a call ---- */

typedef struct call_inputs {
    ct_tensor *ids, *mask, *positions, *types;
    ct_kv_cache *cache; /* borrowed */
} call_inputs;

static void drop_inputs(call_inputs *inputs)
{
    ct_tensor_unref(&inputs->ids);
    ct_tensor_unref(&inputs->mask);
    ct_tensor_unref(&inputs->positions);
    ct_tensor_unref(&inputs->types);
}

/* The sequences to append to: those of the cache, shared, or empty ones. */
static ct_status start_sequences(ct_model *model, const call_inputs *inputs, const ct_batch *batch,
                                 ct_kv_sequence **sequences, ct_kv_sequence ***pointers)
{
    CT_TRY(ct_alloc_zeroed((void **)sequences, (size_t)batch->n_sequences, sizeof **sequences));
    CT_TRY(ct_alloc_zeroed((void **)pointers, (size_t)batch->n_sequences, sizeof **pointers));
    for (int64_t i = 0; i < batch->n_sequences; i++) {
        (*pointers)[i] = &(*sequences)[i];
        if (inputs->cache)
            CT_TRY(ct_kv_sequence_share(&(*sequences)[i], &inputs->cache->sequences[i]));
        else
            ct_kv_sequence_init(&(*sequences)[i], model->pool);
    }
    return CT_OK;
}

static ct_status run_call(ct_model *model, const call_inputs *inputs, ct_forward_args *args,
                          bool store, ct_batch *batch, ct_tensor **hidden, ct_tensor **logits,
                          ct_kv_cache **cache)
{
    ct_status status = CT_OK;
    ct_kv_sequence *sequences = NULL, **pointers = NULL;
    ct_inputs given = {inputs->ids, inputs->mask, inputs->positions, inputs->types, inputs->cache};
    *cache = NULL;
    CT_TRY(ct_batch_pack(batch, &model->weights.spec, &given));
    args->batch = batch;
    if (store || inputs->cache) {
        if (inputs->cache && inputs->cache->sequences[0].pool != model->pool)
            CT_TRY_TO(done, ct_fail(CT_VALUE, "the cache is of another model"));
        if (!model->pool)
            CT_TRY_TO(done, ct_fail(CT_VALUE, "this model is not causal; it has no cache"));
        CT_TRY_TO(done, start_sequences(model, inputs, batch, &sequences, &pointers));
        args->sequences = pointers;
    }
    CT_TRY_TO(done, ct_model_forward(model, args, hidden, logits));
    if (store)
        CT_TRY_TO(done, ct_kv_cache_new(cache, pointers, batch->n_sequences, batch->columns));
done:
    for (int64_t i = 0; sequences && i < batch->n_sequences; i++)
        if (sequences[i].pool)
            ct_kv_sequence_clear(&sequences[i]);
    ct_free(&sequences);
    ct_free(&pointers);
    if (status != CT_OK) {
        ct_tensor_unref(hidden);
        ct_tensor_unref(logits);
        ct_batch_clear(batch);
    }
    return status;
}

static int parse_keep(const char *text, ct_keep *out)
{
    static const char *const names[] = {"none", "last", "all"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], text) == 0) {
            *out = (ct_keep)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "keep must be \"all\", \"last\" or \"none\", was: %s", text);
    return -1;
}

static int refuse_device(ct_state *state, const char *name, ct_device_id its, ct_device_id own)
{
    PyObject *its_text = ct_wrap_device(state, its), *own_text = ct_wrap_device(state, own);
    if (its_text && own_text)
        PyErr_Format(PyExc_ValueError, "%s is on device %S, but the model is on %S", name, its_text,
                     own_text);
    Py_XDECREF(its_text);
    Py_XDECREF(own_text);
    return -1;
}

/* Batches are packed on the host. What lies on a device that is not the model's is a mistake, as
 * with other libraries. */
static int as_input(ct_state *state, const ct_model *model, PyObject *object, const char *name,
                    ct_tensor **out)
{
    ct_tensor *given;
    *out = NULL;
    if (!object || object == Py_None)
        return 0;
    if (ct_as_any_tensor(state, object, name, &given) < 0)
        return -1;
    ct_device_id cpu = {CT_DEVICE_CPU, 0}, own = model->device, its = given->storage->device;
    bool fits = its.kind == CT_DEVICE_CPU || ct_same_device(its, own);
    int result =
        fits ? ct_check(ct_move_tensor(out, given, cpu)) : refuse_device(state, name, its, own);
    ct_tensor_unref(&given);
    return result;
}

static PyObject *model_forward(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"ids",         "mask",   "positions", "types", "cache",
                            "store_cache", "logits", "keep",      NULL};
    PyObject *ids, *mask = NULL, *positions = NULL, *types = NULL, *cache = Py_None;
    int store = 0, want_logits = 0;
    const char *keep = "all";
    ct_state *state = ct_state_of(self);
    ct_model *model = model_of(self);
    call_inputs inputs = {0};
    int64_t last_ms;
    ct_forward_args call = {.poll = ct_signal_poll(&last_ms)};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O$OOOpps:forward", names, &ids, &mask,
                                     &positions, &types, &cache, &store, &want_logits, &keep) ||
        parse_keep(keep, &call.keep) < 0)
        return NULL;
    if (!model->ready)
        return PyErr_Format(PyExc_RuntimeError,
                            "the model has no weights yet; load it with from_path "
                            "or from_hf_hub");
    if (cache != Py_None && !Py_IS_TYPE(cache, state->cache))
        return PyErr_Format(PyExc_TypeError, "cache must be a Cache or None, got %s",
                            Py_TYPE(cache)->tp_name);
    if (cache != Py_None)
        inputs.cache = ((ct_cache_object *)cache)->cache;
    call.logits = want_logits ? CT_LOGITS_ALL : CT_LOGITS_NONE;
    ct_batch batch;
    ct_tensor *hidden = NULL, *logits = NULL;
    ct_kv_cache *stored = NULL;
    ct_status status;
    if (as_input(state, model, ids, "piece_ids", &inputs.ids) < 0 ||
        as_input(state, model, mask, "attention_mask", &inputs.mask) < 0 ||
        as_input(state, model, positions, "positions", &inputs.positions) < 0 ||
        as_input(state, model, types, "type_ids", &inputs.types) < 0) {
        drop_inputs(&inputs);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS status =
        run_call(model, &inputs, &call, store, &batch, &hidden, &logits, &stored);
    Py_END_ALLOW_THREADS drop_inputs(&inputs);
    return status == CT_OK ? ct_wrap_result(state, model, &batch, hidden, logits, stored)
                           : ct_raise(status);
}

static PyGetSetDef model_getters[] = {
    {"device", model_device, NULL, NULL, NULL},
    {0},
};

#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef model_methods[] = {
    {"set_weight", KEYWORDS(model_set_weight), METH_VARARGS | METH_KEYWORDS,
     "set_weight(role, tensor, *, layer=-1, source=\"\")"},
    {"missing", model_missing, METH_NOARGS, "Pairs of role and layer of the weights not set yet."},
    {"finish", model_finish, METH_NOARGS, "Checks that no weight is missing and prepares them."},
    {"forward", KEYWORDS(model_forward), METH_VARARGS | METH_KEYWORDS, "Runs the model."},
    {0},
};

static PyType_Slot model_slots[] = {
    {Py_tp_new, model_new},
    {Py_tp_dealloc, model_free},
    {Py_tp_getset, model_getters},
    {Py_tp_methods, model_methods},
    {Py_tp_doc, "Model(spec, device=None)\n--\n\nA specification and its weights."},
    {0, NULL},
};

PyType_Spec ct_model_spec = {
    .name = "curated_transformers._core.Model",
    .basicsize = sizeof(ct_model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};
