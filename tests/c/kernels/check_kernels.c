/* Compares every inner kernel of csrc/cpu/isa with the portable one, at every level that this
 * processor has, or one of them by its name; with `--bench [filter]` times the same entries
 * instead.
 *
 * The table of kernels is taken as an array of pointers: each has to belong to a case, so that a
 * new member cannot be forgotten, and to be there at every level where the portable one is. */
#include "check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"
#include "cpu/isa/select.h"

#define FIRST_POINTER offsetof(ct_kernels, gemv) /* what is before it is about the level */
#define SHOWN_FAILURES 3                         /* of a case at a level */

typedef void (*slot)(void);

static const kernel_case *const lists[] = {
    cases_gemv,    cases_gemv_int16, cases_gemm, cases_codebook,    cases_int8,
    cases_convert, cases_tile,       cases_norm, cases_elementwise, cases_exponential,
};
#define N_LISTS (sizeof lists / sizeof *lists)

static char running[64]; /* "<member> at <level>" */
static int failures;     /* of the running case */
static int n_checked, n_failed;

void ct_test_failed(const char *file, int line, const char *format, ...)
{
    if (failures++ >= SHOWN_FAILURES)
        return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAIL %s\n  %s:%d: ", running, file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

bool case_failed(void)
{
    return failures > 0;
}

/* A kernel that leaves its operands lands here: names it and ends the program. */
static void crashed(int number)
{
    static const char text[] = "FAIL: access outside the operands by ";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    written += write(STDERR_FILENO, running, strlen(running));
    written += write(STDERR_FILENO, "\n", 1);
    (void)number;
    _exit(written > 0 ? 1 : 2);
}

static slot slot_at(const ct_kernels *table, size_t offset)
{
    slot pointer;
    memcpy(&pointer, (const char *)table + offset, sizeof pointer);
    return pointer;
}

static bool covers(const kernel_case *c, size_t offset)
{
    return offset >= c->offset && offset < c->offset + c->size;
}

static void every_pointer_has_a_case(void)
{
    snprintf(running, sizeof running, "coverage");
    for (size_t offset = FIRST_POINTER; offset < sizeof(ct_kernels); offset += sizeof(slot)) {
        int n = 0;
        for (size_t i = 0; i < N_LISTS; i++)
            for (const kernel_case *c = lists[i]; c->size; c++)
                n += covers(c, offset);
        if (n != 1)
            ct_test_failed(__FILE__, __LINE__,
                           "the pointer at byte %zu of ct_kernels belongs to %d cases, not 1",
                           offset, n);
    }
    n_failed += case_failed();
}

static void check_case(const kernel_case *c, const ct_kernels *level, const ct_kernels *portable)
{
    snprintf(running, sizeof running, "%s at %s", c->name, level->name);
    failures = 0;
    for (size_t offset = c->offset; offset < c->offset + c->size; offset += sizeof(slot))
        if (!slot_at(level, offset) != !slot_at(portable, offset))
            ct_test_failed(__FILE__, __LINE__, "entry %zu is %s here, unlike the portable one",
                           (offset - c->offset) / sizeof(slot),
                           slot_at(level, offset) ? "filled" : "NULL");
    if (!case_failed())
        c->check(level, portable);
    n_checked++;
    n_failed += case_failed();
}

static const ct_kernels *table_of(ct_isa isa)
{
    const ct_kernels *table;
    if (ct_kernels_for(isa, &table) == CT_OK)
        return table;
    printf("skipped: %s\n", ct_message());
    return NULL;
}

static int check_all(const char *wanted)
{
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    every_pointer_has_a_case();
    const ct_kernels *portable = table_of(CT_ISA_PORTABLE);
    for (ct_isa isa = CT_ISA_PORTABLE; isa < CT_ISA_COUNT; isa++) {
        const ct_kernels *level = table_of(isa);
        for (size_t i = 0; level && i < N_LISTS; i++)
            for (const kernel_case *c = lists[i]; c->size; c++)
                if (!wanted || strcmp(wanted, c->name) == 0)
                    check_case(c, level, portable);
    }
    printf("kernels: %d checked, %d failed\n", n_checked, n_failed);
    return n_failed || !n_checked;
}

static int bench_all(const char *filter)
{
    bench_begin(filter);
    for (size_t i = 0; i < N_LISTS; i++)
        for (const kernel_case *c = lists[i]; c->size; c++)
            c->bench();
    return 0;
}

int main(int n_arguments, char **arguments)
{
    if (n_arguments == 1)
        return check_all(NULL);
    if (n_arguments == 2 && arguments[1][0] != '-')
        return check_all(arguments[1]);
    if (strcmp(arguments[1], "--bench") == 0 && n_arguments <= 3)
        return bench_all(n_arguments == 3 ? arguments[2] : "");
    fprintf(stderr, "usage: %s [kernel] | --bench [filter]\n", arguments[0]);
    return 2;
}
