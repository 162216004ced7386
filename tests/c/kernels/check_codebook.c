/* Products with 4-bit codes, and what makes codes: against statements in double precision or by
 * cases, written here anew, and a product's independence of what is computed with it. */
#include "check.h"

#include <stdlib.h>

#include "tensor/dtype.h"

#define BLOCK CT_CODEBOOK_BLOCK
#define MAX_N 9
#define MAX_BLOCKS 9
#define MAX_K (MAX_BLOCKS * BLOCK)
#define LDX_GAP 3 /* NaN between rows of x; a kernel that reads them shows it */
#define LDY_GAP 5

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- the codebooks ---- */

static const uint32_t nf4_bits[16] = {
    0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000,
    0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a, 0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
static const uint32_t fp4_bits[16] = {
    0x00000000, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000,
    0x80000000, 0xbbaaaaab, 0xbf2aaaab, 0xbf800000, 0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000};

typedef enum codebook {
    NF4,
    NF4_AS_BF16,     /* the lower half of every entry is 0 */
    NF4_NEARLY_BF16, /* of all but one */
    FP4,
    WHOLE_NUMBERS, /* sums are exact: results have to be equal */
    N_CODEBOOKS
} codebook;

static void make_table(float table[16], codebook which)
{
    for (int i = 0; i < 16; i++) {
        table[i] = from_bits(which == FP4 ? fp4_bits[i] : nf4_bits[i]);
        if (which == NF4_AS_BF16 || which == NF4_NEARLY_BF16)
            table[i] = ct_bf16_to_f32(ct_bf16_from_f32(table[i]));
        if (which == WHOLE_NUMBERS)
            table[i] = (float)(random_below(15) - 7);
    }
    if (which == NF4_NEARLY_BF16) {
        int i = (int)random_below(16);
        table[i] = from_bits(float_bits(table[i]) | 1);
    }
}

/* ---- a product ---- */

typedef struct problem {
    int64_t m, n, k, ldx, ldy, x_lds;
    codebook which;
    operand x, x_scales, ordered, codes, scales, y;
    float table[16];
    int x_size; /* 1 or 2: x and the table in bytes or in words */
    int16_t whole[16];
} problem;

static problem p; /* its operands keep their pages */
static float input[CT_GEMV_MAX_M * MAX_K];

static void set_shape(codebook which, int64_t m, int64_t n, int64_t k)
{
    p.which = which;
    p.m = m;
    p.n = n;
    p.k = k;
    p.ldx = k + LDX_GAP;
    p.ldy = n + LDY_GAP;
    p.x_lds = k / BLOCK + LDX_GAP;
}

/* Powers of two for whole numbers, so that products with them are exact too. */
static float random_scale(void)
{
    float power = from_bits((uint32_t)(124 + random_below(6)) << 23);
    return p.which == WHOLE_NUMBERS ? power : fabsf(random_float(1));
}

/* Codes, scales and y at `where`; the table; the input as it was before it is ordered. */
static void place(placement where)
{
    uint8_t *codes = operand_place(&p.codes, where, (size_t)(p.n * p.k / 2), 1);
    float *scales = operand_floats(&p.scales, where, p.n * p.k / BLOCK);
    operand_floats(&p.y, where, (p.m - 1) * p.ldy + p.n);
    for (int64_t i = 0; i < p.n * p.k / 2; i++)
        codes[i] = (uint8_t)random_bits();
    for (int64_t i = 0; i < p.n * p.k / BLOCK; i++)
        scales[i] = random_scale();
    make_table(p.table, p.which);
    if (p.which == WHOLE_NUMBERS)
        fill_whole(input, p.m * p.k, 8);
    else
        fill_random(input, p.m * p.k, 1);
}

/* The input in the order that the level wants. */
static void order_input(const ct_kernels *level, placement where)
{
    float *ordered = operand_floats(&p.ordered, where, (p.m - 1) * p.ldx + p.k);
    for (int64_t i = 0; i < p.m; i++)
        level->codebook_input(ordered + i * p.ldx, input + i * p.k, p.k);
}

static int code_at(int64_t j, int64_t c)
{
    uint8_t byte = ((const uint8_t *)p.codes.data)[(j * p.k + c) / 2];
    return c % 2 ? byte & 15 : byte >> 4;
}

static float scale_at(int64_t j, int64_t c)
{
    return ((const float *)p.scales.data)[(j * p.k + c) / BLOCK];
}

static void run(const ct_kernels *level)
{
    level->gemv_codebook((float *)p.y.data, p.ldy, (const float *)p.ordered.data, p.ldx, p.m,
                         (const uint8_t *)p.codes.data, (const float *)p.scales.data, p.n, p.k,
                         p.table);
    CHECK(operand_intact(&p.ordered) && operand_intact(&p.codes) && operand_intact(&p.scales));
    CHECK(gaps_intact(&p.y, sizeof(float) * (size_t)p.n, sizeof(float) * (size_t)p.ldy));
}

/* A sum of k products, each block of which is scaled, may be off by (k + 2) EPS of the sum of
 * their magnitudes, plus a subnormal's rounding in each step: Higham, Accuracy and Stability,
 * section 3.1. Where a scale is not finite, lanes of a block may meet it apart. */
static void compare(void)
{
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            double sum = 0, magnitudes = 0;
            for (int64_t b = 0; b < p.k; b += BLOCK) {
                double block = 0;
                for (int64_t c = b; c < b + BLOCK; c++) {
                    double term = (double)input[i * p.k + c] * (double)p.table[code_at(j, c)];
                    block += term;
                    magnitudes += fabs(term * (double)scale_at(j, b));
                }
                sum += block * (double)scale_at(j, b);
            }
            float got = ((const float *)p.y.data)[i * p.ldy + j];
            double tolerance = (double)(p.k + 2) * (EPS * magnitudes + TINY);
            if (!isfinite(sum) && !isfinite(got))
                continue;
            if (!close_to(got, (float)sum, p.which == WHOLE_NUMBERS ? 0 : tolerance))
                FAIL("codebook %d, m %d, n %d, k %d: y[%d, %d] is %.9g instead of %.9g", p.which,
                     (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j, (double)got, sum);
        }
}

/* A product as computed alone has the bits that it had in company. */
static void compare_alone(const ct_kernels *level)
{
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            float alone, got = ((const float *)p.y.data)[i * p.ldy + j];
            level->gemv_codebook(&alone, 1, (const float *)p.ordered.data + i * p.ldx, p.ldx, 1,
                                 (const uint8_t *)p.codes.data + j * p.k / 2,
                                 (const float *)p.scales.data + j * p.k / BLOCK, 1, p.k, p.table);
            if (!same(alone, got))
                FAIL("codebook %d, m %d, n %d, k %d: y[%d, %d] is %.9g, but %.9g alone", p.which,
                     (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j, (double)got, (double)alone);
        }
}

/* NaN and infinities reach those products, and only those, whose row of x or block's scale holds
 * them; what is near the largest or the smallest numbers neither overflows nor vanishes. */
static void check_extremes(const ct_kernels *level)
{
    static const float guests[] = {NAN, INFINITY, -INFINITY, 0x1p-140f, 1e30f};
    for (int g = 0; g < 10; g++) {
        set_shape(g % 2 ? WHOLE_NUMBERS : NF4_AS_BF16, 1 + random_below(CT_GEMV_MAX_M), 5,
                  (1 + random_below(3)) * BLOCK);
        place(AT_END);
        if (g < 5)
            input[random_below(p.m * p.k)] = guests[g];
        else
            ((float *)p.scales.data)[random_below(p.n * p.k / BLOCK)] = guests[g - 5];
        order_input(level, AT_END);
        run(level);
        p.which = NF4; /* beside 1e30, whole numbers are rounded as others are */
        compare();
    }
    static const double magnitudes[] = {1e-38, 1e-41, 1e30};
    for (int s = 0; s < 3; s++)
        for (int64_t m = 1; m <= CT_GEMV_MAX_M; m++) {
            set_shape(s ? NF4_AS_BF16 : NF4, m, 6, 3 * BLOCK);
            place(INSIDE);
            fill_random(input, m * p.k, magnitudes[s]);
            order_input(level, INSIDE);
            run(level);
            compare();
            compare_alone(level);
        }
}

static void check_gemv_codebook(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    static const int64_t row_counts[] = {1, 2, 3, 4, 5, 7, MAX_N};
    for (int which = 0; which < N_CODEBOOKS; which++)
        for (int64_t m = 1; m <= CT_GEMV_MAX_M; m++)
            for (int64_t blocks = 1; blocks <= MAX_BLOCKS && !case_failed(); blocks++)
                for (int where = 0; where < N_PLACEMENTS; where++) {
                    int64_t n = row_counts[(m + blocks + where) % 7];
                    set_shape((codebook)which, m, n, blocks * BLOCK);
                    place((placement)where);
                    order_input(level, (placement)where);
                    run(level);
                    compare();
                    compare_alone(level);
                }
    check_extremes(level);
}

/* ---- the same with bytes and with words ---- */

static int most(void)
{
    return p.x_size == 1 ? 127 : CT_CODEBOOK_INT16_MAX;
}

static int whole_at(const void *x, int64_t place)
{
    return p.x_size == 1 ? ((const int8_t *)x)[place] : ((const int16_t *)x)[place];
}

static void set_whole(void *x, int64_t place, int64_t value)
{
    if (p.x_size == 1)
        ((int8_t *)x)[place] = (int8_t)value;
    else
        ((int16_t *)x)[place] = (int16_t)value;
}

static void to_whole(const ct_kernels *level, void *dst, float *scales, const float *x, int64_t k)
{
    if (p.x_size == 1)
        level->codebook_input_int8(dst, scales, x, k);
    else
        level->codebook_input_int16(dst, scales, x, k);
}

/* Row i of x, or all, by n rows of weights from row j on. */
static void multiply_whole(const ct_kernels *level, float *y, int64_t ldy, int64_t i, int64_t m,
                           int64_t j, int64_t n)
{
    const char *x = (const char *)p.x.data + i * p.ldx * p.x_size;
    const float *x_scales = (const float *)p.x_scales.data + i * p.x_lds;
    const uint8_t *codes = (const uint8_t *)p.codes.data + j * p.k / 2;
    const float *scales = (const float *)p.scales.data + j * p.k / BLOCK;
    int8_t bytes[16];
    for (int c = 0; c < 16; c++)
        bytes[c] = (int8_t)p.whole[c];
    if (p.x_size == 1)
        level->gemv_codebook_int8(y, ldy, (const int8_t *)x, p.ldx, x_scales, p.x_lds, m, codes,
                                  scales, n, p.k, bytes);
    else
        level->gemv_codebook_int16(y, ldy, (const int16_t *)x, p.ldx, x_scales, p.x_lds, m, codes,
                                   scales, n, p.k, p.whole);
}

/* -> the place in its block of what stands at `ordered` of a block. */
static void find_order(int order[BLOCK], const ct_kernels *level)
{
    float x[BLOCK], scale;
    int16_t ordered[BLOCK];
    for (int c = 0; c < BLOCK; c++)
        x[c] = (float)(64 + c); /* up to 127: the scale of bytes is 1 */
    to_whole(level, ordered, &scale, x, BLOCK);
    bool seen[BLOCK] = {false};
    for (int c = 0; c < BLOCK; c++) {
        order[c] = (int)lrintf((float)whole_at(ordered, c) * scale) - 64;
        if (order[c] < 0 || order[c] >= BLOCK || seen[order[c]])
            FAIL("number %d of a block is %d", c, whole_at(ordered, c));
        else
            seen[order[c]] = true;
    }
}

static float random_sign(void)
{
    return random_below(2) ? 1 : -1;
}

/* Whole numbers of x and of the table, and the scales of x. WHOLE_NUMBERS has the scales 1 and -1,
 * and in words a few bits, with which MAX_BLOCKS sums fit the 24 bits of a float. */
static void place_whole(placement where, const int order[BLOCK], bool extreme)
{
    int range = p.x_size == 2 && p.which == WHOLE_NUMBERS && !extreme ? 127 : most();
    char *x = operand_place(&p.x, where, (size_t)(((p.m - 1) * p.ldx + p.k) * p.x_size),
                            (size_t)p.x_size);
    float *x_scales = operand_floats(&p.x_scales, where, (p.m - 1) * p.x_lds + p.k / BLOCK);
    for (int i = 0; i < 16; i++)
        p.whole[i] =
            (int16_t)(extreme ? (i % 2 ? range : -range) : random_below(2 * range + 1) - range);
    for (int64_t i = 0; i < p.m; i++) {
        for (int64_t c = 0; c < p.k; c++) {
            int64_t value = random_below(2 * range + 1) - range;
            if (extreme) /* the sign of the first row of codes, so that its sums are the largest */
                value = code_at(0, c / BLOCK * BLOCK + order[c % BLOCK]) % 2 ? range : -range;
            set_whole(x, i * p.ldx + c, value);
        }
        for (int64_t b = 0; b < p.k / BLOCK; b++)
            x_scales[i * p.x_lds + b] = p.which == WHOLE_NUMBERS ? random_sign() : random_scale();
    }
    for (int64_t b = 0; b < p.n * p.k / BLOCK && p.which == WHOLE_NUMBERS; b++)
        ((float *)p.scales.data)[b] = random_sign();
}

static void run_whole(const ct_kernels *level)
{
    multiply_whole(level, (float *)p.y.data, p.ldy, 0, p.m, 0, p.n);
    CHECK(operand_intact(&p.x) && operand_intact(&p.x_scales));
    CHECK(operand_intact(&p.codes) && operand_intact(&p.scales));
    CHECK(gaps_intact(&p.y, sizeof(float) * (size_t)p.n, sizeof(float) * (size_t)p.ldy));
}

/* Sums within a block are exact in each lane; lanes, scales, and the blocks that a lane adds up,
 * are rounded. */
static void compare_whole(const int order[BLOCK], bool exact)
{
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            double sum = 0, magnitudes = 0;
            for (int64_t b = 0; b < p.k / BLOCK; b++) {
                double scale = (double)((const float *)p.x_scales.data)[i * p.x_lds + b];
                int64_t block = 0, magnitude = 0;
                for (int c = 0; c < BLOCK; c++) {
                    int64_t term = (int64_t)whole_at(p.x.data, i * p.ldx + b * BLOCK + c) *
                                   p.whole[code_at(j, b * BLOCK + order[c])];
                    block += term;
                    magnitude += llabs(term);
                }
                scale *= (double)scale_at(j, b * BLOCK);
                sum += scale * (double)block;
                magnitudes += fabs(scale) * (double)magnitude;
            }
            float got = ((const float *)p.y.data)[i * p.ldy + j];
            double tolerance = (double)(p.k / BLOCK + 20) * (EPS * magnitudes + TINY);
            if (!close_to(got, (float)sum, exact ? 0 : tolerance))
                FAIL("codebook %d, m %d, n %d, k %d: y[%d, %d] is %.9g instead of %.9g", p.which,
                     (int)p.m, (int)p.n, (int)p.k, (int)i, (int)j, (double)got, sum);
        }
}

