/* Pooling of ragged rows beside sums in double precision. */
#include "test.h"

#include "cpu_rows.h"

#define N_SEQUENCES 5

static const int64_t lengths[N_SEQUENCES] = {3, 0, 1, 700, 64};

/* What a feature of a sequence's rows [first, end) pools to. */
static double pooled(ct_pool_kind kind, const ct_rows *x, int64_t first, int64_t end, int64_t j)
{
    double sum = 0, largest = -INFINITY;
    for (int64_t i = first; i < end; i++) {
        sum += row_value(x, i, j);
        largest = fmax(largest, row_value(x, i, j));
    }
    if (first == end)
        return 0;
    return kind == CT_POOL_MEAN ? sum / (double)(end - first)
                                : (kind == CT_POOL_MAX ? largest : row_value(x, first, j));
}

static void check_width(const ct_ops *ops, ct_pool_kind kind, int64_t width)
{
    uint64_t seed = 31;
    int64_t offsets[N_SEQUENCES + 1] = {0}, n = N_SEQUENCES;
    for (int64_t s = 0; s < n; s++)
        offsets[s + 1] = offsets[s] + lengths[s];
    ct_rows x = random_rows(&seed, CT_F32, offsets[n], width, 3, 2);
    ct_rows y = new_rows(CT_F32, n, width, 2);
    CHECK_OK(ops->pool(kind, y, x, offsets));
    CHECK(gaps_untouched(&y));
    for (int64_t s = 0; s < n; s++) {
        for (int64_t j = 0; j < width; j++) {
            double wanted = pooled(kind, &x, offsets[s], offsets[s + 1], j);
            /* a mean is rounded once; the others are values that are there */
            CHECK_NEAR(row_value(&y, s, j), wanted,
                       kind == CT_POOL_MEAN ? fabs(wanted) * 0x1p-23 : 0);
        }
    }
    free(x.data);
    free(y.data);
}

static void kinds_at(const ct_ops *ops, const char *level)
{
    (void)level;
    for (int kind = CT_POOL_MEAN; kind <= CT_POOL_MAX; kind++)
        for (int64_t width = 1; width < 800; width = 3 * width + 13) /* 1, 16, 61, 196, 601 */
            check_width(ops, (ct_pool_kind)kind, width);
}

static void every_kind_pools_each_sequence_for_itself(void)
{
    int threads = ct_threads_get();
    for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
        CHECK_OK(ct_threads_set(n_threads));
        at_every_level(kinds_at);
    }
    CHECK_OK(ct_threads_set(threads));
}

/* In f32 a sum that starts with 2^26 would take no 1 any more. */
static void mean_of_many_at(const ct_ops *ops, const char *level)
{
    (void)level;
    enum { N = 5000 };
    static float rows[N];
    float mean;
    rows[0] = 0x1p26f;
    for (int i = 1; i < N; i++)
        rows[i] = 1;
    CHECK_OK(ops->pool(CT_POOL_MEAN, (ct_rows){&mean, CT_F32, 1, 1, 1},
                       (ct_rows){rows, CT_F32, N, 1, 1}, (int64_t[]){0, N}));
    CHECK_NEAR(mean, (0x1p26 + N - 1) / N, 0x1p26 / N * 0x1p-24);
}

static void a_mean_of_many_rows_keeps_its_digits(void)
{
    at_every_level(mean_of_many_at);
}

static void nan_at(const ct_ops *ops, const char *level)
{
    (void)level;
    float rows[3][2] = {{1, 5}, {NAN, -2}, {3, 4}}, out[2];
    static const ct_pool_kind kinds[] = {CT_POOL_MEAN, CT_POOL_MAX};
    for (int i = 0; i < 2; i++) {
        CHECK_OK(ops->pool(kinds[i], (ct_rows){out, CT_F32, 1, 2, 2},
                           (ct_rows){rows, CT_F32, 3, 2, 2}, (int64_t[]){0, 3}));
        CHECK(isnan(out[0]) && !isnan(out[1]));
    }
}

static void nan_is_passed_on_to_its_feature_alone(void)
{
    at_every_level(nan_at);
}

const ct_test suite_cpu_pool[] = {
    TEST(every_kind_pools_each_sequence_for_itself),
    TEST(a_mean_of_many_rows_keeps_its_digits),
    TEST(nan_is_passed_on_to_its_feature_alone),
    TESTS_END,
};
