/* Runs the C tests: all suites, or those that the command line names. */
#include "test.h"

#include <stdarg.h>

#include "cpu/device.h"
#include "ops/device.h"

#define SUITES(X)                                                                                  \
    X(core)                                                                                        \
    X(storage)                                                                                     \
    X(tensor)                                                                                      \
    X(dlpack)                                                                                      \
    X(quant)                                                                                       \
    X(quant_bnb)                                                                                   \
    X(device)                                                                                      \
    X(cpu_attention)                                                                               \
    X(cpu_linear)                                                                                  \
    X(cpu_pool)                                                                                    \
    X(cpu_rowwise)                                                                                 \
    X(cpu_scaled)                                                                                  \
    X(cpu_sample)                                                                                  \
    X(cpu_sample_rules)                                                                            \
    X(model_spec)                                                                                  \
    X(model_weights)                                                                               \
    X(model_batch)                                                                                 \
    X(positions)                                                                                   \
    X(kv_cache)                                                                                    \
    X(kv_arrays)                                                                                   \
    X(model_spec_fields)                                                                           \
    X(model_forward)                                                                               \
    X(model_calls)                                                                                 \
    X(scheduler)                                                                                   \
    X(session)                                                                                     \
    X(cuda_programs)                                                                               \
    X(session_ahead)                                                                               \
    X(net)                                                                                         \
    X(fault)

#define DECLARE(name) extern const ct_test suite_##name[];
SUITES(DECLARE)

typedef struct suite {
    const char *name;
    const ct_test *tests;
} suite;

#define ROW(name) {#name, suite_##name},
static const suite suites[] = {SUITES(ROW)};
#define N_SUITES (sizeof suites / sizeof *suites)

static const char *running;
static bool failed;
static int n_passed, n_failed;

void ct_test_failed(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAIL %s\n  %s:%d: ", running, file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    failed = true;
}

static void run_suite(const suite *suite)
{
    for (const ct_test *test = suite->tests; test->name; test++) {
        running = test->name;
        failed = false;
        test->run();
        *(failed ? &n_failed : &n_passed) += 1;
    }
}

static const suite *find_suite(const char *name)
{
    for (size_t i = 0; i < N_SUITES; i++)
        if (strcmp(suites[i].name, name) == 0)
            return &suites[i];
    return NULL;
}

static int refuse_name(const char *name)
{
    fprintf(stderr, "unknown suite `%s`; known ones:", name);
    for (size_t i = 0; i < N_SUITES; i++)
        fprintf(stderr, " %s", suites[i].name);
    fputc('\n', stderr);
    return 2;
}

static ct_status register_devices(void)
{
    const ct_ops *ops;
    CT_TRY(ct_cpu_ops(&ops));
    return ct_device_register(CT_DEVICE_CPU, ops);
}

int main(int n_arguments, char **arguments)
{
    if (register_devices() != CT_OK) {
        fprintf(stderr, "%s\n", ct_message());
        return 1;
    }
    for (int i = 1; i < n_arguments; i++)
        if (!find_suite(arguments[i]))
            return refuse_name(arguments[i]);
    for (int i = 1; i < n_arguments; i++)
        run_suite(find_suite(arguments[i]));
    for (size_t i = 0; n_arguments == 1 && i < N_SUITES; i++)
        run_suite(&suites[i]);
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed != 0;
}
