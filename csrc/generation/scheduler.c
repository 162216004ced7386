/* A queue, an array of slots, and the account of pages. */
#include "generation/scheduler.h"

#include <string.h>

#include "core/memory.h"

#define IDLE_BYTES ((size_t)1 << 28) /* of prefixes that nobody uses */
#define PREPARED_PIECES 4096         /* of a text whose end is not known, at first */

static ct_status choose_decoding(ct_scheduler *scheduler, int64_t *left);
static ct_status choose_prompts(ct_scheduler *scheduler, int64_t *left);
static ct_status admit(ct_scheduler *scheduler, int64_t *left);
static ct_status give_chunk(ct_scheduler *scheduler, ct_generated *one, int64_t *left);
static ct_status take_pages(ct_scheduler *scheduler, ct_generated *one, bool *waits);
static void announce_pages(ct_scheduler *scheduler, ct_generated *one);

ct_status ct_scheduler_init(ct_scheduler *scheduler, const ct_session_config *config,
                            ct_kv_pool *pool)
{
    int64_t max_idle = (int64_t)(IDLE_BYTES / ct_kv_pool_page_bytes(pool));
    *scheduler = (ct_scheduler){.config = *config};
    if (scheduler->config.max_slots > config->max_batch_tokens)
        scheduler->config.max_slots = config->max_batch_tokens;
    scheduler->max_pages = config->max_cache_tokens / CT_PAGE_POSITIONS;
    ct_prefixes_init(&scheduler->prefixes, pool,
                     max_idle < scheduler->max_pages ? max_idle : scheduler->max_pages);
    return ct_alloc_zeroed((void **)&scheduler->slots, (size_t)scheduler->config.max_slots,
                           sizeof *scheduler->slots);
}

/* ---- one sequence ---- */

/* Its pages go, what it has generated stays. */
static void release_pages(ct_scheduler *scheduler, ct_generated *one)
{
    ct_kv_sequence_reset(&one->cache);
    ct_prefixes_release(&scheduler->prefixes, one->node);
    one->node = one->settled = NULL;
    one->n_nodes = one->n_settled = one->chunk = 0;
    one->apart = false;
}

static void free_generated(ct_scheduler *scheduler, ct_generated **old)
{
    ct_request_clear(&(*old)->request);
    ct_free(&(*old)->ids);
    if ((*old)->cache.pool) {
        release_pages(scheduler, *old);
        ct_kv_sequence_clear(&(*old)->cache);
    }
    ct_free(old);
}

static int64_t pending(const ct_generated *one)
{
    return one->n_ids - one->cache.length;
}

bool ct_generated_emits(const ct_generated *one)
{
    return one->chunk > 0 && one->chunk == pending(one);
}

void ct_generated_append(ct_generated *one, int32_t piece)
{
    one->ids[one->n_ids++] = piece;
    one->n_generated++;
}

static ct_status reserve_ids(ct_generated *one, int64_t capacity)
{
    int32_t *grown;
    if (capacity <= one->ids_capacity)
        return CT_OK;
    capacity = capacity > 2 * one->ids_capacity ? capacity : 2 * one->ids_capacity;
    CT_TRY(ct_alloc((void **)&grown, sizeof *grown * (size_t)capacity));
    if (one->n_ids > 0)
        memcpy(grown, one->ids, sizeof *grown * (size_t)one->n_ids);
    ct_free(&one->ids);
    one->ids = grown;
    one->ids_capacity = capacity;
    return CT_OK;
}

/* ---- the queue ---- */

void ct_scheduler_clear(ct_scheduler *scheduler)
{
    for (int64_t i = 0; i < scheduler->n_running; i++)
        free_generated(scheduler, &scheduler->slots[i]);
    while (scheduler->first) {
        ct_generated *old = scheduler->first;
        scheduler->first = old->next;
        free_generated(scheduler, &old);
    }
    ct_prefixes_clear(&scheduler->prefixes);
    ct_free(&scheduler->slots);
    *scheduler = (ct_scheduler){0};
}

