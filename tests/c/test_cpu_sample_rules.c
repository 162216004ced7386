/* What is done to logits before the draw, and what is told of them; each rule by itself. All of
 * them together are compared in test_cpu_sample.c. */
#include "test.h"

#include "cpu_rows.h"

#define N 8

/* Greedy with penalties is a way to see logits: the choice tells which is the largest. */
static int32_t choose(const ct_ops *ops, const float *logits, ct_sampling params)
{
    float copy[N];
    ct_logprob chosen;
    ct_arena arena = {0};
    memcpy(copy, logits, sizeof copy);
    ct_status status =
        ops->sample(&chosen, NULL, (ct_rows){copy, CT_F32, 1, N, N}, &params, &arena);
    ct_arena_clear(&arena);
    return status == CT_OK ? chosen.piece : -1;
}

static const float falling[N] = {8, 7, 6, 5, 4, 3, 2, 1};

static void bad_words_at(const ct_ops *ops, const char *level)
{
    (void)level;
    static const int32_t words[] = {3, 5, 6, 0, 2, 6, 1, 4, 7, 7, 7, 2};
    static const struct {
        int32_t ids[4];
        int64_t n_ids;
        int32_t expected;
    } cases[] = {
        {{0}, 0, 0},          {{6}, 1, 0},          /* no room for 5 6 */
        {{5, 6}, 2, 2},                             /* both words end here */
        {{6, 5}, 2, 0},       {{5, 6, 5}, 3, 0},    /* was said, but is not the end */
        {{7, 7, 5, 6}, 4, 2}, {{7, 7, 7, 6}, 4, 0}, /* 1 is banned, and not the best */
        {{7, 7, 7}, 3, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_sampling params = {.top_p = 1,
                              .bad_words = words,
                              .n_bad_words = 12,
                              .ids = cases[i].ids,
                              .n_ids = cases[i].n_ids};
        CHECK_INT(choose(ops, falling, params), cases[i].expected);
    }
    static const float third[N] = {0, 0, 9, 8, 0, 0, 0, 0};
    ct_sampling params = {
        .top_p = 1, .bad_words = words, .n_bad_words = 12, .ids = (int32_t[]){7, 7, 7}, .n_ids = 3};
    CHECK_INT(choose(ops, third, params), 3);
    params.n_ids = 2;
    CHECK_INT(choose(ops, third, params), 2);
}

static void a_bad_word_loses_its_last_piece_when_the_others_are_the_end(void)
{
    at_every_level(bad_words_at);
}

static void penalties_at(const ct_ops *ops, const char *level)
{
    (void)level;
    static const int32_t ids[] = {0, 0, 0, 1, 1, 2};
    ct_sampling params = {.top_p = 1, .ids = ids, .n_ids = 6, .n_prompt = 2};
    CHECK_INT(choose(ops, falling, params), 0);
    params.repetition_penalty = 1.5f; /* once for each piece: 5.33 4.67 4 5 */
    CHECK_INT(choose(ops, falling, params), 0);
    params.repetition_penalty = 1.7f; /* 4.7 4.1 3.5 5 */
    CHECK_INT(choose(ops, falling, params), 3);
    params.repetition_penalty = 0;
    params.presence_penalty = 0.9f; /* also once, of what was generated: 7.1 6.1 5.1 5 */
    CHECK_INT(choose(ops, falling, params), 0);
    params.n_prompt = 3; /* 0 is of the prompt only: 8 6.1 5.1 5 */
    params.presence_penalty = 2;
    CHECK_INT(choose(ops, falling, params), 0);
    params.n_prompt = 0;
    params.presence_penalty = 0;
    params.frequency_penalty = 1; /* 8 - 3, 7 - 2, 6 - 1, 5: the first of equals */
    CHECK_INT(choose(ops, falling, params), 0);
    params.frequency_penalty = 1.25f; /* 4.25, 4.5, 4.75, 5 */
    CHECK_INT(choose(ops, falling, params), 3);
    params.frequency_penalty = -1; /* 11, 9, 7, 5 */
    CHECK_INT(choose(ops, falling, params), 0);

    static const float negative[N] = {-1, -1.25f, -9, -9, -9, -9, -9, -9};
    params.frequency_penalty = 0;
    params.n_ids = 3;
    params.repetition_penalty = 1.5f; /* away from zero */
    CHECK_INT(choose(ops, negative, params), 1);
    params.repetition_penalty = 1.2f;
    CHECK_INT(choose(ops, negative, params), 0);
    params.repetition_penalty = 0.5f; /* a reward */
    params.ids = ids + 3;
    CHECK_INT(choose(ops, negative, params), 1);
}

static void penalties_lower_what_was_said(void)
{
    at_every_level(penalties_at);
}

static void ban_at(const ct_ops *ops, const char *level)
{
    (void)level;
    static const int32_t piece = 0;
    ct_sampling params = {.top_p = 1,
                          .banned = &piece,
                          .n_banned = 1,
                          .ids = &piece,
                          .n_ids = 1,
                          .presence_penalty = -1000,
                          .repetition_penalty = 0.001f};
    CHECK_INT(choose(ops, falling, params), 1);
}

static void a_ban_is_stronger_than_a_reward(void)
{
    at_every_level(ban_at);
}

static void min_p_at(const ct_ops *ops, const char *level)
{
    (void)level;
    /* probabilities 1/2, 1/4, 1/8 ... */
    static const struct {
        float min_p;
        int n_kept;
    } cases[] = {{0, N},     {0.005f, N}, {0.1f, 4}, {0.2f, 3},
                 {0.24f, 3}, {0.26f, 2},  {0.9f, 1}, {1, 1}};
    float logits[N];
    for (int i = 0; i < N; i++)
        logits[i] = (float)(-i * log(2));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        bool seen[N] = {false};
        ct_sampling params = {.top_p = 1, .temperature = 1, .min_p = cases[c].min_p};
        for (params.step = 0; params.step < 4000; params.step++)
            seen[choose(ops, logits, params)] = true;
        for (int i = 0; i < N; i++)
            if (seen[i] != (i < cases[c].n_kept))
                FAIL("min_p %g: piece %d", (double)cases[c].min_p, i);
    }
}