static void compare_whole_alone(const ct_kernels *level)
{
    for (int64_t i = 0; i < p.m; i++)
        for (int64_t j = 0; j < p.n; j++) {
            float alone, got = ((const float *)p.y.data)[i * p.ldy + j];
            multiply_whole(level, &alone, 1, i, 1, j, 1);
            if (!same(alone, got))
                FAIL("m %d, n %d, k %d: y[%d, %d] is %.9g, but %.9g alone", (int)p.m, (int)p.n,
                     (int)p.k, (int)i, (int)j, (double)got, (double)alone);
        }
}

static void check_whole_products(const ct_kernels *level)
{
    static const int64_t row_counts[] = {1, 2, 3, 4, 5, 7, MAX_N};
    int order[BLOCK];
    find_order(order, level);
    for (int64_t m = 1; m <= CT_GEMV_MAX_M; m++)
        for (int64_t blocks = 1; blocks <= MAX_BLOCKS && !case_failed(); blocks++)
            for (int round = 0; round < 3 * N_PLACEMENTS; round++) {
                placement where = (placement)(round % N_PLACEMENTS);
                bool extreme = round < N_PLACEMENTS;
                set_shape(round < 2 * N_PLACEMENTS ? WHOLE_NUMBERS : NF4, m,
                          row_counts[(m + blocks + round) % 7], blocks * BLOCK);
                place(where);
                place_whole(where, order, extreme);
                run_whole(level);
                compare_whole(order, p.which == WHOLE_NUMBERS && !(extreme && p.x_size == 2));
                compare_whole_alone(level);
            }
    /* A scale that is NaN, as that of a block of x with a NaN, spoils its row and no other. */
    set_shape(WHOLE_NUMBERS, 5, 6, 2 * BLOCK);
    place(INSIDE);
    place_whole(INSIDE, order, false);
    ((float *)p.x_scales.data)[3 * p.x_lds + 1] = NAN;
    run_whole(level);
    compare_whole(order, true);
}

