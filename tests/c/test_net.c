/* Transfers against a server of a few lines on loopback, which sends the same bytes to everybody.
 */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "net/transfer.h"

#define NO_POLL ((ct_poll){NULL, NULL})

/* ---- buffer and sink ---- */

static void buffer_grows_up_to_its_limit(void)
{
    ct_buffer buffer = {.limit = 3000};
    char data[1000];
    bool all;
    for (int i = 0; i < 3; i++) {
        memset(data, 'a' + i, sizeof data);
        CHECK_OK(ct_buffer_append(&buffer, data, sizeof data, &all));
        CHECK(all);
    }
    CHECK_OK(ct_buffer_append(&buffer, data, 1, &all));
    CHECK(!all);
    CHECK_INT(buffer.size, 3000);
    CHECK(buffer.data[0] == 'a' && buffer.data[1999] == 'b' && buffer.data[2999] == 'c');
    ct_buffer_clear(&buffer);
    CHECK_INT(buffer.size, 0);
    CHECK_OK(ct_buffer_append(&buffer, data, 0, &all));
    CHECK(all);
    ct_buffer_clear(&buffer);
}

/* True when all of it fitted. */
static bool add_line(ct_header *header, const char *line)
{
    bool all = false;
    return ct_header_add(header, line, strlen(line), &all) == CT_OK && all;
}

static void header_fields_are_found_by_name(void)
{
    ct_header header = {.lines.limit = 200};
    char value[16];
    CHECK(!ct_header_find(&header, "A", value, sizeof value));
    CHECK(add_line(&header, "HTTP/1.1 100 Continue\r\n"));
    CHECK(add_line(&header, "Lost: 1\r\n"));
    CHECK(add_line(&header, "\r\n"));
    CHECK(header.complete);
    CHECK(add_line(&header, "HTTP/1.1 206 Partial Content\r\n"));
    CHECK(!header.complete);
    CHECK(add_line(&header, "X-Content-Range: other\r\n"));
    CHECK(add_line(&header, "content-RANGE: \tbytes 3-7/8\r\n"));
    CHECK(add_line(&header, "Content-Range: second\n"));
    CHECK(add_line(&header, "Empty:\r\n"));
    CHECK(add_line(&header, "Long: 0123456789abcdefghi\r\n"));
    CHECK(add_line(&header, "Bare: end"));
    CHECK(ct_header_find(&header, "Content-Range", value, sizeof value));
    CHECK_TEXT(value, "bytes 3-7/8");
    CHECK(ct_header_find(&header, "empty", value, sizeof value));
    CHECK_TEXT(value, "");
    CHECK(ct_header_find(&header, "long", value, sizeof value));
    CHECK_TEXT(value, "0123456789abcde");
    CHECK(ct_header_find(&header, "bare", value, sizeof value));
    CHECK_TEXT(value, "end");
    CHECK(!ct_header_find(&header, "lost", value, sizeof value));
    CHECK(!ct_header_find(&header, "Content-Rang", value, sizeof value));
    CHECK(!add_line(&header, "This: one is cut, since it is longer than all that is left\r\n"));
    CHECK_INT(header.lines.size, 200);
    ct_buffer_clear(&header.lines);
}

static int temporary_file(void)
{
    char name[] = "/tmp/ct_net_XXXXXX";
    int file = mkstemp(name);
    if (file >= 0)
        unlink(name);
    return file;
}

static void sink_appends_the_part_that_was_asked_for(void)
{
    char data[16] = {0};
    int file = temporary_file();
    CHECK(file >= 0);
    ct_sink sink = {.file = file, .limit = 8};
    CHECK_OK(ct_sink_begin(&sink, 200, NULL));
    CHECK_OK(ct_sink_write(&sink, "abc", 3));
    CHECK_OK(ct_sink_begin(&sink, 206, "bytes 3-7/8"));
    CHECK_OK(ct_sink_write(&sink, "defgh", 5));
    CHECK_FAILS(ct_sink_write(&sink, "i", 1), CT_IO, "longer than the 8 bytes");
    CHECK_INT(sink.refusal, CT_REFUSAL_LENGTH);
    CHECK_INT(pread(file, data, sizeof data, 0), 8);
    CHECK_TEXT(data, "abcdefgh");
    close(file);
}