/* What a sequence needs besides its pages, so that its steps allocate nothing. */
static ct_status prepare(ct_generated *one)
{
    int64_t more = one->request.max_pieces;
    if (more < 1 || more > PREPARED_PIECES)
        more = PREPARED_PIECES;
    CT_TRY(reserve_ids(one, one->request.n_prompt + more));
    return ct_kv_sequence_prepare(&one->cache, one->request.n_prompt + more);
}

ct_status ct_scheduler_add(ct_scheduler *scheduler, const ct_request *request, int64_t number)
{
    ct_status status = CT_OK;
    ct_generated *added;
    CT_TRY(ct_alloc_zeroed((void **)&added, 1, sizeof *added));
    added->number = number;
    ct_kv_sequence_init(&added->cache, scheduler->prefixes.pool);
    CT_TRY_TO(failed, ct_request_copy(&added->request, request));
    CT_TRY_TO(failed, prepare(added));
    memcpy(added->ids, request->prompt, sizeof *added->ids * (size_t)request->n_prompt);
    added->n_ids = request->n_prompt;
    if (scheduler->last)
        scheduler->last->next = added;
    else
        scheduler->first = added;
    scheduler->last = added;
    return CT_OK;
failed:
    free_generated(scheduler, &added);
    return status;
}

static ct_generated *take_slot_out(ct_scheduler *scheduler, int64_t slot)
{
    ct_generated *one = scheduler->slots[slot];
    scheduler->n_running--;
    memmove(&scheduler->slots[slot], &scheduler->slots[slot + 1],
            sizeof *scheduler->slots * (size_t)(scheduler->n_running - slot));
    return one;
}

void ct_scheduler_remove(ct_scheduler *scheduler, int64_t number)
{
    for (int64_t i = 0; i < scheduler->n_running; i++) {
        if (scheduler->slots[i]->number != number)
            continue;
        ct_generated *one = take_slot_out(scheduler, i);
        free_generated(scheduler, &one);
        return;
    }
    ct_generated *before = NULL;
    for (ct_generated *one = scheduler->first; one; before = one, one = one->next) {
        if (one->number != number)
            continue;
        *(before ? &before->next : &scheduler->first) = one->next;
        if (scheduler->last == one)
            scheduler->last = before;
        free_generated(scheduler, &one);
        return;
    }
}

/* The youngest goes back to the front of the queue. */
static void put_back_youngest(ct_scheduler *scheduler)
{
    ct_generated *one = take_slot_out(scheduler, scheduler->n_running - 1);
    release_pages(scheduler, one);
    one->next = scheduler->first;
    scheduler->first = one;
    if (!scheduler->last)
        scheduler->last = one;
}

/* ---- the account of pages ---- */

/* Pages that somebody uses. */
static int64_t pages_in_use(const ct_scheduler *scheduler)
{
    int64_t n = scheduler->prefixes.n_pages - scheduler->prefixes.n_idle;
    for (int64_t i = 0; i < scheduler->n_running; i++)
        n += scheduler->slots[i]->cache.n_pages - scheduler->slots[i]->n_settled;
    return n;
}

/* The pages that the running sequences lack for what they have to compute by now. */
static int64_t pages_promised(const ct_scheduler *scheduler)
{
    int64_t n = 0;
    for (int64_t i = 0; i < scheduler->n_running; i++)
        n += ct_kv_sequence_lacks(&scheduler->slots[i]->cache, pending(scheduler->slots[i]) + 1);
    return n;
}

/* How many of the next n_new positions of `one` there are pages for; idle prefixes make way. */
static int64_t positions_with_room(ct_scheduler *scheduler, const ct_generated *one, int64_t n_new)
{
    int64_t lacks = ct_kv_sequence_lacks(&one->cache, n_new);
    if (lacks == 0)
        return n_new;
    int64_t in_use = pages_in_use(scheduler), free = scheduler->max_pages - in_use;
    if (scheduler->n_running == 1 && free < lacks)
        free = lacks;
    free = free < 0 ? 0 : free;
    int64_t taken = lacks < free ? lacks : free;
    while (in_use + scheduler->prefixes.n_idle + taken > scheduler->max_pages &&
           ct_prefixes_evict(&scheduler->prefixes))
        ;
    if (lacks <= free)
        return n_new;
    int64_t room = (one->cache.n_pages + free) * CT_PAGE_POSITIONS - one->cache.length;
    return room < n_new ? room : n_new;
}

