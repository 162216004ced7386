/* The list of codes names each one's exception. */
#include "python/errors.h"

#include <string.h>

#define EXCEPTION_NAME(code, exception) [code] = exception,
static const char *const exceptions[] = {CT_STATUS_CODES(EXCEPTION_NAME)};
#undef EXCEPTION_NAME

PyObject *ct_raise(ct_status status)
{
    if (PyErr_Occurred())
        return NULL;
    PyObject *builtins = PyEval_GetBuiltins();
    PyObject *type = PyDict_GetItemString(builtins, exceptions[status]);
    PyObject *text =
        PyUnicode_DecodeUTF8(ct_message(), (Py_ssize_t)strlen(ct_message()), "replace");
    if (text)
        PyErr_SetObject(type ? type : PyExc_RuntimeError, text);
    Py_XDECREF(text);
    return NULL;
}

int ct_check(ct_status status)
{
    if (status == CT_OK)
        return 0;
    ct_raise(status);
    return -1;
}
