/* One step: choose who runs, build their packed batch, run the model, choose pieces, tell what
 * happened. The arrays of a step are kept, so that steps allocate nothing once these have their
 * size.
 *
 * On a device with memory of its own a step asks for the next step's forward before it waits for
 * its pieces, which that forward takes from where they were chosen. So the device goes on while the
 * host handles the pieces. The logits of a forward that ran ahead wait for the next step, which
 * asks for a choice from those of sequences that still run. */
#include "generation/session.h"

#include <string.h>

#include "core/memory.h"
#include "generation/scheduler.h"
#include "generation/stop.h"
#include "ops/device.h"
#include "ops/memory.h"

struct ct_session {
    ct_model *model;
    ct_scheduler scheduler;
    int64_t n_added;
    /* of a step, for max_slots sequences */
    ct_generated **chosen;
    ct_kv_sequence **caches;
    ct_sampling *sampling;
    ct_event *events;
    int64_t *ending; /* the rows behind which pieces follow */
    int64_t n_ending;
    int64_t *rows; /* [n_ending] of logits: those that these pieces are chosen from */
    /* of the device's memory */
    ct_tensor *logits; /* f32 [capacity, n_pieces] */
    ct_arena scratch;
    ct_logprob *told; /* [n_ending] the choices, then [n_ending, CT_MAX_TOP_LOGPROBS] */
    int32_t *pieces;  /* [n_ending] those chosen, in the same block */
    /* what was told, where the host can read it */
    ct_fetch *fetch; /* NULL: where it is told */
    const ct_logprob *known;
    /* the forward that ran ahead of its step: of which sequences its rows are; 0: there is none */
    int64_t *ahead; /* [n_ahead] */
    int64_t n_ahead;
    float *hooked; /* [n_pieces]: a row that the hook sees, where that is not the host's */
    ct_logits_hook hook;
    /* the packed batch */
    ct_batch batch;
    int64_t token_capacity;
};

#define MAX_SLOTS 65536
#define DEFAULT_SLOTS 256
#define DEFAULT_TOKENS 512 /* more rows at once make products little faster, and steps longer */
#define LEAST_TOKENS 64
#define LEAST_SLOTS 8

static ct_status compute(ct_session *session, ct_poll poll, int64_t *n);
static ct_status sample_pieces(ct_session *session);
static void advance(ct_session *session, int64_t n);

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* Half of the memory for pages; a sixteenth for the activations of a step, and one for logits. */
static void complete_config(ct_session_config *config, const ct_model *model, size_t available)
{
    const ct_spec *spec = &model->weights.spec;
    int64_t memory = (int64_t)(available / 2), floats = (int64_t)sizeof(float);
    int64_t page = (int64_t)ct_kv_pool_page_bytes(model->pool);
    int64_t width = model->qkv_width + 6 * spec->hidden_width + spec->n_heads * spec->head_width +
                    2 * spec->intermediate_width;
    if (config->max_batch_tokens == 0)
        config->max_batch_tokens =
            clamp(memory / 8 / (width * floats), LEAST_TOKENS, DEFAULT_TOKENS);
    if (config->max_slots == 0)
        config->max_slots =
            clamp(memory / 8 / (spec->n_pieces * floats), LEAST_SLOTS, DEFAULT_SLOTS);
    if (config->max_cache_tokens == 0)
        config->max_cache_tokens = memory / page * CT_PAGE_POSITIONS;
}

static ct_status check_config(const ct_session_config *config)
{
    if (config->max_slots >= 0 && config->max_slots <= MAX_SLOTS && config->max_batch_tokens >= 0 &&
        config->max_cache_tokens >= 0)
        return CT_OK;
    return ct_fail(CT_VALUE,
                   "max_slots must be between 0 and %d, max_batch_tokens and max_cache_tokens at "
                   "least 0 (0: by the memory), were: %lld, %lld and %lld",
                   MAX_SLOTS, (long long)config->max_slots, (long long)config->max_batch_tokens,
                   (long long)config->max_cache_tokens);
}

static size_t told_bytes(int64_t n)
{
    return sizeof(ct_logprob) * (size_t)n * (1 + CT_MAX_TOP_LOGPROBS);
}

