/* The attention's dense products and the transposition. */
#include "check.h"

#include <stdlib.h>

#define GAP 3 /* elements between rows */
#define MAX_M 14
#define MAX_N 200
#define MAX_K 80

typedef struct problem {
    int64_t m, n, k;
    float alpha;
    bool accumulate;
    operand a, b, c;
} problem;

static problem p;
static float before[MAX_M * MAX_N], wanted[MAX_M * MAX_N];

static void fill(float *x, int64_t n_rows, int64_t width, bool whole)
{
    for (int64_t i = 0; i < n_rows; i++, x += width + GAP) {
        if (whole)
            fill_whole(x, width, 8);
        else
            fill_random(x, width, 1);
    }
}

/* c holds NaN unless it is added to: a kernel that reads it all the same shows it. */
static void place(placement where, bool whole)
{
    float *a = operand_floats(&p.a, where, (p.m - 1) * (p.k + GAP) + p.k);
    float *b = operand_floats(&p.b, where, (p.k - 1) * (p.n + GAP) + p.n);
    float *c = operand_floats(&p.c, where, (p.m - 1) * (p.n + GAP) + p.n);
    fill(a, p.m, p.k, whole);
    fill(b, p.k, p.n, whole);
    if (p.accumulate)
        fill(c, p.m, p.n, whole);
    for (int64_t i = 0; i < p.m; i++)
        memcpy(before + i * p.n, c + i * (p.n + GAP), sizeof *c * (size_t)p.n);
}

static void run(const ct_kernels *level, float *c, int64_t ldc, int64_t first_row, int64_t m)
{
    const float *a = (const float *)p.a.data + first_row * (p.k + GAP);
    level->gemm_tile(c, ldc, a, p.k + GAP, (const float *)p.b.data, p.n + GAP, m, p.n, p.k, p.alpha,
                     p.accumulate);
}

/* Twice the error of a sum of k products and of what is done to it afterwards. */
static double tolerance(int64_t i, int64_t j)
{
    const float *a = (const float *)p.a.data + i * (p.k + GAP), *b = (const float *)p.b.data + j;
    double sum = 0, added = p.accumulate ? fabs((double)before[i * p.n + j]) : 0;
    for (int64_t l = 0; l < p.k; l++)
        sum += fabs((double)a[l] * (double)b[l * (p.n + GAP)]);
    return 2 * (double)(p.k + 3) * (EPS * (fabs((double)p.alpha) * sum + added) + TINY);
}

static void compare(const ct_kernels *level, const ct_kernels *portable, bool exact)
{
    const float *c = (const float *)p.c.data;
    memcpy(wanted, before, sizeof wanted);
    run(portable, wanted, p.n, 0, p.m);
    run(level, (float *)p.c.data, p.n + GAP, 0, p.m);
    CHECK(operand_intact(&p.a) && operand_intact(&p.b));
    CHECK(gaps_intact(&p.c, sizeof *c * (size_t)p.n, sizeof *c * (size_t)(p.n + GAP)));
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++)
            if (!close_to(c[i * (p.n + GAP) + j], wanted[i * p.n + j], exact ? 0 : tolerance(i, j)))
                FAIL("m %d, n %d, k %d, accumulate %d: c[%d, %d] is %.9g instead of %.9g", (int)p.m,
                     (int)p.n, (int)p.k, p.accumulate, (int)i, (int)j,
                     (double)c[i * (p.n + GAP) + j], (double)wanted[i * p.n + j]);
}

/* A row as computed alone has the bits that it had in company. */
static void compare_alone(const ct_kernels *level)
{
    const float *c = (const float *)p.c.data;
    for (int64_t i = 0; i < p.m; i++) {
        float *alone = wanted;
        memcpy(alone, before + i * p.n, sizeof *alone * (size_t)p.n);
        run(level, alone, p.n, i, 1);
        int64_t j = first_difference(alone, c + i * (p.n + GAP), p.n);
        if (j >= 0)
            FAIL("m %d, n %d, k %d: c[%d, %d] is %.9g, but %.9g alone", (int)p.m, (int)p.n,
                 (int)p.k, (int)i, (int)j, (double)c[i * (p.n + GAP) + j], (double)alone[j]);
    }
}

static void check_shape(const ct_kernels *level, const ct_kernels *portable)
{
    for (int where = 0; where < N_PLACEMENTS; where++)
        for (int accumulate = 0; accumulate < 2 && !case_failed(); accumulate++) {
            p.accumulate = accumulate;
            p.alpha = accumulate ? 1 : -0.5f;
            place((placement)where, true);
            compare(level, portable, true);
            p.alpha = 0.088388f; /* as a head's width of 128 gives */
            place((placement)where, false);
            compare(level, portable, false);
            compare_alone(level);
        }
}

