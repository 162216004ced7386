/* A queue and an array of slots. */
#include "generation/scheduler.h"

#include <string.h>

#include "core/memory.h"

/* Room for what a request may generate, as long as that is little, is there from the beginning. */
#define MAX_FIRST_ROOM 1024

static void free_generated(ct_generated **old)
{
    if (!*old)
        return;
    ct_request_clear(&(*old)->request);
    if ((*old)->cache.pool)
        ct_kv_sequence_clear(&(*old)->cache);
    ct_free(old);
}

ct_status ct_generated_reserve(ct_generated *sequence)
{
    if (sequence->n_ids < sequence->capacity)
        return CT_OK;
    int64_t capacity = 2 * sequence->capacity;
    int32_t *ids;
    CT_TRY(ct_alloc((void **)&ids, sizeof *ids * (size_t)capacity));
    memcpy(ids, sequence->ids, sizeof *ids * (size_t)sequence->n_ids);
    ct_free(&sequence->ids);
    sequence->request.prompt = sequence->ids = ids;
    sequence->capacity = capacity;
    return CT_OK;
}

ct_status ct_scheduler_init(ct_scheduler *scheduler, int64_t max_slots, int64_t prefill_tokens)
{
    *scheduler = (ct_scheduler){.max_slots = max_slots, .prefill_tokens = prefill_tokens};
    return ct_alloc_zeroed((void **)&scheduler->slots, (size_t)max_slots, sizeof *scheduler->slots);
}

void ct_scheduler_clear(ct_scheduler *scheduler)
{
    for (int64_t i = 0; i < scheduler->n_running; i++)
        free_generated(&scheduler->slots[i]);
    while (scheduler->first) {
        ct_generated *old = scheduler->first;
        scheduler->first = old->next;
        free_generated(&old);
    }
    ct_free(&scheduler->slots);
    *scheduler = (ct_scheduler){0};
}

ct_status ct_scheduler_add(ct_scheduler *scheduler, const ct_request *request, int64_t number,
                           ct_kv_pool *pool)
{
    ct_status status = CT_OK;
    ct_generated *added;
    CT_TRY(ct_alloc_zeroed((void **)&added, 1, sizeof *added));
    added->number = number;
    int64_t most = request->max_pieces;
    added->capacity =
        request->n_prompt + (most > 0 && most < MAX_FIRST_ROOM ? most : MAX_FIRST_ROOM);
    CT_TRY_TO(failed, ct_request_copy(&added->request, request, added->capacity));
    added->ids = (int32_t *)added->request.prompt;
    added->n_ids = request->n_prompt;
    ct_kv_sequence_init(&added->cache, pool);
    if (scheduler->last)
        scheduler->last->next = added;
    else
        scheduler->first = added;
    scheduler->last = added;
    return CT_OK;
failed:
    free_generated(&added);
    return status;
}

void ct_scheduler_choose(ct_scheduler *scheduler, ct_generated **chosen, int64_t *n)
{
    while (scheduler->first && scheduler->n_running < scheduler->max_slots) {
        ct_generated *joins = scheduler->first;
        scheduler->first = joins->next;
        if (!scheduler->first)
            scheduler->last = NULL;
        joins->next = NULL;
        scheduler->slots[scheduler->n_running++] = joins;
    }
    int64_t tokens = 0;
    *n = 0;
    for (int64_t i = 0; i < scheduler->n_running; i++) {
        ct_generated *one = scheduler->slots[i];
        if (one->prefilled)
            continue;
        tokens += one->request.n_prompt;
        if (*n > 0 && tokens > scheduler->prefill_tokens)
            break;
        chosen[(*n)++] = one;
    }
    if (*n > 0)
        return;
    *n = scheduler->n_running;
    memcpy(chosen, scheduler->slots, sizeof(ct_generated *) * (size_t)*n);
}

void ct_scheduler_remove(ct_scheduler *scheduler, int64_t number)
{
    for (int64_t i = 0; i < scheduler->n_running; i++) {
        if (scheduler->slots[i]->number != number)
            continue;
        free_generated(&scheduler->slots[i]);
        scheduler->n_running--;
        memmove(&scheduler->slots[i], &scheduler->slots[i + 1],
                sizeof(ct_generated *) * (size_t)(scheduler->n_running - i));
        return;
    }
    ct_generated *before = NULL;
    for (ct_generated *one = scheduler->first; one; before = one, one = one->next) {
        if (one->number != number)
            continue;
        *(before ? &before->next : &scheduler->first) = one->next;
        if (scheduler->last == one)
            scheduler->last = before;
        free_generated(&one);
        return;
    }
}
