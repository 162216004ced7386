/* One step: choose who runs, build their packed batch, run the model, choose pieces, tell what
 * happened. The arrays of a step are kept, so that decoding allocates nothing once they have their
 * size. */
#include "generation/session.h"

#include <string.h>

#include "core/memory.h"
#include "generation/scheduler.h"
#include "generation/stop.h"

struct ct_session {
    ct_model *model;
    ct_scheduler scheduler;
    int64_t n_added;
    /* of a step, for max_slots sequences */
    ct_generated **chosen;
    ct_kv_sequence **caches;
    ct_sampling *sampling;
    int32_t *pieces;
    ct_event *events;
    float *logits;
    ct_arena scratch;
    /* the packed batch */
    ct_batch batch;
    int64_t token_capacity;
};

static ct_status build_batch(ct_session *session, int64_t n);
static ct_status sample_pieces(ct_session *session, int64_t n);
static int64_t advance(ct_session *session, int64_t n);

ct_status ct_session_new(ct_session **out, ct_model *model, const ct_session_config *config)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_session *session;
    if (!model->ready || !model->head || !model->weights.spec.causal)
        return ct_fail(CT_VALUE, "only a causal language model with weights can generate");
    if (config->max_slots < 1 || config->max_slots > 65536 || config->prefill_tokens < 1)
        return ct_fail(CT_VALUE,
                       "max_slots must be between 1 and 65536 and prefill_tokens at "
                       "least 1, were: %lld and %lld",
                       (long long)config->max_slots, (long long)config->prefill_tokens);
    size_t n = (size_t)config->max_slots;
    CT_TRY(ct_alloc_zeroed((void **)&session, 1, sizeof *session));
    session->model = ct_model_ref(model);
    struct {
        void **place;
        size_t size;
    } arrays[] = {
        {(void **)&session->chosen, sizeof *session->chosen},
        {(void **)&session->caches, sizeof *session->caches},
        {(void **)&session->sampling, sizeof *session->sampling},
        {(void **)&session->pieces, sizeof *session->pieces},
        {(void **)&session->events, sizeof *session->events},
    };
    CT_TRY_TO(done,
              ct_scheduler_init(&session->scheduler, config->max_slots, config->prefill_tokens));
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        CT_TRY_TO(done, ct_alloc_zeroed(arrays[i].place, n, arrays[i].size));
    CT_TRY_TO(done, ct_alloc_zeroed((void **)&session->batch.offsets, n + 1,
                                    sizeof *session->batch.offsets));
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
    ct_scheduler_clear(&old->scheduler);
    ct_batch_clear(&old->batch);
    ct_free(&old->chosen);
    ct_free(&old->caches);
    ct_free(&old->sampling);
    ct_free(&old->pieces);
    ct_free(&old->events);
    ct_free(&old->logits);
    ct_arena_clear(&old->scratch);
    ct_model_unref(&old->model);
    ct_free(session);
}

/* The most positions that a sequence may have, 0: any number. */
static int64_t longest_sequence(const ct_spec *spec)
{
    bool by_table = spec->n_positions > 0 &&
                    (spec->max_positions == 0 || spec->n_positions < spec->max_positions);
    return by_table ? spec->n_positions : spec->max_positions;
}

ct_status ct_session_add(ct_session *session, const ct_request *request, int64_t *sequence)
{
    const ct_spec *spec = &session->model->weights.spec;
    int64_t longest = longest_sequence(spec);
    if (request->n_prompt < 1)
        return ct_fail(CT_VALUE, "a prompt needs at least one piece");
    if (longest > 0 && request->n_prompt > longest)
        return ct_fail(CT_VALUE,
                       "a prompt of %lld pieces is longer than the %lld positions of the "
                       "model",
                       (long long)request->n_prompt, (long long)longest);
    for (int64_t i = 0; i < request->n_prompt; i++)
        if (request->prompt[i] < 0 || request->prompt[i] >= spec->n_pieces)
            return ct_fail(CT_INDEX,
                           "piece id %d at [%lld] is outside the %lld pieces of the model",
                           request->prompt[i], (long long)i, (long long)spec->n_pieces);
    if (request->sampling.banned && request->n_banned != spec->n_pieces)
        return ct_fail(CT_VALUE, "the mask of pieces has %lld entries, the model %lld pieces",
                       (long long)request->n_banned, (long long)spec->n_pieces);
    CT_TRY(ct_scheduler_add(&session->scheduler, request, session->n_added, session->model->pool));
    *sequence = session->n_added++;
    return CT_OK;
}

