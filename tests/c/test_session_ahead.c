/* Sessions on a device that asks for the next step's forward before it waits for a step's pieces:
 * what they tell is what the CPU's sessions tell, which do not, and to the bit what is told when
 * each such forward fails and the step behind it computes its rows itself. Where cuda/ is part of
 * the tests. */
#include "test.h"

#ifdef CT_WITH_CUDA

#include "core/memory.h"
#include "generation/session.h"
#include "ops/device.h"
#include "tiny_model.h"

extern const ct_ops ct_cuda_table;

static const ct_device_id cpu = {CT_DEVICE_CPU, 0}, cuda = {CT_DEVICE_CUDA, 0};

/* ---- a device that is watched ---- */

typedef enum trouble {
    NO_TROUBLE,
    NO_FORWARD,       /* a forward ahead fails */
    NO_DEVICE_MEMORY, /* what it takes of the device fails */
    NO_HOST_MEMORY    /* and of the host */
} trouble;

static trouble set_trouble;
static bool asked; /* for pieces that were not waited for yet */
static int n_waits, n_forwards, n_ahead;

static ct_status watched_fetch(ct_fetch *fetch, const void *from, size_t size)
{
    CT_TRY(ct_cuda_table.fetch(fetch, from, size));
    asked = true;
    if (set_trouble == NO_HOST_MEMORY)
        ct_memory_fail_after(0);
    return CT_OK;
}

static ct_status watched_fetched(ct_fetch *fetch, const void **data)
{
    ct_memory_fail_after(-1);
    asked = false;
    n_waits++;
    return ct_cuda_table.fetched(fetch, data);
}

static ct_status watched_repeat(const ct_program *program)
{
    if (asked && set_trouble == NO_FORWARD)
        return ct_fail(CT_MEMORY, "a forward ahead");
    n_forwards++;
    n_ahead += asked;
    return ct_cuda_table.repeat(program);
}

static ct_status watched_alloc(int index, void **out, size_t size)
{
    *out = NULL;
    if (asked && set_trouble == NO_DEVICE_MEMORY)
        return ct_fail(CT_MEMORY, "memory of a forward ahead");
    return ct_cuda_table.alloc(index, out, size);
}

static ct_status watch(trouble kind)
{
    static ct_ops table;
    table = ct_cuda_table;
    table.fetch = watched_fetch;
    table.fetched = watched_fetched;
    table.repeat = watched_repeat;
    table.alloc = watched_alloc;
    set_trouble = kind;
    asked = false;
    n_waits = n_forwards = n_ahead = 0;
    return ct_device_register(CT_DEVICE_CUDA, &table);
}

static ct_status stop_watching(void)
{
    return ct_device_register(CT_DEVICE_CUDA, &ct_cuda_table);
}

/* ---- what a session tells ---- */

enum { MAX_TEXTS = 8, MAX_TEXT = 100, MAX_TOP = 3 };

typedef struct told {
    int32_t piece;
    float logprob;
    ct_logprob top[MAX_TOP];
} told;

typedef struct text {
    told pieces[MAX_TEXT];
    int64_t n;
    ct_finish finish;
} text;

static ct_status take_events(text *texts, const ct_event *events, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const ct_event *event = &events[i];
        text *one = &texts[event->sequence];
        if (one->finish != CT_FINISH_NONE || one->n == MAX_TEXT)
            return ct_fail(CT_INTERNAL, "an event behind the end");
        one->finish = event->finish;
        if (event->piece < 0)
            continue;
        told *next = &one->pieces[one->n++];
        *next = (told){.piece = event->piece, .logprob = event->logprob};
        if (event->n_top > 0)
            memcpy(next->top, event->top, sizeof *event->top * (size_t)event->n_top);
    }
    return CT_OK;
}

/* ---- scripts ---- */

/* Requests, and what happens when sequence 0 has so many pieces; 0: it does not happen. */
typedef struct script {
    ct_spec spec;
    ct_session_config config;
    ct_request requests[MAX_TEXTS];
    int n_requests; /* all are there from the beginning, but */
    int n_late;     /* the last ones, which come then: */
    int64_t late, cancel, hook, unhook;
    int64_t cancelled; /* which one */
    bool interrupted;  /* now and then */
    ct_logits_hook hooks;
} script;