static void check_gemv_codebook_int8(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    p.x_size = 1;
    check_whole_products(level);
}

static void check_gemv_codebook_int16(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    p.x_size = 2;
    check_whole_products(level);
}

/* ---- inputs ---- */

static void check_codebook_input(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    float order[MAX_K];
    for (int c = 0; c < MAX_K; c++)
        input[c] = (float)c;
    level->codebook_input(order, input, MAX_K);
    bool seen[MAX_K] = {false};
    for (int c = 0; c < MAX_K; c++) {
        int from = (int)order[c];
        CHECK(from / BLOCK == c / BLOCK && !seen[from]);
        seen[from] = true;
    }
    for (int64_t k = BLOCK; k <= MAX_K && !case_failed(); k += BLOCK)
        for (int where = 0; where < N_PLACEMENTS; where++) {
            float *x = operand_floats(&p.x, (placement)where, k);
            float *dst = operand_floats(&p.ordered, (placement)where, k);
            fill_awkward(x, k);
            level->codebook_input(dst, x, k);
            CHECK(operand_intact(&p.x) && operand_intact(&p.ordered));
            for (int64_t c = 0; c < k; c++)
                if (!same(dst[c], x[(int)order[c]]))
                    FAIL("k %d: place %d is %.9g instead of %.9g", (int)k, (int)c, (double)dst[c],
                         (double)x[(int)order[c]]);
        }
}