/* ---- a step ---- */

ct_status ct_scheduler_choose(ct_scheduler *scheduler, ct_generated **chosen, int64_t *n)
{
    *n = 0;
    while (*n == 0 && (scheduler->n_running > 0 || scheduler->first)) {
        int64_t left = scheduler->config.max_batch_tokens;
        for (int64_t i = 0; i < scheduler->n_running; i++)
            scheduler->slots[i]->chunk = 0;
        CT_TRY(choose_decoding(scheduler, &left));
        CT_TRY(choose_prompts(scheduler, &left));
        CT_TRY(admit(scheduler, &left));
        for (int64_t i = 0; i < scheduler->n_running; i++)
            if (scheduler->slots[i]->chunk > 0)
                chosen[(*n)++] = scheduler->slots[i];
        if (*n == 0) /* prompts that hold all pages between them */
            put_back_youngest(scheduler);
    }
    return CT_OK;
}

static ct_status choose_decoding(ct_scheduler *scheduler, int64_t *left)
{
    for (int64_t i = 0; i < scheduler->n_running; i++) {
        ct_generated *one = scheduler->slots[i];
        if (pending(one) != 1)
            continue;
        while (i < scheduler->n_running && positions_with_room(scheduler, one, 1) < 1)
            put_back_youngest(scheduler); /* which may be this one */
        if (i < scheduler->n_running)
            CT_TRY(give_chunk(scheduler, one, left));
    }
    return CT_OK;
}

static ct_status choose_prompts(ct_scheduler *scheduler, int64_t *left)
{
    for (int64_t i = 0; *left > 0 && i < scheduler->n_running; i++) {
        ct_generated *one = scheduler->slots[i];
        bool waits;
        if (one->chunk > 0)
            continue;
        CT_TRY(take_pages(scheduler, one, &waits));
        if (!waits)
            CT_TRY(give_chunk(scheduler, one, left));
    }
    return CT_OK;
}

/* Whether there is a slot for the first who waits, and pages besides those of the running ones. It
 * then has those that are there already; *waits as of take_pages. */
static ct_status find_room(ct_scheduler *scheduler, bool *joins, bool *waits)
{
    ct_generated *one = scheduler->first;
    *joins = *waits = false;
    if (!one || scheduler->n_running == scheduler->config.max_slots)
        return CT_OK;
    ct_status status = take_pages(scheduler, one, waits);
    int64_t wanted = pages_in_use(scheduler) + pages_promised(scheduler) +
                     ct_kv_sequence_lacks(&one->cache, pending(one) + 1);
    *joins = status == CT_OK && (scheduler->n_running == 0 || wanted <= scheduler->max_pages);
    if (!*joins)
        release_pages(scheduler, one);
    return status;
}

static ct_status admit(ct_scheduler *scheduler, int64_t *left)
{
    while (*left > 0) {
        ct_generated *one = scheduler->first;
        bool joins, waits;
        CT_TRY(find_room(scheduler, &joins, &waits));
        if (!joins)
            return CT_OK;
        scheduler->first = one->next;
        if (!scheduler->first)
            scheduler->last = NULL;
        one->next = NULL;
        scheduler->slots[scheduler->n_running++] = one;
        if (!waits)
            CT_TRY(give_chunk(scheduler, one, left));
    }
    return CT_OK;
}

/* As many of its pending ids as tokens are left and pages are there for. */
static ct_status give_chunk(ct_scheduler *scheduler, ct_generated *one, int64_t *left)
{
    int64_t n = pending(one) < *left ? pending(one) : *left;
    n = positions_with_room(scheduler, one, n);
    if (n < 1)
        return CT_OK;
    CT_TRY(reserve_ids(one, one->n_ids + 1));
    CT_TRY(ct_kv_sequence_reserve(&one->cache, n));
    one->chunk = n;
    *left -= n;
    if (n > 1)
        announce_pages(scheduler, one);
    return CT_OK;
}

/* ---- the step behind this one ---- */

