/* The choice of a piece: which ones can be chosen, how often, and that nothing else has a say. */
#include "test.h"

#include "cpu_rows.h"
#include "ops/philox.h"

#define MAX_PIECES 20000
#define FEW_PIECES 700

static const ct_sampling greedy = {.top_p = 1}, plain = {.temperature = 1, .top_p = 1};

/* The choice from a copy of logits [n], or -1 for none. */
static int32_t choose(const ct_ops *ops, const float *logits, int64_t n, ct_sampling params)
{
    float copy[MAX_PIECES];
    ct_logprob chosen;
    ct_arena arena = {0};
    memcpy(copy, logits, sizeof *copy * (size_t)n);
    ct_status status =
        ops->sample(&chosen, NULL, (ct_rows){copy, CT_F32, 1, n, n}, &params, &arena);
    ct_arena_clear(&arena);
    return status == CT_OK ? chosen.piece : -1;
}

static void greedy_at(const ct_ops *ops, const char *level)
{
    (void)level;
    float logits[70];
    for (int i = 0; i < 70; i++)
        logits[i] = -2;
    CHECK_INT(choose(ops, logits, 70, greedy), 0);
    logits[66] = logits[68] = -1;
    CHECK_INT(choose(ops, logits, 70, greedy), 66); /* the first of equals */
    logits[3] = NAN;
    logits[4] = INFINITY;
    CHECK_INT(choose(ops, logits, 70, greedy), 4);
    logits[4] = -INFINITY;
    CHECK_INT(choose(ops, logits, 70, greedy), 66);
    ct_sampling params = greedy;
    params.banned = (int32_t[]){66};
    params.n_banned = 1;
    CHECK_INT(choose(ops, logits, 70, params), 68);
}

static void temperature_zero_takes_the_first_largest(void)
{
    at_every_level(greedy_at);
}

static void impossible_at(const ct_ops *ops, const char *level)
{
    (void)level;
    float logits[6] = {NAN, -INFINITY, 1, NAN, 5, INFINITY};
    static const int32_t banned[] = {2, 4, 5};
    for (int kind = 0; kind < 2; kind++) {
        ct_sampling params[2] = {kind ? plain : greedy, kind ? plain : greedy};
        params[1].banned = banned;
        params[1].n_banned = 3;
        float rows[12];
        memcpy(rows, logits, sizeof logits);
        memcpy(rows + 6, logits, sizeof logits);
        ct_logprob chosen[2];
        ct_arena arena = {0};
        int32_t ids[2] = {-7, -7};
        CHECK_OK(ops->sample(chosen, ids, (ct_rows){rows, CT_F32, 2, 6, 6}, params, &arena));
        CHECK(chosen[0].piece == 5 && chosen[1].piece == -1);
        CHECK(ids[0] == 5 && ids[1] == 0); /* which a forward can look up */
        ct_arena_clear(&arena);
    }
}

static void a_row_without_choice_has_no_piece(void)
{
    at_every_level(impossible_at);
}

static void extremes_at(const ct_ops *ops, const char *level)
{
    (void)level;
    float with_infinity[] = {1, INFINITY, INFINITY, NAN}, far[] = {-3e38f, 3e38f, 0, NAN};
    float equal[] = {NAN, -5, -INFINITY, -5};
    bool seen[4] = {false};
    for (uint64_t step = 0; step < 60; step++) {
        ct_sampling params = plain;
        params.step = step;
        CHECK_INT(choose(ops, with_infinity, 4, params), 1);
        CHECK_INT(choose(ops, far, 4, params), 1);
        params.top_p = 0; /* only the first */
        CHECK_INT(choose(ops, equal, 4, params), 1);
        params.top_p = 1;
        params.temperature = 1e-30f;
        seen[choose(ops, equal, 4, params)] = true;
    }
    CHECK(!seen[0] && seen[1] && !seen[2] && seen[3]);
}

static void infinite_and_missing_logits_are_understood(void)
{
    at_every_level(extremes_at);
}

/* Which pieces were drawn in 2000 steps. */
static void draw_set(const ct_ops *ops, const float *logits, int64_t n, ct_sampling params,
                     int *count)
{
    memset(count, 0, sizeof *count * (size_t)n);
    for (params.step = 0; params.step < 2000; params.step++)
        count[choose(ops, logits, n, params)]++;
}