/* One block, by division: a value is its code times the scale. */
static void compare_input(const float *x, const void *codes, int64_t first, float scale,
                          const int order[BLOCK])
{
    float absmax = 0, limit = (float)most();
    bool finite = true;
    for (int c = 0; c < BLOCK; c++) {
        finite = finite && isfinite(x[c]);
        absmax = fmaxf(absmax, fabsf(x[c]));
    }
    if (!same(scale, finite ? absmax / limit : NAN))
        FAIL("the scale of %.9g is %.9g", (double)absmax, (double)scale);
    for (int c = 0; c < BLOCK && finite; c++) {
        float wanted = scale > 0 ? x[order[c]] / scale : 0;
        wanted = rintf(wanted > limit ? limit : wanted < -limit ? -limit : wanted);
        if (whole_at(codes, first + c) != (int)wanted)
            FAIL("%.9g of scale %.9g is %d instead of %d", (double)x[order[c]], (double)scale,
                 whole_at(codes, first + c), (int)wanted);
    }
}

static void fill_blocks(float *x, int64_t k, int round)
{
    for (int64_t c = 0; c < k; c += BLOCK) {
        fill_random(x + c, BLOCK, 3);
        if (round % 8 == 1)
            fill_awkward(x + c, BLOCK);
        if (round % 8 == 2)
            memset(x + c, 0, BLOCK * sizeof *x);
        if (round % 8 == 3)
            fill_random(x + c, BLOCK, 0x1p-140);
        if (round % 8 == 4)
            fill_random(x + c, BLOCK, 0x1p-146); /* whose 127th part is none or one */
        if (round % 8 == 5)
            x[c + random_below(BLOCK)] = 3e38f;
        if (round % 8 == 6)
            x[c + random_below(BLOCK)] = random_below(2) ? NAN : -INFINITY;
        if (round % 8 == 7) { /* ties */
            for (int i = 0; i < BLOCK; i++)
                x[c + i] = (float)(random_below(254) - 127) + 0.5f;
            x[c + random_below(BLOCK)] = -127;
        }
    }
}

