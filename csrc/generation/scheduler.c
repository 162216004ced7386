/* A queue and an array of slots. */
#include "generation/scheduler.h"

#include <string.h>

#include "core/memory.h"

static void free_generated(ct_generated **old)
{
    if (!*old)
        return;
    void *arrays[] = {(void *)(*old)->request.prompt, (void *)(*old)->request.eos_ids,
                      (void *)(*old)->request.sampling.banned};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        ct_free(&arrays[i]);
    if ((*old)->cache.pool)
        ct_kv_sequence_clear(&(*old)->cache);
    ct_free(old);
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

/* *out becomes a copy of n bytes, or NULL for none. */
static ct_status copy_bytes(const void *source, size_t n, void **out)
{
    *out = NULL;
    if (!source || n == 0)
        return CT_OK;
    CT_TRY(ct_alloc(out, n));
    memcpy(*out, source, n);
    return CT_OK;
}

ct_status ct_scheduler_add(ct_scheduler *scheduler, const ct_request *request, int64_t number,
                           ct_kv_pool *pool)
{
    ct_status status = CT_OK;
    ct_generated *added;
    CT_TRY(ct_alloc_zeroed((void **)&added, 1, sizeof *added));
    added->number = number;
    added->request = *request;
    added->request.prompt = added->request.eos_ids = NULL;
    added->request.sampling.banned = NULL;
    CT_TRY_TO(failed,
              copy_bytes(request->prompt, sizeof *request->prompt * (size_t)request->n_prompt,
                         (void **)&added->request.prompt));
    CT_TRY_TO(failed,
              copy_bytes(request->eos_ids, sizeof *request->eos_ids * (size_t)request->n_eos,
                         (void **)&added->request.eos_ids));
    CT_TRY_TO(failed, copy_bytes(request->sampling.banned, (size_t)request->n_banned,
                                 (void **)&added->request.sampling.banned));
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
