/* Generation against the model in double precision: the text of a prompt is what the oracle would
 * choose piece by piece, whoever else runs at the time. Choices of the tiny models are not close:
 * the oracle says when two pieces are nearer than the engine's rounding. */
#include "test.h"

#include "core/memory.h"
#include "cpu/onednn.h"
#include "generation/session.h"
#include "model_oracle.h"
#include "ops/philox.h"

enum { MAX_TEXT = 40 };

/* What a prompt becomes. */
typedef struct text {
    int32_t pieces[MAX_TEXT];
    int64_t n;
    ct_finish finish;
} text;

/* ---- the oracle ---- */

static int32_t largest(const double *logits, int64_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    for (int32_t i = 0; i < n; i++)
        if (i != best && logits[best] - logits[i] < 1e-4)
            return -1;
    return best;
}

/* The first piece at which the sum of probabilities passes the random number. */
static int32_t drawn(const double *logits, int64_t n, const ct_sampling *sampling, int64_t step)
{
    double sum = 0, passed = 0;
    double uniform = ct_philox_uniform(sampling->seed, sampling->row, (uint64_t)step);
    for (int64_t i = 0; i < n; i++)
        sum += exp(logits[i] / (double)sampling->temperature);
    for (int32_t i = 0; i < n; i++) {
        passed += exp(logits[i] / (double)sampling->temperature) / sum;
        if (passed > uniform)
            return passed - uniform < 1e-5 ? -1 : i;
    }
    return -1;
}

/* Pieces of MAX_TEXT behind a prompt, without an end; n stays 0 when a choice was too close. */
static void expect_text(text *out, ct_spec spec, const int32_t *prompt, int64_t n_prompt,
                        const ct_sampling *sampling)
{
    int32_t ids[64], positions[64];
    double hidden[(TINY_LAYERS + 1) * 64 * TINY_WIDTH], logits[64 * TINY_PIECES];
    *out = (text){0};
    if (ct_spec_validate(&spec) != CT_OK)
        return;
    memcpy(ids, prompt, sizeof *ids * (size_t)n_prompt);
    for (int32_t i = 0; i < 64; i++)
        positions[i] = i;
    for (int64_t step = 0; step < 24; step++) {
        int64_t n = n_prompt + step;
        double *last = logits + (n - 1) * TINY_PIECES;
        oracle_run(&(oracle_input){&spec, n, ids, positions, NULL, NULL}, hidden, logits);
        int32_t piece = sampling->temperature > 0 ? drawn(last, TINY_PIECES, sampling, step)
                                                  : largest(last, TINY_PIECES);
        if (piece < 0) {
            out->n = 0;
            return;
        }
        ids[n] = out->pieces[step] = piece;
        out->n = step + 1;
    }
}

/* ---- running ---- */

/* Adds what the events tell to texts [n]; false when they tell what cannot be. */
static bool take_events(text *texts, int64_t n, const ct_event *events, int64_t n_events)
{
    for (int64_t i = 0; i < n_events; i++) {
        if (events[i].sequence < 0 || events[i].sequence >= n)
            return false;
        text *one = &texts[events[i].sequence];
        bool end = events[i].finish == CT_FINISH_EOS;
        if (one->finish != CT_FINISH_NONE || one->n == MAX_TEXT || end != (events[i].piece == -1))
            return false;
        if (!end)
            one->pieces[one->n++] = events[i].piece;
        one->finish = events[i].finish;
    }
    return true;
}

static ct_status run_all(ct_session *session, text *texts, int64_t n)
{
    while (!ct_session_is_done(session)) {
        const ct_event *events;
        int64_t n_events;
        CT_TRY(ct_session_step(session, (ct_poll){0}, &events, &n_events));
        if (!take_events(texts, n, events, n_events))
            return ct_fail(CT_INTERNAL, "an event of no sequence, or behind its end");
    }
    return CT_OK;
}

static bool starts_as(const text *actual, const text *expected, int64_t n)
{
    return actual->n == n &&
           memcmp(actual->pieces, expected->pieces, sizeof *actual->pieces * (size_t)n) == 0;
}

/* Prompts of several lengths, greedy and drawn, with ends of both kinds. */
enum { N_PROMPTS = 7 };

typedef struct job {
    int32_t prompt[16], eos;
    ct_request request;
    text whole;     /* without an end */
    int64_t n_text; /* what must come */
    ct_finish finish;
} job;