static void check_whole_input(const ct_kernels *level)
{
    int order[BLOCK];
    find_order(order, level);
    for (int round = 0; round < 240 && !case_failed(); round++) {
        placement where = (placement)(round % N_PLACEMENTS);
        int64_t k = (1 + random_below(MAX_BLOCKS)) * BLOCK;
        float *x = operand_floats(&p.ordered, where, k);
        float *scales = operand_floats(&p.x_scales, where, k / BLOCK);
        void *codes = operand_place(&p.x, where, (size_t)(k * p.x_size), (size_t)p.x_size);
        fill_blocks(x, k, round);
        to_whole(level, codes, scales, x, k);
        CHECK(operand_intact(&p.x) && operand_intact(&p.x_scales) && operand_intact(&p.ordered));
        for (int64_t b = 0; b < k / BLOCK; b++)
            compare_input(x + b * BLOCK, codes, b * BLOCK, scales[b], order);
    }
}

static void check_codebook_input_int8(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    p.x_size = 1;
    check_whole_input(level);
}

static void check_codebook_input_int16(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    p.x_size = 2;
    check_whole_input(level);
}

/* ---- to and from codes ---- */

static void check_codebook_to_f32(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    for (int round = 0; round < 120 && !case_failed(); round++) {
        placement where = (placement)(round % N_PLACEMENTS);
        set_shape((codebook)(round % N_CODEBOOKS), 1, 1, (1 + random_below(MAX_BLOCKS)) * BLOCK);
        place(where);
        float *dst = operand_floats(&p.ordered, where, p.k);
        if (round >= 60)
            fill_awkward((float *)p.scales.data, p.k / BLOCK);
        level->codebook_to_f32(dst, (const uint8_t *)p.codes.data, (const float *)p.scales.data,
                               p.k, p.table);
        CHECK(operand_intact(&p.ordered) && operand_intact(&p.codes) && operand_intact(&p.scales));
        for (int64_t c = 0; c < p.k; c++)
            if (!same(dst[c], p.table[code_at(0, c)] * scale_at(0, c)))
                FAIL("k %d: value %d is %.9g instead of %.9g times %.9g", (int)p.k, (int)c,
                     (double)dst[c], (double)p.table[code_at(0, c)], (double)scale_at(0, c));
    }
}