static ct_status interrupt(void *context)
{
    int *n = context;
    return ++*n % 5 == 1 ? ct_fail(CT_INTERRUPTED, "stopped") : CT_OK;
}

static ct_status add(ct_session *session, const script *s, int from, int to)
{
    for (int i = from; i < to; i++) {
        int64_t number;
        CT_TRY(ct_session_add(session, &s->requests[i], &number));
    }
    return CT_OK;
}

/* Between two steps. */
static ct_status act(ct_session *session, const script *s, int64_t had, int64_t has)
{
    if (had < s->cancel && has >= s->cancel)
        ct_session_cancel(session, s->cancelled);
    if (had < s->hook && has >= s->hook)
        ct_session_set_hook(session, s->hooks);
    if (had < s->unhook && has >= s->unhook)
        ct_session_set_hook(session, (ct_logits_hook){0});
    if (had < s->late && has >= s->late)
        CT_TRY(add(session, s, s->n_requests - s->n_late, s->n_requests));
    return CT_OK;
}

static ct_status step_all(ct_session *session, const script *s, text *texts)
{
    int n_polls = 0;
    ct_poll poll = {s->interrupted ? interrupt : NULL, &n_polls};
    while (!ct_session_is_done(session)) {
        const ct_event *events;
        int64_t n_events, had = texts[0].n;
        ct_status status = ct_session_step(session, poll, &events, &n_events);
        if (status == CT_INTERRUPTED && n_events == 0)
            continue;
        CT_TRY(status);
        CT_TRY(take_events(texts, events, n_events));
        CT_TRY(act(session, s, had, texts[0].n));
    }
    return CT_OK;
}

static ct_status run(const script *s, ct_device_id device, text *texts)
{
    ct_status status = CT_OK;
    ct_model *model;
    ct_session *session = NULL;
    memset(texts, 0, sizeof *texts * MAX_TEXTS);
    CT_TRY(tiny_model_new_on(&model, s->spec, device));
    CT_TRY_TO(done, ct_session_new(&session, model, &s->config));
    CT_TRY_TO(done, add(session, s, 0, s->n_requests - s->n_late));
    status = step_all(session, s, texts);
done:
    ct_session_free(&session);
    ct_model_unref(&model);
    return status;
}

/* The device's memory that is in use. Blocks of the host cannot be counted, as recordings stay. */
static int64_t device_bytes(void)
{
    size_t bytes = 0;
#ifdef CT_CUDA_ON_HOST /* a GPU takes some of its own accord */
    if (ct_cuda_table.available(0, &bytes) != CT_OK)
        return -1;
#endif
    return -(int64_t)bytes;
}

/* Runs the script with the given trouble; its memory comes back. */
static ct_status run_watched(const script *s, trouble kind, text *texts)
{
    int64_t before = device_bytes();
    CT_TRY(watch(kind));
    ct_status status = run(s, cuda, texts);
    CT_TRY(stop_watching());
    CT_TRY(status);
    return device_bytes() == before ? CT_OK : ct_fail(CT_INTERNAL, "memory has leaked");
}

static bool is_near(float a, float b)
{
    return a == b || (isnan(a) && isnan(b)) || fabsf(a - b) < 1e-4f;
}

/* The first difference between texts, or NULL. */
static const char *difference(const text *a, const text *b, bool to_the_bit)
{
    static char where[80];
    for (int s = 0; s < MAX_TEXTS; s++) {
        int64_t n = a[s].n < b[s].n ? a[s].n : b[s].n;
        for (int64_t i = 0; i < n; i++) {
            const told *x = &a[s].pieces[i], *y = &b[s].pieces[i];
            bool equal = to_the_bit ? memcmp(x, y, sizeof *x) == 0
                                    : x->piece == y->piece && is_near(x->logprob, y->logprob);
            for (int j = 0; j < MAX_TOP; j++)
                equal = equal && is_near(x->top[j].logprob, y->top[j].logprob);
            if (equal)
                continue;
            snprintf(where, sizeof where, "text %d differs at %d: %d, %d", s, (int)i, x->piece,
                     y->piece);
            return where;
        }
        if (a[s].n == b[s].n && a[s].finish == b[s].finish)
            continue;
        snprintf(where, sizeof where, "text %d ends with %d and %d pieces", s, (int)a[s].n,
                 (int)b[s].n);
        return where;
    }
    return NULL;
}