/* Of what is told, and the pieces. */
static size_t places_bytes(int64_t n)
{
    return told_bytes(n) + sizeof(int32_t) * (size_t)n;
}

static ct_status make_places(ct_session *session)
{
    const ct_model *model = session->model;
    int64_t n = session->scheduler.config.max_slots;
    CT_TRY(model->ops->alloc(model->device.index, (void **)&session->told, places_bytes(n)));
    session->pieces = (int32_t *)((char *)session->told + told_bytes(n));
    if (model->ops->host_memory)
        return CT_OK;
    return model->ops->fetch_new(model->device.index, &session->fetch, told_bytes(n));
}

static void free_places(ct_session *session)
{
    const ct_model *model = session->model;
    int64_t n = session->scheduler.config.max_slots;
    if (session->fetch)
        model->ops->fetch_free(&session->fetch);
    if (session->told)
        model->ops->free(model->device.index, session->told, places_bytes(n));
}

ct_status ct_session_new(ct_session **out, ct_model *model, const ct_session_config *config)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_session *session;
    size_t available;
    if (!model->ready || !model->head || !model->weights.spec.causal)
        return ct_fail(CT_VALUE, "only a causal language model with weights can generate");
    CT_TRY(check_config(config));
    ct_session_config whole = *config;
    CT_TRY(model->ops->available(model->device.index, &available));
    complete_config(&whole, model, available);
    CT_TRY(ct_alloc_zeroed((void **)&session, 1, sizeof *session));
    session->model = ct_model_ref(model);
    struct {
        void **place;
        size_t size;
    } arrays[] = {
        {(void **)&session->chosen, sizeof *session->chosen},
        {(void **)&session->caches, sizeof *session->caches},
        {(void **)&session->sampling, sizeof *session->sampling},
        {(void **)&session->events, sizeof *session->events},
        {(void **)&session->ending, sizeof *session->ending},
        {(void **)&session->rows, sizeof *session->rows},
        {(void **)&session->ahead, sizeof *session->ahead},
    };
    CT_TRY_TO(done, ct_device_memory(model->device, &session->scratch.memory));
    CT_TRY_TO(done, ct_scheduler_init(&session->scheduler, &whole, model->pool));
    size_t n = (size_t)session->scheduler.config.max_slots;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        CT_TRY_TO(done, ct_alloc_zeroed(arrays[i].place, n, arrays[i].size));
    CT_TRY_TO(done, ct_alloc_zeroed((void **)&session->batch.offsets, n + 1,
                                    sizeof *session->batch.offsets));
    CT_TRY_TO(done, make_places(session));
    *out = session;
    session = NULL;
done:
    ct_session_free(&session);
    return status;
}

void ct_session_free(ct_session **session)
{
    ct_session *old = *session;
    if (!old)
        return;
    free_places(old);
    ct_scheduler_clear(&old->scheduler);
    ct_batch_clear(&old->batch);
    ct_free(&old->chosen);
    ct_free(&old->caches);
    ct_free(&old->sampling);
    ct_free(&old->events);
    ct_free(&old->ending);
    ct_free(&old->rows);
    ct_free(&old->ahead);
    ct_tensor_unref(&old->logits);
    ct_free(&old->hooked);
    ct_arena_clear(&old->scratch);
    ct_model_unref(&old->model);
    ct_free(session);
}

ct_status ct_session_add(ct_session *session, const ct_request *request, int64_t *sequence)
{
    CT_TRY(ct_request_check(request, &session->model->weights.spec));
    CT_TRY(ct_scheduler_add(&session->scheduler, request, session->n_added));
    *sequence = session->n_added++;
    return CT_OK;
}

void ct_session_cancel(ct_session *session, int64_t sequence)
{
    ct_scheduler_remove(&session->scheduler, sequence);
}

void ct_session_set_hook(ct_session *session, ct_logits_hook hook)
{
    session->hook = hook;
}

bool ct_session_is_done(const ct_session *session)
{
    return session->scheduler.n_running == 0 && !session->scheduler.first;
}

