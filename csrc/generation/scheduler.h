/* Who runs, who waits, who joins. Sequences wait in the order in which they came and keep their
 * slot until they end. */
#ifndef CT_GENERATION_SCHEDULER_H
#define CT_GENERATION_SCHEDULER_H

#include "generation/session.h"

/* One sequence that is being generated, from its request to its end. */
typedef struct ct_generated {
    struct ct_generated *next; /* in the queue */
    int64_t number;
    ct_request request; /* its arrays owned here; the prompt's is `ids` */
    ct_kv_sequence cache;
    bool prefilled;
    int32_t *ids; /* the prompt, then what was generated */
    int64_t n_ids, capacity;
    int64_t n_generated;
} ct_generated;

/* Makes room for one more piece behind the ids. */
CT_MUST_CHECK ct_status ct_generated_reserve(ct_generated *sequence);

typedef struct ct_scheduler {
    ct_generated *first, *last; /* waiting */
    ct_generated **slots;       /* [max_slots], those running first */
    int64_t n_running, max_slots, prefill_tokens;
} ct_scheduler;

CT_MUST_CHECK ct_status ct_scheduler_init(ct_scheduler *scheduler, int64_t max_slots,
                                          int64_t prefill_tokens);
void ct_scheduler_clear(ct_scheduler *scheduler);

/* Copies the request and puts it at the queue's end. */
CT_MUST_CHECK ct_status ct_scheduler_add(ct_scheduler *scheduler, const ct_request *request,
                                         int64_t number, ct_kv_pool *pool);

/* Gives free slots to those who wait. Then *chosen [*n] are the ones to run: those not prefilled
 * yet up to the token budget, else everybody. `chosen` has room for max_slots. */
void ct_scheduler_choose(ct_scheduler *scheduler, ct_generated **chosen, int64_t *n);

/* Ends a sequence, running or waiting; unknown numbers are nothing to do. */
void ct_scheduler_remove(ct_scheduler *scheduler, int64_t number);

#endif
