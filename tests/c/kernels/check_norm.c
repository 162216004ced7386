/* Norms of rows. The portable ones sum in double, the others in f32, so that results differ by what
 * f32 sums lose. */
#include "check.h"

#include <stdlib.h>

#define MAX_WIDTH 1023

static operand rows, weights, biases, results;
static float input[MAX_WIDTH], wanted[MAX_WIDTH];

typedef enum norm { LAYER, LAYER_NO_BIAS, RMS, N_NORMS } norm;

static void run(const ct_kernels *level, norm norm, float *y, const float *x, float eps, int64_t n)
{
    const float *weight = (const float *)weights.data, *bias = (const float *)biases.data;
    if (norm == RMS)
        level->rms_norm(y, x, weight, eps, n);
    else
        level->layer_norm(y, x, weight, norm == LAYER ? bias : NULL, eps, n);
}

/* The normalized value z of x carries: the rounding of the mean and of x - mean, relative to the
 * deviation; the relative error of a sum of n squares; a few roundings of the result. */
static double tolerance(norm norm, const float *x, float eps, int64_t n, int64_t i)
{
    double sum = 0, largest = 0, squares = 0;
    for (int64_t j = 0; j < n; j++) {
        sum += x[j];
        largest = fmax(largest, fabs((double)x[j]));
    }
    double mean = norm == RMS ? 0 : sum / (double)n;
    for (int64_t j = 0; j < n; j++)
        squares += ((double)x[j] - mean) * ((double)x[j] - mean);
    double deviation = sqrt(squares / (double)n + (double)eps);
    double z = fabs((double)x[i] - mean) / deviation;
    double weight = fabs((double)((const float *)weights.data)[i]);
    double shift = norm == RMS ? 0 : 3 * EPS * largest / deviation;
    double bias = norm == LAYER ? fabs((double)((const float *)biases.data)[i]) : 0;
    return weight * (shift + z * (double)(n + 8) * EPS) + 4 * EPS * bias + TINY;
}

static void compare(const ct_kernels *level, const ct_kernels *portable, norm norm, float *y,
                    int64_t n)
{
    const float *x = (const float *)rows.data, eps = 1e-5f;
    memcpy(input, x, sizeof *x * (size_t)n);
    run(portable, norm, wanted, input, eps, n);
    run(level, norm, y, x, eps, n);
    CHECK(operand_intact(&rows) && operand_intact(&weights) && operand_intact(&biases));
    CHECK(operand_intact(&results));
    for (int64_t i = 0; i < n; i++)
        if (!close_to(y[i], wanted[i], tolerance(norm, input, eps, n, i)))
            FAIL("n %d, x[0] %g, %s: y[%d] is %.9g instead of %.9g", (int)n, (double)input[0],
                 y == x ? "in place" : "apart", (int)i, (double)y[i], (double)wanted[i]);
}

/* A row with this mean and spread, and a guest somewhere when `guest` is not 0. */
static void check_row(const ct_kernels *level, const ct_kernels *portable, norm norm, int64_t n,
                      double mean, double spread, float guest)
{
    for (int where = 0; where < N_PLACEMENTS; where++)
        for (int in_place = 0; in_place < 2 && !case_failed(); in_place++) {
            float *x = operand_floats(&rows, (placement)where, n);
            for (int64_t i = 0; i < n; i++)
                x[i] = (float)mean + random_float(spread);
            if (guest != 0)
                x[random_below(n)] = guest;
            fill_random(operand_floats(&weights, (placement)where, n), n, 2);
            fill_random(operand_floats(&biases, (placement)where, n), n, 2);
            float *y = operand_floats(&results, (placement)where, n);
            compare(level, portable, norm, in_place ? x : y, n);
        }
}

static void check_norm(const ct_kernels *level, const ct_kernels *portable, norm norm)
{
    /* The last two: squares that vanish beside eps, and the largest that f32 still sums. */
    static const double inputs[][2] = {{0, 1},   {0, 1e4},  {100, 1},   {-3e4, 1},
                                       {3.7, 0}, {0, 1e-3}, {0, 1e-30}, {0, 1e17}};
    for (int w = 0; w < n_check_widths; w++) {
        int64_t n = check_widths[w];
        for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
            check_row(level, portable, norm, n, inputs[i][0], inputs[i][1], 0);
        check_row(level, portable, norm, n, 0, 1, NAN);
        check_row(level, portable, norm, n, 0, 1, INFINITY);
        check_row(level, portable, norm, n, 0, 1, -INFINITY);
        check_row(level, portable, norm, n, 0, 1, 1e4f); /* an outlier */
    }
}

static void check_layer_norm(const ct_kernels *level, const ct_kernels *portable)
{
    check_norm(level, portable, LAYER);
    check_norm(level, portable, LAYER_NO_BIAS);
}

static void check_rms_norm(const ct_kernels *level, const ct_kernels *portable)
{
    check_norm(level, portable, RMS);
}

/* ---- timing ---- */

typedef struct timed {
    int64_t n;
    float *x, *y, *weight, *bias;
} timed;

static void run_layer_norm(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->layer_norm(t->y, t->x, t->weight, t->bias, 1e-5f, t->n);
}

static void run_rms_norm(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->rms_norm(t->y, t->x, t->weight, 1e-5f, t->n);
}

static void bench_norm(const char *member, void (*run)(const ct_kernels *, void *))
{
    static const int64_t widths[] = {576, 4096};
    for (int i = 0; i < 2; i++) {
        timed t = {.n = widths[i]};
        t.x = bench_floats(t.n);
        t.y = bench_floats(t.n);
        t.weight = bench_floats(t.n);
        t.bias = bench_floats(t.n);
        char label[64];
        snprintf(label, sizeof label, "%s %d", member, (int)t.n);
        bench(label, (double)t.n, "elem", run, &t);
        free(t.x);
        free(t.y);
        free(t.weight);
        free(t.bias);
    }
}

static void bench_layer_norm(void)
{
    bench_norm("layer_norm", run_layer_norm);
}

static void bench_rms_norm(void)
{
    bench_norm("rms_norm", run_rms_norm);
}

const kernel_case cases_norm[] = {KERNEL_CASE(layer_norm), KERNEL_CASE(rms_norm), KERNEL_CASES_END};