ct_status ct_scheduler_foresee(ct_scheduler *scheduler, bool *foreseen)
{
    bool joins, waits;
    *foreseen = false;
    for (int64_t i = 0; i < scheduler->n_running; i++)
        if (pending(scheduler->slots[i]) > 0)
            return CT_OK; /* its prompt goes on */
    CT_TRY(find_room(scheduler, &joins, &waits));
    if (joins) {
        release_pages(scheduler, scheduler->first);
        return CT_OK;
    }
    for (int64_t i = 0; i < scheduler->n_running; i++) {
        ct_generated *one = scheduler->slots[i];
        if (positions_with_room(scheduler, one, 1) < 1)
            return CT_OK; /* somebody has to be put back */
        CT_TRY(reserve_ids(one, one->n_ids + 2));
        CT_TRY(ct_kv_sequence_reserve(&one->cache, 1));
    }
    *foreseen = true;
    return CT_OK;
}

/* ---- pages that are shared ---- */

static const int32_t *page_ids(const ct_generated *one, int64_t page)
{
    return one->ids + page * CT_PAGE_POSITIONS;
}

static void enter_node(ct_generated *one, ct_prefix *node)
{
    one->node = one->settled = node;
    one->n_nodes++;
    one->n_settled++;
}

/* Takes over the pages that are there already, but for the last id, which has to be computed.
 * *waits when somebody else is computing the next one. */
static ct_status take_pages(ct_scheduler *scheduler, ct_generated *one, bool *waits)
{
    *waits = false;
    while (!one->apart && one->n_nodes == one->n_settled &&
           one->cache.length == one->n_settled * CT_PAGE_POSITIONS &&
           pending(one) > CT_PAGE_POSITIONS) {
        ct_prefix *node =
            ct_prefixes_find(&scheduler->prefixes, one->node, page_ids(one, one->n_settled));
        *waits = node && !ct_prefix_page(node);
        if (!node || *waits)
            return CT_OK;
        CT_TRY(ct_kv_sequence_attach(&one->cache, ct_prefix_page(node)));
        ct_prefixes_use(&scheduler->prefixes, node);
        enter_node(one, node);
    }
    return CT_OK;
}

/* Nodes for the pages that the chunk begins and the known ids will fill. */
static void announce_pages(ct_scheduler *scheduler, ct_generated *one)
{
    int64_t end = one->cache.length + one->chunk;
    while (!one->apart && one->n_nodes * CT_PAGE_POSITIONS < end &&
           (one->n_nodes + 1) * CT_PAGE_POSITIONS <= one->n_ids) {
        const int32_t *ids = page_ids(one, one->n_nodes);
        if (ct_prefixes_find(&scheduler->prefixes, one->node, ids))
            return; /* the page of the last id, which others have, too */
        ct_prefix *node = ct_prefixes_add(&scheduler->prefixes, one->node, ids, one);
        if (!node)
            return;
        one->node = node;
        one->n_nodes++;
    }
}

void ct_scheduler_settle(ct_scheduler *scheduler, ct_generated *one)
{
    ct_prefixes *prefixes = &scheduler->prefixes;
    while (!one->apart && (one->n_settled + 1) * CT_PAGE_POSITIONS <= one->cache.length) {
        const int32_t *ids = page_ids(one, one->n_settled);
        ct_prefix *node = ct_prefixes_find(prefixes, one->settled, ids);
        bool mine = node && ct_prefix_maker(node) == one;
        if (node && ct_prefix_page(node)) { /* two have computed it; one is enough */
            ct_kv_sequence_swap(&one->cache, one->n_settled, ct_prefix_page(node));
            ct_prefixes_use(prefixes, node);
        } else if (!node || mine) {
            if (!node)
                node = ct_prefixes_add(prefixes, one->settled, ids, one);
            if (node)
                ct_prefixes_set_page(prefixes, node, one->cache.pages[one->n_settled]);
        }
        one->apart = !node || !ct_prefix_page(node);
        if (one->apart)
            return;
        one->settled = node;
        one->n_settled++;
        if (!mine) {
            one->node = node;
            one->n_nodes++;
        }
    }
}
