/* Matrix-vector products: against the portable ones, and a product's independence of what is
 * computed with it. */
#include "check.h"

#include <stdlib.h>

#include "quant/gguf_kquants.h"

#define MAX_N 9
#define MAX_K 1056
#define LDX_GAP 3 /* NaN between rows of x; a kernel that reads them shows it */
#define LDY_GAP 5
#define W_GAP 3 /* elements, or bytes of a quantized type */

typedef enum values {
    WHOLE,  /* sums are exact: results have to be equal */
    SPREAD, /* results agree within the error of summation */
    N_VALUES
} values;

typedef struct problem {
    ct_dtype dtype;
    int64_t m, n, k, ldx, ldy;
    size_t row_bytes, w_stride;
    operand x, w, y;
    float wanted[CT_GEMV_MAX_M * MAX_N];
} problem;

static problem p; /* its operands keep their pages */
static float decoded[MAX_N * MAX_K];

static void set_shape(ct_dtype dtype, int64_t m, int64_t n, int64_t k)
{
    p.dtype = dtype;
    p.m = m;
    p.n = n;
    p.k = k;
    p.ldx = k + LDX_GAP;
    p.ldy = n + LDY_GAP;
    p.row_bytes = (size_t)(k / ct_dtype_block_values(dtype)) * (size_t)ct_dtype_block_bytes(dtype);
    size_t element = ct_dtype_is_quantized(dtype) ? 1 : ct_dtype_block_bytes(dtype);
    p.w_stride = p.row_bytes + W_GAP * element;
}

/* One row of weights. */
static void fill_weights(const ct_kernels *portable, char *w, values values)
{
    float row[MAX_K];
    if (ct_dtype_is_quantized(p.dtype)) {
        fill_gguf_row(w, p.dtype, p.k, values == WHOLE);
        return;
    }
    if (values == WHOLE)
        fill_whole(row, p.k, 8);
    else
        fill_random(row, p.k, 1);
    portable->from_f32[p.dtype](w, row, p.k);
}

static void place(const ct_kernels *portable, placement where, values values)
{
    size_t element = ct_dtype_is_quantized(p.dtype) ? 1 : ct_dtype_block_bytes(p.dtype);
    float *x = operand_floats(&p.x, where, (p.m - 1) * p.ldx + p.k);
    char *w = operand_place(&p.w, where, (size_t)(p.n - 1) * p.w_stride + p.row_bytes, element);
    operand_floats(&p.y, where, (p.m - 1) * p.ldy + p.n);
    for (int64_t i = 0; i < p.m; i++) {
        if (values == WHOLE)
            fill_whole(x + i * p.ldx, p.k, 8);
        else
            fill_random(x + i * p.ldx, p.k, 1);
    }
    for (int64_t j = 0; j < p.n; j++)
        fill_weights(portable, w + (size_t)j * p.w_stride, values);
}

static void run(const ct_kernels *level, float *y, int64_t ldy)
{
    level->gemv[p.dtype](y, ldy, (const float *)p.x.data, p.ldx, p.m, p.w.data, (int64_t)p.w_stride,
                         p.n, p.k);
}

static void decode_weights(const ct_kernels *portable)
{
    for (int64_t j = 0; j < p.n; j++)
        portable->to_f32[p.dtype](decoded + j * p.k, p.w.data + (size_t)j * p.w_stride, p.k);
}

/* Two sums of k products in different order differ by no more than twice
 * (k + 1) EPS sum |x w|: Higham, Accuracy and Stability, section 3.1. */
static double tolerance(int64_t i, int64_t j)
{
    const float *x = (const float *)p.x.data + i * p.ldx;
    double sum = 0;
    for (int64_t l = 0; l < p.k; l++)
        sum += fabs((double)x[l] * (double)decoded[j * p.k + l]);
    return 2 * (double)(p.k + 1) * (EPS * sum + TINY);
}

