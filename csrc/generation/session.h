/* The generation loop: prompts wait, take a slot and pages, are computed in chunks beside the
 * sequences that decode, then decode one piece a step; a sequence that ends frees its slot and
 * pages at once. Prompts that begin with the same pieces share the pages of that beginning.
 *
 * A session belongs to one caller at a time. */
#ifndef CT_GENERATION_SESSION_H
#define CT_GENERATION_SESSION_H

#include "core/status.h"
#include "generation/request.h"
#include "model/model.h"

typedef struct ct_session ct_session;

/* 0: chosen by the memory that the system has to give. */
typedef struct ct_session_config {
    int64_t max_slots;        /* sequences that run at once; no more than max_batch_tokens do */
    int64_t max_batch_tokens; /* pieces that one step computes */
    int64_t max_cache_tokens; /* positions in pages, of all sequences and of idle prefixes; one
                                 sequence alone may have more */
} ct_session_config;

typedef enum ct_finish { CT_FINISH_NONE, CT_FINISH_EOS, CT_FINISH_LENGTH } ct_finish;

/* One sequence in one step: a new piece, or its end. piece is -1 when only the end is told. */
typedef struct ct_event {
    int64_t sequence; /* as ct_session_add counted: 0, 1, 2 ... */
    int32_t piece;
    ct_finish finish;
    float logprob;         /* NaN unless the request asked for it */
    const ct_logprob *top; /* [n_top] as the request asked */
    int64_t n_top;
} ct_event;

/* Called with each row of logits [n_pieces] before a piece is chosen from it, and may change the
 * row; `ids` are the sequence so far. What it returns, other than CT_OK, ends the step and, as when
 * no piece can be chosen, its sequences. */
typedef struct ct_logits_hook {
    ct_status (*call)(void *context, int64_t sequence, const int32_t *ids, int64_t n_ids,
                      float *logits, int64_t n_pieces);
    void *context;
} ct_logits_hook;

CT_MUST_CHECK ct_status ct_session_new(ct_session **out, ct_model *model,
                                       const ct_session_config *config);
void ct_session_free(ct_session **session);

/* *sequence gets the number of the new one. Fails as ct_request_check does. */
CT_MUST_CHECK ct_status ct_session_add(ct_session *session, const ct_request *request,
                                       int64_t *sequence);
/* Ends a waiting or running sequence without an event. */
void ct_session_cancel(ct_session *session, int64_t sequence);

/* From the next step on; {0}: none. */
void ct_session_set_hook(ct_session *session, ct_logits_hook hook);

bool ct_session_is_done(const ct_session *session);

/* One step of everybody who runs. *events (borrowed until the next call) has at most one entry a
 * sequence, none for those whose prompt goes on. After a failure of the model the session may be
 * stepped again and nothing was lost; where no piece could be chosen, the sequences of the step are
 * ended. */
CT_MUST_CHECK ct_status ct_session_step(ct_session *session, ct_poll poll, const ct_event **events,
                                        int64_t *n_events);

#endif