static void cuts_at(const ct_ops *ops, const char *level)
{
    (void)level;
    /* probabilities 0.1, 0.3, 0.3, 0.2, 0.1 */
    float logits[5];
    static const double p[5] = {0.1, 0.3, 0.3, 0.2, 0.1};
    static const struct {
        int32_t k;
        float p;
        int kept[5];
    } cases[] = {
        {0, 1, {1, 1, 1, 1, 1}},     {1, 1, {0, 1, 1, 0, 0}}, /* a tie at the cutoff stays */
        {2, 1, {0, 1, 1, 0, 0}},     {3, 1, {0, 1, 1, 1, 0}},
        {4, 1, {1, 1, 1, 1, 1}},     {9, 1, {1, 1, 1, 1, 1}},
        {0, 0, {0, 1, 0, 0, 0}},     {0, 0.2f, {0, 1, 0, 0, 0}}, /* of equals the lower id */
        {0, 0.35f, {0, 1, 1, 0, 0}}, {0, 0.65f, {0, 1, 1, 1, 0}},
        {0, 0.85f, {1, 1, 1, 1, 0}}, {0, 0.95f, {1, 1, 1, 1, 1}},
        {3, 0.7f, {0, 1, 1, 0, 0}}, /* of what top-k leaves: 0.75 before the third */
    };
    for (int i = 0; i < 5; i++)
        logits[i] = (float)log(p[i]);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int count[5];
        ct_sampling params = plain;
        params.top_k = cases[c].k;
        params.top_p = cases[c].p;
        draw_set(ops, logits, 5, params, count);
        for (int i = 0; i < 5; i++)
            if ((count[i] > 0) != cases[c].kept[i])
                FAIL("top_k %d, top_p %g: piece %d drawn %d times", cases[c].k, cases[c].p, i,
                     count[i]);
    }
}

static void cuts_keep_what_they_should(void)
{
    at_every_level(cuts_at);
}

static void frequencies_at(const ct_ops *ops, const char *level)
{
    (void)level;
    enum { N = 40, DRAWS = 20000 };
    float logits[N];
    double weights[N], sum = 0;
    int count[N] = {0};
    uint64_t seed = 1;
    for (int i = 0; i < N; i++) {
        logits[i] = random_value(&seed, 2);
        sum += weights[i] = exp(logits[i] / 0.7);
    }
    ct_sampling params = plain;
    params.temperature = 0.7f;
    params.seed = 42;
    for (int i = 0; i < DRAWS; i++) {
        params.step = (uint64_t)i;
        count[choose(ops, logits, N, params)]++;
    }
    for (int i = 0; i < N; i++) {
        double wanted = DRAWS * weights[i] / sum;
        CHECK_NEAR(count[i], wanted, 4.5 * sqrt(wanted + 1)); /* standard deviations */
    }
}

static void frequencies_follow_the_softmax(void)
{
    at_every_level(frequencies_at);
}

/* ---- against sorting in double precision ---- */

typedef struct piece {
    double weight;
    int id;
} piece;

static int descending(const void *a, const void *b)
{
    const piece *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->id - y->id;
}

static int ascending_id(const void *a, const void *b)
{
    return ((const piece *)a)->id - ((const piece *)b)->id;
}

/* Bans and penalties, in double: adjusted [n]. A piece is looked for in the whole text. */
static void adjust(double *adjusted, const float *logits, int n, const ct_sampling *params)
{
    const int32_t *ids = params->ids;
    for (int i = 0; i < n; i++) {
        bool said = false;
        int count = 0;
        for (int64_t j = 0; j < params->n_ids; j++) {
            said = said || ids[j] == i;
            count += j >= params->n_prompt && ids[j] == i;
        }
        adjusted[i] = logits[i];
        if (said && params->repetition_penalty > 0)
            adjusted[i] *=
                logits[i] < 0 ? params->repetition_penalty : 1 / (double)params->repetition_penalty;
        if (count > 0)
            adjusted[i] -= params->presence_penalty + (double)params->frequency_penalty * count;
        for (int64_t j = 0; j < params->n_banned; j++)
            if (params->banned[j] == i)
                adjusted[i] = -INFINITY;
        const int32_t *word = params->bad_words; /* all of three pieces */
        for (int64_t j = 0; j < params->n_bad_words; j += 4)
            if (params->n_ids >= 2 && ids[params->n_ids - 2] == word[j + 1] &&
                ids[params->n_ids - 1] == word[j + 2] && word[j + 3] == i)
                adjusted[i] = -INFINITY;
    }
}

