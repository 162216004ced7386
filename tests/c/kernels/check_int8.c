/* LLM.int8: against statements in integers and double precision, written here anew. */
#include "check.h"

#include <stdlib.h>

#define MAX_K 1100
#define MAX_N 9
#define GAP 3 /* bytes between rows */

static struct {
    operand x, codes, absmax, outliers, w, sums;
} p; /* operands keep their pages */

/* ---- a product ---- */

typedef enum values {
    ANY,     /* bytes; x without -128 */
    LARGEST, /* all products 127 * 127 */
    LOWEST,  /* all products 127 * -128 */
    N_VALUES
} values;

static void fill_bytes(int8_t *x, int64_t n, int low, int high)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (int8_t)(low + random_below(high - low + 1));
}

static void check_product(const ct_kernels *level, placement where, values values, int64_t m,
                          int64_t n, int64_t k)
{
    int64_t ldx = k + GAP, w_stride = k + GAP, ld_sums = n + GAP;
    int8_t *x = operand_place(&p.x, where, (size_t)((m - 1) * ldx + k), 1);
    int8_t *w = operand_place(&p.w, where, (size_t)((n - 1) * w_stride + k), 1);
    int32_t *sums =
        operand_place(&p.sums, where, sizeof *sums * (size_t)((m - 1) * ld_sums + n), sizeof *sums);
    for (int64_t i = 0; i < m; i++)
        fill_bytes(x + i * ldx, k, values == ANY ? -127 : 127, 127);
    for (int64_t j = 0; j < n; j++)
        fill_bytes(w + j * w_stride, k, values == LARGEST ? 127 : -128,
                   values == LOWEST ? -128 : 127);
    level->gemv_int8(sums, ld_sums, x, ldx, m, w, w_stride, n, k);
    CHECK(operand_intact(&p.x) && operand_intact(&p.w));
    CHECK(gaps_intact(&p.sums, sizeof *sums * (size_t)n, sizeof *sums * (size_t)ld_sums));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            int64_t wanted = 0;
            for (int64_t c = 0; c < k; c++)
                wanted += (int64_t)x[i * ldx + c] * w[j * w_stride + c];
            if (sums[i * ld_sums + j] != wanted)
                FAIL("m %d, n %d, k %d: sum [%d, %d] is %d instead of %lld", (int)m, (int)n, (int)k,
                     (int)i, (int)j, sums[i * ld_sums + j], (long long)wanted);
        }
}

static void check_gemv_int8(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    static const int64_t row_counts[] = {1, 2, 3, 4, 5, 7, MAX_N};
    static const int64_t more[] = {64, 96, 126, 127, 128, 129, 191, 192, 193, 1024};
    for (int64_t m = 1; m <= CT_GEMV_MAX_M; m++)
        for (int width = 0; width < n_check_widths + 10 && !case_failed(); width++) {
            int64_t k = width < n_check_widths ? check_widths[width] : more[width - n_check_widths];
            for (int where = 0; where < N_PLACEMENTS; where++)
                for (int v = 0; v < N_VALUES; v++)
                    check_product(level, (placement)where, (values)v, m,
                                  row_counts[(m + width + where) % 7], k);
        }
    check_product(level, INSIDE, LARGEST, CT_GEMV_MAX_M, 5, CT_INT8_MAX_K);
    check_product(level, INSIDE, ANY, CT_GEMV_MAX_M, 5, CT_INT8_MAX_K);
    check_product(level, INSIDE, LOWEST, 3, 2, CT_INT8_MAX_K);
}

/* ---- rows of activations and of weights ---- */

/* To nearest, ties to even, in steps of the value's power of two; the subnormals share one. */
static float rounded_to_f16(float x)
{
    if (isnan(x) || x == 0)
        return x;
    if (fabsf(x) > 65504)
        return copysignf(65504, x);
    int exponent = ilogb((double)x) < -14 ? -14 : ilogb((double)x);
    return (float)ldexp(nearbyint(ldexp((double)x, 10 - exponent)), exponent - 10);
}

