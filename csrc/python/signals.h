/* Ctrl-C during a long call: looked at between layers and steps, not more often than every 20 ms.
 */
#ifndef CT_PYTHON_SIGNALS_H
#define CT_PYTHON_SIGNALS_H

#include "python/state.h"

/* A poll for one call that runs without the GIL; `last_ms` (zeroed) must outlive the call. */
ct_poll ct_signal_poll(int64_t *last_ms);

#endif