/* *sure: no rounding of f32 could lead to another choice. */
static int sorted_choice(const float *logits, int n, const ct_sampling *params, bool *sure)
{
    static piece pieces[MAX_PIECES];
    static double adjusted[MAX_PIECES];
    double sum = 0, before = 0, until = 0, uniform;
    int kept = 0;
    adjust(adjusted, logits, n, params);
    for (int i = 0; i < n; i++)
        pieces[i] = (piece){adjusted[i], i};
    qsort(pieces, (size_t)n, sizeof *pieces, descending);
    double top = pieces[0].weight;
    int k = params->top_k > 0 && params->top_k < n ? params->top_k : n;
    while (kept < n && (kept < k || pieces[kept].weight == pieces[k - 1].weight))
        kept++;
    for (int i = 0; i < kept; i++)
        sum += pieces[i].weight = exp((pieces[i].weight - top) / params->temperature);
    *sure = true;
    k = kept;
    for (kept = 0; kept < k && (kept == 0 || before < params->top_p * sum || params->top_p >= 1);
         kept++)
        before += pieces[kept].weight;
    for (int i = 0; params->top_p < 1 && i < k; i++) {
        until += pieces[i].weight;
        *sure = *sure && fabs(until - params->top_p * sum) > 1e-5 * sum;
    }
    double least = params->min_p * pieces[0].weight;
    for (int i = kept; i-- > 0;) {
        *sure = *sure && fabs(pieces[i].weight - least) > 1e-5 * least;
        if (pieces[i].weight < least) {
            kept = i;
            before -= pieces[i].weight;
        }
    }
    qsort(pieces, (size_t)kept, sizeof *pieces, ascending_id);
    uniform = ct_philox_uniform(params->seed, params->row, params->step) * before;
    double upto = 0;
    int chosen = pieces[kept - 1].id;
    for (int i = kept - 1; i >= 0; i--)
        upto += pieces[i].weight;
    for (int i = kept - 1; i >= 0; i--) { /* from behind, so that the last hit is the first piece */
        *sure = *sure && fabs(upto - uniform) > 1e-5 * sum;
        if (uniform < upto)
            chosen = pieces[i].id;
        upto -= pieces[i].weight;
    }
    return chosen;
}

/* Half of the rounds look at a text: of a few pieces, so that they come again and again. */
static void random_text(ct_sampling *params, int n, uint64_t *seed, int32_t ids[20],
                        int32_t words[8])
{
    for (int i = 0; i < 20; i++)
        ids[i] = (int32_t)(random_uniform(seed) * (n < 12 ? n : 12));
    params->ids = ids;
    params->n_ids = (int64_t)(random_uniform(seed) * 21);
    params->n_prompt = (int64_t)(random_uniform(seed) * (double)(params->n_ids + 1));
    params->repetition_penalty = (float)(0.7 + random_uniform(seed));
    params->presence_penalty = (float)(random_uniform(seed) - 0.3);
    params->frequency_penalty = (float)(random_uniform(seed) - 0.3);
    if (random_uniform(seed) < 0.3)
        params->repetition_penalty = 0;
    for (int i = 0; i < 8; i++) /* the second word never fits */
        words[i] = i % 4 == 0 ? 3 : (int32_t)(random_uniform(seed) * n);
    if (params->n_ids >= 2)
        memcpy(words + 1, ids + params->n_ids - 2, 2 * sizeof *ids);
    params->bad_words = words;
    params->n_bad_words = 8;
    params->banned = ids + 19;
    params->n_banned = 1;
}

static void sorting_at(const ct_ops *ops, const char *level)
{
    uint64_t seed = 2;
    int n_sure = 0;
    int32_t ids[20], words[8];
    for (int round = 0; round < 3000; round++) {
        float logits[FEW_PIECES];
        int n = 3 + (int)(random_uniform(&seed) * (round % 10 ? 40 : FEW_PIECES - 3));
        bool ties = round % 6 == 0;
        for (int i = 0; i < n; i++) {
            logits[i] = random_value(&seed, 4);
            if (ties)
                logits[i] = roundf(logits[i]);
        }
        if (round % 7 == 0) /* ascending, which is unkind to selection */
            for (int i = 0; i < n; i++)
                logits[i] = (float)i * 4 / (float)n;
        ct_sampling params = {.temperature = (float)(0.3 + random_uniform(&seed)),
                              .top_k = round % 2 ? (int32_t)(random_uniform(&seed) * n) : 0,
                              .top_p = round % 4 < 2 ? (float)random_uniform(&seed) : 1,
                              .seed = 3,
                              .row = 4,
                              .step = (uint64_t)round};
        if (round % 5 == 0)
            params.min_p = (float)random_uniform(&seed);
        if (round % 2) /* else ties would be cut by rounding */
            random_text(&params, n, &seed, ids, words);
        bool sure;
        int wanted = sorted_choice(logits, n, &params, &sure);
        int got = choose(ops, logits, n, params);
        if (sure && got != wanted)
            FAIL("level %s, round %d, %d pieces, top_k %d, top_p %g: %d instead of %d", level,
                 round, n, params.top_k, params.top_p, got, wanted);
        n_sure += sure;
    }
    CHECK(n_sure > 2400);
}

