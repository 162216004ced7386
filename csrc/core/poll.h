/* How a long call asks, now and then, whether to go on. */
#ifndef CT_CORE_POLL_H
#define CT_CORE_POLL_H

#include "core/status.h"

/* Called between parts of a long call; a failure stops the call and is handed up. */
typedef struct ct_poll {
    ct_status (*check)(void *context); /* or NULL */
    void *context;
} ct_poll;

#endif