/* Codes by the reciprocal of absmax, in the two roundings of f32 that are asked for. */
static int code_of(float x, float absmax)
{
    volatile float reciprocal = 1.0f / absmax;
    volatile float scale = reciprocal * 127.0f;
    volatile float product = x * scale;
    return absmax > 0 ? (int)nearbyint((double)product) : 0;
}

static void check_row(const ct_kernels *level, const float *x, int64_t k, float threshold,
                      placement where)
{
    int8_t *codes = operand_place(&p.codes, where, (size_t)k, 1);
    float *absmax = operand_floats(&p.absmax, where, 1);
    int32_t *outliers =
        operand_place(&p.outliers, where, sizeof *outliers * (size_t)k, sizeof *outliers);
    int64_t n_outliers = level->int8_input(codes, absmax, outliers, x, k, threshold);
    CHECK(operand_intact(&p.x) && operand_intact(&p.codes) && operand_intact(&p.absmax));
    CHECK(operand_intact(&p.outliers));
    float wanted = 0;
    int64_t n = 0;
    bool not_a_number = false;
    for (int64_t i = 0; i < k; i++) {
        float value = fabsf(rounded_to_f16(x[i]));
        not_a_number = not_a_number || isnan(value);
        if (threshold > 0 && value >= threshold) {
            if (n >= n_outliers || outliers[n] != i)
                FAIL("k %d, threshold %g: outlier %d is not place %d", (int)k, (double)threshold,
                     (int)n, (int)i);
            n++;
        } else if (value > wanted) {
            wanted = value;
        }
    }
    if (n != n_outliers)
        FAIL("k %d, threshold %g: %d outliers instead of %d", (int)k, (double)threshold,
             (int)n_outliers, (int)n);
    if (!same(*absmax, not_a_number ? NAN : wanted))
        FAIL("k %d, threshold %g: absmax is %.9g instead of %.9g", (int)k, (double)threshold,
             (double)*absmax, (double)wanted);
    for (int64_t i = 0; i < k; i++) {
        float value = rounded_to_f16(x[i]);
        bool zero = not_a_number || (threshold > 0 && fabsf(value) >= threshold);
        int code = zero ? 0 : code_of(value, wanted);
        if (codes[i] != code)
            FAIL("k %d, threshold %g: the code of %.9g is %d instead of %d", (int)k,
                 (double)threshold, (double)x[i], codes[i], code);
    }
}

typedef enum input {
    PLAIN,
    ABOUT_6,      /* either side of the threshold, also by rounding to f16 */
    ONE_HUGE,     /* beyond f16 */
    SMALL,        /* about f16's subnormals */
    ZEROS,        /* of either sign */
    INFINITE,     /* one of them */
    ONE_NAN,      /* anywhere */
    AWKWARD,      /* everything at once */
    ALL_OUTLIERS, /* at threshold 6 */
    N_INPUTS
} input;

static void fill_input(float *x, int64_t k, input which)
{
    static const float about_6[] = {5.9f, 5.996f, 5.998f,     5.9985f,
                                    6,    6.001f, 0x1.7fdp2f, 0x1.7ffp2f};
    fill_random(x, k, which == SMALL ? 0x1p-22 : 5);
    for (int64_t i = 0; i < k; i++) {
        if (which == ABOUT_6 && random_below(2))
            x[i] = about_6[random_below(8)] * (random_below(2) ? 1 : -1);
        if (which == ZEROS)
            x[i] = random_below(2) ? 0.0f : -0.0f;
        if (which == ALL_OUTLIERS)
            x[i] = x[i] < 0 ? x[i] - 6 : x[i] + 6;
    }
    if (which == ONE_HUGE)
        x[random_below(k)] = -1e30f;
    if (which == INFINITE)
        x[random_below(k)] = random_below(2) ? INFINITY : -INFINITY;
    if (which == ONE_NAN)
        x[random_below(k)] = NAN;
    if (which == AWKWARD)
        fill_awkward(x, k);
}