static void choices_are_those_of_a_sorted_vocabulary(void)
{
    at_every_level(sorting_at);
}

/* ---- vocabularies that are divided ---- */

/* How many pieces come before `id` in falling order, of equals the lower id first. */
static int rank_of(const float *logits, int n, int id)
{
    int rank = 0;
    for (int i = 0; i < n; i++)
        rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    return rank;
}

/* A few peaks, many that are alike, or many that are the same. */
static void random_logits(float *logits, int n, int round, uint64_t *seed)
{
    for (int i = 0; i < n; i++) {
        logits[i] = random_value(seed, round % 3 ? 15 : 0.3);
        if (round % 5 == 0)
            logits[i] = roundf(logits[i]);
        if (round % 4 == 0 && i % 7 == 0)
            logits[i] = i % 2 ? NAN : -INFINITY;
    }
}

static void long_rows_at(const ct_ops *ops, const char *level)
{
    enum { ROUNDS = 60, N_TOP = CT_MAX_TOP_LOGPROBS };
    static float logits[MAX_PIECES], sortable[MAX_PIECES];
    uint64_t seed = 8;
    int n_sure = 0;
    for (int round = 0; round < ROUNDS; round++) {
        int n = MAX_PIECES - (int)(random_uniform(&seed) * 15000);
        bool sure;
        ct_logprob top[N_TOP];
        random_logits(logits, n, round, &seed);
        for (int i = 0; i < n; i++)
            sortable[i] = isnan(logits[i]) ? -INFINITY : logits[i];
        ct_sampling params = {.temperature = round % 6 ? 0.8f : 0,
                              .top_p = round % 4 < 2 ? (float)random_uniform(&seed) : 1,
                              .top_k = round % 2 ? (int32_t)(random_uniform(&seed) * n) : 0,
                              .step = (uint64_t)round};
        if (round % 8 == 1)
            params.top_k = 50;
        if (round % 7 == 0)
            params.min_p = (float)random_uniform(&seed);
        if (round % 3 == 0) {
            params.n_top = N_TOP;
            params.top = top;
        }
        int got = choose(ops, logits, n, params), rank = rank_of(sortable, n, got);
        if (params.temperature == 0 && rank != 0)
            FAIL("level %s, round %d: %d, which is the largest but %d", level, round, got, rank);
        for (int i = 0; i < params.n_top; i++)
            CHECK_INT(rank_of(sortable, n, top[i].piece), i);
        if (params.temperature == 0)
            continue;
        int wanted = sorted_choice(sortable, n, &params, &sure);
        if (sure && got != wanted)
            FAIL("level %s, round %d, %d pieces, top_k %d, top_p %g, min_p %g: %d instead of %d",
                 level, round, n, params.top_k, params.top_p, params.min_p, got, wanted);
        n_sure += sure;
    }
    CHECK(n_sure > ROUNDS / 4);
}

static void long_vocabularies_are_chosen_from_like_short_ones(void)
{
    at_every_level(long_rows_at);
}