static void min_p_keeps_what_has_that_part_of_the_largest_probability(void)
{
    at_every_level(min_p_at);
}

/* The model's own probabilities, whatever was done to the logits before the choice. */
static void logprobs_at(const ct_ops *ops, const char *level)
{
    (void)level;
    enum { V = 500, ROWS = 3 };
    static const int n_top[ROWS] = {0, 5, CT_MAX_TOP_LOGPROBS};
    static const int32_t said[] = {1, 2};
    uint64_t seed = 9;
    ct_rows logits = random_rows(&seed, CT_F32, ROWS, V, 0, 5);
    float *first = logits.data;
    first[7] = NAN;
    double logprobs[ROWS][V];
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        const float *row = (float *)logits.data + r * logits.stride;
        for (int i = 0; i < V; i++)
            sum += isnan(row[i]) ? 0 : exp(row[i]);
        for (int i = 0; i < V; i++)
            logprobs[r][i] = row[i] - log(sum);
    }
    ct_logprob chosen[ROWS], top[ROWS][CT_MAX_TOP_LOGPROBS];
    ct_sampling params[ROWS];
    for (int r = 0; r < ROWS; r++)
        params[r] = (ct_sampling){.temperature = 3,
                                  .top_p = 0.9f,
                                  .step = (uint64_t)r,
                                  .ids = said,
                                  .n_ids = 2,
                                  .presence_penalty = 5,
                                  .logprobs = r != 1, /* those of the most probable suffice */
                                  .n_top = n_top[r],
                                  .top = top[r]};
    ct_arena arena = {0};
    CHECK_OK(ops->sample(chosen, NULL, logits, params, &arena));
    ct_arena_clear(&arena);
    for (int r = 0; r < ROWS; r++) {
        /* the sum of V numbers in f32 */
        CHECK_NEAR(chosen[r].logprob, logprobs[r][chosen[r].piece], 1e-5);
        for (int i = 0; i < n_top[r]; i++) {
            int n_larger = 0, piece = top[r][i].piece;
            for (int j = 0; j < V; j++)
                n_larger += logprobs[r][j] > logprobs[r][piece];
            CHECK_INT(n_larger, i);
            CHECK_NEAR(top[r][i].logprob, logprobs[r][piece], 1e-5);
        }
    }
    free(logits.data);
}

static void logprobs_are_those_of_the_model(void)
{
    at_every_level(logprobs_at);
}

static void extreme_at(const ct_ops *ops, const char *level)
{
    (void)level;
    static const float rows[][4] = {{0, INFINITY, 5, NAN}, {-INFINITY, 2, -INFINITY, 2}};
    ct_logprob top[4], chosen;
    for (int r = 0; r < 2; r++) {
        float copy[4];
        ct_arena arena = {0};
        ct_sampling params = {.top_p = 1, .logprobs = true, .n_top = 4, .top = top};
        memcpy(copy, rows[r], sizeof copy);
        CHECK_OK(ops->sample(&chosen, NULL, (ct_rows){copy, CT_F32, 1, 4, 4}, &params, &arena));
        ct_arena_clear(&arena);
        CHECK_INT(chosen.piece, 1);
        CHECK_INT(top[0].piece, 1);
        if (r == 0) {
            CHECK(chosen.logprob == 0 && top[0].logprob == 0);
            CHECK(top[1].piece == 2 && top[1].logprob == -INFINITY && top[3].piece == -1);
        } else {
            CHECK_NEAR(chosen.logprob, -log(2), 1e-6);
            CHECK(top[1].piece == 3 && top[1].logprob == chosen.logprob && top[2].piece == -1);
        }
    }
}

static void logprobs_of_infinite_logits_are_understood(void)
{
    at_every_level(extreme_at);
}

static void untold_at(const ct_ops *ops, const char *level)
{
    (void)level;
    ct_logprob chosen;
    ct_arena arena = {0};
    float copy[N];
    ct_sampling params = {.top_p = 1};
    memcpy(copy, falling, sizeof copy);
    CHECK_OK(ops->sample(&chosen, NULL, (ct_rows){copy, CT_F32, 1, N, N}, &params, &arena));
    CHECK(chosen.piece == 0 && isnan(chosen.logprob));
    ct_arena_clear(&arena);
}

static void a_choice_without_logprobs_tells_none(void)
{
    at_every_level(untold_at);
}

const ct_test suite_cpu_sample_rules[] = {
    TEST(a_bad_word_loses_its_last_piece_when_the_others_are_the_end),
    TEST(penalties_lower_what_was_said),
    TEST(a_ban_is_stronger_than_a_reward),
    TEST(min_p_keeps_what_has_that_part_of_the_largest_probability),
    TEST(logprobs_are_those_of_the_model),
    TEST(logprobs_of_infinite_logits_are_understood),
    TEST(a_choice_without_logprobs_tells_none),
    TESTS_END,
};