ct_status ct_session_step(ct_session *session, ct_poll poll, const ct_event **events,
                          int64_t *n_events)
{
    int64_t n;
    ct_status status;
    *events = session->events;
    *n_events = 0;
    CT_TRY(compute(session, poll, &n));
    if (n == 0)
        return CT_OK;
    status = sample_pieces(session);
    for (int64_t i = 0; status != CT_OK && i < n; i++) { /* a piece is missing behind the cache */
        ct_generated *one = session->chosen[i];
        if (one->cache.length == one->n_ids)
            ct_scheduler_remove(&session->scheduler, one->number);
        else
            ct_scheduler_settle(&session->scheduler, one);
    }
    CT_TRY(status);
    advance(session, n);
    *n_events = session->n_ending;
    return CT_OK;
}

/* ---- the rows of a step ---- */

/* The size of an array that grows, of which `wanted` entries are needed and no more than `most`
 * will be. */
static int64_t grown(int64_t capacity, int64_t wanted, int64_t most)
{
    int64_t twice = 2 * capacity < most ? 2 * capacity : most;
    return wanted > twice ? wanted : twice;
}

static ct_status make_room(ct_session *session, int64_t n_tokens)
{
    ct_batch *batch = &session->batch;
    if (n_tokens <= session->token_capacity)
        return CT_OK;
    int64_t capacity =
        grown(session->token_capacity, n_tokens, session->scheduler.config.max_batch_tokens);
    session->token_capacity = 0;
    ct_free(&batch->ids);
    ct_free(&batch->positions);
    ct_free(&batch->types);
    if (session->model->weights.spec.n_types > 0) /* all of the first type */
        CT_TRY(ct_alloc_zeroed((void **)&batch->types, (size_t)capacity, sizeof *batch->types));
    CT_TRY(ct_alloc((void **)&batch->ids, sizeof *batch->ids * (size_t)capacity));
    CT_TRY(ct_alloc((void **)&batch->positions, sizeof *batch->positions * (size_t)capacity));
    session->token_capacity = capacity;
    return CT_OK;
}

static ct_status make_logits(ct_session *session)
{
    int64_t capacity = session->logits ? session->logits->shape[0] : 0;
    if (session->n_ending <= capacity)
        return CT_OK;
    ct_tensor_unref(&session->logits);
    capacity = grown(capacity, session->n_ending, session->scheduler.config.max_slots);
    return ct_device_tensor(&session->logits, session->model->device, CT_F32, 2,
                            (int64_t[]){capacity, session->model->weights.spec.n_pieces});
}

static ct_status build_batch(ct_session *session, int64_t n)
{
    ct_batch *batch = &session->batch;
    int64_t n_tokens = 0;
    for (int64_t i = 0; i < n; i++)
        n_tokens += session->chosen[i]->chunk;
    CT_TRY(make_room(session, n_tokens));
    batch->n_sequences = n;
    batch->n_tokens = n_tokens;
    session->n_ending = 0;
    for (int64_t i = 0, row = 0; i < n; i++) {
        ct_generated *one = session->chosen[i];
        for (int64_t j = 0; j < one->chunk; j++, row++) {
            batch->ids[row] = one->ids[one->cache.length + j];
            batch->positions[row] = (int32_t)(one->cache.length + j);
        }
        batch->offsets[i + 1] = row;
        session->caches[i] = &one->cache;
        if (!ct_generated_emits(one))
            continue;
        session->rows[session->n_ending] = session->n_ending;
        session->ending[session->n_ending++] = row - 1;
    }
    return make_logits(session);
}

/* Of the batch; its ids are `unknown_ids`, if not NULL. */
static ct_status run_forward(ct_session *session, const int32_t *unknown_ids, ct_poll poll)
{
    ct_tensor *hidden, *logits;
    ct_forward_args args = {
        .batch = &session->batch,
        .unknown_ids = unknown_ids,
        .sequences = session->caches,
        .keep = CT_KEEP_NONE,
        .logits = session->n_ending > 0 ? CT_LOGITS_ENDING : CT_LOGITS_NONE,
        .ending = session->ending,
        .n_ending = session->n_ending,
        .logits_out = session->logits ? ct_tensor_data(session->logits) : NULL,
        .poll = poll,
    };
    return ct_model_forward(session->model, &args, &hidden, &logits);
}