static bool same_bf16(uint16_t got, float wanted)
{
    return isnan(wanted) ? isnan(ct_bf16_to_f32(got)) : got == ct_bf16_from_f32(wanted);
}

static void check_codebook_to_bf16(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    for (int round = 0; round < 120 && !case_failed(); round++) {
        placement where = (placement)(round % N_PLACEMENTS);
        set_shape((codebook)(round % N_CODEBOOKS), 1, 1, (1 + random_below(MAX_BLOCKS)) * BLOCK);
        place(where);
        uint16_t *dst = operand_place(&p.ordered, where, (size_t)p.k * sizeof *dst, sizeof *dst);
        if (round >= 60)
            fill_awkward((float *)p.scales.data, p.k / BLOCK);
        level->codebook_to_bf16(dst, (const uint8_t *)p.codes.data, (const float *)p.scales.data,
                                p.k, p.table);
        CHECK(operand_intact(&p.ordered) && operand_intact(&p.codes) && operand_intact(&p.scales));
        for (int64_t c = 0; c < p.k; c++)
            if (!same_bf16(dst[c], p.table[code_at(0, c)] * scale_at(0, c)))
                FAIL("k %d: value %d is 0x%04x instead of %.9g times %.9g", (int)p.k, (int)c,
                     dst[c], (double)p.table[code_at(0, c)], (double)scale_at(0, c));
    }
}

/* The middle between two neighbours of NF4; the tie belongs to the lower one. */
static float nf4_bound(int i)
{
    return (float)(((double)from_bits(nf4_bits[i]) + (double)from_bits(nf4_bits[i + 1])) / 2);
}

static int nf4_code(float t)
{
    int code = 15;
    while (code > 0 && !(t > nf4_bound(code - 1)))
        code--;
    return code;
}

static const float fp4_bounds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                    0.4166667f,  0.583333f,  0.8333333f};

/* The tree of bitsandbytes' CUDA kernel dQuantizeFP4. */
static int fp4_code(float t)
{
    int sign = t < 0 ? 8 : 0;
    t = fabsf(t);
    if (t > 0.29166667f) {
        if (t > 0.583333f)
            return (t > 0.8333333f ? 3 : 2) | sign;
        return (t > 0.4166667f ? 5 : 4) | sign;
    }
    if (t > 0.0859375f)
        return (t > 0.20833333f ? 7 : 6) | sign;
    return (t > 0.00260417f ? 1 : 0) | sign;
}

/* A block whose absmax is `absmax`, a power of two, so that each quotient is a bound of either
 * codebook, or an ulp on either side, in either sign. */
static void fill_bounds(float *x, float absmax)
{
    for (int c = 0; c < BLOCK; c++) {
        int64_t which = random_below(15 + 7 + 1);
        float bound = which < 15 ? nf4_bound((int)which) : which < 22 ? fp4_bounds[which - 15] : 0;
        int64_t side = random_below(3);
        bound = side == 1 ? nextafterf(bound, 2) : side == 2 ? nextafterf(bound, -2) : bound;
        x[c] = (random_below(2) ? bound : -bound) * absmax;
    }
    x[random_below(BLOCK)] = random_below(2) ? absmax : -absmax;
}

