/* The answer of a server: header lines, Content-Range, a body that comes in pieces, and what of it
 * reaches the file.
 *
 * Input: four bytes of request and status, then the answer. Its lines up to an empty one are the
 * header, the rest is the body. */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "net/header.h"
#include "net/sink.h"

#define HEADER_LIMIT 512
#define BODY_LIMIT 256
#define HELD 40 /* bytes in the file before */

static const char held[HELD] = "what an earlier answer had already given";

/* The lines as libcurl cuts them, each a block of its own. False when the header is too long. */
static bool add_header(ct_header *header, fuzz_input *input)
{
    bool all = true;
    while (input->size > 0 && all && !header->complete) {
        const uint8_t *stop = memchr(input->data, '\n', input->size);
        fuzz_input line = {input->data, stop ? (size_t)(stop - input->data) + 1 : input->size};
        char *copy = fuzz_rest(&line);
        MUST(ct_header_add(header, copy, line.size, &all) == CT_OK);
        free(copy);
        input->data += line.size;
        input->size -= line.size;
        MUST(header->lines.size <= HEADER_LIMIT);
    }
    return all;
}

/* Content-Range of the header, found in a copy behind which nothing may be read. */
static bool find_range(const ct_header *header, char *range, size_t size)
{
    fuzz_input lines = {(const uint8_t *)header->lines.data, header->lines.size};
    ct_header exact = {.lines = {.data = fuzz_rest(&lines), .size = lines.size}};
    bool found = ct_header_find(&exact, "Content-Range", range, size);
    MUST(!found || (strlen(range) < size && !strpbrk(range, "\r\n")));
    free(exact.lines.data);
    return found;
}

/* The first byte of "bytes FIRST-", as another reading of the number finds it, or -1. */
static int64_t first_of(const char *range)
{
    int64_t first = 0;
    const char *digit = range + 6;
    for (; *digit >= '0' && *digit <= '9'; digit++)
        if (__builtin_mul_overflow(first, 10, &first) ||
            __builtin_add_overflow(first, *digit - '0', &first))
            return -1;
    return digit > range + 6 && *digit == '-' ? first : -1;
}

static void check_file(const ct_sink *sink, const char *body, size_t sent)
{
    char content[HELD + (1 << 16)];
    ssize_t size = pread(sink->file, content, sizeof content, 0);
    int64_t start = sink->position - (int64_t)sent;
    MUST(size >= 0 && start >= 0 && start <= HELD);
    MUST(sink->limit < 0 || sink->limit < start || sink->position <= sink->limit);
    MUST(sink->position == size || sent == 0);
    MUST(memcmp(content, held, (size_t)start) == 0);
    MUST(sent == 0 || memcmp(content + start, body, sent) == 0);
}

static void add_body(ct_sink *sink, const fuzz_input *input, size_t piece)
{
    size_t sent = 0;
    ct_status status = CT_OK;
    char *body = fuzz_rest(input);
    while (sent < input->size && status == CT_OK) {
        size_t size = input->size - sent < piece ? input->size - sent : piece;
        status = ct_sink_write(sink, body + sent, size);
        sent += status == CT_OK ? size : 0;
    }
    MUST((status == CT_OK) == (sink->refusal == CT_REFUSAL_NONE));
    MUST(sink->memory.size <= BODY_LIMIT);
    if (sink->to_file)
        check_file(sink, body, sent);
    else
        MUST(sink->memory.size == 0 || memcmp(sink->memory.data, body, sink->memory.size) == 0);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const long statuses[] = {200, 206, 416, 503};
    static int file = -1;
    fuzz_input input = {data, size < (1 << 16) ? size : 1 << 16};
    ct_header header = {.lines.limit = HEADER_LIMIT};
    if (file < 0)
        file = memfd_create("answer", 0);
    long http_status = statuses[fuzz_byte(&input) % 4];
    ct_sink sink = {.position = fuzz_byte(&input) % (HELD + 1), .memory.limit = BODY_LIMIT};
    sink.limit = (int8_t)fuzz_byte(&input);
    uint8_t way = fuzz_byte(&input);
    sink.file = way % 2 ? file : -1;
    size_t piece = (size_t)way / 2 + 1;
    MUST(ftruncate(file, 0) == 0 && pwrite(file, held, (size_t)sink.position, 0) == sink.position);

    int64_t asked = sink.position;
    if (add_header(&header, &input)) {
        char range[128];
        bool found = find_range(&header, range, sizeof range);
        bool taken = ct_sink_begin(&sink, http_status, found ? range : NULL) == CT_OK;
        MUST(taken == (sink.refusal == CT_REFUSAL_NONE));
        if (taken && sink.to_file && http_status == 206)
            MUST(found && first_of(range) == asked);
        if (taken)
            add_body(&sink, &input, piece);
    }
    ct_buffer_clear(&header.lines);
    ct_buffer_clear(&sink.memory);
    return 0;
}
