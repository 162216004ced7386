/* Products of GGUF blocks with x in whole numbers of 16 and of 31 bits: against sums in double
 * precision of what blocks decode to, and a product's independence of what is computed with it. */
#include "check.h"

#include <stdlib.h>

#include "quant/format.h"
#include "quant/gguf_blocks.h"
#include "quant/gguf_kquants.h"

#define BLOCK CT_INT16_BLOCK
#define MAX_N 9
#define MAX_K 1056
#define LDX_GAP 3 /* of fences, which show a kernel that takes them for values */
#define LDY_GAP 5
#define W_GAP 3 /* bytes */

static const ct_dtype formats[] = {CT_Q8_0, CT_Q4_0, CT_Q4_1, CT_Q5_0,
                                   CT_Q5_1, CT_Q4_K, CT_Q5_K, CT_Q6_K};
#define N_FORMATS (sizeof formats / sizeof *formats)

typedef enum values {
    WHOLE,   /* small whole numbers and scales 1 and -1: results have to be equal */
    SPREAD,  /* words of any size */
    EXTREME, /* the largest words by the largest codes: sums within a block are the largest */
    N_VALUES
} values;

typedef struct problem {
    ct_dtype dtype;
    int n_words; /* of a value of x */
    int64_t m, n, k, ldx, lds, ldy;
    size_t row_bytes, w_stride;
    operand x, scales, sums, w, y;
} problem;

static problem p;                          /* its operands keep their pages */
static float decoded[MAX_K], added[MAX_K]; /* of one row: values, and what codes of 0 stand for */

static void set_shape(ct_dtype dtype, int64_t m, int64_t n, int64_t k)
{
    p.dtype = dtype;
    p.m = m;
    p.n = n;
    p.k = k;
    p.ldx = p.n_words * k + LDX_GAP;
    p.lds = k / BLOCK + LDX_GAP;
    p.ldy = n + LDY_GAP;
    p.row_bytes = (size_t)(k / ct_dtype_block_values(dtype)) * ct_dtype_block_bytes(dtype);
    p.w_stride = p.row_bytes + W_GAP;
}

/* Where the codes of a block lie, scales and minima being elsewhere. */
static void code_bytes(size_t *begin, size_t *end)
{
    *begin = p.dtype == CT_Q6_K                            ? 0
             : ct_dtype_block_values(p.dtype) == CT_KBLOCK ? offsetof(ct_block_q4_k, q)
             : p.dtype == CT_Q4_1 || p.dtype == CT_Q5_1    ? 4
                                                           : 2;
    *end = p.dtype == CT_Q6_K ? offsetof(ct_block_q6_k, scales) : ct_dtype_block_bytes(p.dtype);
}

static void set_codes(char *row, const unsigned char *choices, int64_t n_choices)
{
    size_t begin, end;
    code_bytes(&begin, &end);
    for (size_t i = 0; i < p.row_bytes; i += ct_dtype_block_bytes(p.dtype))
        memset(row + i + begin, choices[random_below(n_choices)], end - begin);
}

static int16_t random_word(values values)
{
    int64_t most = values == WHOLE ? 8 : CT_INT16_MAX;
    return (int16_t)(random_below(2 * most + 1) - most);
}

/* What the words of a value in a block stand for, in units of its scale. */
static double word_value(const int16_t *word)
{
    return p.n_words == 2 ? word[0] + (double)CT_INT31_LOW * word[BLOCK] : word[0];
}

/* A block of x, with its scale and its sum. */
static void fill_x(int16_t *x, float *scale, float *sum, values values)
{
    double total = 0;
    int16_t largest = random_below(2) ? CT_INT16_MAX : -CT_INT16_MAX;
    int16_t low = random_below(2) ? CT_INT31_LOW_MAX : -CT_INT31_LOW_MAX;
    for (int c = 0; c < BLOCK; c++) {
        x[c] = values == EXTREME ? largest : random_word(values);
        if (p.n_words == 2) /* of small whole numbers, sixteenths */
            x[BLOCK + c] = values == EXTREME ? low
                           : values == WHOLE ? (int16_t)((random_below(17) - 8) * 2048)
                                             : (int16_t)(random_word(values) / 2);
        total += word_value(x + c);
    }
    *scale = values == WHOLE ? (random_below(2) ? 1.0f : -1.0f) : random_float(1);
    *sum = (float)total * *scale;
}