#define CHECK_SAME(a, b, to_the_bit)                                                               \
    do {                                                                                           \
        const char *where = difference(a, b, to_the_bit);                                          \
        if (where)                                                                                 \
            FAIL("%s", where);                                                                     \
    } while (0)

/* `least` forwards have run ahead. */
static void check_script(const script *s, int least)
{
    static text wanted[MAX_TEXTS], ahead[MAX_TEXTS], alone[MAX_TEXTS];
    CHECK_OK(run(s, cpu, wanted));
    CHECK_OK(run_watched(s, NO_TROUBLE, ahead));
    if (n_ahead < least)
        FAIL("%d of %d forwards ran ahead", n_ahead, n_forwards);
    CHECK_SAME(wanted, ahead, false);
    CHECK_OK(run_watched(s, NO_FORWARD, alone));
    CHECK_SAME(ahead, alone, true);
    CHECK_INT(n_ahead, 0);
}

/* ---- requests ---- */

static int32_t prompts[MAX_TEXTS][160];

/* Greedy at even places, drawn at odd ones. */
static ct_request request(int place, int64_t n_prompt, int64_t max_pieces)
{
    ct_request made = {
        .prompt = prompts[place],
        .n_prompt = n_prompt,
        .sampling = {.top_p = 1, .seed = 5, .row = (uint64_t)place},
        .max_pieces = max_pieces,
    };
    tiny_pieces(prompts[place], 160, 70 + (uint64_t)place);
    if (place % 2)
        made.sampling.temperature = 0.9f;
    return made;
}

static script script_of(int n, int64_t max_pieces)
{
    script s = {.spec = tiny_decoder_spec(), .config = {MAX_TEXTS, 100, 0}, .n_requests = n};
    for (int i = 0; i < n; i++)
        s.requests[i] = request(i, 3 + i, max_pieces);
    return s;
}

/* ---- tests ---- */

static void every_step_of_pieces_alone_runs_ahead(void)
{
    script s = script_of(3, 20);
    check_script(&s, 0);
    static text texts[MAX_TEXTS];
    CHECK_OK(run_watched(&s, NO_TROUBLE, texts));
    CHECK_INT(n_waits, 20);
    CHECK_INT(n_forwards, 19); /* the first one is of prompts */
    CHECK_INT(n_ahead, 19);
}

static void all_that_a_request_may_ask_for(void)
{
    static const int32_t words[] = {2, 7, 8, 3, 1, 2, 3}, banned[] = {5, 9};
    script s = script_of(6, 60);
    for (int i = 0; i < 6; i++) {
        ct_sampling *sampling = &s.requests[i].sampling;
        sampling->logprobs = i > 1;
        sampling->n_top = i == 3 ? 3 : i == 4 ? 1 : 0;
        sampling->repetition_penalty = i == 2 || i == 3 ? 1.4f : 0;
        sampling->presence_penalty = i == 4 ? 0.7f : 0;
        sampling->frequency_penalty = i == 5 ? 0.4f : 0;
        sampling->top_k = i == 5 ? 12 : 0;
        if (i == 1 || i == 4) {
            sampling->banned = banned;
            sampling->n_banned = 2;
            sampling->bad_words = words;
            sampling->n_bad_words = 7;
        }
    }
    check_script(&s, 50);
}

/* The end pieces are those that come at place 4 + 3 i, so that rows go one after the other. */
static void end_pieces_come_at_different_steps(void)
{
    static text whole[MAX_TEXTS];
    static int32_t ends[MAX_TEXTS];
    script s = script_of(6, 40);
    for (int i = 0; i < 6; i++)
        s.requests[i].sampling = request(2 * (i % 3) + 1, 1, 1).sampling;
    CHECK_OK(run(&s, cpu, whole));
    for (int i = 0; i < 6; i++) {
        int place = 4 + 3 * ((5 * i + 2) % 6);
        ends[i] = whole[i].pieces[place].piece;
        s.requests[i].eos_ids = &ends[i];
        s.requests[i].n_eos = 1;
        s.requests[i].sampling.logprobs = true;
    }
    s.requests[0].n_eos = 0;
    check_script(&s, 30);
    CHECK_OK(run_watched(&s, NO_TROUBLE, whole));
    CHECK(whole[0].finish == CT_FINISH_LENGTH && whole[5].finish == CT_FINISH_EOS);
    CHECK_INT(n_ahead, n_forwards); /* neither does an end make the device wait */
}

