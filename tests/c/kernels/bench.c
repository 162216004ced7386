/* Times kernels on one thread: the median of repeats that each last long enough for the clock. It
 * is the thread's own, which other work on the machine disturbs little. */
#include "bench.h"
#include "check.h"

#include <stdlib.h>
#include <time.h>

#include "cpu/isa/select.h"

#define MIN_SECONDS 0.002 /* of a repeat */
#define MAX_SECONDS 0.3   /* of all repeats of one entry at one level */
#define MIN_REPEATS 5
#define MAX_REPEATS 41

static const char *wanted = "";

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double seconds_of(int n_calls, void (*run)(const ct_kernels *, void *),
                         const ct_kernels *level, void *operands)
{
    double begin = now();
    for (int i = 0; i < n_calls; i++)
        run(level, operands);
    return now() - begin;
}

/* The median time of one call. */
static double time_call(void (*run)(const ct_kernels *, void *), const ct_kernels *level,
                        void *operands)
{
    int n_calls = 1, n = 0;
    while (seconds_of(n_calls, run, level, operands) < MIN_SECONDS)
        n_calls *= 2;
    double seconds[MAX_REPEATS], total = 0;
    while (n < MIN_REPEATS || (n < MAX_REPEATS && total < MAX_SECONDS))
        total += seconds[n++] = seconds_of(n_calls, run, level, operands);
    qsort(seconds, (size_t)n, sizeof *seconds, by_size);
    return seconds[n / 2] / n_calls;
}

void bench_begin(const char *filter)
{
    wanted = filter;
    printf("%-40s %-8s", "one thread; ratios to portable", "G .../s");
    for (ct_isa isa = CT_ISA_PORTABLE; isa < CT_ISA_COUNT; isa++)
        printf(" %18s", ct_isa_name(isa));
    putchar('\n');
}

bool bench_wants(const char *label)
{
    return strstr(label, wanted) != NULL;
}

void bench(const char *label, double amount, const char *unit,
           void (*run)(const ct_kernels *level, void *operands), void *operands)
{
    if (!bench_wants(label))
        return;
    printf("%-40s %-8s", label, unit);
    double portable = 0;
    for (ct_isa isa = CT_ISA_PORTABLE; isa < CT_ISA_COUNT; isa++) {
        const ct_kernels *level;
        if (ct_kernels_for(isa, &level) != CT_OK)
            continue;
        double seconds = time_call(run, level, operands);
        portable = isa == CT_ISA_PORTABLE ? seconds : portable;
        printf(" %9.2f %7.2fx", 1e-9 * amount / seconds, portable / seconds);
        fflush(stdout);
    }
    putchar('\n');
}

float *bench_floats(int64_t n)
{
    float *x = aligned_alloc(64, (sizeof *x * (size_t)n + 63) / 64 * 64);
    if (!x) {
        perror("operands of a benchmark");
        exit(2);
    }
    fill_random(x, n, 1);
    return x;
}