static void set_job(job *j, ct_spec spec, int index)
{
    static const int64_t lengths[N_PROMPTS] = {5, 1, 9, 3, 16, 2, 7};
    static const int64_t most[N_PROMPTS] = {8, 1, 20, 24, 3, 12, 5};
    j->request = (ct_request){.prompt = j->prompt,
                              .n_prompt = lengths[index],
                              .sampling = {.top_p = 1, .seed = 5, .row = (uint64_t)index},
                              .max_pieces = most[index]};
    if (index % 2)
        j->request.sampling.temperature = 0.8f;
    tiny_pieces(j->prompt, 16, 40 + (uint64_t)index);
    expect_text(&j->whole, spec, j->prompt, lengths[index], &j->request.sampling);
    j->n_text = most[index];
    j->finish = CT_FINISH_LENGTH;
    if (index % 3 != 2)
        return;
    /* The piece that comes sixth ends the text, or where it came before. */
    j->eos = j->whole.pieces[5];
    j->request.eos_ids = &j->eos;
    j->request.n_eos = 1;
    for (int64_t i = 0; i < 6 && i < most[index]; i++) {
        if (j->whole.pieces[i] == j->eos) {
            j->n_text = i;
            j->finish = CT_FINISH_EOS;
            return;
        }
    }
}

static void check_session(ct_model *model, const job *jobs, ct_session_config config)
{
    text texts[N_PROMPTS];
    ct_session *session;
    memset(texts, 0, sizeof texts);
    CHECK_OK(ct_session_new(&session, model, &config));
    CHECK(ct_session_is_done(session));
    for (int i = 0; i < N_PROMPTS; i++) {
        int64_t number;
        CHECK_OK(ct_session_add(session, &jobs[i].request, &number));
        CHECK_INT(number, i);
    }
    CHECK(!ct_session_is_done(session));
    CHECK_OK(run_all(session, texts, N_PROMPTS));
    for (int i = 0; i < N_PROMPTS; i++)
        if (!starts_as(&texts[i], &jobs[i].whole, jobs[i].n_text) ||
            texts[i].finish != jobs[i].finish)
            FAIL("prompt %d, %d slots, %d tokens at once: %d pieces, expected %d", i,
                 (int)config.max_slots, (int)config.max_batch_tokens, (int)texts[i].n,
                 (int)jobs[i].n_text);
    ct_session_free(&session);
    CHECK(!session);
}

static void check_kind(ct_spec spec)
{
    static const ct_session_config configs[] = {{1, 1, 0},  {1, 100, 0}, {2, 6, 64},  {3, 1, 0},
                                                {4, 12, 0}, {7, 5, 128}, {7, 100, 0}, {0, 0, 0}};
    int64_t live = live_blocks();
    static job jobs[N_PROMPTS];
    ct_model *model;
    CHECK_OK(tiny_model_new(&model, spec));
    for (int i = 0; i < N_PROMPTS; i++) {
        set_job(&jobs[i], spec, i);
        if (jobs[i].whole.n == 0)
            FAIL("prompt %d: a choice is too close, take another seed", i);
    }
    CHECK(jobs[2].finish == CT_FINISH_EOS || jobs[5].finish == CT_FINISH_EOS);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        check_session(model, jobs, configs[i]);
    ct_model_unref(&model);
    CHECK_INT(live_blocks(), live);
}

static void texts_are_the_oracles_whoever_runs_beside_them(void)
{
    ct_spec alibi = tiny_parallel_spec(), table = tiny_decoder_spec();
    alibi.rotary_width = 0;
    alibi.alibi = 1;
    table.rotary_width = 0; /* GPT-2's positions, and types that are all the first */
    table.n_positions = 64;
    table.n_types = 2;
    check_kind(tiny_decoder_spec());
    check_kind(alibi);
    check_kind(table);
}

/* ---- one session, watched ---- */

static ct_status begin(ct_session **session, ct_model **model, ct_spec spec, int64_t slots)
{
    CT_TRY(tiny_model_new(model, spec));
    return ct_session_new(session, *model, &(ct_session_config){slots, 100, 0});
}

static void end(ct_session **session, ct_model **model)
{
    ct_session_free(session);
    ct_model_unref(model);
}

