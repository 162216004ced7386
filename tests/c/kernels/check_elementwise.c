/* What works element by element: activations, sums, products, rotation. */
#include "check.h"

#include <stdlib.h>

#define MAX_WIDTH 1023

typedef enum alias { APART, IN_A, IN_B, N_ALIASES } alias;

/* Any operation on up to two rows. `which` tells the members of an array apart. */
typedef struct map {
    void (*run)(const ct_kernels *level, int which, float *y, const float *a, const float *b,
                int64_t n);
    /* how far results may be apart; NULL where they have to be equal */
    double (*tolerance)(int which, float a, float b);
    bool aliases[N_ALIASES]; /* which the contract allows */
} map;

static operand first, second, result;
static float a_before[MAX_WIDTH], b_before[MAX_WIDTH], wanted[MAX_WIDTH];

static void compare(const ct_kernels *level, const ct_kernels *portable, const map *map, int which,
                    alias alias, int64_t n)
{
    float *a = (float *)first.data, *b = (float *)second.data;
    float *y = alias == IN_A ? a : alias == IN_B ? b : (float *)result.data;
    memcpy(a_before, a, sizeof *a * (size_t)n);
    memcpy(b_before, b, sizeof *b * (size_t)n);
    if (!map->aliases[APART])
        memcpy(wanted, a, sizeof *a * (size_t)n);
    map->run(portable, which, wanted, a_before, b_before, n);
    map->run(level, which, y, a, b, n);
    CHECK(operand_intact(&first) && operand_intact(&second) && operand_intact(&result));
    for (int64_t i = 0; i < n; i++) {
        float u = a_before[i], v = b_before[i];
        bool good = map->tolerance ? close_to(y[i], wanted[i], map->tolerance(which, u, v))
                                   : same(y[i], wanted[i]);
        if (!good)
            FAIL("entry %d, n %d: of %.9g (%08x) and %.9g comes %.9g instead of %.9g", which,
                 (int)n, (double)u, float_bits(u), (double)v, (double)y[i], (double)wanted[i]);
    }
}

static void check_map(const ct_kernels *level, const ct_kernels *portable, const map *map,
                      int which)
{
    for (int w = 0; w < n_check_widths; w++)
        for (int where = 0; where < N_PLACEMENTS; where++)
            for (int alias = 0; alias < N_ALIASES; alias++)
                for (int awkward = 0; awkward < 2 && map->aliases[alias]; awkward++) {
                    int64_t n = check_widths[w];
                    float *a = operand_floats(&first, (placement)where, n);
                    float *b = operand_floats(&second, (placement)where, n);
                    operand_floats(&result, (placement)where, n);
                    fill_random(a, n, 12);
                    fill_random(b, n, 12);
                    if (awkward) {
                        fill_awkward(a, n);
                        fill_awkward(b, n);
                    }
                    compare(level, portable, map, which, (enum alias)alias, n);
                }
}

/* ---- activations ---- */

static void run_activate(const ct_kernels *level, int which, float *y, const float *a,
                         const float *b, int64_t n)
{
    (void)b;
    level->activate[which](y, a, n);
}

/* NONE and RELU are exact.
 *
 * GELU: 0.5 x (1 + erf) loses EPS |x| where erf is near -1, and the polynomial of the vector
 * versions is within 1.5e-7 of erf. GELU_TANH likewise, with the error of exp(2 u) in its stead:
 * a relative 2 |u| EPS beside results that vanish as exp(-2 |u|).
 *
 * SILU: relative errors of exp (2 ulp), the sum and the quotient; exp overflows at slightly
 * different places, where the result is below 1e-36 (and 0 for bound). */
static double activation_tolerance(int which, float a, float b)
{
    (void)b;
    double x = fabs((double)a), silu = x / (1 + exp(-(double)a));
    switch (which) {
    case CT_ACT_GELU:
        return x * (1e-7 + 4 * EPS) + TINY;
    case CT_ACT_GELU_TANH:
        return x * 6 * EPS + TINY;
    case CT_ACT_SILU:
        return silu * 10 * EPS + 1e-36;
    default:
        return 0;
    }
}

static void check_activate(const ct_kernels *level, const ct_kernels *portable)
{
    static const map approximate = {run_activate, activation_tolerance, {true, true, false}};
    static const map exact = {run_activate, NULL, {true, true, false}};
    for (int which = 0; which < CT_ACT_COUNT && !case_failed(); which++)
        check_map(level, portable,
                  which == CT_ACT_NONE || which == CT_ACT_RELU ? &exact : &approximate, which);
}

/* ---- arithmetic ---- */

static void run_add(const ct_kernels *level, int which, float *y, const float *a, const float *b,
                    int64_t n)
{
    (void)which;
    level->add(y, a, b, n);
}

static void check_add(const ct_kernels *level, const ct_kernels *portable)
{
    static const map sum = {run_add, NULL, {true, true, true}};
    check_map(level, portable, &sum, 0);
}

static void run_mul(const ct_kernels *level, int which, float *y, const float *a, const float *b,
                    int64_t n)
{
    (void)which;
    level->mul(y, a, b, n);
}

static void check_mul(const ct_kernels *level, const ct_kernels *portable)
{
    static const map product = {run_mul, NULL, {true, true, true}};
    check_map(level, portable, &product, 0);
}

static const float factors[] = {0, -1, 0.125f, 3e-39f, 1e30f, INFINITY, NAN};

static void run_scale(const ct_kernels *level, int which, float *y, const float *a, const float *b,
                      int64_t n)
{
    (void)a, (void)b;
    level->scale(y, factors[which], n);
}

