/* HTTP transfers: several at once, over connections that are kept for the next ones.
 *
 * A transfer is one request and its answer. What to do about the answer is the caller's matter:
 * nothing here follows redirects, repeats requests, knows about tokens or chooses file names. Only
 * http and https are spoken. Proxies come from the environment, as libcurl reads it. */
#ifndef CT_NET_TRANSFER_H
#define CT_NET_TRANSFER_H

#include <stdint.h>
#include <sys/types.h>

#include "core/poll.h"
#include "net/header.h"
#include "net/libcurl.h"
#include "net/sink.h"

typedef struct ct_transfer_request {
    const char *method; /* "HEAD" has no body; the others are sent as they are */
    const char *url;
    const char *const *headers; /* [n_headers] "Name: value" */
    size_t n_headers;

    const void *body; /* [body_size] to be sent, copied; NULL: none, or from a file */
    size_t body_size;
    int upload_file; /* borrowed until the transfer has ended, or -1 */
    int64_t upload_offset, upload_size;

    int output_file;       /* borrowed until the transfer has ended; -1: the body goes to memory */
    int64_t output_offset; /* what the file holds, and the request's Range begins at */
    int64_t output_limit;  /* see ct_sink */

    bool
        fresh_connection; /* a kept one may be closed already, and the request is sent twice then */
    int64_t connect_timeout_ms;
    int64_t total_timeout_ms; /* 0: as long as bytes come */
    int64_t idle_timeout_ms;  /* with no byte in either direction; 0: forever */
    const char *ca_file;      /* trusted certificates; NULL: those that libcurl was built with */
} ct_transfer_request;

typedef struct ct_transfer {
    int64_t number; /* which ct_transfers_add gave */
    long http_status;
    int code; /* libcurl's, 0 when an answer came, whatever it says */
    char message[CT_CURL_ERROR_SIZE];
    ct_header header; /* of the last answer */
    ct_sink sink;     /* `memory` holds the body of what does not go to a file */

    /* the rest is the engine's */
    const ct_curl *curl;
    void *easy;
    ct_curl_list *headers;
    char *body;
    size_t body_size;
    int upload_file;
    int64_t upload_offset, upload_size, sent;
    int64_t idle_timeout_ms, last_byte_ms;
    char reason[CT_CURL_ERROR_SIZE]; /* why a callback refused; libcurl writes over `message` */
    struct ct_transfer *next;
} ct_transfer;

/* Belongs to one thread at a time. */
typedef struct ct_transfers {
    const ct_curl *curl;
    void *multi;
    ct_transfer *active, *done;
    int64_t last_number;
    pid_t owner;
} ct_transfers;

/* CT_IO when there is no libcurl. */
CT_MUST_CHECK ct_status ct_transfers_new(ct_transfers **out);

/* Ends what is active. In a forked child everything is left alone: the connections are the
 * parent's, and closing one would say goodbye in its name. */
void ct_transfers_free(ct_transfers **transfers);

/* Starts a transfer, which advances in ct_transfers_run. */
CT_MUST_CHECK ct_status ct_transfers_add(ct_transfers *transfers,
                                         const ct_transfer_request *request, int64_t *number);

/* Works until a transfer is done, none is active, or the time is over; asks `poll` at least every
 * 50 ms. When that fails all transfers are as they were. */
CT_MUST_CHECK ct_status ct_transfers_run(ct_transfers *transfers, int64_t timeout_ms, ct_poll poll);

/* Hands over a transfer that is done, or NULL. */
ct_transfer *ct_transfers_take_done(ct_transfers *transfers);
void ct_transfer_free(ct_transfer **transfer);

/* An active transfer, or NULL. */
const ct_transfer *ct_transfers_find(const ct_transfers *transfers, int64_t number);

/* Stops a transfer and forgets it; a number that is not active is none. Files keep what they have.
 */
void ct_transfers_cancel(ct_transfers *transfers, int64_t number);

/* The file with certificates that libcurl would use, or NULL when it does not say. Valid as long as
 * the library, copied into `path`. */
const char *ct_transfers_ca_file(const ct_transfers *transfers, char *path, size_t size);

#endif
