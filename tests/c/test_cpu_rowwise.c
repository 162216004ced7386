/* Norms, sums, copies and look-ups against the formulas in double precision. */
#include "test.h"

#include "cpu_rows.h"
#include "quant/format.h"

/* One thread's work, and enough for several. */
static const int64_t row_counts[] = {0, 1, 5, 700};
#define N_ROW_COUNTS (sizeof row_counts / sizeof *row_counts)

/* ---- norms ---- */

typedef struct norm_case {
    ct_norm_kind kind;
    int64_t n_rows, width, groups;
    ct_dtype dtype;
    bool bias, in_place;
    double mean; /* of the input, beside which its spread is 1 */
    int64_t gap; /* behind its rows; 4 leaves every fourth value where 16 bytes are aligned */
} norm_case;

/* What a group is shifted and divided by. */
typedef struct moments {
    double mean, deviation;
} moments;

static moments moments_of(const norm_case *c, const float *x, int64_t n)
{
    double mean = 0, squares = 0, eps = 1e-5;
    for (int64_t j = 0; j < n && c->kind == CT_NORM_LAYER; j++)
        mean += x[j] / (double)n;
    for (int64_t j = 0; j < n; j++)
        squares += (x[j] - mean) * (x[j] - mean) / (double)n;
    return (moments){mean, sqrt(squares + eps)};
}

static void norm_one(const ct_ops *ops, const char *level, const norm_case *c)
{
    uint64_t seed = 1;
    int64_t n = c->width / c->groups;
    ct_rows x = random_rows(&seed, CT_F32, c->n_rows, c->width, c->gap, 1);
    ct_rows weight = random_rows(&seed, CT_F32, 1, n, 0, 2);
    ct_rows bias = random_rows(&seed, CT_F32, 1, n, 0, 2);
    for (int64_t i = 0; i < c->n_rows; i++)
        for (int64_t j = 0; j < c->width; j++)
            ((float *)x.data)[i * x.stride + j] += (float)c->mean;
    size_t size = sizeof(float) * (size_t)(c->n_rows * x.stride);
    float *before = malloc(size + 1);
    memcpy(before, x.data, size);
    ct_rows y = c->in_place ? x : new_rows(c->dtype, c->n_rows, c->width, c->gap & 6);
    CHECK_OK(ops->norm(c->kind, y, x, weight.data, c->bias ? bias.data : NULL, 1e-5f, c->groups));
    CHECK(gaps_untouched(&y));
    moments group = {0};
    for (int64_t i = 0; i < c->n_rows; i++)
        for (int64_t j = 0; j < c->width; j++) {
            const float *row = before + i * x.stride;
            if (j % n == 0)
                group = moments_of(c, row + j, n);
            double b = c->bias ? row_value(&bias, 0, j % n) : 0;
            double wanted =
                (row[j] - group.mean) / group.deviation * row_value(&weight, 0, j % n) + b;
            /* A layer norm subtracts what may be large beside the spread; bf16 rounds at the end.
             */
            double tolerance = 1e-5 * (1 + fabs(wanted)) + 1e-6 * fabs(c->mean) +
                               rounding_of(y.dtype) * fabs(wanted);
            double got = row_value(&y, i, j);
            if (!(fabs(got - wanted) <= tolerance))
                FAIL(
                    "level %s, kind %d, %lld groups of %lld, row %lld column %lld: %.9g instead of "
                    "%.9g",
                    level, c->kind, (long long)c->groups, (long long)n, (long long)i, (long long)j,
                    got, wanted);
        }
    if (!c->in_place)
        free(y.data);
    free(x.data);
    free(weight.data);
    free(bias.data);
    free(before);
}

static void norms_at(const ct_ops *ops, const char *level)
{
    static const int64_t shapes[][2] = {{1, 1},    {7, 1},     {65, 1},   {768, 1},  {96, 4},
                                        {15, 5},   {128, 1},   {480, 2},  {1028, 1}, {2560, 2},
                                        {8199, 1}, {16384, 1}, {17001, 1}};
    for (int kind = 0; kind < 2; kind++)
        for (size_t r = 0; r < N_ROW_COUNTS; r++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                if (shapes[s][0] > 1000 && row_counts[r] > 5)
                    continue;
                norm_case c = {(ct_norm_kind)kind,
                               row_counts[r],
                               shapes[s][0],
                               shapes[s][1],
                               CT_F32,
                               false,
                               false,
                               0,
                               s % 2 ? 4 : 3};
                norm_one(ops, level, &c);
                c.bias = kind == CT_NORM_LAYER;
                c.in_place = true;
                norm_one(ops, level, &c);
                c.in_place = false;
                c.dtype = CT_BF16;
                c.mean = kind == CT_NORM_LAYER ? 100 : 0;
                norm_one(ops, level, &c);
            }
}