static void fill_to_quantize(float *x, int round)
{
    static const float powers[] = {1, 0x1p-20f, 0x1p15f};
    if (round % 4 == 0)
        fill_bounds(x, powers[random_below(3)]);
    else if (round % 4 == 1)
        fill_random(x, BLOCK, (double)fabsf(random_float(2)));
    else if (round % 4 == 2)
        fill_random(x, BLOCK, 1e-38); /* where the reciprocal has its limit */
    else
        for (int c = 0; c < BLOCK; c++) /* zeros of either sign, alone or beside others */
            x[c] = random_below(64) ? (random_below(2) ? 0.0f : -0.0f) : random_float(65504);
}

static void compare_codes(const float *x, const uint8_t *codes, float absmax, ct_dtype format)
{
    float wanted = 0;
    for (int c = 0; c < BLOCK; c++)
        wanted = fmaxf(wanted, fabsf(x[c]));
    if (float_bits(absmax) != float_bits(wanted))
        FAIL("%s: absmax is %.9g instead of %.9g", ct_dtype_name(format), (double)absmax,
             (double)wanted);
    float inverse = 1.0f / (wanted > 1e-38f ? wanted : 1e-38f);
    for (int c = 0; c < BLOCK; c++) {
        float t = x[c] * inverse;
        t = t > 1 ? 1 : t < -1 ? -1 : t;
        int code = format == CT_NF4 ? nf4_code(t) : fp4_code(t);
        int got = c % 2 ? codes[c / 2] & 15 : codes[c / 2] >> 4;
        if (got != code)
            FAIL("%s: %.9g of %.9g is %d instead of %d", ct_dtype_name(format), (double)x[c],
                 (double)absmax, got, code);
    }
}

static void check_codebook_quantize(const ct_kernels *level, const ct_kernels *portable)
{
    (void)portable;
    static const ct_dtype formats[] = {CT_NF4, CT_FP4};
    for (int round = 0; round < 2000 && !case_failed(); round++) {
        placement where = (placement)(round % N_PLACEMENTS);
        int64_t n = (1 + random_below(4)) * BLOCK;
        float *x = operand_floats(&p.ordered, where, n);
        for (int64_t c = 0; c < n; c += BLOCK)
            fill_to_quantize(x + c, round);
        for (int f = 0; f < 2; f++) {
            float *absmax = operand_floats(&p.scales, where, n / BLOCK);
            uint8_t *codes = operand_place(&p.codes, where, (size_t)(n / 2), 1);
            level->codebook_quantize(codes, absmax, x, n, formats[f]);
            CHECK(operand_intact(&p.ordered) && operand_intact(&p.scales));
            CHECK(operand_intact(&p.codes));
            for (int64_t b = 0; b < n / BLOCK; b++)
                compare_codes(x + b * BLOCK, codes + b * BLOCK / 2, absmax[b], formats[f]);
        }
    }
}

/* ---- timing ---- */

typedef struct timed {
    int64_t m, n, k;
    float *x, *y, *scales;
    uint8_t *codes;
    int8_t *x_bytes;
    int16_t *x_words;
    float table[16];
    int8_t bytes[16];
    int16_t words[16];
} timed;

/* Enough codes for `n_bytes`, with scales for half of them: the codes and n / 8 bytes. */
static timed new_timed(int64_t k, int64_t n_bytes)
{
    timed t = {.m = 1, .k = k, .n = n_bytes / (k / 2)};
    t.x = bench_floats(CT_GEMV_MAX_M * k);
    t.y = bench_floats(CT_GEMV_MAX_M * t.n);
    t.scales = bench_floats(t.n * k / BLOCK);
    t.codes = (uint8_t *)bench_floats(t.n * k / 2 / (int64_t)sizeof(float));
    t.x_bytes = (int8_t *)bench_floats(CT_GEMV_MAX_M * k / (int64_t)sizeof(float));
    t.x_words = (int16_t *)bench_floats(CT_GEMV_MAX_M * k / 2);
    for (int i = 0; i < 16; i++) {
        t.bytes[i] = (int8_t)(16 * i - 120);
        t.words[i] = (int16_t)(2048 * i - 15360);
    }
    return t;
}

static void free_timed(timed *t)
{
    free(t->x);
    free(t->y);
    free(t->scales);
    free(t->codes);
    free(t->x_bytes);
    free(t->x_words);
}

static double weight_bytes(const timed *t)
{
    return (double)(t->n * t->k) * (0.5 + (double)sizeof(float) / BLOCK);
}

