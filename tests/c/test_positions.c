/* Rotary tables beside the library's cosine, ALiBi slopes beside published ones, buckets beside
 * those that transformers computes. */
#include "test.h"

#include "core/memory.h"
#include "model/positions.h"

#define N_FREQUENCIES 5

static const float frequencies[N_FREQUENCIES] = {1, 0.31622776f, 0.1f, 1e-4f, 0};

/* The tables hold f32 of the cosine of the f32 angle: half a unit in the last place of 1, times the
 * factor and its rounding. */
static void check_rows(const float *cos_rows, const float *sin_rows, int64_t from, int64_t to,
                       float factor)
{
    for (int64_t p = from; p < to; p++) {
        for (int i = 0; i < N_FREQUENCIES; i++) {
            float angle = (float)p * frequencies[i];
            CHECK_NEAR(cos_rows[p * N_FREQUENCIES + i], factor * cos(angle), factor * 0x1p-23);
            CHECK_NEAR(sin_rows[p * N_FREQUENCIES + i], factor * sin(angle), factor * 0x1p-23);
        }
    }
}

static void tables_hold_cosine_and_sine(void)
{
    ct_rotary_table *table;
    const float *c, *s;
    for (float factor = 1; factor < 2; factor += 0.75f) {
        CHECK_OK(ct_rotary_table_new(&table, (ct_device_id){CT_DEVICE_CPU, 0}, frequencies,
                                     N_FREQUENCIES, factor));
        CHECK_OK(ct_rotary_table_get(table, 1, &c, &s));
        CHECK_NEAR(c[0], factor, 0);
        CHECK_NEAR(s[0], 0, 0);
        check_rows(c, s, 0, 1, factor);
        CHECK_OK(ct_rotary_table_get(table, 40000, &c, &s));
        check_rows(c, s, 0, 300, factor);
        check_rows(c, s, 39900, 40000, factor);
        ct_rotary_table_free(&table);
        CHECK(!table);
    }
}

static void growing_keeps_what_was_handed_out(void)
{
    ct_storage_trim();
    int64_t live = ct_memory_live_blocks();
    ct_rotary_table *table;
    const float *c[3], *s[3], *again_c, *again_s;
    static const int64_t sizes[3] = {7, 1000, 100000};
    CHECK_OK(ct_rotary_table_new(&table, (ct_device_id){CT_DEVICE_CPU, 0}, frequencies,
                                 N_FREQUENCIES, 1));
    for (int i = 0; i < 3; i++)
        CHECK_OK(ct_rotary_table_get(table, sizes[i], &c[i], &s[i]));
    for (int i = 0; i < 3; i++)
        check_rows(c[i], s[i], sizes[i] - 7, sizes[i], 1);
    int64_t made = ct_memory_allocations();
    CHECK_OK(ct_rotary_table_get(table, 7, &again_c, &again_s));
    CHECK(again_c == c[2] && again_s == s[2]); /* the largest serves all */
    CHECK_INT(ct_memory_allocations(), made);
    ct_rotary_table_free(&table);
    ct_rotary_table_free(&table); /* nothing to do */
    ct_storage_trim();
    CHECK_INT(ct_memory_live_blocks(), live);
}

static void a_step_at_a_time_makes_few_tables(void)
{
    ct_rotary_table *table;
    const float *c, *s;
    CHECK_OK(ct_rotary_table_new(&table, (ct_device_id){CT_DEVICE_CPU, 0}, frequencies,
                                 N_FREQUENCIES, 1));
    int64_t live = ct_memory_live_blocks();
    for (int64_t n = 1; n <= 5000; n++)
        CHECK_OK(ct_rotary_table_get(table, n, &c, &s));
    /* 512, 1024 ... 8192: five tables of four blocks */
    CHECK(ct_memory_live_blocks() - live <= 5 * 4);
    check_rows(c, s, 4990, 5000, 1);
    ct_rotary_table_free(&table);
}

static void a_table_that_cannot_grow_stays(void)
{
    ct_rotary_table *table;
    const float *c, *s, *old;
    CHECK_OK(ct_rotary_table_new(&table, (ct_device_id){CT_DEVICE_CPU, 0}, frequencies,
                                 N_FREQUENCIES, 1));
    CHECK_OK(ct_rotary_table_get(table, 10, &old, &s));
    for (int n = 0; n < 3; n++) {
        ct_memory_fail_after(n);
        CHECK_FAILS(ct_rotary_table_get(table, 5000, &c, &s), CT_MEMORY, "out of memory");
    }
    ct_memory_fail_after(-1);
    CHECK_OK(ct_rotary_table_get(table, 10, &c, &s));
    CHECK(c == old);
    ct_rotary_table_free(&table);
}

static void check_slopes(int64_t n_heads, double max_bias, const double *expected)
{
    float slopes[16];
    ct_alibi_slopes(slopes, n_heads, max_bias);
    for (int64_t i = 0; i < n_heads; i++)
        CHECK_NEAR(slopes[i], expected[i], 4e-8); /* f32's rounding, and eight digits */
}