/* Adds a greedy request of `n_prompt` pieces. */
static ct_status add(ct_session *session, int64_t n_prompt, int64_t max_pieces)
{
    static const int32_t prompt[300] = {3, 1, 4, 1, 5, 9, 2, 6};
    int64_t number;
    ct_request request = {.prompt = prompt, .n_prompt = n_prompt, .max_pieces = max_pieces};
    return ct_session_add(session, &request, &number);
}

/* The sequences that a step tells of, as "0 1*": a star behind the last piece. */
static const char *step_text(ct_session *session)
{
    static char told[100];
    const ct_event *events;
    int64_t n;
    size_t used = 0;
    told[0] = 0;
    if (ct_session_step(session, (ct_poll){0}, &events, &n) != CT_OK)
        return ct_message();
    for (int64_t i = 0; i < n; i++)
        used += (size_t)snprintf(told + used, sizeof told - used, "%s%d%s", i ? " " : "",
                                 (int)events[i].sequence,
                                 events[i].finish == CT_FINISH_NONE ? "" : "*");
    return told;
}

static void events_tell_of_everybody_who_ran_in_order(void)
{
    ct_session *session;
    ct_model *model;
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 2));
    CHECK_TEXT(step_text(session), "");
    CHECK_OK(add(session, 4, 3));
    CHECK_OK(add(session, 2, 2));
    CHECK_OK(add(session, 3, 1));
    CHECK_TEXT(step_text(session), "0 1");
    CHECK_TEXT(step_text(session), "0 1*");
    CHECK_TEXT(step_text(session), "0* 2*"); /* 2 took the slot */
    CHECK_OK(add(session, 1, 2));
    CHECK_OK(add(session, 150, 2)); /* needs a second step */
    CHECK_TEXT(step_text(session), "3");
    CHECK_TEXT(step_text(session), "3* 4");
    CHECK_TEXT(step_text(session), "4*");
    CHECK(ct_session_is_done(session));
    CHECK_TEXT(step_text(session), "");
    end(&session, &model);
}

static void cancelled_sequences_are_not_heard_of_again(void)
{
    int64_t live = live_blocks();
    ct_session *session;
    ct_model *model;
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 2));
    for (int i = 0; i < 4; i++)
        CHECK_OK(add(session, 3, 3));
    CHECK_TEXT(step_text(session), "0 1");
    ct_session_cancel(session, 0); /* runs */
    ct_session_cancel(session, 2); /* waits */
    ct_session_cancel(session, 99);
    CHECK_TEXT(step_text(session), "1 3");
    ct_session_cancel(session, 1);
    CHECK(!ct_session_is_done(session));
    CHECK_TEXT(step_text(session), "3");
    CHECK_TEXT(step_text(session), "3*");
    CHECK(ct_session_is_done(session));
    CHECK_OK(add(session, 3, 9)); /* freed while it runs */
    CHECK_TEXT(step_text(session), "4");
    end(&session, &model);
    CHECK_INT(live_blocks(), live);
}

/* The last piece needs no position of its own: it is told, and nothing follows it. */
static void the_models_positions_end_a_sequence(void)
{
    for (int by_table = 0; by_table < 2; by_table++) {
        ct_spec spec = tiny_decoder_spec();
        ct_session *session;
        ct_model *model;
        text texts[2];
        memset(texts, 0, sizeof texts);
        spec.max_positions = by_table ? 0 : 12;
        spec.n_positions = by_table ? 12 : 0;
        CHECK_OK(begin(&session, &model, spec, 2));
        CHECK_OK(add(session, 5, 0));
        CHECK_OK(add(session, 12, 0));
        CHECK_FAILS(add(session, 13, 0), CT_VALUE,
                    "a prompt of 13 pieces is longer than the 12 positions of the model");
        CHECK_OK(run_all(session, texts, 2));
        CHECK(texts[0].n == 12 - 5 + 1 && texts[0].finish == CT_FINISH_LENGTH);
        CHECK(texts[1].n == 1 && texts[1].finish == CT_FINISH_LENGTH);
        end(&session, &model);
    }
}