static void check_scale(const ct_kernels *level, const ct_kernels *portable)
{
    static const map scaled = {run_scale, NULL, {false, true, false}};
    for (size_t i = 0; i < sizeof factors / sizeof *factors && !case_failed(); i++)
        check_map(level, portable, &scaled, (int)i);
}

/* ---- rotation ---- */

typedef void (*rotary)(float *x, const float *cos, const float *sin, int64_t n);

/* Two products and their sum, rounded each, or in one by a fused step. */
static void compare_rotary(rotary got, rotary portable, int64_t n, bool halves)
{
    float *x = (float *)first.data, *cos = (float *)second.data, *sin = (float *)result.data;
    memcpy(a_before, x, sizeof *x * 2 * (size_t)n);
    memcpy(wanted, x, sizeof *x * 2 * (size_t)n);
    portable(wanted, cos, sin, n);
    got(x, cos, sin, n);
    CHECK(operand_intact(&first) && operand_intact(&second) && operand_intact(&result));
    for (int64_t i = 0; i < n; i++) {
        int64_t at[2] = {halves ? i : 2 * i, halves ? i + n : 2 * i + 1};
        double u = fabs((double)a_before[at[0]]), v = fabs((double)a_before[at[1]]);
        double tolerance = 4 * (EPS * (u + v) + TINY); /* |cos|, |sin| <= 1 */
        for (int e = 0; e < 2; e++)
            if (!close_to(x[at[e]], wanted[at[e]], tolerance))
                FAIL("n %d: element %d is %.9g instead of %.9g", (int)n, (int)at[e],
                     (double)x[at[e]], (double)wanted[at[e]]);
    }
}

static void check_rotary(rotary got, rotary portable, bool halves)
{
    for (int w = 0; w < n_check_widths; w++)
        for (int where = 0; where < N_PLACEMENTS; where++)
            for (int awkward = 0; awkward < 2; awkward++) {
                int64_t n = check_widths[w];
                if (2 * n > MAX_WIDTH)
                    continue;
                float *x = operand_floats(&first, (placement)where, 2 * n);
                float *cos = operand_floats(&second, (placement)where, n);
                float *sin = operand_floats(&result, (placement)where, n);
                fill_random(cos, n, 1);
                fill_random(sin, n, 1);
                if (awkward)
                    fill_awkward(x, 2 * n);
                else
                    fill_random(x, 2 * n, 4);
                compare_rotary(got, portable, n, halves);
            }
}

static void check_rotary_halves(const ct_kernels *level, const ct_kernels *portable)
{
    check_rotary(level->rotary_halves, portable->rotary_halves, true);
}

static void check_rotary_pairs(const ct_kernels *level, const ct_kernels *portable)
{
    check_rotary(level->rotary_pairs, portable->rotary_pairs, false);
}

/* ---- timing ---- */

typedef struct timed {
    int which;
    int64_t n;
    float *a, *b, *y;
} timed;

static void bench_map(const char *label, int which, int64_t n,
                      void (*run)(const ct_kernels *, void *))
{
    timed t = {which, n, bench_floats(n), bench_floats(n), bench_floats(n)};
    char text[64];
    snprintf(text, sizeof text, "%s %d", label, (int)n);
    bench(text, (double)n, "elem", run, &t);
    free(t.a);
    free(t.b);
    free(t.y);
}

static void time_activate(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->activate[t->which](t->y, t->a, t->n);
}

static void bench_activate(void)
{
    static const char *const names[CT_ACT_COUNT] = {"none", "relu", "gelu", "gelu_tanh", "silu"};
    for (int which = 0; which < CT_ACT_COUNT; which++) {
        char label[40];
        snprintf(label, sizeof label, "activate %s", names[which] ? names[which] : "?");
        bench_map(label, which, 4096, time_activate);
    }
}

static void time_add(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->add(t->y, t->a, t->b, t->n);
}

static void bench_add(void)
{
    bench_map("add", 0, 4096, time_add);
}

static void time_mul(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->mul(t->y, t->a, t->b, t->n);
}

static void bench_mul(void)
{
    bench_map("mul", 0, 4096, time_mul);
}

static void time_scale(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->scale(t->y, 1, t->n); /* by 1: repeats would end among the subnormals */
}

static void bench_scale(void)
{
    bench_map("scale", 0, 128, time_scale);
}

/* The angle stays: repeated rotation keeps the magnitude only by cos^2 + sin^2 = 1. */
static void time_rotary_halves(const ct_kernels *level, void *operands)
{
    static const float cos[32] = {0}, sin[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    timed *t = operands;
    level->rotary_halves(t->y, cos, sin, t->n / 2);
}

static void time_rotary_pairs(const ct_kernels *level, void *operands)
{
    static const float cos[32] = {0}, sin[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    timed *t = operands;
    level->rotary_pairs(t->y, cos, sin, t->n / 2);
}

static void bench_rotary_halves(void)
{
    bench_map("rotary_halves", 0, 64, time_rotary_halves);
}

static void bench_rotary_pairs(void)
{
    bench_map("rotary_pairs", 0, 64, time_rotary_pairs);
}

const kernel_case cases_elementwise[] = {
    KERNEL_CASE(activate),      KERNEL_CASE(add),          KERNEL_CASE(mul), KERNEL_CASE(scale),
    KERNEL_CASE(rotary_halves), KERNEL_CASE(rotary_pairs), KERNEL_CASES_END};
