/* Writes with pwrite, so that the descriptor's own position does not matter. */
#include "net/sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static ct_status refuse(ct_sink *sink, ct_refusal refusal, ct_status status);
static ct_status begin_anew(ct_sink *sink);
static ct_status check_range(ct_sink *sink, const char *range);
static ct_status write_file(ct_sink *sink, const char *data, size_t size);

ct_status ct_sink_begin(ct_sink *sink, long http_status, const char *range)
{
    sink->begun = true;
    sink->to_file = sink->file >= 0 && (http_status == 200 || http_status == 206);
    if (!sink->to_file)
        return CT_OK;
    return http_status == 200 ? begin_anew(sink) : check_range(sink, range);
}

ct_status ct_sink_write(ct_sink *sink, const char *data, size_t size)
{
    if (sink->to_file)
        return write_file(sink, data, size);
    bool all;
    ct_status status = ct_buffer_append(&sink->memory, data, size, &all);
    if (status != CT_OK)
        return refuse(sink, CT_REFUSAL_MEMORY, status);
    if (!all && sink->file < 0)
        return refuse(sink, CT_REFUSAL_LENGTH,
                      ct_fail(CT_IO, "the answer is longer than %zu bytes", sink->memory.limit));
    return CT_OK;
}

static ct_status refuse(ct_sink *sink, ct_refusal refusal, ct_status status)
{
    sink->refusal = refusal;
    return status;
}

static ct_status begin_anew(ct_sink *sink)
{
    if (sink->position == 0)
        return CT_OK;
    sink->position = 0;
    if (ftruncate(sink->file, 0) == 0)
        return CT_OK;
    sink->file_errno = errno;
    return refuse(sink, CT_REFUSAL_FILE, ct_fail(CT_IO, "cannot truncate: %s", strerror(errno)));
}

/* Content-Range: bytes FIRST-LAST/SIZE (RFC 9110, 14.4) */
static ct_status check_range(ct_sink *sink, const char *range)
{
    char *end = NULL;
    errno = 0;
    if (range && strncasecmp(range, "bytes ", 6) == 0 && range[6] >= '0' && range[6] <= '9') {
        long long first = strtoll(range + 6, &end, 10);
        if (errno == 0 && *end == '-' && first == sink->position)
            return CT_OK;
    }
    return refuse(sink, CT_REFUSAL_RANGE,
                  ct_fail(CT_IO, "asked for the bytes from %lld on, the server sent `%.80s`",
                          (long long)sink->position, range ? range : ""));
}

static ct_status write_file(ct_sink *sink, const char *data, size_t size)
{
    if (sink->limit >= 0 && (int64_t)size > sink->limit - sink->position)
        return refuse(sink, CT_REFUSAL_LENGTH,
                      ct_fail(CT_IO, "the file is longer than the %lld bytes that were announced",
                              (long long)sink->limit));
    while (size > 0) {
        ssize_t written = pwrite(sink->file, data, size, (off_t)sink->position);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            sink->file_errno = written < 0 ? errno : ENOSPC;
            return refuse(sink, CT_REFUSAL_FILE,
                          ct_fail(CT_IO, "cannot write: %s", strerror(sink->file_errno)));
        }
        data += written;
        size -= (size_t)written;
        sink->position += written;
    }
    return CT_OK;
}