static void sink_begins_a_whole_answer_anew(void)
{
    char data[16] = {0};
    int file = temporary_file();
    CHECK(file >= 0);
    CHECK_INT(write(file, "abcdefgh", 8), 8);
    ct_sink sink = {.file = file, .position = 8, .limit = -1};
    CHECK_OK(ct_sink_begin(&sink, 200, NULL));
    CHECK_OK(ct_sink_write(&sink, "xyz", 3));
    CHECK_INT(pread(file, data, sizeof data, 0), 3);
    CHECK_TEXT(data, "xyz");
    close(file);
}

static void sink_refuses_other_parts(void)
{
    static const char *const ranges[] = {NULL,       "",          "bytes 2-7/8",
                                         "bytes -3", "bytes */8", "bytes 99999999999999999999-1/2",
                                         "bytes 3",  "bytes 3/8"};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        ct_sink sink = {.file = 0, .position = 3, .limit = -1};
        CHECK_FAILS(ct_sink_begin(&sink, 206, ranges[i]), CT_IO, "asked for the bytes from 3 on");
        CHECK_INT(sink.refusal, CT_REFUSAL_RANGE);
    }
}

static void sink_keeps_error_texts_out_of_the_file(void)
{
    ct_sink sink = {.file = 1, .limit = -1, .memory.limit = 4};
    CHECK_OK(ct_sink_begin(&sink, 503, NULL));
    CHECK_OK(ct_sink_write(&sink, "sorry", 5)); /* what does not fit is dropped */
    CHECK_INT(sink.memory.size, 4);
    CHECK_INT(sink.position, 0);
    ct_buffer_clear(&sink.memory);
}

static void sink_tells_a_full_disk(void)
{
    int file = open("/dev/full", O_RDWR);
    if (file < 0)
        return; /* no Linux */
    ct_sink sink = {.file = file, .limit = -1};
    CHECK_OK(ct_sink_begin(&sink, 200, NULL));
    CHECK_FAILS(ct_sink_write(&sink, "abc", 3), CT_IO, "cannot write: No space left");
    CHECK_INT(sink.refusal, CT_REFUSAL_FILE);
    CHECK_INT(sink.file_errno, ENOSPC);
    close(file);
}

/* ---- a server ---- */

typedef struct server {
    int listener;
    const char *answer;
    int n_served;
    char url[64];
    pthread_t thread;
} server;

/* Serves one connection, with one answer for each request. */
static void *serve(void *context)
{
    server *it = context;
    char request[4096];
    int connection = accept(it->listener, NULL, NULL);
    size_t size = 0;
    for (;;) {
        ssize_t n = recv(connection, request + size, sizeof request - 1 - size, 0);
        if (n <= 0)
            break;
        size += (size_t)n;
        request[size] = '\0';
        if (!strstr(request, "\r\n\r\n"))
            continue;
        it->n_served++;
        size = 0;
        if (send(connection, it->answer, strlen(it->answer), MSG_NOSIGNAL) < 0)
            break;
    }
    close(connection);
    return NULL;
}

