/* Who runs, who waits, who joins, and which pieces each of them feeds in a step.
 *
 * Every step has room for a number of tokens. First come the sequences that decode, one piece each;
 * what is left goes to prompts, in chunks, in the order in which they came. So a long prompt delays
 * nobody's next piece by more than a step of that many tokens.
 *
 * Pages are counted. When they run short, idle prefixes go first, then the youngest sequence is put
 * back to the front of the queue, without its pages; it computes them again when it has its turn.
 * A sequence that runs alone gets its pages in any case: the limit is for company, and changes no
 * result. */
#ifndef CT_GENERATION_SCHEDULER_H
#define CT_GENERATION_SCHEDULER_H

#include "generation/prefixes.h"
#include "generation/session.h"

/* One sequence that is being generated, from its request to its end. */
typedef struct ct_generated {
    struct ct_generated *next; /* in the queue */
    int64_t number;
    ct_request request; /* its arrays owned here, but for the prompt: ids */
    int32_t *ids;       /* [n_ids] the prompt, and what was generated */
    int64_t n_ids, ids_capacity;
    int64_t n_generated;
    ct_kv_sequence cache; /* of the first cache.length ids */
    int64_t chunk;        /* ids that it feeds in this step; 0: none */
    /* Its place among the prefixes: the first n_settled pages are those of the tree, down to
     * `settled`; `node` is deeper by pages that it is computing. `apart`: it shares nothing more.
     */
    ct_prefix *node, *settled;
    int64_t n_nodes, n_settled;
    bool apart;
} ct_generated;

typedef struct ct_scheduler {
    ct_generated *first, *last; /* waiting */
    ct_generated **slots;       /* [max_slots], those running first, the oldest in front */
    int64_t n_running;
    ct_session_config config; /* all of it set */
    int64_t max_pages;
    ct_prefixes prefixes;
} ct_scheduler;

/* `config` without zeros; its tokens may be fewer than its slots, which are then cut. */
CT_MUST_CHECK ct_status ct_scheduler_init(ct_scheduler *scheduler, const ct_session_config *config,
                                          ct_kv_pool *pool);
void ct_scheduler_clear(ct_scheduler *scheduler);

/* Copies the request and puts it at the queue's end. */
CT_MUST_CHECK ct_status ct_scheduler_add(ct_scheduler *scheduler, const ct_request *request,
                                         int64_t number);

/* Gives free slots to those who wait. Then *chosen [*n] are those that run, the oldest first, each
 * with its chunk and pages for it. `chosen` has room for max_slots. May be called again when
 * nothing came of the step. */
CT_MUST_CHECK ct_status ct_scheduler_choose(ct_scheduler *scheduler, ct_generated **chosen,
                                            int64_t *n);

/* Between the computation of a step and its pieces: *foreseen when everybody who runs will go on by
 * one piece in the next step, unless this one ends it, and nobody can join them. Then they have
 * pages for that, and the next step needs no choice: it is of those that run. What waits joins in
 * the one behind it. */
CT_MUST_CHECK ct_status ct_scheduler_foresee(ct_scheduler *scheduler, bool *foreseen);

/* Whether the chunk reaches the last id, so that a piece follows. */
bool ct_generated_emits(const ct_generated *one);

/* The chunk was computed: pages that are full are there for others, too. */
void ct_scheduler_settle(ct_scheduler *scheduler, ct_generated *one);

/* A piece behind the ids; there is room for it, since the sequence emits. */
void ct_generated_append(ct_generated *one, int32_t piece);

/* Ends a sequence, running or waiting; unknown numbers are nothing to do. */
void ct_scheduler_remove(ct_scheduler *scheduler, int64_t number);

#endif
