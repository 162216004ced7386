/* libcurl's multi interface, driven from one thread. Its callbacks feed a buffer for the header,
 * the sink for the body, and read what is sent. */
#include "net/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/memory.h"

#define POLL_MS 50
#define HEADER_LIMIT ((size_t)64 << 10)
#define BODY_LIMIT ((size_t)64 << 20) /* listings of repositories; error texts are far smaller */
#define RECEIVE_BUFFER (256L << 10)   /* fewer and larger writes than with the default of 16 kB */

static ct_status set_up(ct_transfer *transfer, const ct_transfer_request *request);
static ct_status set_headers(ct_transfer *transfer, const ct_transfer_request *request);
static ct_status set_method(ct_transfer *transfer, const ct_transfer_request *request);
static ct_status set_upload(ct_transfer *transfer, const ct_transfer_request *request);
static ct_status set_limits(ct_transfer *transfer, const ct_transfer_request *request);
static size_t on_header(char *data, size_t size, size_t count, void *context);
static size_t on_body(char *data, size_t size, size_t count, void *context);
static size_t on_read(char *data, size_t size, size_t count, void *context);
static int on_seek(void *context, int64_t offset, int origin);
static ct_status begin_body(ct_transfer *transfer);
static void keep_reason(ct_transfer *transfer);
static void collect_done(ct_transfers *transfers);
static void end_idle(ct_transfers *transfers);
static void finish(ct_transfers *transfers, ct_transfer *transfer, int code);
static int64_t now_ms(void);

ct_status ct_transfers_new(ct_transfers **out)
{
    const ct_curl *curl;
    ct_transfers *transfers;
    *out = NULL;
    CT_TRY(ct_curl_get(&curl));
    CT_TRY(ct_alloc_zeroed((void **)&transfers, 1, sizeof *transfers));
    transfers->curl = curl;
    transfers->owner = getpid();
    transfers->multi = curl->multi_init();
    if (!transfers->multi) {
        ct_free(&transfers);
        return ct_fail(CT_MEMORY, "out of memory: libcurl has no room for transfers");
    }
    *out = transfers;
    return CT_OK;
}

void ct_transfers_free(ct_transfers **transfers)
{
    ct_transfers *it = *transfers;
    *transfers = NULL;
    if (!it || it->owner != getpid())
        return;
    while (it->active)
        ct_transfers_cancel(it, it->active->number);
    for (ct_transfer *done; (done = ct_transfers_take_done(it));)
        ct_transfer_free(&done);
    it->curl->multi_cleanup(it->multi);
    ct_free(&it);
}

ct_status ct_transfers_add(ct_transfers *transfers, const ct_transfer_request *request,
                           int64_t *number)
{
    ct_status status;
    ct_transfer *transfer;
    CT_TRY(ct_alloc_zeroed((void **)&transfer, 1, sizeof *transfer));
    transfer->curl = transfers->curl;
    transfer->header.lines.limit = HEADER_LIMIT;
    transfer->sink = (ct_sink){.file = request->output_file,
                               .position = request->output_offset,
                               .limit = request->output_limit,
                               .memory.limit = BODY_LIMIT};
    transfer->upload_file = -1;
    transfer->easy = transfers->curl->easy_init();
    if (!transfer->easy)
        CT_TRY_TO(failed, ct_fail(CT_MEMORY, "out of memory: libcurl has no room for a transfer"));
    CT_TRY_TO(failed, set_up(transfer, request));
    int code = transfers->curl->multi_add_handle(transfers->multi, transfer->easy);
    if (code != 0)
        CT_TRY_TO(failed, ct_fail(CT_IO, "libcurl cannot begin a transfer: %s",
                                  transfers->curl->multi_strerror(code)));
    *number = transfer->number = ++transfers->last_number;
    transfer->next = transfers->active;
    transfers->active = transfer;
    return CT_OK;
failed:
    ct_transfer_free(&transfer);
    return status;
}