static void banned_pieces_do_not_come(void)
{
    ct_session *session;
    ct_model *model;
    text whole, texts[1] = {{.n = 0}};
    bool banned[TINY_PIECES] = {false};
    static const int32_t prompt[] = {3, 1, 4};
    int64_t number;
    ct_sampling greedy = {.top_p = 1};
    expect_text(&whole, tiny_decoder_spec(), prompt, 3, &greedy);
    CHECK_INT(whole.n, 24);
    for (int i = 0; i < 24; i++)
        banned[whole.pieces[i]] = true;
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 1));
    ct_request request = {.prompt = prompt,
                          .n_prompt = 3,
                          .sampling = {.top_p = 1, .banned = whole.pieces, .n_banned = 24},
                          .max_pieces = 24};
    CHECK_OK(ct_session_add(session, &request, &number));
    CHECK_OK(run_all(session, texts, 1));
    CHECK_INT(texts[0].n, 24);
    for (int i = 0; i < 24; i++)
        CHECK(!banned[texts[0].pieces[i]]);
    end(&session, &model);
}

/* ---- the hook ---- */

/* Follows each text: the logits that it gets make the next piece three more than the last one. */
static ct_status count_by_three(void *context, int64_t sequence, const int32_t *ids, int64_t n_ids,
                                float *logits, int64_t n_pieces)
{
    int64_t *n_calls = context;
    if (sequence == 1 && n_calls[1] == 2)
        return ct_fail(CT_VALUE, "enough");
    n_calls[sequence]++;
    memset(logits, 0, sizeof *logits * (size_t)n_pieces);
    logits[(ids[n_ids - 1] + 3) % n_pieces] = 1;
    return CT_OK;
}

static void a_hook_sees_the_text_and_makes_its_logits(void)
{
    ct_session *session;
    ct_model *model;
    text texts[3];
    const ct_event *events;
    int64_t n, n_calls[3] = {0};
    memset(texts, 0, sizeof texts);
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 2));
    ct_session_set_hook(session, (ct_logits_hook){count_by_three, n_calls});
    CHECK_OK(add(session, 2, 4)); /* ends in 1 */
    CHECK_OK(add(session, 3, 2)); /* ends in 4 */
    CHECK_OK(run_all(session, texts, 2));
    CHECK(starts_as(&texts[0], &(text){.pieces = {4, 7, 10, 13}}, 4));
    CHECK(starts_as(&texts[1], &(text){.pieces = {7, 10}}, 2));
    CHECK(n_calls[0] == 4 && n_calls[1] == 2);
    ct_session_free(&session);

    CHECK_OK(ct_session_new(&session, model, &(ct_session_config){2, 100, 0}));
    ct_session_set_hook(session, (ct_logits_hook){count_by_three, n_calls});
    CHECK_OK(add(session, 2, 4));
    CHECK_OK(add(session, 3, 4));
    CHECK_OK(add(session, 1, 2)); /* waits: the failure of others is not its own */
    CHECK_FAILS(ct_session_step(session, (ct_poll){0}, &events, &n), CT_VALUE, "enough");
    memset(texts, 0, sizeof texts);
    CHECK_OK(run_all(session, texts, 3));
    CHECK(texts[0].n == 0 && texts[1].n == 0);
    CHECK(starts_as(&texts[2], &(text){.pieces = {6, 9}}, 2)); /* behind 3 */
    end(&session, &model);
}

/* Penalties, bans and logprobs of the sequence that a row belongs to, in any company. */
static void a_session_knows_what_each_sequence_has_said(void)
{
    ct_session *session;
    ct_model *model;
    const ct_event *events;
    int64_t n, number;
    static const int32_t prompts[3][3] = {{3, 1, 4}, {3, 1, 4}, {2, 7, 1}};
    int n_seen[3][TINY_PIECES] = {{0}};
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 3));
    for (int i = 0; i < 3; i++) {
        ct_request request = {.prompt = prompts[i],
                              .n_prompt = 3,
                              .sampling = {.top_p = 1, .logprobs = i == 2, .n_top = i == 2 ? 2 : 0},
                              .max_pieces = 40};
        if (i == 1)
            request.sampling.presence_penalty = 1000; /* never the same piece again */
        CHECK_OK(ct_session_add(session, &request, &number));
    }
    while (!ct_session_is_done(session)) {
        CHECK_OK(ct_session_step(session, (ct_poll){0}, &events, &n));
        for (int64_t i = 0; i < n; i++) {
            const ct_event *event = &events[i];
            n_seen[event->sequence][event->piece]++;
            CHECK_INT(event->n_top, event->sequence == 2 ? 2 : 0);
            CHECK(isnan(event->logprob) == (event->sequence != 2));
            if (event->n_top) /* greedy takes the most probable */
                CHECK(event->top[0].piece == event->piece &&
                      event->top[0].logprob == event->logprob &&
                      event->top[1].logprob <= event->logprob);
        }
    }
    int most[3] = {0};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < TINY_PIECES; j++)
            most[i] = n_seen[i][j] > most[i] ? n_seen[i][j] : most[i];
    CHECK(most[0] > 1 && most[1] == 1);
    end(&session, &model);
}

