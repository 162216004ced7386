/* A Python callable that sees and changes the logits of each step: slow, for what C does not have.
 */
#ifndef CT_PYTHON_SESSION_HOOK_H
#define CT_PYTHON_SESSION_HOOK_H

#include "python/state.h"

#include "generation/session.h"

/* Calls callable(sequence, ids, logits) with one-dimensional arrays of its own, int32 and float32;
 * what it leaves in the second one becomes the logits. NULL or None: no hook. The callable is
 * borrowed: it must outlive the steps. */
ct_logits_hook ct_python_hook(PyObject *callable);

#endif