static void place(placement where, values values)
{
    static const unsigned char extremes[] = {0x00, 0x7f, 0x80, 0xff};
    size_t x_bytes = sizeof(int16_t) * (size_t)((p.m - 1) * p.ldx + p.n_words * p.k);
    int64_t n_scales = (p.m - 1) * p.lds + p.k / BLOCK;
    int16_t *x = operand_place(&p.x, where, x_bytes, sizeof *x);
    float *scales = operand_floats(&p.scales, where, n_scales);
    float *sums = operand_floats(&p.sums, where, n_scales);
    char *w = operand_place(&p.w, where, (size_t)(p.n - 1) * p.w_stride + p.row_bytes, 1);
    operand_floats(&p.y, where, (p.m - 1) * p.ldy + p.n);
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t b = 0; b < p.k / BLOCK; b++)
            fill_x(x + i * p.ldx + b * BLOCK * p.n_words, &scales[i * p.lds + b],
                   &sums[i * p.lds + b], values);
    for (int64_t j = 0; j < p.n; j++, w += p.w_stride) {
        fill_gguf_row(w, p.dtype, p.k, values == WHOLE);
        if (values == EXTREME)
            set_codes(w, extremes, sizeof extremes);
    }
}

static const ct_gemv_int16_kernel *products_of(const ct_kernels *level, int n_words)
{
    return n_words == 2 ? level->gemv_int31 : level->gemv_int16;
}

static ct_int16_input input_of(const ct_kernels *level, int n_words)
{
    return n_words == 2 ? level->int31_input : level->int16_input;
}

/* Row i of x, or all, by n rows of weights from row j on. */
static void multiply(const ct_kernels *level, float *y, int64_t ldy, int64_t i, int64_t m,
                     int64_t j, int64_t n)
{
    products_of(level, p.n_words)[p.dtype](
        y, ldy, (const int16_t *)p.x.data + i * p.ldx, p.ldx,
        (const float *)p.scales.data + i * p.lds, (const float *)p.sums.data + i * p.lds, p.lds, m,
        p.w.data + (size_t)j * p.w_stride, (int64_t)p.w_stride, n, p.k);
}

static void decode_row(int64_t j)
{
    static const unsigned char zero = 0;
    static char without_codes[MAX_K * 2];
    const char *row = p.w.data + (size_t)j * p.w_stride;
    ct_format_get(p.dtype)->dequantize(decoded, row, p.k);
    memcpy(without_codes, row, p.row_bytes);
    set_codes(without_codes, &zero, 1);
    ct_format_get(p.dtype)->dequantize(added, without_codes, p.k);
}

/* Each of k products may be rounded before it is added up, and scales are. Codes times a scale and
 * what is added to them may cancel out. */
