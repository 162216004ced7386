/* Softmax, the sampler's exponentials, and the arg max that precedes them. */
#include "check.h"

#include <stdlib.h>

#define MAX_WIDTH 1023

/* Two exponentials are apart by no more than the bound that v_exp states, twice: libm is within 1
 * ulp, v_exp within 2, and below the normal numbers by whole subnormals. */
#define EXP_EPS (8 * EPS)
#define EXP_TINY (2 * TINY)

static operand row;
static float before[MAX_WIDTH], wanted[MAX_WIDTH];

typedef enum scores {
    NEAR, /* as scores are */
    FAR,  /* most weights vanish, some among the subnormals */
    SOME_MASKED,
    ALL_MASKED,
    ONE_NAN,
    ALL_NAN,
    ONE_INFINITE,
    N_SCORES
} scores;

static void fill_scores(float *s, int64_t n, scores kind)
{
    fill_random(s, n, kind == FAR ? 120 : 4);
    for (int64_t i = 0; i < n; i++)
        if (kind == ALL_MASKED || (kind == SOME_MASKED && random_below(2)))
            s[i] = -INFINITY;
        else if (kind == ALL_NAN)
            s[i] = NAN;
    if (kind == ONE_NAN)
        s[random_below(n)] = NAN;
    if (kind == ONE_INFINITE)
        s[random_below(n)] = INFINITY;
}

static bool weights_close(const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!close_to(got[i], wanted[i], (double)wanted[i] * EXP_EPS + EXP_TINY))
            return false;
    return true;
}

static bool spoilt_by(const float *s, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isnan(s[i]) || s[i] == INFINITY)
            return true;
    return false;
}

/* One step from (*max, *sum), which becomes what the portable step makes of it. */
static void step(const ct_kernels *level, const ct_kernels *portable, int64_t n, float *max,
                 float *sum)
{
    float *s = (float *)row.data, got_max = *max, got_sum = *sum;
    memcpy(wanted, s, sizeof *s * (size_t)n);
    memcpy(before, s, sizeof *s * (size_t)n);
    float wanted_factor = portable->softmax_step(wanted, n, max, sum);
    float factor = level->softmax_step(s, n, &got_max, &got_sum);
    CHECK(operand_intact(&row));
    if (!weights_close(s, n))
        FAIL("n %d, s[0] %g: the weights differ", (int)n, (double)before[0]);
    if (!same(got_max, *max))
        FAIL("n %d: the maximum is %.9g instead of %.9g", (int)n, (double)got_max, (double)*max);
    if (spoilt_by(before, n) && !isnan(got_sum))
        FAIL("n %d: NaN or infinity among the scores is lost in the sum %g", (int)n,
             (double)got_sum);
    if (!isnan(got_sum) &&
        !close_to(factor, wanted_factor, (double)wanted_factor * EXP_EPS + EXP_TINY))
        FAIL("n %d: the correction is %.9g instead of %.9g", (int)n, (double)factor,
             (double)wanted_factor);
    double tolerance = (double)*sum * (EXP_EPS + (double)(n + 2) * EPS) + (double)n * EXP_TINY;
    if (!close_to(got_sum, *sum, tolerance))
        FAIL("n %d: the sum is %.9g instead of %.9g", (int)n, (double)got_sum, (double)*sum);
}

static void check_softmax_step(const ct_kernels *level, const ct_kernels *portable)
{
    for (int w = 0; w < n_check_widths; w++)
        for (int where = 0; where < N_PLACEMENTS; where++)
            for (int kinds = 0; kinds < N_SCORES * N_SCORES && !case_failed(); kinds++) {
                float max = -INFINITY, sum = 0;
                int64_t n = check_widths[w];
                fill_scores(operand_floats(&row, (placement)where, n), n,
                            (scores)(kinds / N_SCORES));
                step(level, portable, n, &max, &sum);
                fill_scores(operand_floats(&row, (placement)where, n), n,
                            (scores)(kinds % N_SCORES));
                step(level, portable, n, &max, &sum);
            }
}

