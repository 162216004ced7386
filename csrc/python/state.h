/* What the module keeps: its types and interned names. No Python object is global in C. */
#ifndef CT_PYTHON_STATE_H
#define CT_PYTHON_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "core/status.h"
#include "model/model.h"
#include "tensor/tensor.h"

typedef struct ct_state {
    PyTypeObject *device, *tensor, *mapped_file, *model, *result, *cache, *session, *event,
        *transfer_pool;
    PyObject *dtype_names[CT_DTYPE_COUNT];
} ct_state;

/* The state from an object of one of our types (none can be subclassed). */
static inline ct_state *ct_state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

typedef struct ct_tensor_object {
    PyObject_HEAD ct_tensor *tensor;
} ct_tensor_object;

typedef struct ct_device_object {
    PyObject_HEAD ct_device_id id;
} ct_device_object;

typedef struct ct_model_object {
    PyObject_HEAD ct_model *model;
} ct_model_object;

typedef struct ct_cache_object {
    PyObject_HEAD ct_kv_cache *cache;
    int64_t n_layers;
} ct_cache_object;

/* One spec for each type, in the file named after it. */
extern PyType_Spec ct_device_spec, ct_tensor_spec, ct_mapped_file_spec, ct_model_spec,
    ct_result_spec, ct_cache_spec, ct_session_spec, ct_transfer_pool_spec;

/* What Session.run tells of; a named tuple. */
extern PyStructSequence_Desc ct_event_desc;

/* Wrap what they take; on failure it is released and NULL returned with an exception. */
PyObject *ct_wrap_tensor(ct_state *state, ct_tensor *taken);
PyObject *ct_wrap_device(ct_state *state, ct_device_id id);
PyObject *ct_wrap_cache(ct_state *state, ct_kv_cache *taken, int64_t n_layers);
PyObject *ct_wrap_result(ct_state *state, ct_model *model, ct_batch *taken, ct_tensor *hidden,
                         ct_tensor *logits, ct_kv_cache *cache);

/* Drops the object's type, too, as heap types must. */
static inline void ct_free_object(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

#endif