static void run_timed(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemv_codebook(t->y, t->n, t->x, t->k, t->m, t->codes, t->scales, t->n, t->k, t->table);
}

static void run_timed_bytes(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemv_codebook_int8(t->y, t->n, t->x_bytes, t->k, t->x, t->k / BLOCK, t->m, t->codes,
                              t->scales, t->n, t->k, t->bytes);
}

static void run_timed_words(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->gemv_codebook_int16(t->y, t->n, t->x_words, t->k, t->x, t->k / BLOCK, t->m, t->codes,
                               t->scales, t->n, t->k, t->words);
}

static void bench_products(const char *name, codebook which,
                           void (*run)(const ct_kernels *level, void *operands))
{
    static const struct {
        int64_t k, n_bytes;
        const char *from;
    } sizes[] = {{576, 1 << 18, "cached"}, {4096, 1 << 26, "memory"}};
    for (int s = 0; s < 2; s++) {
        timed t = new_timed(sizes[s].k, sizes[s].n_bytes);
        make_table(t.table, which);
        for (t.m = 1; t.m <= CT_GEMV_MAX_M; t.m *= 2) {
            char label[64];
            snprintf(label, sizeof label, "%s m=%d k=%d %s", name, (int)t.m, (int)t.k,
                     sizes[s].from);
            bench(label, weight_bytes(&t), "B weight", run, &t);
        }
        free_timed(&t);
    }
}

static void bench_gemv_codebook(void)
{
    bench_products("gemv_codebook bf16", NF4_AS_BF16, run_timed);
    bench_products("gemv_codebook f32", NF4, run_timed);
}

static void bench_gemv_codebook_int8(void)
{
    bench_products("gemv_codebook_int8", NF4, run_timed_bytes);
}

static void bench_gemv_codebook_int16(void)
{
    bench_products("gemv_codebook_int16", NF4, run_timed_words);
}

static void run_input(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_input(t->y, t->x, t->k);
}

static void run_input_int8(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_input_int8(t->x_bytes, t->scales, t->x, t->k);
}

static void run_input_int16(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_input_int16(t->x_words, t->scales, t->x, t->k);
}

static void run_to_f32(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_to_f32(t->y, t->codes, t->scales, t->k, t->table);
}

static void run_to_bf16(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_to_bf16((uint16_t *)t->y, t->codes, t->scales, t->k, t->table);
}

static void run_quantize_nf4(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_quantize(t->codes, t->scales, t->x, t->k, CT_NF4);
}

static void run_quantize_fp4(const ct_kernels *level, void *operands)
{
    timed *t = operands;
    level->codebook_quantize(t->codes, t->scales, t->x, t->k, CT_FP4);
}

static void bench_row(const char *label, void (*run)(const ct_kernels *level, void *operands))
{
    timed t = new_timed(4096, 1 << 15);
    make_table(t.table, NF4);
    free(t.y);
    t.y = bench_floats(t.k);
    bench(label, (double)t.k, "elem", run, &t);
    free_timed(&t);
}

static void bench_codebook_input(void)
{
    bench_row("codebook_input k=4096", run_input);
}

static void bench_codebook_input_int8(void)
{
    bench_row("codebook_input_int8 k=4096", run_input_int8);
}

static void bench_codebook_input_int16(void)
{
    bench_row("codebook_input_int16 k=4096", run_input_int16);
}

static void bench_codebook_to_f32(void)
{
    bench_row("codebook_to_f32 k=4096", run_to_f32);
}

static void bench_codebook_to_bf16(void)
{
    bench_row("codebook_to_bf16 k=4096", run_to_bf16);
}

static void bench_codebook_quantize(void)
{
    bench_row("codebook_quantize nf4 n=4096", run_quantize_nf4);
    bench_row("codebook_quantize fp4 n=4096", run_quantize_fp4);
}

const kernel_case cases_codebook[] = {
    KERNEL_CASE(codebook_input),       KERNEL_CASE(gemv_codebook),
    KERNEL_CASE(codebook_input_int8),  KERNEL_CASE(gemv_codebook_int8),
    KERNEL_CASE(codebook_input_int16), KERNEL_CASE(gemv_codebook_int16),
    KERNEL_CASE(codebook_to_f32),      KERNEL_CASE(codebook_to_bf16),
    KERNEL_CASE(codebook_quantize),    KERNEL_CASES_END};