static void check_int8_input(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    static const float thresholds[] = {0, 6, 0.5f, 65504, 0x1p-24f, 1e30f};
    for (int width = 0; width < n_check_widths && !case_failed(); width++)
        for (int which = 0; which < N_INPUTS; which++)
            for (int t = 0; t < 6; t++)
                for (int where = 0; where < N_PLACEMENTS; where++) {
                    int64_t k = check_widths[width];
                    float *x = operand_floats(&p.x, (placement)where, k);
                    fill_input(x, k, (input)which);
                    check_row(level, x, k, thresholds[t], (placement)where);
                }
}

static void check_int8_quantize(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    static const double magnitudes[] = {0.1, 1, 60000, 0x1p-20, 0};
    for (int width = 0; width < n_check_widths && !case_failed(); width++)
        for (int round = 0; round < 20; round++) {
            placement where = (placement)(round % N_PLACEMENTS);
            int64_t k = check_widths[width];
            float *x = operand_floats(&p.x, where, k), wanted = 0;
            int8_t *codes = operand_place(&p.codes, where, (size_t)k, 1);
            for (int64_t i = 0; i < k; i++) {
                x[i] = rounded_to_f16(random_float(magnitudes[round % 5]));
                wanted = fmaxf(wanted, fabsf(x[i]));
            }
            float absmax = level->int8_quantize(codes, x, k);
            CHECK(operand_intact(&p.x) && operand_intact(&p.codes));
            if (float_bits(absmax) != float_bits(wanted))
                FAIL("k %d: absmax is %.9g instead of %.9g", (int)k, (double)absmax,
                     (double)wanted);
            for (int64_t i = 0; i < k; i++)
                if (codes[i] != code_of(x[i], wanted))
                    FAIL("k %d: the code of %.9g is %d instead of %d", (int)k, (double)x[i],
                         codes[i], code_of(x[i], wanted));
        }
}

/* ---- timing ---- */

typedef struct timed {
    int64_t m, n, k;
    int8_t *x, *w;
    int32_t *sums;
    float *row;
} timed;

static void run_product(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemv_int8(t->sums, t->n, t->x, t->k, t->m, t->w, t->k, t->n, t->k);
}

static void run_input(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    float absmax;
    level->int8_input(t->x, &absmax, t->sums, t->row, t->k, 0.999f);
}

static void run_quantize(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->int8_quantize(t->x, t->row, t->k);
}

static timed new_timed(int64_t k, int64_t n_bytes)
{
    timed t = {.m = 1, .n = n_bytes / k, .k = k};
    t.x = (int8_t *)bench_floats(CT_GEMV_MAX_M * k / 4);
    t.w = (int8_t *)bench_floats(n_bytes / 4);
    t.sums = (int32_t *)bench_floats(CT_GEMV_MAX_M * t.n + k);
    t.row = bench_floats(k);
    memset(t.x, 3, (size_t)(CT_GEMV_MAX_M * k));
    return t;
}

static void free_timed(timed *t)
{
    free(t->x);
    free(t->w);
    free(t->sums);
    free(t->row);
}

static void bench_gemv_int8(void)
{
    static const struct {
        int64_t k, n_bytes;
        const char *from;
    } sizes[] = {{576, 1 << 18, "cached"}, {4096, 1 << 26, "memory"}};
    for (int s = 0; s < 2; s++) {
        timed t = new_timed(sizes[s].k, sizes[s].n_bytes);
        for (t.m = 1; t.m <= CT_GEMV_MAX_M; t.m *= 2) {
            char label[64];
            snprintf(label, sizeof label, "gemv_int8 m=%d k=%d %s", (int)t.m, (int)t.k,
                     sizes[s].from);
            bench(label, (double)(t.n * t.k), "B weight", run_product, &t);
        }
        free_timed(&t);
    }
}

static void bench_int8_input(void)
{
    timed t = new_timed(4096, 1 << 15);
    bench("int8_input k=4096", (double)t.k, "elem", run_input, &t);
    free_timed(&t);
}

static void bench_int8_quantize(void)
{
    timed t = new_timed(4096, 1 << 15);
    bench("int8_quantize k=4096", (double)t.k, "elem", run_quantize, &t);
    free_timed(&t);
}

const kernel_case cases_int8[] = {KERNEL_CASE(int8_input), KERNEL_CASE(gemv_int8),
                                  KERNEL_CASE(int8_quantize), KERNEL_CASES_END};