/* Whatever a request may ask for. */
static ct_status add_rich(ct_session *session, int64_t max_pieces)
{
    static const int32_t prompt[] = {3, 1, 4, 1}, words[] = {2, 3, 1};
    int64_t number;
    ct_request request = {.prompt = prompt,
                          .n_prompt = 4,
                          .sampling = {.temperature = 1,
                                       .top_p = 0.9f,
                                       .top_k = 20,
                                       .min_p = 0.01f,
                                       .repetition_penalty = 1.1f,
                                       .bad_words = words,
                                       .n_bad_words = 3,
                                       .logprobs = true,
                                       .n_top = 3},
                          .max_pieces = max_pieces};
    return ct_session_add(session, &request, &number);
}

/* Mixed lengths, a common beginning, more prompts than slots, pages that come and go. In another
 * round they come in another order, so that steps have other numbers of rows. */
static void run_round(ct_session *session, int round, int64_t *made)
{
    for (int j = 0; j < 20; j++) {
        int i = (7 * j + round) % 20;
        CHECK_OK(add(session, 1 + 83 * i % 240, 1 + i * 7 % 15));
        CHECK_OK(add_rich(session, 1 + i % 4));
    }
    int64_t before = ct_memory_allocations();
    while (!ct_session_is_done(session)) {
        const ct_event *events;
        int64_t n;
        CHECK_OK(ct_session_step(session, (ct_poll){0}, &events, &n));
    }
    *made = ct_memory_allocations() - before;
}

static void check_warm_steps(ct_dtype dtype)
{
    ct_session *session;
    ct_model *model;
    int64_t live, made;
    ct_spec spec = tiny_decoder_spec();
    spec.dtype = dtype;
    CHECK_OK(tiny_model_new(&model, spec));
    CHECK_OK(ct_session_new(&session, model, &(ct_session_config){6, 50, 20 * 64}));
    for (int round = 0; round < 4; round++) /* until pages and arrays have their sizes */
        run_round(session, round, &made);
    live = ct_memory_live_blocks();
    for (int round = 4; round < 14; round++) {
        run_round(session, round, &made);
        CHECK_INT(made, 0);
        CHECK_INT(ct_memory_live_blocks(), live);
    }
    end(&session, &model);
}

static void warm_steps_allocate_nothing_whatever_their_number_of_rows(void)
{
    check_warm_steps(CT_F32);
    check_warm_steps(CT_F16);
    if (!ct_onednn_takes(CT_BF16)) /* which makes a primitive for a new number */
        check_warm_steps(CT_BF16);
}

/* ---- refusals and failures ---- */

static void wrong_requests_are_refused(void)
{
    int64_t live = live_blocks(), number = -7;
    ct_session *session;
    ct_model *model;
    int32_t prompt[] = {1, 2, 61};
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 1));
    ct_request request = {.prompt = prompt};
    CHECK_FAILS(ct_session_add(session, &request, &number), CT_VALUE,
                "a prompt needs at least one piece");
    request.n_prompt = 3;
    CHECK_FAILS(ct_session_add(session, &request, &number), CT_INDEX,
                "piece id 61 at [2] is outside the 61 pieces of the model");
    prompt[2] = -1;
    CHECK_FAILS(ct_session_add(session, &request, &number), CT_INDEX, "piece id -1 at [2]");
    prompt[2] = 60;
    request.sampling.banned = prompt;
    request.sampling.n_banned = 3;
    prompt[1] = 61;
    request.n_prompt = 1;
    CHECK_FAILS(ct_session_add(session, &request, &number), CT_INDEX,
                "banned piece id 61 at [1] is outside the 61 pieces of the model");
    prompt[1] = 2;
    CHECK_FAILS(add(session, 257, 1), CT_VALUE, "longer than the 256 positions");
    CHECK(number == -7 && ct_session_is_done(session));
    CHECK_OK(ct_session_add(session, &request, &number));
    CHECK_INT(number, 0); /* who was refused was not counted */
    end(&session, &model);
    CHECK_INT(live_blocks(), live);
}

