/* ct_status -> Python exception. */
#ifndef CT_PYTHON_ERRORS_H
#define CT_PYTHON_ERRORS_H

#include "python/state.h"

/* Sets the exception of the code with the thread's message and returns NULL. A call that was
 * interrupted keeps the exception that is set already. */
PyObject *ct_raise(ct_status status);

/* -1 with the exception set, or 0 for CT_OK. */
int ct_check(ct_status status);

#endif
