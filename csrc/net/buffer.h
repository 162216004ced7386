/* Bytes that grow up to a ceiling which they have from birth: what a server sends is bounded. */
#ifndef CT_NET_BUFFER_H
#define CT_NET_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct ct_buffer {
    char *data; /* NULL while empty */
    size_t size, capacity, limit;
} ct_buffer;

/* Appends what still fits below the limit, all of it or a part; *all says which. */
CT_MUST_CHECK ct_status ct_buffer_append(ct_buffer *buffer, const void *data, size_t size,
                                         bool *all);

/* Frees the bytes; the limit stays. */
void ct_buffer_clear(ct_buffer *buffer);

#endif