/* The figures of Press et al.'s code for 8 and 12 heads, and for numbers that are no power of two.
 */
static void alibi_slopes_are_the_published_ones(void)
{
    static const double twelve[] = {0.5,        0.25,       0.125,      0.0625,
                                    0.03125,    0.015625,   0.0078125,  0.00390625,
                                    0.70710678, 0.35355339, 0.17677670, 0.08838835};
    static const double three[] = {0.0625, 0.00390625, 0.25}, one[] = {0.00390625};
    static const double half_bias[] = {0.25, 0.0625, 0.5}; /* r = 2^(-4/2), s = 2^(-4/4) */
    check_slopes(8, 8, twelve);
    check_slopes(12, 8, twelve);
    check_slopes(3, 8, three);
    check_slopes(1, 8, one);
    check_slopes(3, 4, half_bias);
}

/* The smallest distance of each bucket from the first logarithmic one on: what transformers 5.24
 * gives (MPNet's relative_position_bucket, torch 2.13 on a CPU). Several lie on a border in exact
 * arithmetic. */
static const struct {
    int64_t n_buckets, max_distance, first[33]; /* ended by 0 */
} published[] = {
    {32, 128, {8, 12, 16, 23, 32, 46, 64, 91}},
    {8, 20, {2, 7}},
    {12, 64, {3, 9, 24}},
    {33, 100, {8, 11, 16, 21, 29, 39, 54, 73}},
    {64, 800, {16, 21, 27, 34, 43, 55, 70, 89, 114, 145, 185, 236, 301, 385, 491, 627}},
    {128, 256, {32, 35, 37,  39,  42,  45,  48,  51,  54,  58,  62,  66,  70,  75,  80,  85,
                91, 97, 104, 110, 118, 126, 134, 143, 153, 163, 174, 185, 198, 211, 225, 240}},
};

static void buckets_of_distances_are_those_of_transformers(void)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        int64_t n = published[i].n_buckets, most = published[i].max_distance;
        int64_t half = n / 2, bucket = 0;
        const int64_t *next = published[i].first;
        for (int64_t d = 0; d <= 3 * most; d++) {
            if (d < half / 2)
                bucket = d;
            else if (d == *next)
                bucket = half / 2 + (next++ - published[i].first);
            CHECK_INT(ct_relative_bucket(-d, n, most), bucket);
            if (d > 0)
                CHECK_INT(ct_relative_bucket(d, n, most), half + bucket);
        }
        CHECK_INT(bucket, half - 1);
    }
}

/* A table up to max_distance says all there is to say, whatever the number of buckets. */
static void distances_from_the_largest_on_share_the_last_bucket(void)
{
    for (int64_t n = 4; n <= 300; n = n + 1 + n / 8) {
        for (int64_t most = n / 4 + 1; most < 5000; most = most + 1 + most / 4) {
            for (int64_t d = most; d < most + 100; d++) {
                CHECK_INT(ct_relative_bucket(-d, n, most), n / 2 - 1);
                CHECK_INT(ct_relative_bucket(d, n, most), 2 * (n / 2) - 1);
            }
            CHECK_INT(ct_relative_bucket(1 << 30, n, most), 2 * (n / 2) - 1);
        }
    }
}

static void a_bias_by_distance_is_its_bucket_s(void)
{
    enum { HEADS = 3, BUCKETS = 8, MOST = 20, WIDTH = 2 * MOST + 1 };
    float weight[BUCKETS][HEADS], bias[HEADS][WIDTH];
    for (int b = 0; b < BUCKETS; b++)
        for (int h = 0; h < HEADS; h++)
            weight[b][h] = (float)(10 * b + h);
    ct_expand_relative_bias(&bias[0][0], &weight[0][0], HEADS, BUCKETS, MOST);
    static const struct {
        int distance, bucket;
    } some[] = {{-20, 3}, {-7, 3}, {-6, 2}, {-2, 2}, {-1, 1}, {0, 0},
                {1, 5},   {2, 6},  {6, 6},  {7, 7},  {20, 7}};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int h = 0; h < HEADS; h++)
            CHECK_NEAR(bias[h][MOST + some[i].distance], 10 * some[i].bucket + h, 0);
}

const ct_test suite_positions[] = {
    TEST(buckets_of_distances_are_those_of_transformers),
    TEST(distances_from_the_largest_on_share_the_last_bucket),
    TEST(a_bias_by_distance_is_its_bucket_s),

    TEST(tables_hold_cosine_and_sine),
    TEST(growing_keeps_what_was_handed_out),
    TEST(a_step_at_a_time_makes_few_tables),
    TEST(a_table_that_cannot_grow_stays),
    TEST(alibi_slopes_are_the_published_ones),
    TESTS_END,
};
