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
    ct_logprob *pieces;
    ct_logprob *top; /* [max_slots, CT_MAX_TOP_LOGPROBS] */
    ct_event *events;
    float *logits;
    ct_arena scratch;
    ct_logits_hook hook;
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
        {(void **)&session->top, sizeof *session->top * CT_MAX_TOP_LOGPROBS},
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
    ct_free(&old->top);
    ct_free(&old->events);
    ct_free(&old->logits);
    ct_arena_clear(&old->scratch);
    ct_model_unref(&old->model);
    ct_free(session);
}

ct_status ct_session_add(ct_session *session, const ct_request *request, int64_t *sequence)
{
    CT_TRY(ct_request_check(request, &session->model->weights.spec));
    CT_TRY(ct_scheduler_add(&session->scheduler, request, session->n_added, session->model->pool));
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
    return one->prefilled ? &one->ids[one->n_ids - 1] : one->ids;
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
        CT_TRY(ct_generated_reserve(session->chosen[i]));
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

static ct_status call_hook(ct_session *session, int64_t n)
{
    int64_t width = session->model->weights.spec.n_pieces;
    for (int64_t i = 0; session->hook.call && i < n; i++) {
        const ct_generated *one = session->chosen[i];
        CT_TRY(session->hook.call(session->hook.context, one->number, one->ids, one->n_ids,
                                  session->logits + i * width, width));
    }
    return CT_OK;
}

static ct_status sample_pieces(ct_session *session, int64_t n)
{
    int64_t width = session->model->weights.spec.n_pieces;
    ct_rows logits = {session->logits, CT_F32, n, width, width};
    CT_TRY(call_hook(session, n));
    for (int64_t i = 0; i < n; i++) {
        const ct_generated *one = session->chosen[i];
        ct_sampling *sampling = &session->sampling[i];
        *sampling = one->request.sampling;
        sampling->step = (uint64_t)one->n_generated;
        sampling->ids = one->ids;
        sampling->n_ids = one->n_ids;
        sampling->n_prompt = one->request.n_prompt;
        sampling->top = session->top + i * CT_MAX_TOP_LOGPROBS;
    }
    ct_status status =
        session->model->ops->sample(session->pieces, logits, session->sampling, &session->scratch);
    ct_arena_reset(&session->scratch);
    return status;
}

/* Takes the chosen pieces into the sequences, tells the events, ends who is finished. */
static int64_t advance(ct_session *session, int64_t n)
{
    int64_t longest = ct_longest_sequence(&session->model->weights.spec);
    for (int64_t i = 0; i < n; i++) {
        ct_generated *one = session->chosen[i];
        int32_t piece = session->pieces[i].piece;
        ct_finish finish = ct_stop_after(one, piece, longest);
        session->events[i] = (ct_event){
            .sequence = one->number,
            .piece = finish == CT_FINISH_EOS ? -1 : piece,
            .finish = finish,
            .logprob = session->pieces[i].logprob,
            .top = session->sampling[i].top,
            .n_top = session->sampling[i].n_top,
        };
        one->prefilled = true;
        one->ids[one->n_ids++] = piece;
        one->n_generated++;
        if (finish != CT_FINISH_NONE)
            ct_scheduler_remove(&session->scheduler, one->number);
    }
    return n;
}