static void norms_agree_with_double_precision(void)
{
    at_every_level(norms_at);
}

/* ---- sums and scales ---- */

static void sums_of_width(const ct_ops *ops, int64_t width, int64_t gap)
{
    uint64_t seed = 2;
    for (size_t r = 0; r < N_ROW_COUNTS; r++) {
        ct_rows x = random_rows(&seed, CT_F32, row_counts[r], width, gap, 1);
        ct_rows z = random_rows(&seed, CT_F32, row_counts[r], width, 4 * gap, 1);
        ct_rows y = new_rows(CT_F32, row_counts[r], width, 2 * gap);
        CHECK_OK(ops->add(y, x, z));
        CHECK(gaps_untouched(&y));
        for (int64_t i = 0; i < x.n_rows; i++)
            for (int64_t j = 0; j < width; j++)
                CHECK_NEAR(row_value(&y, i, j), row_value(&x, i, j) + row_value(&z, i, j), 1e-7);
        CHECK_OK(ops->add(x, x, z)); /* y may be either */
        CHECK_OK(ops->add(z, y, z));
        for (int64_t i = 0; i < x.n_rows; i++)
            for (int64_t j = 0; j < width; j++)
                CHECK_NEAR(row_value(&x, i, j), row_value(&y, i, j), 0);
        CHECK_OK(ops->scale(x, 3, 0));
        CHECK_OK(ops->scale(y, 3, 2.5f));
        CHECK(gaps_untouched(&y));
        for (int64_t i = 0; i < x.n_rows; i++)
            for (int64_t j = 0; j < width; j++)
                CHECK_NEAR(row_value(&y, i, j), 2.5 * tanh(row_value(&x, i, j) / 2.5), 2e-6);
        free(x.data);
        free(y.data);
        free(z.data);
    }
}

static void sums_at(const ct_ops *ops, const char *level)
{
    (void)level;
    sums_of_width(ops, 77, 1);
    sums_of_width(ops, 80, 4); /* every row is aligned */
}

static void sums_and_scales_agree(void)
{
    at_every_level(sums_at);
}

/* ---- copies ---- */

static void copies_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    uint64_t seed = 4;
    for (int from = 0; from < 3; from++)
        for (int to = 0; to < 3; to++)
            for (int shape = 0; shape < 3; shape++) {
                enum { ROWS = 90, TARGETS = 200 };
                int64_t width = shape ? 1100 : 5, map[ROWS], next = 2;
                int64_t gap = shape == 2 ? 4 : 1; /* aligned or not */
                for (int i = 0; i < ROWS; i++, next += 1 + i % 2)
                    map[i] = next;
                ct_rows x = random_rows(&seed, dtypes[from], ROWS, width, gap, 3);
                ct_rows y = new_rows(dtypes[to], TARGETS, width, 2 * gap);
                CHECK_OK(ops->scatter(y, x, map));
                CHECK(gaps_untouched(&y));
                int source = 0;
                for (int64_t i = 0; i < TARGETS; i++) {
                    bool named = source < ROWS && map[source] == i;
                    for (int64_t j = 0; j < width; j++) {
                        double wanted = named ? row_value(&x, source, j) : 0;
                        /* the smallest step of f16, and half a unit in the last place */
                        double tolerance = 0x1p-25 + rounding_of(dtypes[to]) * fabs(wanted);
                        if (!(fabs(row_value(&y, i, j) - wanted) <= tolerance))
                            FAIL("level %s, %s to %s: row %d", level, ct_dtype_name(dtypes[from]),
                                 ct_dtype_name(dtypes[to]), (int)i);
                    }
                    source += named;
                }
                free(x.data);
                free(y.data);
            }
}

static void scattered_rows_are_converted_and_others_zeroed(void)
{
    at_every_level(copies_at);
}

static void no_rows_at(const ct_ops *ops, const char *level)
{
    (void)level;
    int64_t map[1] = {0};
    ct_rows x = new_rows(CT_F32, 0, 4, 0), y = new_rows(CT_F32, 3, 4, 1);
    CHECK_OK(ops->scatter(y, x, map));
    for (int i = 0; i < 12; i++)
        CHECK_NEAR(row_value(&y, i / 4, i % 4), 0, 0);
    CHECK(gaps_untouched(&y));
    free(x.data);
    free(y.data);
}

static void no_rows_scatter_to_zeros(void)
{
    at_every_level(no_rows_at);
}