/* One NaN or infinity in a reaches its row only, one in b its column. */
static void check_not_finite(const ct_kernels *level, const ct_kernels *portable)
{
    static const float guests[] = {NAN, INFINITY, -INFINITY};
    for (int g = 0; g < 6; g++) {
        place(AT_END, true);
        if (g < 3)
            ((float *)p.a.data)[random_below(p.m) * (p.k + GAP) + random_below(p.k)] = guests[g];
        else
            ((float *)p.b.data)[random_below(p.k) * (p.n + GAP) + random_below(p.n)] =
                guests[g - 3];
        compare(level, portable, true);
    }
}

static void check_gemm_tile(const ct_kernels *level, const ct_kernels *portable)
{
    static const int64_t ms[] = {1, 2, 3, 5, 6, 7, 8, 9, 13, MAX_M},
                         ks[] = {1, 2, 7, 16, 33, MAX_K};
    static const int64_t more[] = {64, 65, 80, 95, 96, 97, 127, 128, 129, 193, MAX_N};
    for (int w = 0; w < 33 + 11 && !case_failed(); w++)
        for (int i = 0; i < 10 && !case_failed(); i++) {
            p.m = ms[i];
            p.n = w < 33 ? w + 1 : more[w - 33];
            p.k = ks[(w + i) % 6];
            check_shape(level, portable);
            p.alpha = 1;
            check_not_finite(level, portable);
        }
}

static void check_transpose(const ct_kernels *level, const ct_kernels *portable)
{
    enum { MAX = 40 };
    for (int64_t m = 1; m <= MAX && !case_failed(); m += m < 18 ? 1 : 7)
        for (int64_t n = 1; n <= MAX; n += n < 18 ? 1 : 11)
            for (int where = 0; where < N_PLACEMENTS; where++) {
                int64_t ld_src = n + GAP, ld_dst = m + GAP;
                float *src = operand_floats(&p.a, (placement)where, (m - 1) * ld_src + n);
                float *dst = operand_floats(&p.c, (placement)where, (n - 1) * ld_dst + m);
                for (int64_t i = 0; i < m; i++)
                    fill_awkward(src + i * ld_src, n);
                portable->transpose(wanted, m, src, ld_src, m, n);
                level->transpose(dst, ld_dst, src, ld_src, m, n);
                CHECK(gaps_intact(&p.c, sizeof *dst * (size_t)m, sizeof *dst * (size_t)ld_dst));
                for (int64_t j = 0; j < n; j++)
                    if (memcmp(dst + j * ld_dst, wanted + j * m, sizeof *dst * (size_t)m) != 0)
                        FAIL("m %d, n %d: row %d differs", (int)m, (int)n, (int)j);
            }
}

/* ---- timing ---- */

typedef struct timed {
    int64_t m, n, k;
    float *a, *b, *c;
} timed;

static timed new_timed(int64_t m, int64_t n, int64_t k)
{
    return (timed){m, n, k, bench_floats(m * k), bench_floats(k * n), bench_floats(m * n)};
}

static void free_timed(timed *t)
{
    free(t->a);
    free(t->b);
    free(t->c);
}

static void run_gemm_tile(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemm_tile(t->c, t->n, t->a, t->k, t->b, t->n, t->m, t->n, t->k, 0.125f, false);
}

static void run_transpose(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->transpose(t->c, t->m, t->a, t->k, t->m, t->k);
}

static void bench_gemm_tile(void)
{
    static const struct {
        const char *label;
        int64_t m, n, k;
    } shapes[] = {
        {"gemm_tile scores of one token, 64 x 64", 1, 64, 64},
        {"gemm_tile scores of 4 heads, 64 x 128", 4, 64, 128},
        {"gemm_tile scores of 48 tokens, 64 x 64", 48, 64, 64},
        {"gemm_tile values of 48 tokens, 128 x 64", 48, 128, 64},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        timed t = new_timed(shapes[i].m, shapes[i].n, shapes[i].k);
        bench(shapes[i].label, 2 * (double)(t.m * t.n * t.k), "FLOP", run_gemm_tile, &t);
        free_timed(&t);
    }
}

static void bench_transpose(void)
{
    timed t = new_timed(64, 64, 64);
    bench("transpose 64 x 64", (double)(t.m * t.k), "elem", run_transpose, &t);
    free_timed(&t);
}

const kernel_case cases_tile[] = {KERNEL_CASE(gemm_tile), KERNEL_CASE(transpose), KERNEL_CASES_END};
