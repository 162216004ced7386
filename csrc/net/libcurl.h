/* The few functions of libcurl that transfers use, found with dlopen at first use: the package
 * builds without curl's headers and is imported without the library.
 *
 * The declarations and numbers below are libcurl's binary interface, which has been the same since
 * version 7.16 (its soname, libcurl.so.4, says so); options that came later are marked. */
#ifndef CT_NET_LIBCURL_H
#define CT_NET_LIBCURL_H

#include "core/status.h"

/* X(name without its `curl_`, result, arguments) */
#define CT_CURL_FUNCTIONS(X)                                                                       \
    X(global_init, int, (long flags))                                                              \
    X(easy_init, void *, (void))                                                                   \
    X(easy_setopt, int, (void *easy, int option, ...))                                             \
    X(easy_getinfo, int, (void *easy, int info, ...))                                              \
    X(easy_strerror, const char *, (int code))                                                     \
    X(easy_cleanup, void, (void *easy))                                                            \
    X(slist_append, ct_curl_list *, (ct_curl_list * list, const char *text))                       \
    X(slist_free_all, void, (ct_curl_list * list))                                                 \
    X(multi_init, void *, (void))                                                                  \
    X(multi_add_handle, int, (void *multi, void *easy))                                            \
    X(multi_remove_handle, int, (void *multi, void *easy))                                         \
    X(multi_perform, int, (void *multi, int *n_running))                                           \
    X(multi_wait, int, (void *multi, void *extra, unsigned n_extra, int timeout_ms, int *n_ready)) \
    X(multi_info_read, ct_curl_message *, (void *multi, int *n_left))                              \
    X(multi_strerror, const char *, (int code))                                                    \
    X(multi_cleanup, int, (void *multi))

typedef struct ct_curl_list ct_curl_list; /* struct curl_slist */

typedef struct ct_curl_message { /* CURLMsg */
    int kind;
    void *easy;
    union {
        void *pointer;
        int code;
    } data;
} ct_curl_message;

#define CT_CURL_MEMBER(name, result, arguments) result(*name) arguments;
typedef struct ct_curl {
    CT_CURL_FUNCTIONS(CT_CURL_MEMBER)
} ct_curl;
#undef CT_CURL_MEMBER

/* Options; the thousands say what follows: 0 a long, 10000 a pointer, 20000 a function, 30000 an
 * off_t of 64 bits. */
enum {
    CT_CURLOPT_WRITEDATA = 10001,
    CT_CURLOPT_URL = 10002,
    CT_CURLOPT_READDATA = 10009,
    CT_CURLOPT_ERRORBUFFER = 10010,
    CT_CURLOPT_WRITEFUNCTION = 20011,
    CT_CURLOPT_READFUNCTION = 20012,
    CT_CURLOPT_POSTFIELDS = 10015,
    CT_CURLOPT_HTTPHEADER = 10023,
    CT_CURLOPT_HEADERDATA = 10029,
    CT_CURLOPT_CUSTOMREQUEST = 10036,
    CT_CURLOPT_NOBODY = 44,
    CT_CURLOPT_UPLOAD = 46,
    CT_CURLOPT_CAINFO = 10065,
    CT_CURLOPT_FRESH_CONNECT = 74,
    CT_CURLOPT_HEADERFUNCTION = 20079,
    CT_CURLOPT_BUFFERSIZE = 98,
    CT_CURLOPT_NOSIGNAL = 99,
    CT_CURLOPT_PRIVATE = 10103,
    CT_CURLOPT_INFILESIZE_LARGE = 30115,
    CT_CURLOPT_POSTFIELDSIZE_LARGE = 30120,
    CT_CURLOPT_TIMEOUT_MS = 155,
    CT_CURLOPT_CONNECTTIMEOUT_MS = 156,
    CT_CURLOPT_SEEKFUNCTION = 20167,
    CT_CURLOPT_SEEKDATA = 10168,
    CT_CURLOPT_PROTOCOLS = 181,                /* 7.19.4; deprecated, and kept */
    CT_CURLOPT_TCP_KEEPALIVE = 213,            /* 7.25 */
    CT_CURLOPT_SUPPRESS_CONNECT_HEADERS = 265, /* 7.54 */
    CT_CURLOPT_QUICK_EXIT = 322,               /* 7.87 */

    CT_CURLINFO_PRIVATE = 0x100000 + 21,
    CT_CURLINFO_CAINFO = 0x100000 + 61, /* 7.84 */
    CT_CURLINFO_RESPONSE_CODE = 0x200000 + 2,
};

#define CT_CURL_GLOBAL_DEFAULT 3L
#define CT_CURL_MESSAGE_DONE 1
#define CT_CURL_PROTOCOLS_HTTP_HTTPS 3L
#define CT_CURL_READ_ABORT 0x10000000
#define CT_CURL_SEEK_OK 0
#define CT_CURL_SEEK_FAIL 1
#define CT_CURL_ERROR_SIZE 256
#define CT_CURL_WRITE_ERROR 23 /* what a callback of ours that refuses data leads to */
#define CT_CURL_TIMED_OUT 28
#define CT_CURL_GOT_NOTHING 52

/* *out is the library, loaded and set up once for the process. CT_IO when it cannot be found, with
 * what to install. CURATED_TRANSFORMERS_LIBCURL names another file. */
CT_MUST_CHECK ct_status ct_curl_get(const ct_curl **out);

#endif
