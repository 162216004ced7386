/* Products of many rows: each has the bits that gemv gives it, wherever the edges of tiles and
 * blocks fall. */
#include "check.h"

#include <stdlib.h>

#define LDX_GAP 3
#define LDY_GAP 5
#define W_GAP 7

typedef struct problem {
    int64_t m, n, k, ldx, ldw, ldy;
    operand x, w, y, panels, scratch;
} problem;

static problem p; /* its operands keep their pages */

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static void set_shape(int64_t m, int64_t n, int64_t k)
{
    p.m = m;
    p.n = n;
    p.k = k;
    p.ldx = k + LDX_GAP;
    p.ldw = k + W_GAP;
    p.ldy = n + LDY_GAP;
}

static int64_t packed_row(void)
{
    return round_up(p.k, CT_GEMM_COLUMNS);
}

/* All values are awkward, or of the order of 1. */
static void fill(float *rows, int64_t n, int64_t ld, bool awkward)
{
    for (int64_t i = 0; i < n; i++) {
        if (awkward)
            fill_awkward(rows + i * ld, p.k);
        else
            fill_random(rows + i * ld, p.k, 1);
    }
}

static void place(placement where, bool awkward)
{
    fill(operand_floats(&p.x, where, (p.m - 1) * p.ldx + p.k), p.m, p.ldx, awkward);
    fill(operand_floats(&p.w, where, (p.n - 1) * p.ldw + p.k), p.n, p.ldw, awkward);
    operand_floats(&p.y, where, (p.m - 1) * p.ldy + p.n);
    operand_floats(&p.panels, where, round_up(p.m, CT_GEMM_ROWS) * packed_row());
    operand_floats(&p.scratch, where, CT_GEMM_SCRATCH);
}

/* Packs in two goes where there are rows for it. */
static void run(const ct_kernels *level)
{
    const float *x = (const float *)p.x.data;
    float *panels = (float *)p.panels.data;
    int64_t first = p.m > CT_GEMM_ROWS ? CT_GEMM_ROWS : 0;
    level->gemm_pack(panels + first * packed_row(), x + first * p.ldx, p.ldx, p.m - first, p.k);
    level->gemm_pack(panels, x, p.ldx, first, p.k);
    level->gemm((float *)p.y.data, p.ldy, panels, p.m, (const float *)p.w.data, p.ldw, p.n, p.k,
                (float *)p.scratch.data);
}

static void check_shape(const ct_kernels *level, placement where, bool awkward)
{
    float *wanted = malloc(sizeof *wanted * (size_t)p.n);
    const float *x;
    place(where, awkward);
    run(level);
    if (!operand_intact(&p.x) || !operand_intact(&p.w) || !operand_intact(&p.panels) ||
        !operand_intact(&p.scratch) ||
        !gaps_intact(&p.y, sizeof(float) * (size_t)p.n, sizeof(float) * (size_t)p.ldy))
        FAIL("m %d, n %d, k %d: wrote beside an operand", (int)p.m, (int)p.n, (int)p.k);
    x = (const float *)p.x.data;
    for (int64_t i = 0; i < p.m && !case_failed(); i++) {
        level->gemv[CT_F32](wanted, p.n, x + i * p.ldx, p.ldx, 1, p.w.data,
                            p.ldw * (int64_t)sizeof(float), p.n, p.k);
        int64_t j = first_difference((const float *)p.y.data + i * p.ldy, wanted, p.n);
        if (j >= 0)
            FAIL("m %d, n %d, k %d: y[%d, %d] is %.9g, but %.9g by gemv", (int)p.m, (int)p.n,
                 (int)p.k, (int)i, (int)j, (double)((float *)p.y.data)[i * p.ldy + j],
                 (double)wanted[j]);
    }
    free(wanted);
}