static bool start(server *it, const char *answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *it = (server){.listener = socket(AF_INET, SOCK_STREAM, 0), .answer = answer};
    if (bind(it->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(it->listener, 8) != 0 ||
        getsockname(it->listener, (struct sockaddr *)&address, &size) != 0)
        return false;
    snprintf(it->url, sizeof it->url, "http://127.0.0.1:%d/", ntohs(address.sin_port));
    return pthread_create(&it->thread, NULL, serve, it) == 0;
}

/* The clients are gone. */
static void stop(server *it)
{
    pthread_join(it->thread, NULL);
    close(it->listener);
}

static ct_transfer_request request_for(const char *url)
{
    return (ct_transfer_request){
        .method = "GET", .url = url, .upload_file = -1, .output_file = -1, .output_limit = -1};
}

/* The transfer when it is done, which the caller frees. */
static ct_transfer *run_one(ct_transfers *transfers, const ct_transfer_request *request)
{
    int64_t number;
    ct_transfer *done = NULL;
    if (ct_transfers_add(transfers, request, &number) == CT_OK &&
        ct_transfers_run(transfers, 60000, NO_POLL) == CT_OK)
        done = ct_transfers_take_done(transfers);
    return done && done->number == number ? done : NULL;
}

static void requests_share_a_connection(void)
{
    server server;
    ct_transfers *transfers;
    CHECK(start(&server, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
    CHECK_OK(ct_transfers_new(&transfers));
    ct_transfer_request request = request_for(server.url);
    for (int i = 0; i < 3; i++) {
        ct_transfer *done = run_one(transfers, &request);
        CHECK(done);
        CHECK_INT(done->http_status, 200);
        CHECK_INT(done->code, 0);
        CHECK_INT(done->sink.memory.size, 5);
        CHECK(memcmp(done->sink.memory.data, "hello", 5) == 0);
        ct_transfer_free(&done);
        CHECK(!done);
    }
    ct_transfers_free(&transfers);
    CHECK(!transfers);
    stop(&server); /* which took one connection */
    CHECK_INT(server.n_served, 3);
}

static void a_header_that_breaks_off_is_an_error(void)
{
    server server;
    ct_transfers *transfers;
    CHECK(start(&server, "HTTP/1.1 200 OK\r\nContent-Le"));
    CHECK_OK(ct_transfers_new(&transfers));
    ct_transfer_request request = request_for(server.url);
    request.idle_timeout_ms = 100;
    ct_transfer *done = run_one(transfers, &request);
    CHECK(done);
    CHECK_INT(done->code, CT_CURL_TIMED_OUT);
    CHECK_TEXT(done->message, "no byte came for 0.1 seconds");
    ct_transfer_free(&done);
    ct_transfers_free(&transfers);
    stop(&server);
}

static void what_cannot_be_reached_is_an_answer(void)
{
    ct_transfers *transfers;
    CHECK_OK(ct_transfers_new(&transfers));
    static const char *const urls[] = {"http://127.0.0.1:1/", "file:///etc/passwd", "http://[",
                                       "dict://127.0.0.1:1/"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        ct_transfer_request request = request_for(urls[i]);
        ct_transfer *done = run_one(transfers, &request);
        CHECK(done);
        CHECK_INT(done->http_status, 0);
        CHECK(done->code != 0 && done->message[0]);
        ct_transfer_free(&done);
    }
    ct_transfers_free(&transfers);
}

static ct_status interrupt(void *context)
{
    int *left = context;
    return (*left)-- > 0 ? CT_OK : ct_fail(CT_INTERRUPTED, "interrupted");
}

static void a_poll_stops_the_work_and_nothing_else(void)
{
    server server;
    ct_transfers *transfers;
    int64_t number;
    int left = 3;
    CHECK(start(&server, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"));
    CHECK_OK(ct_transfers_new(&transfers));
    ct_transfer_request request = request_for(server.url);
    CHECK_OK(ct_transfers_add(transfers, &request, &number));
    CHECK_FAILS(ct_transfers_run(transfers, 60000, (ct_poll){interrupt, &left}), CT_INTERRUPTED,
                "interrupted");
    CHECK(ct_transfers_find(transfers, number));
    ct_transfers_cancel(transfers, number);
    CHECK(!ct_transfers_find(transfers, number));
    ct_transfers_free(&transfers);
    stop(&server);
}

/* ---- failing allocations ---- */

static ct_status add_and_cancel(ct_transfers *transfers)
{
    static const char *const headers[] = {"A: b", "C: d"};
    ct_transfer_request request = request_for("http://127.0.0.1:1/");
    int64_t first, second;
    request.method = "POST";
    request.headers = headers;
    request.n_headers = 2;
    request.body = "body";
    request.body_size = 4;
    CT_TRY(ct_transfers_add(transfers, &request, &first));
    CT_TRY(ct_transfers_add(transfers, &request, &second));
    ct_transfers_cancel(transfers, first);
    return CT_OK;
}

ct_status fault_transfers(void)
{
    ct_transfers *transfers;
    ct_buffer buffer = {.limit = 100000};
    char data[3000] = {0};
    bool all;
    CT_TRY(ct_transfers_new(&transfers));
    ct_status status = add_and_cancel(transfers);
    for (int i = 0; status == CT_OK && i < 3; i++)
        status = ct_buffer_append(&buffer, data, sizeof data, &all);
    ct_buffer_clear(&buffer);
    ct_transfers_free(&transfers);
    return status;
}

const ct_test suite_net[] = {
    TEST(buffer_grows_up_to_its_limit),
    TEST(header_fields_are_found_by_name),
    TEST(sink_appends_the_part_that_was_asked_for),
    TEST(sink_begins_a_whole_answer_anew),
    TEST(sink_refuses_other_parts),
    TEST(sink_keeps_error_texts_out_of_the_file),
    TEST(sink_tells_a_full_disk),
    TEST(requests_share_a_connection),
    TEST(a_header_that_breaks_off_is_an_error),
    TEST(what_cannot_be_reached_is_an_answer),
    TEST(a_poll_stops_the_work_and_nothing_else),
    TESTS_END,
};
