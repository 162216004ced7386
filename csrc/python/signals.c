/* Takes the GIL only when it is time to look. */
#include "python/signals.h"

#include <time.h>

#define INTERVAL_MS 20

static ct_status check(void *context)
{
    int64_t *last_ms = context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (now_ms - *last_ms < INTERVAL_MS)
        return CT_OK;
    *last_ms = now_ms;
    PyGILState_STATE gil = PyGILState_Ensure();
    int raised = PyErr_CheckSignals();
    PyGILState_Release(gil);
    return raised ? ct_fail(CT_INTERRUPTED, "interrupted") : CT_OK;
}

ct_poll ct_signal_poll(int64_t *last_ms)
{
    *last_ms = 0;
    return (ct_poll){check, last_ms};
}