/* The step is of those that still run, whose rows the forward ahead has computed. */
static ct_status take_over(ct_session *session, ct_poll poll, int64_t *n)
{
    if (poll.check) /* no forward asks */
        CT_TRY(poll.check(poll.context));
    *n = session->n_ending = session->scheduler.n_running;
    for (int64_t i = 0, row = 0; i < *n; i++, row++) {
        ct_generated *one = session->scheduler.slots[i];
        while (session->ahead[row] != one->number)
            row++;
        ct_kv_sequence_advance(&one->cache, 1);
        session->chosen[i] = one;
        session->rows[i] = row;
    }
    session->n_ahead = 0;
    return CT_OK;
}

/* Chooses who runs, and gets their rows of logits. */
static ct_status compute(ct_session *session, ct_poll poll, int64_t *n)
{
    if (session->n_ahead > 0 && session->scheduler.n_running > 0)
        return take_over(session, poll, n);
    session->n_ahead = 0; /* all have ended */
    CT_TRY(ct_scheduler_choose(&session->scheduler, session->chosen, n));
    if (*n == 0)
        return CT_OK;
    CT_TRY(build_batch(session, *n));
    return run_forward(session, NULL, poll);
}

/* A row for each of those chosen, behind the piece that each of them gets in this step. */
static void build_batch_ahead(ct_session *session)
{
    ct_batch *batch = &session->batch;
    int64_t n = session->n_ending;
    batch->n_sequences = batch->n_tokens = n;
    for (int64_t i = 0; i < n; i++) {
        ct_generated *one = session->chosen[i];
        batch->positions[i] = (int32_t)one->cache.length;
        batch->offsets[i + 1] = i + 1;
        session->caches[i] = &one->cache;
        session->ending[i] = i;
    }
}

/* Once the choice was asked for, the next step's forward, if it is certain whose rows that has. The
 * pieces come first, whatever goes wrong here: the next step then computes its rows itself, and
 * says what still goes wrong. */
static void run_ahead(ct_session *session)
{
    ct_scheduler *scheduler = &session->scheduler;
    int64_t longest = ct_longest_sequence(&session->model->weights.spec);
    bool foreseen;
    for (int64_t i = 0; i < scheduler->n_running; i++)
        if (ct_stop_is_certain(scheduler->slots[i], longest))
            return;
    if (ct_scheduler_foresee(scheduler, &foreseen) != CT_OK || !foreseen)
        return;
    build_batch_ahead(session);
    if (run_forward(session, session->pieces, (ct_poll){0}) != CT_OK)
        return;
    session->n_ahead = session->n_ending;
    for (int64_t i = 0; i < session->n_ahead; i++)
        session->ahead[i] = session->chosen[i]->number;
}

/* ---- the choice ---- */

/* Shows the hook a row of logits, which it may change. */
static ct_status call_hook(ct_session *session, const ct_generated *one, float *row)
{
    const ct_ops *ops = session->model->ops;
    int64_t width = session->model->weights.spec.n_pieces;
    int index = session->model->device.index;
    size_t size = sizeof *row * (size_t)width;
    float *seen = row;
    if (!ops->host_memory) {
        if (!session->hooked)
            CT_TRY(ct_alloc((void **)&session->hooked, size));
        seen = session->hooked;
        CT_TRY(ops->enter(index));
        ct_status status = ops->download(seen, row, size);
        ops->leave(index);
        CT_TRY(status);
    }
    CT_TRY(
        session->hook.call(session->hook.context, one->number, one->ids, one->n_ids, seen, width));
    if (ops->host_memory)
        return CT_OK;
    CT_TRY(ops->enter(index));
    ct_status status = ops->upload(row, seen, size);
    ops->leave(index);
    return status;
}

/* The parameters of the rows, one for each sequence that emits, in their order; the hook sees each
 * row before. */