static void rows_without_a_map_at(const ct_ops *ops, const char *level)
{
    (void)level;
    uint64_t seed = 7;
    ct_rows x = random_rows(&seed, CT_F32, 3, 4, 0, 1), y = new_rows(CT_F32, 5, 4, 1);
    CHECK_OK(ops->scatter(y, x, NULL));
    for (int i = 0; i < 20; i++)
        CHECK_NEAR(row_value(&y, i / 4, i % 4), i < 12 ? row_value(&x, i / 4, i % 4) : 0, 0);
    free(x.data);
    free(y.data);
}

static void rows_without_a_map_keep_their_places(void)
{
    at_every_level(rows_without_a_map_at);
}

static void gather_at(const ct_ops *ops, const char *level)
{
    (void)level;
    uint64_t seed = 5;
    for (int64_t width = 9; width <= 12; width += 3) { /* 12: aligned */
        ct_rows x = random_rows(&seed, CT_F32, 4, width, 4, 1);
        ct_rows y = new_rows(CT_F32, 5, width, 8);
        int64_t map[5] = {3, 0, 0, 2, 3};
        CHECK_OK(ops->gather(y, x, map));
        CHECK(gaps_untouched(&y));
        for (int64_t i = 0; i < 5; i++)
            for (int64_t j = 0; j < width; j++)
                CHECK_NEAR(row_value(&y, i, j), row_value(&x, map[i], j), 0);
        free(x.data);
        free(y.data);
    }
}

static void rows_are_gathered_in_any_order(void)
{
    at_every_level(gather_at);
}

/* ---- look-ups ---- */

static void table_at(const ct_ops *ops, const char *level, ct_dtype dtype, int64_t n_rows)
{
    enum { PIECES = 13, WIDTH = 256 };
    uint64_t seed = 6;
    size_t row_bytes;
    float decoded[PIECES][WIDTH];
    ct_tensor *table;
    int32_t *ids = malloc(sizeof *ids * (size_t)n_rows + 1);
    CHECK_OK(ct_tensor_new(&table, dtype, 2, (int64_t[]){PIECES, WIDTH}));
    CHECK_OK(ct_dtype_row_bytes(&row_bytes, dtype, WIDTH));
    const ct_format *format = ct_format_get(dtype);
    for (int i = 0; i < PIECES; i++) {
        char *row = (char *)ct_tensor_data(table) + (size_t)i * row_bytes;
        for (int j = 0; j < WIDTH; j++)
            decoded[i][j] = random_value(&seed, 1);
        if (format) {
            format->quantize(row, decoded[i], WIDTH);
            format->dequantize(decoded[i], row, WIDTH);
        }
        for (int j = 0; j < WIDTH && !format; j++) {
            set_value(row, dtype, j, decoded[i][j]);
            decoded[i][j] = (float)get_value(row, dtype, j);
        }
    }
    for (int64_t i = 0; i < n_rows; i++)
        ids[i] = (int32_t)(random_uniform(&seed) * PIECES);
    ct_rows y = new_rows(CT_F32, n_rows, WIDTH, n_rows % 2 ? 3 : 4);
    CHECK_OK(ops->embed(y, table, ids, 1, false));
    CHECK_OK(ops->embed(y, table, ids, 0.5f, true));
    CHECK(gaps_untouched(&y));
    for (int64_t i = 0; i < n_rows; i++)
        for (int j = 0; j < WIDTH; j++)
            if (!(fabs(row_value(&y, i, j) - 1.5 * decoded[ids[i]][j]) <= 1e-6))
                FAIL("level %s, %s, row %d", level, ct_dtype_name(dtype), (int)i);
    free(y.data);
    free(ids);
    ct_tensor_unref(&table);
}

static void tables_at(const ct_ops *ops, const char *level)
{
    static const ct_dtype dtypes[] = {CT_F32,  CT_F16,  CT_BF16, CT_Q8_0, CT_Q4_0, CT_Q4_1,
                                      CT_Q5_0, CT_Q5_1, CT_Q4_K, CT_Q5_K, CT_Q6_K};
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++)
        for (size_t r = 0; r < N_ROW_COUNTS; r++)
            table_at(ops, level, dtypes[t], row_counts[r]);
}

static void tables_of_any_type_are_looked_up(void)
{
    at_every_level(tables_at);
}

const ct_test suite_cpu_rowwise[] = {
    TEST(norms_agree_with_double_precision),
    TEST(sums_and_scales_agree),
    TEST(scattered_rows_are_converted_and_others_zeroed),
    TEST(no_rows_scatter_to_zeros),
    TEST(rows_without_a_map_keep_their_places),
    TEST(rows_are_gathered_in_any_order),
    TEST(tables_of_any_type_are_looked_up),
    TESTS_END,
};