static void compare_exp_sum(const ct_kernels *level, const ct_kernels *portable, float max,
                            int64_t n)
{
    float *x = (float *)row.data;
    memcpy(wanted, x, sizeof *x * (size_t)n);
    float wanted_sum = portable->exp_sum(wanted, max, n);
    float sum = level->exp_sum(x, max, n);
    CHECK(operand_intact(&row));
    if (!weights_close(x, n))
        FAIL("n %d, max %g: the exponentials differ", (int)n, (double)max);
    double tolerance = (double)wanted_sum * (EXP_EPS + (double)n * EPS) + (double)n * EXP_TINY;
    if (!close_to(sum, wanted_sum, tolerance))
        FAIL("n %d, max %g: the sum is %.9g instead of %.9g", (int)n, (double)max, (double)sum,
             (double)wanted_sum);
}

static void check_exp_sum(const ct_kernels *level, const ct_kernels *portable)
{
    for (int w = 0; w < n_check_widths; w++)
        for (int where = 0; where < N_PLACEMENTS; where++)
            for (int kind = 0; kind < N_SCORES; kind++) {
                int64_t n = check_widths[w];
                fill_scores(operand_floats(&row, (placement)where, n), n, (scores)kind);
                compare_exp_sum(level, portable, kind == FAR ? 120 : 4, n);
                fill_awkward(operand_floats(&row, (placement)where, n), n);
                compare_exp_sum(level, portable, random_float(100), n);
            }
}

static void compare_argmax(const ct_kernels *level, const ct_kernels *portable, int64_t n)
{
    const float *x = (const float *)row.data;
    int64_t got = level->argmax(x, n), expected = portable->argmax(x, n);
    CHECK(operand_intact(&row));
    if (got != expected)
        FAIL("n %d: place %d (%.9g) instead of %d (%.9g)", (int)n, (int)got, (double)x[got],
             (int)expected, (double)x[expected]);
}

static void check_argmax(const ct_kernels *level, const ct_kernels *portable)
{
    for (int w = 0; w < n_check_widths; w++)
        for (int where = 0; where < N_PLACEMENTS; where++) {
            int64_t n = check_widths[w];
            float *x = operand_floats(&row, (placement)where, n);
            for (int kind = 0; kind < N_SCORES; kind++) {
                fill_scores(x, n, (scores)kind);
                compare_argmax(level, portable, n);
            }
            fill_awkward(x, n);
            compare_argmax(level, portable, n);
            fill_whole(x, n, 1); /* ties */
            compare_argmax(level, portable, n);
            for (int64_t i = 0; i < n; i++) /* zeros of either sign tie too */
                x[i] = random_below(2) ? 0.0f : -0.0f;
            compare_argmax(level, portable, n);
            for (int64_t i = 0; i < n; i++) { /* the largest value in each place */
                fill_random(x, n, 1);
                x[i] = 2;
                CHECK_INT(level->argmax(x, n), i);
            }
        }
}

/* ---- timing ---- */

typedef struct timed {
    int64_t n;
    float *kept, *x;
} timed;

/* In-place kernels get their input anew each time; what the copy costs is in the figure. */
static float *fresh(timed *t)
{
    memcpy(t->x, t->kept, sizeof *t->x * (size_t)t->n);
    return t->x;
}

static void run_softmax_step(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    float max = -INFINITY, sum = 0;
    level->softmax_step(fresh(t), t->n, &max, &sum);
}

static void run_exp_sum(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->exp_sum(fresh(t), 1, t->n);
}

static void run_argmax(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    t->x[0] = (float)(level->argmax(t->kept, t->n) & 1);
}

static void bench_row(const char *member, int64_t n, void (*run)(const ct_kernels *, void *))
{
    timed t = {n, bench_floats(n), bench_floats(n)};
    char label[64];
    snprintf(label, sizeof label, "%s %d", member, (int)n);
    bench(label, (double)n, "elem", run, &t);
    free(t.kept);
    free(t.x);
}

static void bench_softmax_step(void)
{
    bench_row("softmax_step", 64, run_softmax_step);
    bench_row("softmax_step", 512, run_softmax_step);
}

static void bench_exp_sum(void)
{
    bench_row("exp_sum", 49152, run_exp_sum);
}

static void bench_argmax(void)
{
    bench_row("argmax", 49152, run_argmax);
}

const kernel_case cases_exponential[] = {KERNEL_CASE(softmax_step), KERNEL_CASE(argmax),
                                         KERNEL_CASE(exp_sum), KERNEL_CASES_END};
