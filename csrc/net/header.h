/* The header of an answer, collected line by line as libcurl hands the lines over. */
#ifndef CT_NET_HEADER_H
#define CT_NET_HEADER_H

#include "net/buffer.h"

typedef struct ct_header {
    ct_buffer lines; /* of the last answer; each ends as the server ended it, with CRLF */
    bool complete;   /* its empty line has come */
} ct_header;

/* The next line. *all is false when the buffer's limit has cut it. */
CT_MUST_CHECK ct_status ct_header_add(ct_header *header, const char *line, size_t size, bool *all);

/* The first field `name` (in any case), its value as a string of up to `size` bytes, cut to them.
 * False when there is none. */
bool ct_header_find(const ct_header *header, const char *name, char *value, size_t size);

#endif