void ct_session_cancel(ct_session *session, int64_t sequence)
{
    ct_scheduler_remove(&session->scheduler, sequence);
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
    ct_scheduler_choose(&session->scheduler, session->chosen, &n);
    if (n == 0)
        return CT_OK;
    CT_TRY(build_batch(session, n));
    ct_forward_args args = {
        .batch = &session->batch,
        .sequences = session->caches,
        .keep = CT_KEEP_NONE,
        .logits = CT_LOGITS_LAST,
        .logits_out = session->logits,
        .poll = poll,
    };
    ct_tensor *hidden, *logits;
    CT_TRY(ct_model_forward(session->model, &args, &hidden, &logits));
    status = sample_pieces(session, n);
    for (int64_t i = 0; status != CT_OK && i < n;
         i++) /* their caches are ahead of their pieces now */
        ct_scheduler_remove(&session->scheduler, session->chosen[i]->number);
    CT_TRY(status);
    *n_events = advance(session, n);
    return CT_OK;
}

/* What a sequence feeds in this step: its prompt, or its last piece. */
static const int32_t *next_ids(const ct_generated *one, int64_t *n)
{
    *n = one->prefilled ? 1 : one->request.n_prompt;
    return one->prefilled ? &one->last_piece : one->request.prompt;
}

static ct_status make_room(ct_session *session, int64_t n_tokens)
{
    ct_batch *batch = &session->batch;
    size_t pieces = (size_t)session->model->weights.spec.n_pieces;
    if (!session->logits) {
        size_t size;
        CT_TRY(ct_mul_size(&size, (size_t)session->scheduler.max_slots, pieces));
        CT_TRY(ct_alloc((void **)&session->logits, size * sizeof(float)));
    }
    if (n_tokens <= session->token_capacity)
        return CT_OK;
    session->token_capacity = 0;
    ct_free(&batch->ids);
    ct_free(&batch->positions);
    ct_free(&batch->types);
    if (session->model->weights.spec.n_types > 0) /* all of the first type */
        CT_TRY(ct_alloc_zeroed((void **)&batch->types, (size_t)n_tokens, sizeof *batch->types));
    CT_TRY(ct_alloc((void **)&batch->ids, sizeof *batch->ids * (size_t)n_tokens));
    CT_TRY(ct_alloc((void **)&batch->positions, sizeof *batch->positions * (size_t)n_tokens));
    session->token_capacity = n_tokens;
    return CT_OK;
}

static ct_status build_batch(ct_session *session, int64_t n)
{
    ct_batch *batch = &session->batch;
    int64_t n_tokens = 0, length;
    for (int64_t i = 0; i < n; i++) {
        next_ids(session->chosen[i], &length);
        n_tokens += length;
    }
    CT_TRY(make_room(session, n_tokens));
    batch->n_sequences = n;
    batch->n_tokens = 0;
    for (int64_t i = 0; i < n; i++) {
        ct_generated *one = session->chosen[i];
        const int32_t *ids = next_ids(one, &length);
        for (int64_t j = 0; j < length; j++, batch->n_tokens++) {
            batch->ids[batch->n_tokens] = ids[j];
            batch->positions[batch->n_tokens] = (int32_t)(one->cache.length + j);
        }
        batch->offsets[i + 1] = batch->n_tokens;
        session->caches[i] = &one->cache;
    }
    return CT_OK;
}

static ct_status sample_pieces(ct_session *session, int64_t n)
{
    int64_t width = session->model->weights.spec.n_pieces;
    ct_rows logits = {session->logits, CT_F32, n, width, width};
    for (int64_t i = 0; i < n; i++) {
        session->sampling[i] = session->chosen[i]->request.sampling;
        session->sampling[i].step = (uint64_t)session->chosen[i]->n_generated;
    }
    ct_status status =
        session->model->ops->sample(session->pieces, logits, session->sampling, &session->scratch);
    ct_arena_reset(&session->scratch);
    return status;
}

/* Takes the chosen pieces into the sequences, tells the events, ends who is finished. */
static int64_t advance(ct_session *session, int64_t n)
{
    int64_t longest = longest_sequence(&session->model->weights.spec);
    for (int64_t i = 0; i < n; i++) {
        ct_generated *one = session->chosen[i];
        ct_finish finish = ct_stop_after(one, session->pieces[i], longest);
        session->events[i] = (ct_event){
            .sequence = one->number,
            .piece = finish == CT_FINISH_EOS ? -1 : session->pieces[i],
            .finish = finish,
        };
        one->prefilled = true;
        one->last_piece = session->pieces[i];
        one->n_generated++;
        if (finish != CT_FINISH_NONE)
            ct_scheduler_remove(&session->scheduler, one->number);
    }
    return n;
}