static void sequences_are_cancelled_between_steps(void)
{
    for (int64_t cancelled = 0; cancelled < 3; cancelled++) {
        script s = script_of(3, 15);
        s.cancel = 6;
        s.cancelled = cancelled;
        check_script(&s, 10);
    }
}

/* Makes one piece likelier, which depends on the last. */
static ct_status push(void *context, int64_t sequence, const int32_t *ids, int64_t n_ids,
                      float *logits, int64_t n_pieces)
{
    (void)context, (void)sequence;
    logits[(ids[n_ids - 1] + 3) % n_pieces] += 3;
    return CT_OK;
}

static void a_hook_comes_and_goes(void)
{
    script s = script_of(4, 25);
    s.hooks.call = push;
    s.hook = 5;
    s.unhook = 14;
    check_script(&s, 20);
}

static void requests_join_while_others_run(void)
{
    script s = script_of(7, 24);
    s.n_late = 4;
    s.late = 3;
    s.requests[4] = request(4, 150, 24); /* in two steps */
    check_script(&s, 20);
    s.config.max_slots = 2; /* and wait for a slot */
    check_script(&s, 60);
}

static void texts_end_by_their_lengths(void)
{
    script s = script_of(6, 0);
    for (int i = 0; i < 6; i++)
        s.requests[i].max_pieces = 1 + 5 * i;
    check_script(&s, 15);
    for (int by_table = 0; by_table < 2; by_table++) {
        s = script_of(5, 0);
        s.spec.max_positions = by_table ? 0 : 40;
        s.spec.n_positions = by_table ? 40 : 0;
        check_script(&s, 20);
    }
}

/* Texts go past the ends of pages, in company that has the same beginning. */
static void pages_are_shared(void)
{
    script s = script_of(5, 70);
    for (int i = 0; i < 5; i++)
        s.requests[i].prompt = prompts[0];
    s.requests[0].n_prompt = s.requests[1].n_prompt = s.requests[2].n_prompt = 150;
    s.requests[3].n_prompt = 66;
    s.requests[2].max_pieces = 20; /* is over when the last one comes */
    s.requests[4] = s.requests[0];
    s.n_late = 1;
    s.late = 40;
    check_script(&s, 80);
}

static void sequences_are_put_back(void)
{
    script s = script_of(5, 90);
    s.config.max_cache_tokens = 6 * CT_PAGE_POSITIONS;
    for (int i = 0; i < 5; i++)
        s.requests[i] = request(i, 20 + 9 * i, 90);
    check_script(&s, 60);
}

/* As where the texts reach a new page, and where arrays grow. */
static void memory_that_a_forward_ahead_lacks_costs_nothing(void)
{
    static text wanted[MAX_TEXTS], texts[MAX_TEXTS];
    script s = script_of(3, 40);
    s.requests[1] = request(1, 40, 40);
    CHECK_OK(run_watched(&s, NO_TROUBLE, wanted));
    for (trouble kind = NO_DEVICE_MEMORY; kind <= NO_HOST_MEMORY; kind++) {
        CHECK_OK(run_watched(&s, kind, texts));
        CHECK_SAME(wanted, texts, true);
        CHECK(n_ahead > 10 && n_ahead < 39);
    }
}

static void a_step_that_was_stopped_loses_nothing(void)
{
    script s = script_of(3, 15);
    s.interrupted = true;
    check_script(&s, 12);
}

static void models_with_types_and_half_precision_run_ahead(void)
{
    script s = script_of(3, 15);
    s.spec.n_types = 2;
    check_script(&s, 14);
    s.spec.dtype = CT_F16;
    check_script(&s, 14);
}