static void compare(bool exact)
{
    const int16_t *words = (const int16_t *)p.x.data;
    const float *scales = (const float *)p.scales.data, *y = (const float *)p.y.data;
    for (int64_t j = 0; j < p.n; j++) {
        decode_row(j);
        for (int64_t i = 0; i < p.m; i++) {
            double sum = 0, magnitudes = 0;
            for (int64_t c = 0; c < p.k; c++) {
                const int16_t *word = words + i * p.ldx + c / BLOCK * BLOCK * p.n_words + c % BLOCK;
                double x = (double)scales[i * p.lds + c / BLOCK] * word_value(word);
                sum += x * (double)decoded[c];
                magnitudes += fabs(x) * (fabs((double)decoded[c]) + 2 * fabs((double)added[c]));
            }
            float got = y[i * p.ldy + j];
            double tolerance = (double)(p.k + 20) * (EPS * magnitudes + TINY);
            if (!isfinite(sum) && !isfinite(got))
                continue;
            if (!close_to(got, (float)sum, exact ? 0 : tolerance))
                FAIL("%s, m %d, n %d, k %d: y[%d, %d] is %.9g instead of %.9g",
                     ct_dtype_name(p.dtype), (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j,
                     (double)got, sum);
        }
    }
}

static void compare_alone(const ct_kernels *level)
{
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            float alone, got = ((const float *)p.y.data)[i * p.ldy + j];
            multiply(level, &alone, 1, i, 1, j, 1);
            if (!same(alone, got))
                FAIL("%s, m %d, n %d, k %d: y[%d, %d] is %.9g, but %.9g alone",
                     ct_dtype_name(p.dtype), (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j,
                     (double)got, (double)alone);
        }
}

static void run(const ct_kernels *level)
{
    multiply(level, (float *)p.y.data, p.ldy, 0, p.m, 0, p.n);
    CHECK(operand_intact(&p.x) && operand_intact(&p.w));
    CHECK(operand_intact(&p.scales) && operand_intact(&p.sums));
    CHECK(gaps_intact(&p.y, sizeof(float) * (size_t)p.n, sizeof(float) * (size_t)p.ldy));
}

/* What is not finite spoils the products of its row of x or of w, and no other. */
static void check_not_finite(const ct_kernels *level, ct_dtype dtype, int64_t k)
{
    static const float guests[] = {NAN, INFINITY};
    for (int g = 0; g < 4; g++) {
        set_shape(dtype, 5, 6, k);
        place(AT_END, WHOLE);
        uint16_t narrow = ct_f16_from_f32(guests[g % 2]);
        int64_t block = random_below(k / BLOCK), weights = block * BLOCK;
        char *w = p.w.data + 2 * p.w_stride +
                  (size_t)(weights / ct_dtype_block_values(dtype)) * ct_dtype_block_bytes(dtype);
        if (g < 2) {
            ((float *)p.scales.data)[3 * p.lds + block] = NAN;
            ((float *)p.sums.data)[3 * p.lds + block] = NAN;
        } else {
            memcpy(w + (dtype == CT_Q6_K ? offsetof(ct_block_q6_k, d) : 0), &narrow, sizeof narrow);
        }
        run(level);
        compare(true);
    }
}

static void check_products(const ct_kernels *level, int n_words)
{
    p.n_words = n_words;
    static const int64_t row_counts[] = {1, 2, 3, 4, 5, 7, MAX_N};
    for (size_t f = 0; f < N_FORMATS && !case_failed(); f++) {
        const int64_t block = ct_dtype_block_values(formats[f]);
        for (int64_t k = block; k <= MAX_K; k += block)
            for (int64_t m = 1; m <= CT_GEMV_MAX_M && !case_failed(); m++)
                for (int round = 0; round < N_VALUES; round++) {
                    int64_t number = m + k / block + round;
                    set_shape(formats[f], m, row_counts[number % 7], k);
                    place((placement)(number % N_PLACEMENTS), (values)round);
                    run(level);
                    compare(round == WHOLE);
                    compare_alone(level);
                }
        check_not_finite(level, formats[f], block);
        check_not_finite(level, formats[f], 3 * block);
    }
    for (int dtype = 0; dtype < CT_DTYPE_COUNT; dtype++)
        CHECK(!products_of(level, n_words)[dtype] || !ct_dtype_has_scales((ct_dtype)dtype));
}

static void check_gemv_int16(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    check_products(level, 1);
}

static void check_gemv_int31(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    check_products(level, 2);
}

/* ---- input ---- */

static void fill_input(float *x, int64_t k, int round)
{
    static const double scales[] = {3, 0, 0x1p-140, 0x1p-146, 1e-34, 1e30};
    for (int64_t c = 0; c < k; c += BLOCK) {
        if (round % 8 == 7) { /* ties */
            for (int i = 0; i < BLOCK; i++)
                x[c + i] = (float)random_word(SPREAD) + 0.5f;
            x[c + random_below(BLOCK)] = -CT_INT16_MAX;
        } else if (round % 8 == 6) {
            fill_awkward(x + c, BLOCK);
        } else {
            fill_random(x + c, BLOCK, scales[round % 8]);
        }
        if (round % 5 == 4) /* one that all others vanish beside */
            x[c + random_below(BLOCK)] = random_below(8) ? 3e38f : -INFINITY;
    }
}

/* The whole number that x is in units of `scale`. */
static int whole_units(float x, float scale, float most)
{
    return scale > 0 ? (int)rintf(fminf(fmaxf(x / scale, -most), most)) : 0;
}

/* One block, by division: a value is its word times the scale, and with two words what that leaves
 * is the second one times a part of it. */
static void compare_input(const float *x, const int16_t *words, float scale, float sum)
{
    float absmax = 0;
    int32_t totals[2] = {0};
    bool finite = true;
    for (int c = 0; c < BLOCK; c++) {
        finite = finite && isfinite(x[c]);
        absmax = fmaxf(absmax, fabsf(x[c]));
    }
    if (!same(scale, finite ? absmax / CT_INT16_MAX : NAN))
        FAIL("the scale of %.9g is %.9g", (double)absmax, (double)scale);
    for (int c = 0; c < BLOCK && finite; c++) {
        int wanted = whole_units(x[c], scale, CT_INT16_MAX);
        totals[0] += words[c];
        if (words[c] != wanted)
            FAIL("%.9g of scale %.9g is %d instead of %d", (double)x[c], (double)scale, words[c],
                 wanted);
        if (p.n_words == 1)
            continue;
        int low =
            whole_units(fmaf((float)-wanted, scale, x[c]), scale * CT_INT31_LOW, CT_INT31_LOW_MAX);
        totals[1] += words[BLOCK + c];
        if (words[BLOCK + c] != low)
            FAIL("%.9g of scale %.9g leaves %d instead of %d", (double)x[c], (double)scale,
                 words[BLOCK + c], low);
    }
    float total = (float)totals[0] + (float)totals[1] * CT_INT31_LOW;
    if (!same(sum, finite ? total * scale : NAN))
        FAIL("the sum is %.9g instead of %.9g times %.9g", (double)sum, (double)total,
             (double)scale);
}

static void check_input(const ct_kernels *level, int n_words)
{
    static operand source;
    p.n_words = n_words;
    for (int round = 0; round < 320 && !case_failed(); round++) {
        placement where = (placement)(round % N_PLACEMENTS);
        int64_t k = (1 + random_below(MAX_K / BLOCK)) * BLOCK;
        float *x = operand_floats(&source, where, k);
        float *scales = operand_floats(&p.scales, where, k / BLOCK);
        float *sums = operand_floats(&p.sums, where, k / BLOCK);
        int16_t *words =
            operand_place(&p.x, where, sizeof *words * (size_t)(n_words * k), sizeof *words);
        fill_input(x, k, round);
        input_of(level, n_words)(words, scales, sums, x, k);
        CHECK(operand_intact(&source) && operand_intact(&p.x));
        CHECK(operand_intact(&p.scales) && operand_intact(&p.sums));
        for (int64_t b = 0; b < k / BLOCK; b++)
            compare_input(x + b * BLOCK, words + b * BLOCK * n_words, scales[b], sums[b]);
    }
}

static void check_int16_input(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    check_input(level, 1);
}

static void check_int31_input(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    check_input(level, 2);
}

/* ---- timing ---- */

typedef struct timed {
    ct_dtype dtype;
    int n_words;
    int64_t m, n, k;
    size_t row_bytes;
    float *x, *scales, *y;
    int16_t *words;
    char *w;
} timed;

static void run_timed(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    products_of(level, t->n_words)[t->dtype](t->y, t->n, t->words, t->k * t->n_words, t->scales,
                                             t->scales, t->k / BLOCK, t->m, t->w,
                                             (int64_t)t->row_bytes, t->n, t->k);
}

static timed new_timed(ct_dtype dtype, int n_words, int64_t k, size_t n_bytes)
{
    timed t = {.dtype = dtype, .n_words = n_words, .m = 1, .k = k};
    if (ct_dtype_row_bytes(&t.row_bytes, dtype, k) != CT_OK)
        exit(2);
    t.n = (int64_t)(n_bytes / t.row_bytes);
    t.x = bench_floats(CT_GEMV_MAX_M * k);
    t.scales = bench_floats(CT_GEMV_MAX_M * k);
    t.y = bench_floats(CT_GEMV_MAX_M * t.n);
    t.words = (int16_t *)bench_floats(CT_GEMV_MAX_M * k);
    t.w = (char *)bench_floats((int64_t)(n_bytes / sizeof(float)));
    memset(t.w, 0x2c, n_bytes); /* a number in every type */
    return t;
}

static void free_timed(timed *t)
{
    free(t->x);
    free(t->scales);
    free(t->y);
    free(t->words);
    free(t->w);
}

static void bench_size(ct_dtype dtype, int n_words, int64_t k, size_t n_bytes, const char *from)
{
    timed t = new_timed(dtype, n_words, k, n_bytes);
    for (t.m = 1; t.m <= CT_GEMV_MAX_M; t.m *= 2) {
        char label[64];
        snprintf(label, sizeof label, "gemv_%s %s m=%d k=%d %s", n_words == 2 ? "int31" : "int16",
                 ct_dtype_name(dtype), (int)t.m, (int)k, from);
        bench(label, (double)t.row_bytes * (double)t.n, "B weight", run_timed, &t);
    }
    free_timed(&t);
}

static void bench_products(int n_words)
{
    for (size_t f = 0; f < N_FORMATS; f++) {
        bool k_format = ct_dtype_block_values(formats[f]) == CT_KBLOCK;
        bench_size(formats[f], n_words, k_format ? 768 : 576, (size_t)1 << 18, "cached");
        bench_size(formats[f], n_words, 4096, (size_t)1 << 26, "memory");
    }
}

static void bench_gemv_int16(void)
{
    bench_products(1);
}

static void bench_gemv_int31(void)
{
    bench_products(2);
}

static void run_input(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    input_of(level, t->n_words)(t->words, t->scales, t->y, t->x, t->k);
}

static void bench_input(const char *label, int n_words)
{
    timed t = new_timed(CT_Q8_0, n_words, 4096, 1 << 18);
    free(t.y);
    t.y = bench_floats(t.k);
    bench(label, (double)t.k, "elem", run_input, &t);
    free_timed(&t);
}

static void bench_int16_input(void)
{
    bench_input("int16_input k=4096", 1);
}

static void bench_int31_input(void)
{
    bench_input("int31_input k=4096", 2);
}

const kernel_case cases_gemv_int16[] = {KERNEL_CASE(gemv_int16), KERNEL_CASE(int16_input),
                                        KERNEL_CASE(gemv_int31), KERNEL_CASE(int31_input),
                                        KERNEL_CASES_END};