ct_status ct_transfers_run(ct_transfers *transfers, int64_t timeout_ms, ct_poll poll)
{
    int64_t end = now_ms() + timeout_ms;
    for (;;) {
        int n_running, n_ready = 0;
        if (poll.check)
            CT_TRY(poll.check(poll.context));
        int code = transfers->curl->multi_perform(transfers->multi, &n_running);
        if (code != 0)
            return ct_fail(CT_IO, "libcurl: %s", transfers->curl->multi_strerror(code));
        collect_done(transfers);
        end_idle(transfers);
        int64_t left = end - now_ms();
        if (transfers->done || !transfers->active || left <= 0)
            return CT_OK;
        int wait = (int)(left < POLL_MS ? left : POLL_MS);
        int64_t before = now_ms();
        code = transfers->curl->multi_wait(transfers->multi, NULL, 0, wait, &n_ready);
        if (code != 0)
            return ct_fail(CT_IO, "libcurl: %s", transfers->curl->multi_strerror(code));
        /* With nothing to wait for, as while a name is looked up, it returns at once. */
        if (n_ready == 0 && now_ms() == before)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

ct_transfer *ct_transfers_take_done(ct_transfers *transfers)
{
    ct_transfer *done = transfers->done;
    if (done)
        transfers->done = done->next;
    return done;
}

void ct_transfer_free(ct_transfer **transfer)
{
    ct_transfer *it = *transfer;
    *transfer = NULL;
    if (!it)
        return;
    if (it->easy)
        it->curl->easy_cleanup(it->easy);
    it->curl->slist_free_all(it->headers);
    ct_free(&it->body);
    ct_buffer_clear(&it->header.lines);
    ct_buffer_clear(&it->sink.memory);
    ct_free(&it);
}

const ct_transfer *ct_transfers_find(const ct_transfers *transfers, int64_t number)
{
    for (const ct_transfer *it = transfers->active; it; it = it->next)
        if (it->number == number)
            return it;
    return NULL;
}

void ct_transfers_cancel(ct_transfers *transfers, int64_t number)
{
    for (ct_transfer **place = &transfers->active; *place; place = &(*place)->next) {
        ct_transfer *it = *place;
        if (it->number != number)
            continue;
        *place = it->next;
        transfers->curl->multi_remove_handle(transfers->multi, it->easy);
        ct_transfer_free(&it);
        return;
    }
}

const char *ct_transfers_ca_file(const ct_transfers *transfers, char *path, size_t size)
{
    char *found = NULL;
    void *easy = transfers->curl->easy_init();
    path[0] = '\0';
    if (easy && transfers->curl->easy_getinfo(easy, CT_CURLINFO_CAINFO, &found) == 0 && found)
        snprintf(path, size, "%s", found);
    if (easy)
        transfers->curl->easy_cleanup(easy);
    return path[0] ? path : NULL;
}

/* ---- one request ---- */

#define SET(option, value)                                                                         \
    do {                                                                                           \
        int ct_code = transfer->curl->easy_setopt(transfer->easy, option, value);                  \
        if (ct_code != 0)                                                                          \
            return ct_fail(CT_IO, "libcurl refuses " #option ": %s",                               \
                           transfer->curl->easy_strerror(ct_code));                                \
    } while (0)

static ct_status set_up(ct_transfer *transfer, const ct_transfer_request *request)
{
    SET(CT_CURLOPT_PROTOCOLS, CT_CURL_PROTOCOLS_HTTP_HTTPS);
    SET(CT_CURLOPT_URL, request->url);
    SET(CT_CURLOPT_NOSIGNAL, 1L); /* signals are Python's */
    SET(CT_CURLOPT_PRIVATE, (void *)transfer);
    SET(CT_CURLOPT_ERRORBUFFER, transfer->message);
    SET(CT_CURLOPT_HEADERFUNCTION, on_header);
    SET(CT_CURLOPT_HEADERDATA, (void *)transfer);
    SET(CT_CURLOPT_WRITEFUNCTION, on_body);
    SET(CT_CURLOPT_WRITEDATA, (void *)transfer);
    SET(CT_CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
    SET(CT_CURLOPT_FRESH_CONNECT, (long)request->fresh_connection);
    if (request->ca_file)
        SET(CT_CURLOPT_CAINFO, request->ca_file);
    /* Older libraries know neither: on_header throws a proxy's header away in any case, and without
     * the other, cancelling waits for a name that is being looked up. */
    transfer->curl->easy_setopt(transfer->easy, CT_CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    transfer->curl->easy_setopt(transfer->easy, CT_CURLOPT_QUICK_EXIT, 1L);
    CT_TRY(set_headers(transfer, request));
    CT_TRY(set_method(transfer, request));
    return set_limits(transfer, request);
}

static ct_status set_headers(ct_transfer *transfer, const ct_transfer_request *request)
{
    for (size_t i = 0; i < request->n_headers; i++) {
        ct_curl_list *longer = transfer->curl->slist_append(transfer->headers, request->headers[i]);
        if (!longer)
            return ct_fail(CT_MEMORY, "out of memory: libcurl has no room for a header");
        transfer->headers = longer;
    }
    SET(CT_CURLOPT_HTTPHEADER, transfer->headers);
    return CT_OK;
}

static ct_status set_method(ct_transfer *transfer, const ct_transfer_request *request)
{
    if (request->upload_file >= 0) {
        CT_TRY(set_upload(transfer, request));
    } else if (request->body) {
        CT_TRY(ct_alloc((void **)&transfer->body, request->body_size));
        memcpy(transfer->body, request->body, request->body_size);
        transfer->body_size = request->body_size;
        SET(CT_CURLOPT_POSTFIELDSIZE_LARGE, (int64_t)request->body_size);
        SET(CT_CURLOPT_POSTFIELDS, transfer->body);
    } else if (strcmp(request->method, "HEAD") == 0) {
        SET(CT_CURLOPT_NOBODY, 1L);
    }
    SET(CT_CURLOPT_CUSTOMREQUEST, request->method);
    return CT_OK;
}

static ct_status set_upload(ct_transfer *transfer, const ct_transfer_request *request)
{
    transfer->upload_file = request->upload_file;
    transfer->upload_offset = request->upload_offset;
    transfer->upload_size = request->upload_size;
    SET(CT_CURLOPT_UPLOAD, 1L);
    SET(CT_CURLOPT_INFILESIZE_LARGE, request->upload_size);
    SET(CT_CURLOPT_READFUNCTION, on_read);
    SET(CT_CURLOPT_READDATA, (void *)transfer);
    SET(CT_CURLOPT_SEEKFUNCTION, on_seek);
    SET(CT_CURLOPT_SEEKDATA, (void *)transfer);
    return CT_OK;
}

static ct_status set_limits(ct_transfer *transfer, const ct_transfer_request *request)
{
    SET(CT_CURLOPT_CONNECTTIMEOUT_MS, (long)request->connect_timeout_ms);
    SET(CT_CURLOPT_TIMEOUT_MS, (long)request->total_timeout_ms);
    SET(CT_CURLOPT_TCP_KEEPALIVE, 1L);
    /* libcurl's own limit is on the average of the last seconds, and comes late. */
    transfer->idle_timeout_ms = request->idle_timeout_ms;
    transfer->last_byte_ms = now_ms();
    return CT_OK;
}

/* ---- what libcurl calls; a count other than the one given ends the transfer ---- */

static size_t on_header(char *data, size_t size, size_t count, void *context)
{
    ct_transfer *transfer = context;
    bool all;
    size *= count;
    transfer->last_byte_ms = now_ms();
    if (ct_header_add(&transfer->header, data, size, &all) != CT_OK)
        transfer->sink.refusal = CT_REFUSAL_MEMORY;
    else if (!all)
        transfer->sink.refusal = CT_REFUSAL_HEADER;
    if (transfer->sink.refusal == CT_REFUSAL_NONE)
        return size;
    snprintf(transfer->reason, sizeof transfer->reason, "the header is longer than %zu bytes",
             HEADER_LIMIT);
    return 0;
}

static size_t on_body(char *data, size_t size, size_t count, void *context)
{
    ct_transfer *transfer = context;
    size *= count;
    transfer->last_byte_ms = now_ms();
    if ((transfer->sink.begun || begin_body(transfer) == CT_OK) &&
        ct_sink_write(&transfer->sink, data, size) == CT_OK)
        return size;
    keep_reason(transfer);
    return 0;
}

static size_t on_read(char *data, size_t size, size_t count, void *context)
{
    ct_transfer *transfer = context;
    int64_t left = transfer->upload_size - transfer->sent;
    size *= count;
    if ((int64_t)size > left)
        size = (size_t)left;
    if (size == 0)
        return 0;
    ssize_t n;
    do
        n = pread(transfer->upload_file, data, size,
                  (off_t)(transfer->upload_offset + transfer->sent));
    while (n < 0 && errno == EINTR);
    if (n <= 0) { /* the file became shorter, or cannot be read */
        transfer->sink.refusal = CT_REFUSAL_FILE;
        transfer->sink.file_errno = n < 0 ? errno : EIO;
        snprintf(transfer->reason, sizeof transfer->reason, "cannot read what is to be sent: %s",
                 n < 0 ? strerror(errno) : "the file has become shorter");
        return CT_CURL_READ_ABORT;
    }
    transfer->sent += n;
    transfer->last_byte_ms = now_ms();
    return (size_t)n;
}

static int on_seek(void *context, int64_t offset, int origin)
{
    ct_transfer *transfer = context;
    if (origin != SEEK_SET || offset < 0 || offset > transfer->upload_size)
        return CT_CURL_SEEK_FAIL;
    transfer->sent = offset;
    return CT_CURL_SEEK_OK;
}

static ct_status begin_body(ct_transfer *transfer)
{
    char range[128];
    long http_status = 0;
    transfer->curl->easy_getinfo(transfer->easy, CT_CURLINFO_RESPONSE_CODE, &http_status);
    bool found = ct_header_find(&transfer->header, "Content-Range", range, sizeof range);
    return ct_sink_begin(&transfer->sink, http_status, found ? range : NULL);
}

static void keep_reason(ct_transfer *transfer)
{
    snprintf(transfer->reason, sizeof transfer->reason, "%.*s", (int)sizeof transfer->reason - 1,
             ct_message());
}

/* ---- what has ended ---- */

static void collect_done(ct_transfers *transfers)
{
    int n_left;
    for (ct_curl_message *message;
         (message = transfers->curl->multi_info_read(transfers->multi, &n_left));) {
        char *transfer = NULL;
        int code = message->data.code; /* the message is gone with its handle */
        if (message->kind != CT_CURL_MESSAGE_DONE)
            continue;
        transfers->curl->easy_getinfo(message->easy, CT_CURLINFO_PRIVATE, &transfer);
        finish(transfers, (ct_transfer *)(void *)transfer, code);
    }
}

static void end_idle(ct_transfers *transfers)
{
    int64_t now = now_ms();
    for (ct_transfer *it = transfers->active, *next; it; it = next) {
        next = it->next;
        if (it->idle_timeout_ms <= 0 || now - it->last_byte_ms <= it->idle_timeout_ms)
            continue;
        snprintf(it->reason, sizeof it->reason, "no byte came for %.3g seconds",
                 (double)it->idle_timeout_ms / 1000);
        finish(transfers, it, CT_CURL_TIMED_OUT);
    }
}

static void finish(ct_transfers *transfers, ct_transfer *transfer, int code)
{
    ct_transfer **place = &transfers->active;
    while (*place != transfer)
        place = &(*place)->next;
    *place = transfer->next;
    transfer->curl->easy_getinfo(transfer->easy, CT_CURLINFO_RESPONSE_CODE, &transfer->http_status);
    transfers->curl->multi_remove_handle(transfers->multi, transfer->easy);
    if (code == 0 && !transfer->header.complete)
        code = CT_CURL_GOT_NOTHING; /* libcurl does not mind a header that breaks off */
    if (code == 0 && !transfer->sink.begun && begin_body(transfer) != CT_OK) {
        code = CT_CURL_WRITE_ERROR; /* no byte came, and that is not what was asked for */
        keep_reason(transfer);
    }
    transfer->code = code;
    if (transfer->reason[0])
        memcpy(transfer->message, transfer->reason, sizeof transfer->message);
    else if (code != 0 && !transfer->message[0])
        snprintf(transfer->message, sizeof transfer->message, "%s",
                 transfer->curl->easy_strerror(code));
    transfer->next = transfers->done;
    transfers->done = transfer;
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
