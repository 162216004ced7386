/* Where a response's body goes: to memory, or straight to a file at the place from which the
 * request asked for it.
 *
 * Only the bytes that were asked for may reach the file. A whole answer (200) begins it anew, a
 * part (206) must begin where the file ends, and any other answer is a message for people, kept in
 * memory. */
#ifndef CT_NET_SINK_H
#define CT_NET_SINK_H

#include <stdint.h>

#include "net/buffer.h"

/* Why a body was refused. */
typedef enum ct_refusal {
    CT_REFUSAL_NONE,
    CT_REFUSAL_FILE,   /* our file cannot be written; see file_errno */
    CT_REFUSAL_RANGE,  /* another part than the one that was asked for */
    CT_REFUSAL_LENGTH, /* longer than it may be */
    CT_REFUSAL_HEADER, /* more header than anybody needs */
    CT_REFUSAL_MEMORY,
} ct_refusal;

typedef struct ct_sink {
    int file;         /* a descriptor that is borrowed, or -1: everything goes to memory */
    int64_t position; /* where the next byte of the file goes */
    int64_t limit;    /* the file never becomes longer; negative: no limit */
    bool begun, to_file;
    ct_buffer memory;
    ct_refusal refusal;
    int file_errno;
} ct_sink;

/* The header is complete: decides where the body goes. `range` is the value of Content-Range, or
 * NULL. CT_IO sets `refusal`. */
CT_MUST_CHECK ct_status ct_sink_begin(ct_sink *sink, long http_status, const char *range);

/* The next bytes of the body. What memory cannot hold is dropped, if the answer is no success. */
CT_MUST_CHECK ct_status ct_sink_write(ct_sink *sink, const char *data, size_t size);

#endif