/* The places of the largest, and of one that equals it, in and behind the first part. */
static void first_of_equals_at(const ct_ops *ops, const char *level)
{
    (void)level;
    static const int places[][2] = {
        {0, 1}, {3, 19999}, {4095, 4096}, {12345, 12346}, {9000, 19000}};
    static float rows[2 * MAX_PIECES];
    for (size_t c = 0; c < sizeof places / sizeof *places; c++)
        for (int n = MAX_PIECES; n > MAX_PIECES - 2; n--) {
            ct_logprob chosen[2];
            ct_sampling params[2] = {greedy, greedy};
            ct_arena arena = {0};
            for (int i = 0; i < 2 * n; i++)
                rows[i] = i % 3 ? -1e30f : NAN;
            rows[places[c][0]] = rows[n + places[c][0]] = -0.0f; /* as large as 0 */
            rows[places[c][1] < n ? places[c][1] : n - 1] = 0;
            CHECK_OK(ops->sample(chosen, NULL, (ct_rows){rows, CT_F32, 2, n, n}, params, &arena));
            CHECK_INT(chosen[0].piece, places[c][0]);
            CHECK_INT(chosen[1].piece, places[c][0]);
            CHECK(isnan(chosen[0].logprob));
            ct_arena_clear(&arena);
        }
}

static void the_first_of_equals_is_found_anywhere(void)
{
    at_every_level(first_of_equals_at);
}

/* ---- the random stream ---- */

static void philox_gives_the_published_numbers(void)
{
    /* Random123's kat_vectors for philox4x32 with 10 rounds: counter, key, first two words. */
    CHECK(ct_philox_uniform(0, 0, 0) == (double)(0x6627e8d5e169c58du >> 11) * 0x1p-53);
    CHECK(ct_philox_uniform(UINT64_MAX, UINT64_MAX, UINT64_MAX) ==
          (double)(0x408f276d41c83b0eu >> 11) * 0x1p-53);
    CHECK(ct_philox_uniform(0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u) ==
          (double)(0xd16cfe0994fdccebu >> 11) * 0x1p-53);
}

static void rows_together_at(const ct_ops *ops, const char *level)
{
    (void)level;
    enum { N = 300, ROWS = 6 };
    uint64_t seed = 5;
    int before = ct_threads_get();
    ct_rows logits = random_rows(&seed, CT_F32, ROWS, N, 4, 3);
    ct_sampling params[ROWS];
    int32_t alone[ROWS];
    ct_logprob chosen[ROWS];
    bool differ = false;
    for (int i = 0; i < ROWS; i++) {
        params[i] = (ct_sampling){
            .temperature = i == 2 ? 0 : 1,
            .top_k = 10 * i,
            .top_p = 0.9f,
            .row = (uint64_t)i,
            .logprobs = i == 3, /* some rows need more scratch than others */
            .frequency_penalty = i == 4 ? 1 : 0,
            .ids = alone,
            .n_ids = i == 4 ? 2 : 0,
        };
        alone[i] = choose(ops, (float *)logits.data + i * logits.stride, N, params[i]);
        differ = differ || alone[i] != alone[0];
    }
    CHECK(differ);
    for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
        ct_arena arena = {0};
        ct_rows copy = new_rows(CT_F32, ROWS, N, 4);
        memcpy(copy.data, logits.data, sizeof(float) * (size_t)(ROWS * logits.stride));
        CHECK_OK(ct_threads_set(n_threads));
        int32_t ids[ROWS];
        CHECK_OK(ops->sample(chosen, ids, copy, params, &arena));
        for (int i = 0; i < ROWS; i++)
            CHECK(chosen[i].piece == alone[i] && ids[i] == alone[i]);
        CHECK(gaps_untouched(&copy));
        ct_arena_clear(&arena);
        free(copy.data);
    }
    CHECK_OK(ct_threads_set(before));
    free(logits.data);
}

static void a_row_depends_only_on_its_own_parameters(void)
{
    at_every_level(rows_together_at);
}

ct_status fault_sample(void)
{
    static float logits[2000];
    const ct_ops *ops;
    ct_logprob chosen;
    ct_arena arena = {0};
    CT_TRY(ct_cpu_ops(&ops));
    ct_status status =
        ops->sample(&chosen, NULL, (ct_rows){logits, CT_F32, 1, 2000, 2000}, &plain, &arena);
    ct_arena_clear(&arena);
    return status;
}

const ct_test suite_cpu_sample[] = {
    TEST(temperature_zero_takes_the_first_largest),
    TEST(a_row_without_choice_has_no_piece),
    TEST(infinite_and_missing_logits_are_understood),
    TEST(cuts_keep_what_they_should),
    TEST(frequencies_follow_the_softmax),
    TEST(choices_are_those_of_a_sorted_vocabulary),
    TEST(long_vocabularies_are_chosen_from_like_short_ones),
    TEST(the_first_of_equals_is_found_anywhere),
    TEST(philox_gives_the_published_numbers),
    TEST(a_row_depends_only_on_its_own_parameters),
    TESTS_END,
};