static void wrong_sampling_is_refused(void)
{
    int64_t number;
    ct_session *session;
    ct_model *model;
    static const int32_t short_word[] = {1, 5}, long_word[] = {2, 5, 6, 3, 1, 1},
                         unknown[] = {2, 5, 61};
    const struct {
        ct_sampling sampling;
        ct_status code;
        const char *text;
    } cases[] = {
        {{.temperature = -1}, CT_VALUE, "temperature must be between 0 and 3.40282e+38, was: -1"},
        {{.temperature = NAN}, CT_VALUE, "temperature must be"},
        {{.temperature = INFINITY}, CT_VALUE, "temperature must be"},
        {{.top_p = 1.5f}, CT_VALUE, "top_p must be between 0 and 1, was: 1.5"},
        {{.min_p = -0.5f}, CT_VALUE, "min_p must be"},
        {{.repetition_penalty = -1}, CT_VALUE, "repetition_penalty must be"},
        {{.presence_penalty = NAN}, CT_VALUE, "presence_penalty must be"},
        {{.frequency_penalty = -INFINITY}, CT_VALUE, "frequency_penalty must be"},
        {{.n_top = 21}, CT_VALUE, "logprobs of 0 to 20 pieces can be told, asked for: 21"},
        {{.bad_words = short_word, .n_bad_words = 2}, CT_VALUE, "length 1 at [0] of 2 entries"},
        {{.bad_words = long_word, .n_bad_words = 6}, CT_VALUE, "length 3 at [3] of 6 entries"},
        {{.bad_words = unknown, .n_bad_words = 3}, CT_INDEX, "bad word's piece id 61 at [1]"},
    };
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 1));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_request request = {
            .prompt = long_word, .n_prompt = 1, .sampling = cases[i].sampling, .max_pieces = 1};
        CHECK_FAILS(ct_session_add(session, &request, &number), cases[i].code, cases[i].text);
    }
    CHECK(ct_session_is_done(session));
    end(&session, &model);
}

static void what_cannot_generate_is_refused(void)
{
    ct_session *session;
    ct_model *model;
    ct_session_config config = {1, 1, 0};
    ct_spec headless = tiny_decoder_spec(), both_ways = tiny_decoder_spec();
    headless.head = 0;
    both_ways.causal = 0;
    ct_spec specs[] = {tiny_encoder_spec(), headless, both_ways};
    for (int i = 0; i < 4; i++) {
        CHECK_OK(i < 3 ? tiny_model_new(&model, specs[i])
                       : tiny_model_begin(&model, tiny_decoder_spec()));
        CHECK_FAILS(ct_session_new(&session, model, &config), CT_VALUE,
                    "only a causal language model with weights can generate");
        CHECK(!session);
        ct_model_unref(&model);
    }
    static const ct_session_config wrong[] = {{-1, 1, 1}, {65537, 1, 1}, {1, -1, 1}, {1, 1, -5}};
    CHECK_OK(tiny_model_new(&model, tiny_decoder_spec()));
    for (int i = 0; i < 4; i++)
        CHECK_FAILS(ct_session_new(&session, model, &wrong[i]), CT_VALUE,
                    "max_slots must be between 0 and 65536, max_batch_tokens and max_cache_tokens "
                    "at least 0");
    ct_model_unref(&model);
}

static ct_status stop(void *context)
{
    (void)context;
    return ct_fail(CT_INTERRUPTED, "stopped");
}

static void a_step_that_was_stopped_can_be_taken_again(void)
{
    ct_session *session;
    ct_model *model;
    static job jobs[N_PROMPTS];
    text texts[2];
    const ct_event *events;
    int64_t n, number;
    memset(texts, 0, sizeof texts);
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 2));
    for (int i = 0; i < 2; i++) {
        set_job(&jobs[i], tiny_decoder_spec(), 2 * i);
        CHECK_OK(ct_session_add(session, &jobs[i].request, &number));
    }
    while (!ct_session_is_done(session)) {
        CHECK_FAILS(ct_session_step(session, (ct_poll){stop, NULL}, &events, &n), CT_INTERRUPTED,
                    "stopped");
        CHECK_INT(n, 0);
        CHECK_OK(ct_session_step(session, (ct_poll){0}, &events, &n));
        CHECK(take_events(texts, 2, events, n));
    }
    for (int i = 0; i < 2; i++)
        CHECK(starts_as(&texts[i], &jobs[i].whole, jobs[i].n_text));
    end(&session, &model);
}

