/* Runs the C tests: all suites, or those that the command line names; behind `--apart` each test in
 * a process of its own: a kernel's fault ends a device for the rest of a process. */
#include "test.h"

#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

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

static void run_apart(const ct_test *test)
{
    int how = 0;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        test->run();
        fflush(NULL);
        _exit(failed);
    }
    if (child < 0 || waitpid(child, &how, 0) != child)
        ct_test_failed(__FILE__, __LINE__, "there is no process for it");
    else if (!WIFEXITED(how))
        ct_test_failed(__FILE__, __LINE__, "signal %d has ended it", WTERMSIG(how));
    failed = failed || how != 0;
}

static void run_suite(const suite *suite, bool apart)
{
    for (const ct_test *test = suite->tests; test->name; test++) {
        running = test->name;
        failed = false;
        if (apart)
            run_apart(test);
        else
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
    bool apart = n_arguments > 1 && strcmp(arguments[1], "--apart") == 0;
    int first = apart ? 2 : 1;
    for (int i = first; i < n_arguments; i++)
        if (!find_suite(arguments[i]))
            return refuse_name(arguments[i]);
    for (int i = first; i < n_arguments; i++)
        run_suite(find_suite(arguments[i]), apart);
    for (size_t i = 0; n_arguments == first && i < N_SUITES; i++)
        run_suite(&suites[i], apart);
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return n_failed != 0;
}