/* A session is freed, and others have used the device, while its forward is under way. */
static void sessions_end_at_any_time(void)
{
    script s = script_of(3, 30);
    static text texts[2][MAX_TEXTS], wanted[MAX_TEXTS];
    int64_t before = device_bytes();
    ct_model *model;
    ct_session *sessions[2];
    memset(texts, 0, sizeof texts);
    CHECK_OK(run(&s, cpu, wanted));
    CHECK_OK(watch(NO_TROUBLE));
    CHECK_OK(tiny_model_new_on(&model, s.spec, cuda));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(ct_session_new(&sessions[i], model, &s.config));
        CHECK_OK(add(sessions[i], &s, 0, 3));
    }
    for (int step = 0; step < 10; step++)
        for (int i = 0; i < 2; i++) {
            const ct_event *events;
            int64_t n_events;
            CHECK_OK(ct_session_step(sessions[i], (ct_poll){0}, &events, &n_events));
            CHECK_OK(take_events(texts[i], events, n_events));
        }
    CHECK_INT(n_ahead, 20);
    ct_session_free(&sessions[1]);
    CHECK_OK(step_all(sessions[0], &s, texts[0]));
    CHECK_SAME(wanted, texts[0], false);
    for (int i = 0; i < 3; i++)
        CHECK(texts[1][i].n == 10 && texts[1][i].pieces[9].piece == wanted[i].pieces[9].piece);
    ct_session_free(&sessions[0]);
    ct_model_unref(&model);
    CHECK_OK(stop_watching());
    CHECK_INT(device_bytes(), before);
}

/* All of sequence 1 becomes impossible behind its fifth piece. */
static ct_status forbid_all(void *context, int64_t sequence, const int32_t *ids, int64_t n_ids,
                            float *logits, int64_t n_pieces)
{
    (void)context, (void)ids;
    for (int64_t i = 0; sequence == 1 && n_ids == 4 + 5 && i < n_pieces; i++)
        logits[i] = NAN;
    return CT_OK;
}

static void without_a_choice_the_step_fails_and_who_waits_runs(void)
{
    script s = script_of(4, 20);
    static text texts[MAX_TEXTS], wanted[MAX_TEXTS];
    const ct_event *events;
    int64_t n_events, before = device_bytes();
    ct_model *model;
    ct_session *session;
    CHECK_OK(run(&s, cpu, wanted));
    memset(texts, 0, sizeof texts);
    s.config.max_slots = 3;
    CHECK_OK(watch(NO_TROUBLE));
    CHECK_OK(tiny_model_new_on(&model, s.spec, cuda));
    CHECK_OK(ct_session_new(&session, model, &s.config));
    CHECK_OK(add(session, &s, 0, 4));
    ct_session_set_hook(session, (ct_logits_hook){forbid_all, NULL});
    for (int i = 0; i < 5; i++) {
        CHECK_OK(ct_session_step(session, (ct_poll){0}, &events, &n_events));
        CHECK_OK(take_events(texts, events, n_events));
    }
    CHECK_FAILS(ct_session_step(session, (ct_poll){0}, &events, &n_events), CT_VALUE,
                "no piece can be chosen for row 1");
    CHECK_INT(n_events, 0);
    CHECK_INT(n_ahead, 6); /* one of them for nothing */
    CHECK_OK(step_all(session, &s, texts));
    CHECK(texts[0].n == 5 && texts[1].n == 5 && texts[2].n == 5);
    memset(wanted, 0, sizeof *wanted * 3);
    memset(texts, 0, sizeof *texts * 3);
    CHECK_SAME(wanted, texts, false);
    ct_session_free(&session);
    ct_model_unref(&model);
    CHECK_OK(stop_watching());
    CHECK_INT(device_bytes(), before);
}

const ct_test suite_session_ahead[] = {
    TEST(every_step_of_pieces_alone_runs_ahead),
    TEST(all_that_a_request_may_ask_for),
    TEST(end_pieces_come_at_different_steps),
    TEST(sequences_are_cancelled_between_steps),
    TEST(a_hook_comes_and_goes),
    TEST(requests_join_while_others_run),
    TEST(texts_end_by_their_lengths),
    TEST(pages_are_shared),
    TEST(sequences_are_put_back),
    TEST(memory_that_a_forward_ahead_lacks_costs_nothing),
    TEST(a_step_that_was_stopped_loses_nothing),
    TEST(models_with_types_and_half_precision_run_ahead),
    TEST(sessions_end_at_any_time),
    TEST(without_a_choice_the_step_fails_and_who_waits_runs),
    TESTS_END,
};

#else

const ct_test suite_session_ahead[] = {TESTS_END};

#endif
