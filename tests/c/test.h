/* The harness of the C tests: a suite is a list of named functions, a check that fails prints its
 * place and leaves the function.
 *
 * To add a suite, define `const ct_test suite_<name>[]` in a file of its own and name it in main.c.
 * To add a scenario that each failing allocation is tried on, define `ct_status fault_<name>(void)`
 * beside the tests of what it runs and name it in test_fault.c. */
#ifndef CT_TEST_H
#define CT_TEST_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"

typedef struct ct_test {
    const char *name; /* says the behaviour; NULL ends a list */
    void (*run)(void);
} ct_test;

/* clang-format off */
#define TEST(function) {#function, function}
#define TESTS_END {NULL, NULL}
/* clang-format on */

/* Counts a failure of the running test and prints it as "file:line: text". */
void ct_test_failed(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The checks evaluate their arguments once and return from a void function when they fail. */
#define FAIL(...)                                                                                  \
    do {                                                                                           \
        ct_test_failed(__FILE__, __LINE__, __VA_ARGS__);                                           \
        return;                                                                                    \
    } while (0)

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            FAIL("%s", #condition);                                                                \
    } while (0)

#define CHECK_INT(actual, expected)                                                                \
    do {                                                                                           \
        long long ct_actual = (long long)(actual), ct_expected = (long long)(expected);            \
        if (ct_actual != ct_expected)                                                              \
            FAIL("%s is %lld, expected %lld", #actual, ct_actual, ct_expected);                    \
    } while (0)

#define CHECK_TEXT(actual, expected)                                                               \
    do {                                                                                           \
        const char *ct_actual = (actual), *ct_expected = (expected);                               \
        if (strcmp(ct_actual, ct_expected) != 0)                                                   \
            FAIL("%s is \"%s\", expected \"%s\"", #actual, ct_actual, ct_expected);                \
    } while (0)

#define CHECK_NEAR(actual, expected, tolerance)                                                    \
    do {                                                                                           \
        double ct_actual = (actual), ct_expected = (expected);                                     \
        if (!(fabs(ct_actual - ct_expected) <= (tolerance)))                                       \
            FAIL("%s is %.9g, expected %.9g", #actual, ct_actual, ct_expected);                    \
    } while (0)

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        ct_status ct_got = (call);                                                                 \
        if (ct_got != CT_OK)                                                                       \
            FAIL("%s failed with %d: %s", #call, (int)ct_got, ct_message());                       \
    } while (0)

/* `text` has to occur in the message. */
#define CHECK_FAILS(call, code, text)                                                              \
    do {                                                                                           \
        ct_status ct_got = (call);                                                                 \
        if (ct_got != (code))                                                                      \
            FAIL("%s gave %d, expected %s; message: %s", #call, (int)ct_got, #code, ct_message()); \
        if (!strstr(ct_message(), (text)))                                                         \
            FAIL("%s: \"%s\" does not mention \"%s\"", #call, ct_message(), (text));               \
    } while (0)

#endif