static void compare(const ct_kernels *level, const ct_kernels *portable, values values)
{
    float *y = (float *)p.y.data;
    run(portable, p.wanted, p.n);
    run(level, y, p.ldy);
    CHECK(operand_intact(&p.x) && operand_intact(&p.w));
    if (!gaps_intact(&p.y, sizeof *y * (size_t)p.n, sizeof *y * (size_t)p.ldy))
        FAIL("%s, m %d, n %d, k %d: wrote beside y", ct_dtype_name(p.dtype), (int)p.m, (int)p.n,
             (int)p.k);
    if (values != WHOLE)
        decode_weights(portable);
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            float got = y[i * p.ldy + j], wanted = p.wanted[i * p.n + j];
            if (ct_dtype_is_quantized(p.dtype) && !isfinite(wanted) && !isfinite(got))
                continue; /* d q + m becomes NaN or infinity by where d is multiplied in */
            if (!close_to(got, wanted, values == WHOLE ? 0 : tolerance(i, j)))
                FAIL("%s, m %d, n %d, k %d: y[%d, %d] is %.9g instead of %.9g",
                     ct_dtype_name(p.dtype), (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j,
                     (double)got, (double)wanted);
        }
}

/* y[i, j] as computed alone has the bits that it had in company. */
static void compare_alone(const ct_kernels *level)
{
    const float *y = (const float *)p.y.data;
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            float alone;
            level->gemv[p.dtype](&alone, 1, (const float *)p.x.data + i * p.ldx, p.ldx, 1,
                                 p.w.data + (size_t)j * p.w_stride, (int64_t)p.w_stride, 1, p.k);
            if (!same(alone, y[i * p.ldy + j]))
                FAIL("%s, m %d, n %d, k %d: y[%d, %d] is %.9g, but %.9g alone",
                     ct_dtype_name(p.dtype), (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j,
                     (double)y[i * p.ldy + j], (double)alone);
        }
}

static void check_shape(const ct_kernels *level, const ct_kernels *portable, int64_t n, int64_t k)
{
    ct_dtype dtype = p.dtype;
    for (int64_t m = 1; m <= CT_GEMV_MAX_M && !case_failed(); m++)
        for (int where = 0; where < N_PLACEMENTS; where++) {
            set_shape(dtype, m, n, k);
            for (int v = 0; v < N_VALUES && !case_failed(); v++) {
                place(portable, (placement)where, (values)v);
                compare(level, portable, (values)v);
            }
            compare_alone(level);
        }
}

/* Puts a value into some weight, and into some block's scale where weights are quantized, in f16.
 */
static void spoil_weights(float guest)
{
    char *row = p.w.data + (size_t)random_below(p.n) * p.w_stride;
    int64_t column = random_below(p.k);
    uint16_t narrow = p.dtype == CT_BF16 ? ct_bf16_from_f32(guest) : ct_f16_from_f32(guest);
    if (p.dtype == CT_F32)
        ((float *)row)[column] = guest;
    else
        memcpy(row +
                   (size_t)(column / ct_dtype_block_values(p.dtype)) *
                       ct_dtype_block_bytes(p.dtype) +
                   (p.dtype == CT_Q6_K ? offsetof(ct_block_q6_k, d) : 0),
               &narrow, sizeof narrow);
}

/* NaN and infinities reach those products, and only those, whose row of x or of w holds them. */
static void check_not_finite(const ct_kernels *level, const ct_kernels *portable)
{
    static const float guests[] = {NAN, INFINITY, -INFINITY};
    ct_dtype dtype = p.dtype;
    int64_t block = ct_dtype_block_values(dtype), first = block == 1 ? 32 : block;
    for (int64_t k = first; k <= 3 * first && !case_failed(); k += block)
        for (int g = 0; g < 6; g++) {
            set_shape(dtype, 1 + random_below(CT_GEMV_MAX_M), 5, k);
            place(portable, AT_END, WHOLE);
            if (g < 3)
                ((float *)p.x.data)[random_below(p.m) * p.ldx + random_below(k)] = guests[g];
            else
                spoil_weights(guests[g - 3]);
            compare(level, portable, WHOLE);
        }
}

/* Products of subnormals and of numbers near the largest: nothing is flushed, nothing overflows
 * before its time. */