static void without_a_choice_the_sequences_end(void)
{
    int64_t live = live_blocks(), number;
    ct_session *session;
    ct_model *model;
    const ct_event *events;
    int64_t n;
    static const int32_t piece = 1;
    int32_t banned[TINY_PIECES];
    for (int i = 0; i < TINY_PIECES; i++)
        banned[i] = i;
    CHECK_OK(begin(&session, &model, tiny_decoder_spec(), 2));
    ct_request request = {.prompt = &piece,
                          .n_prompt = 1,
                          .sampling = {.top_p = 1, .banned = banned, .n_banned = TINY_PIECES}};
    CHECK_OK(add(session, 2, 2));
    CHECK_OK(ct_session_add(session, &request, &number));
    CHECK_OK(add(session, 2, 1));
    CHECK_FAILS(ct_session_step(session, (ct_poll){0}, &events, &n), CT_VALUE,
                "no piece can be chosen for row 1");
    CHECK_INT(n, 0);
    CHECK_TEXT(step_text(session), "2*"); /* the one that waited runs now */
    CHECK(ct_session_is_done(session));
    end(&session, &model);
    CHECK_INT(live_blocks(), live);
}

/* A failure is tried again once; what is left of the sequences still has to run to the end. */
static ct_status run_to_end(ct_session *session)
{
    ct_status first = CT_OK;
    while (!ct_session_is_done(session)) {
        const ct_event *events;
        int64_t n;
        ct_status status = ct_session_step(session, (ct_poll){0}, &events, &n);
        if (status == CT_OK)
            continue;
        if (first != CT_OK)
            return ct_fail(CT_INTERNAL, "a step fails after one that failed");
        first = status;
    }
    return first;
}

ct_status fault_session(void)
{
    static const int32_t prompt[] = {3, 1, 4, 1, 5}, eos = 60;
    static const int32_t banned[] = {5}, words[] = {2, 7, 8};
    ct_model *model;
    ct_session *session = NULL;
    ct_spec spec = tiny_decoder_spec();
    ct_request request = {.prompt = prompt,
                          .n_prompt = 5,
                          .sampling = {.temperature = 1,
                                       .top_p = 0.9f,
                                       .banned = banned,
                                       .n_banned = 1,
                                       .bad_words = words,
                                       .n_bad_words = 3,
                                       .repetition_penalty = 1.2f,
                                       .logprobs = true},
                          .eos_ids = &eos,
                          .n_eos = 1,
                          .max_pieces = 3};
    spec.n_layers = 1;
    spec.n_types = 2;
    CT_TRY(tiny_model_new(&model, spec));
    ct_status status = ct_session_new(&session, model, &(ct_session_config){2, 6, 128});
    for (int i = 0; i < 3 && status == CT_OK; i++) {
        int64_t number;
        status = ct_session_add(session, &request, &number);
    }
    if (status == CT_OK)
        status = run_to_end(session);
    end(&session, &model);
    return status;
}

const ct_test suite_session[] = {
    TEST(texts_are_the_oracles_whoever_runs_beside_them),
    TEST(events_tell_of_everybody_who_ran_in_order),
    TEST(cancelled_sequences_are_not_heard_of_again),
    TEST(the_models_positions_end_a_sequence),
    TEST(banned_pieces_do_not_come),
    TEST(a_hook_sees_the_text_and_makes_its_logits),
    TEST(a_session_knows_what_each_sequence_has_said),
    TEST(warm_steps_allocate_nothing_whatever_their_number_of_rows),
    TEST(wrong_requests_are_refused),
    TEST(wrong_sampling_is_refused),
    TEST(what_cannot_generate_is_refused),
    TEST(a_step_that_was_stopped_can_be_taken_again),
    TEST(without_a_choice_the_sequences_end),
    TESTS_END,
};