static ct_status prepare_rows(ct_session *session)
{
    int64_t width = session->model->weights.spec.n_pieces;
    float *logits = ct_tensor_data(session->logits);
    ct_logprob *top = session->told + session->n_ending;
    for (int64_t i = 0, row = 0; row < session->n_ending; i++) {
        const ct_generated *one = session->chosen[i];
        if (one->cache.length < one->n_ids)
            continue;
        if (session->hook.call)
            CT_TRY(call_hook(session, one, logits + session->rows[row] * width));
        ct_sampling *sampling = &session->sampling[row];
        *sampling = one->request.sampling;
        sampling->step = (uint64_t)one->n_generated;
        sampling->ids = one->ids;
        sampling->n_ids = one->n_ids;
        sampling->n_prompt = one->request.n_prompt;
        sampling->top = top + row++ * CT_MAX_TOP_LOGPROBS;
    }
    return CT_OK;
}

/* Each stretch of rows is a choice of its own: between them lie those of sequences that have ended
 * while the forward ran ahead. */
static ct_status choose_pieces(ct_session *session)
{
    const ct_ops *ops = session->model->ops;
    const int64_t *rows = session->rows;
    int64_t width = session->model->weights.spec.n_pieces, n = session->n_ending;
    float *data = ct_tensor_data(session->logits);
    for (int64_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && rows[end] == rows[end - 1] + 1; end++)
            ;
        ct_rows logits = {data + rows[first] * width, CT_F32, end - first, width, width};
        CT_TRY(ops->sample(session->told + first, session->pieces + first, logits,
                           session->sampling + first, &session->scratch));
    }
    return CT_OK;
}

/* Asks for the choice and, where that is told elsewhere, for what the rows want of it. */
static ct_status ask_for_pieces(ct_session *session)
{
    const ct_ops *ops = session->model->ops;
    int64_t n = session->n_ending;
    bool any_top = false;
    for (int64_t i = 0; i < n; i++)
        any_top = any_top || session->sampling[i].n_top > 0;
    CT_TRY(choose_pieces(session));
    return session->fetch ? ops->fetch(session->fetch, session->told,
                                       any_top ? told_bytes(n) : sizeof *session->told * (size_t)n)
                          : CT_OK;
}

static ct_status wait_for_pieces(ct_session *session)
{
    const void *known = session->told;
    if (session->fetch)
        CT_TRY(session->model->ops->fetched(session->fetch, &known));
    session->known = known;
    for (int64_t i = 0; i < session->n_ending; i++)
        if (session->known[i].piece < 0)
            return ct_fail(CT_VALUE,
                           "no piece can be chosen for row %lld: every one is masked or has the "
                           "logit NaN or minus infinity",
                           (long long)i);
    return CT_OK;
}

static ct_status sample_pieces(ct_session *session)
{
    const ct_ops *ops = session->model->ops;
    int index = session->model->device.index;
    if (session->n_ending == 0)
        return CT_OK;
    CT_TRY(prepare_rows(session));
    CT_TRY(ops->enter(index));
    ct_status status = ask_for_pieces(session);
    ct_arena_reset(&session->scratch);
    ops->leave(index);
    CT_TRY(status);
    if (!ops->host_memory)
        run_ahead(session);
    return wait_for_pieces(session);
}

/* ---- what becomes of it ---- */

/* Takes the chosen pieces into the sequences, tells the events, ends who is finished. */
static void advance(ct_session *session, int64_t n)
{
    int64_t longest = ct_longest_sequence(&session->model->weights.spec);
    for (int64_t i = 0, row = 0; i < n; i++) {
        ct_generated *one = session->chosen[i];
        ct_scheduler_settle(&session->scheduler, one);
        if (one->cache.length < one->n_ids)
            continue;
        int32_t piece = session->known[row].piece;
        ct_finish finish = ct_stop_after(one, piece, longest);
        session->events[row] = (ct_event){
            .sequence = one->number,
            .piece = finish == CT_FINISH_EOS ? -1 : piece,
            .finish = finish,
            .logprob = session->known[row].logprob,
            .top = session->known + session->n_ending + row * CT_MAX_TOP_LOGPROBS,
            .n_top = session->sampling[row].n_top,
        };
        row++;
        if (finish == CT_FINISH_NONE)
            ct_generated_append(one, piece);
        else
            ct_scheduler_remove(&session->scheduler, one->number);
    }
}