static void check_gemm(const ct_kernels *level, const ct_kernels *portable)
{
    static const int64_t ms[] = {1, 2, 3, 5, 6, 7, 12, 13, 23, 24, 25, 49};
    static const int64_t edges[][3] = {
        {CT_GEMM_BLOCK_X, CT_GEMM_BLOCK_W, CT_GEMM_BLOCK_K},
        {CT_GEMM_BLOCK_X + 1, CT_GEMM_BLOCK_W + 1, CT_GEMM_BLOCK_K + 1},
        {2 * CT_GEMM_BLOCK_X + 5, 3, 33},
        {31, 2 * CT_GEMM_BLOCK_W + 3, 2 * CT_GEMM_BLOCK_K + 1},
        {40, 1, 5 * CT_GEMM_BLOCK_K - 17},
    };
    (void)portable; /* with which gemv was compared */
    for (int w = 0; w < n_check_widths && !case_failed(); w++)
        for (int i = 0; i < 12 && !case_failed(); i++) {
            set_shape(ms[i], 1 + (w + 5 * i) % 41, check_widths[w]);
            check_shape(level, (placement)((w + i) % N_PLACEMENTS), false);
            check_shape(level, (placement)((w + i) % N_PLACEMENTS), true);
        }
    for (size_t e = 0; e < sizeof edges / sizeof *edges && !case_failed(); e++)
        for (int where = 0; where < N_PLACEMENTS; where++) {
            set_shape(edges[e][0], edges[e][1], edges[e][2]);
            check_shape(level, (placement)where, false);
        }
}

/* ---- timing ---- */

typedef struct timed {
    int64_t m, n, k;
    float *x, *w, *y, *panels, *scratch;
} timed;

static void run_gemm(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemm_pack(t->panels, t->x, t->k, t->m, t->k);
    level->gemm(t->y, t->n, t->panels, t->m, t->w, t->k, t->n, t->k, t->scratch);
}

/* What gemm replaces: passes of gemv over bands of weights that stay in cache. */
static void run_passes(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    int64_t band = 65536 / t->k, row_bytes = t->k * (int64_t)sizeof(float);
    for (int64_t j = 0; j < t->n; j += band)
        for (int64_t i = 0; i < t->m; i += CT_GEMV_MAX_M)
            level->gemv[CT_F32](t->y + i * t->n + j, t->n, t->x + i * t->k, t->k,
                                t->m - i < CT_GEMV_MAX_M ? t->m - i : CT_GEMV_MAX_M,
                                t->w + j * t->k, row_bytes, t->n - j < band ? t->n - j : band,
                                t->k);
}

static void bench_gemm(void)
{
    static const int64_t shapes[][3] = {{12, 2048, 2048},  {24, 2048, 2048},  {128, 2048, 2048},
                                        {512, 5632, 2048}, {512, 2048, 5632}, {12, 576, 576},
                                        {24, 576, 576},    {128, 576, 576}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t m = shapes[i][0], n = shapes[i][1], k = shapes[i][2];
        timed t = {.m = m, .n = n, .k = k};
        char label[64];
        t.x = bench_floats(m * k);
        t.w = bench_floats(n * k);
        t.y = bench_floats(m * n);
        t.panels = bench_floats(round_up(m, CT_GEMM_ROWS) * round_up(k, CT_GEMM_COLUMNS));
        t.scratch = bench_floats(CT_GEMM_SCRATCH);
        snprintf(label, sizeof label, "gemm %dx%dx%d", (int)m, (int)n, (int)k);
        bench(label, 2.0 * (double)(m * n * k), "FLOP", run_gemm, &t);
        snprintf(label, sizeof label, "gemm %dx%dx%d by gemv", (int)m, (int)n, (int)k);
        bench(label, 2.0 * (double)(m * n * k), "FLOP", run_passes, &t);
        free(t.x);
        free(t.w);
        free(t.y);
        free(t.panels);
        free(t.scratch);
    }
}

#define GEMM_MEMBERS (offsetof(ct_kernels, to_f32) - offsetof(ct_kernels, gemm_pack))

/* Packing and product are one case: only gemm knows how panels look. */
const kernel_case cases_gemm[] = {
    {"gemm", offsetof(ct_kernels, gemm_pack), GEMM_MEMBERS, check_gemm, bench_gemm},
    KERNEL_CASES_END};
