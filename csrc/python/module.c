/* curated_transformers._core: types, constants, a few functions. Hands the CPU's operations to the
 * registry. */
#include "python/numpy_api.h"

#include "python/state.h"

#include "core/threads.h"
#include "cpu/device.h"
#include "cpu/onednn.h"
#include "generation/session.h"
#include "ops/device.h"
#include "ops/plugin.h"
#include "python/errors.h"
#include "python/quantization.h"

static PyObject *isa(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyUnicode_FromString(ct_cpu_isa_name());
}

static PyObject *has_onednn(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyBool_FromLong(ct_onednn_takes(CT_F32));
}

static PyObject *get_num_threads(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromLong(ct_threads_get());
}

static PyObject *set_num_threads(PyObject *self, PyObject *number)
{
    (void)self;
    long wide = PyLong_AsLong(number);
    int n = wide < INT_MIN ? INT_MIN : wide > INT_MAX ? INT_MAX : (int)wide;
    if ((wide == -1 && PyErr_Occurred()) || ct_check(ct_threads_set(n)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

#define KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef functions[] = {
    {"isa", isa, METH_NOARGS, "isa($module, /)\n--\n\nThe instruction set level in use."},
    {"has_onednn", has_onednn, METH_NOARGS,
     "has_onednn($module, /)\n--\n\nWhether large products go to oneDNN."},
    {"get_num_threads", get_num_threads, METH_NOARGS,
     "get_num_threads($module, /)\n--\n\nThreads that kernels use."},
    {"set_num_threads", set_num_threads, METH_O,
     "set_num_threads($module, n, /)\n--\n\nLets kernels use n threads, 1 to 1024."},
    {"quantize", KEYWORDS(ct_py_quantize), METH_VARARGS | METH_KEYWORDS,
     "quantize(matrix, dtype, *, nested=False)"},
    {"scaled_tensor", KEYWORDS(ct_py_scaled_tensor), METH_VARARGS | METH_KEYWORDS,
     "scaled_tensor(codes, dtype, shape, absmax, block, *, ...)"},
    {0},
};

/* ---- constants ---- */

static int add_names(PyObject *module, const char *name, const char *const *names, int n)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < n; i++) {
        PyObject *value = PyLong_FromLong(i);
        if (!value || PyDict_SetItemString(dict, names[i], value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    int result = dict ? PyModule_AddObjectRef(module, name, dict) : -1;
    Py_XDECREF(dict);
    return result;
}

static int add_roles(PyObject *module, const char *name, int first, int end)
{
    PyObject *tuple = PyTuple_New(end - first);
    for (int i = first; tuple && i < end; i++)
        PyTuple_SET_ITEM(tuple, i - first, PyUnicode_FromString(ct_role_name((ct_role)i)));
    if (tuple && PyErr_Occurred())
        Py_CLEAR(tuple);
    int result = tuple ? PyModule_AddObjectRef(module, name, tuple) : -1;
    Py_XDECREF(tuple);
    return result;
}

#define INT_DEFAULT(name, value) {#name, (double)(value), true},
#define FLOAT_DEFAULT(name, value) {#name, (value), false},
static int add_spec_defaults(PyObject *module)
{
    static const struct {
        const char *name;
        double value;
        bool is_int;
    } fields[] = {CT_SPEC_INTS(INT_DEFAULT) CT_SPEC_FLOATS(FLOAT_DEFAULT)};
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < sizeof fields / sizeof *fields; i++) {
        PyObject *value = fields[i].is_int ? PyLong_FromLong((long)fields[i].value)
                                           : PyFloat_FromDouble(fields[i].value);
        if (!value || PyDict_SetItemString(dict, fields[i].name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    int result = dict ? PyModule_AddObjectRef(module, "SPEC_DEFAULTS", dict) : -1;
    Py_XDECREF(dict);
    return result;
}

static int add_dtypes(PyObject *module, ct_state *state)
{
    const char *names[CT_DTYPE_COUNT];
    PyObject *blocks = PyDict_New();
    for (int i = 0; blocks && i < CT_DTYPE_COUNT; i++) {
        names[i] = ct_dtype_name((ct_dtype)i);
        state->dtype_names[i] = PyUnicode_InternFromString(names[i]);
        PyObject *pair = Py_BuildValue("(in)", ct_dtype_block_values((ct_dtype)i),
                                       (Py_ssize_t)ct_dtype_block_bytes((ct_dtype)i));
        if (!state->dtype_names[i] || !pair || PyDict_SetItemString(blocks, names[i], pair) < 0)
            Py_CLEAR(blocks);
        Py_XDECREF(pair);
    }
    int result = blocks ? PyModule_AddObjectRef(module, "DTYPE_BLOCKS", blocks) : -1;
    Py_XDECREF(blocks);
    return result < 0 ? result : add_names(module, "DTYPES", names, CT_DTYPE_COUNT);
}

static int add_constants(PyObject *module, ct_state *state)
{
    static const char *const activations[] = {"none", "relu", "gelu", "gelu_tanh", "silu"};
    static const char *const norms[] = {"layer", "rms"};
    static const char *const orders[] = {"concatenated", "grouped"};
    static const char *const qk_norms[] = {"none", "head", "all"};
    static const char *const rules[] = {"column", "skip_padding"};
    if (add_names(module, "ACTIVATIONS", activations, CT_ACT_COUNT) < 0 ||
        add_names(module, "NORMS", norms, 2) < 0 ||
        add_names(module, "QKV_ORDERS", orders, 2) < 0 ||
        add_names(module, "QK_NORMS", qk_norms, 3) < 0 ||
        add_names(module, "POSITION_RULES", rules, 2) < 0 || add_dtypes(module, state) < 0 ||
        add_spec_defaults(module) < 0 ||
        add_roles(module, "MODEL_ROLES", 0, CT_MODEL_ROLE_COUNT) < 0 ||
        add_roles(module, "LAYER_ROLES", CT_MODEL_ROLE_COUNT, CT_ROLE_COUNT) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "FINISH_NONE", CT_FINISH_NONE) < 0 ||
                   PyModule_AddIntConstant(module, "FINISH_EOS", CT_FINISH_EOS) < 0 ||
                   PyModule_AddIntConstant(module, "FINISH_LENGTH", CT_FINISH_LENGTH) < 0
               ? -1
               : 0;
}

/* ---- the module ---- */

static int add_types(PyObject *module, ct_state *state)
{
    struct {
        PyTypeObject **place;
        PyType_Spec *spec;
    } types[] = {
        {&state->device, &ct_device_spec},
        {&state->tensor, &ct_tensor_spec},
        {&state->mapped_file, &ct_mapped_file_spec},
        {&state->model, &ct_model_spec},
        {&state->result, &ct_result_spec},
        {&state->cache, &ct_cache_spec},
        {&state->session, &ct_session_spec},
        {&state->transfer_pool, &ct_transfer_pool_spec},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        *types[i].place = (PyTypeObject *)PyType_FromModuleAndSpec(module, types[i].spec, NULL);
        if (!*types[i].place || PyModule_AddType(module, *types[i].place) < 0)
            return -1;
    }
    state->event = PyStructSequence_NewType(&ct_event_desc);
    return state->event ? PyModule_AddType(module, state->event) : -1;
}

/* A plugin lies in the same folder. */
static int tell_own_place(PyObject *module)
{
    PyObject *name = PyModule_GetFilenameObject(module), *bytes = NULL;
    int result = name && PyUnicode_FSConverter(name, &bytes)
                     ? ct_check(ct_plugin_set_neighbour(PyBytes_AS_STRING(bytes)))
                     : -1;
    Py_XDECREF(name);
    Py_XDECREF(bytes);
    return result;
}

static int module_exec(PyObject *module)
{
    ct_state *state = PyModule_GetState(module);
    const ct_ops *ops;
    import_array1(-1);
    if (ct_check(ct_cpu_ops(&ops)) < 0 || ct_check(ct_device_register(CT_DEVICE_CPU, ops)) < 0)
        return -1;
    if (tell_own_place(module) < 0)
        return -1;
    return add_types(module, state) < 0 || add_constants(module, state) < 0 ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ct_state *state = PyModule_GetState(module);
    PyTypeObject *types[] = {state->device,  state->tensor, state->mapped_file,
                             state->model,   state->result, state->cache,
                             state->session, state->event,  state->transfer_pool};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        Py_VISIT(types[i]);
    return 0;
}

static int module_clear(PyObject *module)
{
    ct_state *state = PyModule_GetState(module);
    PyTypeObject **types[] = {&state->device,  &state->tensor, &state->mapped_file,
                              &state->model,   &state->result, &state->cache,
                              &state->session, &state->event,  &state->transfer_pool};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        Py_CLEAR(*types[i]);
    for (int i = 0; i < CT_DTYPE_COUNT; i++)
        Py_CLEAR(state->dtype_names[i]);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,         .m_name = "curated_transformers._core",
    .m_doc = "The C core.",        .m_size = sizeof(ct_state),
    .m_methods = functions,        .m_slots = slots,
    .m_traverse = module_traverse, .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