static void check_magnitudes(const ct_kernels *level, const ct_kernels *portable)
{
    static const double scales[] = {1e-38, 1e-41, 1e30};
    ct_dtype dtype = p.dtype;
    for (int s = 0; s < 3; s++)
        for (int64_t m = 1; m <= CT_GEMV_MAX_M && !case_failed(); m++) {
            set_shape(dtype, m, 6, ct_dtype_block_values(dtype) == CT_KBLOCK ? CT_KBLOCK : 96);
            place(portable, AT_END, SPREAD);
            for (int64_t i = 0; i < m; i++)
                fill_random((float *)p.x.data + i * p.ldx, p.k, scales[s]);
            compare(level, portable, SPREAD);
        }
    if (ct_dtype_is_quantized(dtype) || dtype == CT_F32)
        return;
    for (int64_t m = 1; m <= CT_GEMV_MAX_M && !case_failed(); m++) { /* subnormal weights */
        set_shape(dtype, m, 6, 77);
        place(portable, AT_END, SPREAD);
        for (int64_t j = 0; j < p.n; j++)
            for (int64_t l = 0; l < p.k; l++)
                ((uint16_t *)(p.w.data + (size_t)j * p.w_stride))[l] =
                    (uint16_t)random_below(dtype == CT_F16 ? 0x400 : 0x80);
        compare(level, portable, SPREAD);
    }
}

static void check_gemv(const ct_kernels *level, const ct_kernels *portable)
{
    static const int64_t row_counts[] = {1, 2, 3, 4, 5, 7, MAX_N};
    for (int dtype = 0; dtype < CT_DTYPE_COUNT && !case_failed(); dtype++) {
        int64_t block = ct_dtype_block_values((ct_dtype)dtype);
        if (!portable->gemv[dtype])
            continue;
        for (int w = 0; w < n_check_widths && !case_failed(); w++) {
            int64_t k = block == 1 ? check_widths[w] : block * (1 + w % (MAX_K / block));
            p.dtype = (ct_dtype)dtype;
            check_shape(level, portable, row_counts[w % 7], k);
        }
        p.dtype = (ct_dtype)dtype;
        for (int i = 0; i < 7 && !case_failed(); i++) /* two steps of 32 and one value */
            check_shape(level, portable, row_counts[i], block == 1 ? 65 : 2 * block);
        check_not_finite(level, portable);
        check_magnitudes(level, portable);
    }
}

/* ---- timing ---- */

typedef struct timed {
    ct_dtype dtype;
    int64_t m, n, k;
    size_t row_bytes;
    float *x, *y;
    char *w;
} timed;

static void run_timed(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemv[t->dtype](t->y, t->n, t->x, t->k, t->m, t->w, (int64_t)t->row_bytes, t->n, t->k);
}

/* `n_bytes` of weights: a share of the second-level cache, or more than the last level holds. */
static void bench_size(ct_dtype dtype, int64_t k, size_t n_bytes, const char *from)
{
    timed t = {.dtype = dtype, .k = k};
    if (ct_dtype_row_bytes(&t.row_bytes, dtype, k) != CT_OK)
        return;
    t.n = (int64_t)(n_bytes / t.row_bytes);
    t.x = bench_floats(CT_GEMV_MAX_M * k);
    t.y = bench_floats(CT_GEMV_MAX_M * t.n);
    t.w = (char *)bench_floats((int64_t)(n_bytes / sizeof(float)));
    memset(t.w, 0x2c, n_bytes); /* a number in every type */
    for (t.m = 1; t.m <= CT_GEMV_MAX_M; t.m *= 2) {
        char label[64];
        snprintf(label, sizeof label, "gemv %s m=%d k=%d %s", ct_dtype_name(dtype), (int)t.m,
                 (int)k, from);
        bench(label, (double)t.row_bytes * (double)t.n, "B weight", run_timed, &t);
    }
    free(t.x);
    free(t.y);
    free(t.w);
}

static void bench_gemv(void)
{
    for (int i = 0; i < CT_DTYPE_COUNT; i++) {
        ct_dtype dtype = (ct_dtype)i;
        bool has_kernel = ct_dtype_is_float(dtype) || ct_dtype_is_quantized(dtype);
        if (!has_kernel || ct_dtype_has_scales(dtype))
            continue;
        bench_size(dtype, ct_dtype_block_values(dtype) == CT_KBLOCK ? 768 : 576, (size_t)1 << 18,
                   "cached");
        bench_size(dtype, 4096, (size_t)1 << 26, "memory");
    }
}

const kernel_case cases_gemv[] = {KERNEL_CASE(gemv), KERNEL_CASES_END};
