/* Who gets a slot, pages and tokens, and when a sequence ends; without a model: a step "computes"
 * its chunks by saying so. */
#include "test.h"

#include "core/memory.h"
#include "generation/scheduler.h"
#include "generation/stop.h"
#include "tiny_model.h"

enum { PAGE = CT_PAGE_POSITIONS, LONGEST = 16 * PAGE };

typedef struct queue {
    ct_kv_pool *pool;
    ct_scheduler scheduler;
    int64_t n_added;
    int64_t n_computed; /* positions, in all steps */
} queue;

/* A prompt of n pieces: `shared` of the same for all, then own ones. */
static ct_status wait_with_beginning(queue *q, int64_t n, int64_t shared)
{
    int32_t ids[LONGEST];
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)(i < shared ? i : 10000 * (q->n_added + 1) + i);
    ct_request request = {.prompt = ids, .n_prompt = n};
    return ct_scheduler_add(&q->scheduler, &request, q->n_added++);
}

static ct_status begin(queue *q, int64_t slots, int64_t tokens, int64_t pages)
{
    *q = (queue){0};
    CT_TRY(ct_kv_pool_new(&q->pool, (ct_device_id){CT_DEVICE_CPU, 0}, 1, 1, 2, CT_F32));
    ct_session_config config = {slots, tokens, pages * PAGE};
    return ct_scheduler_init(&q->scheduler, &config, q->pool);
}

/* Prompts of these lengths wait, with nothing in common; a length of 0 ends the list. */
static ct_status wait_with(queue *q, int64_t slots, int64_t tokens, const int64_t *prompts)
{
    CT_TRY(begin(q, slots, tokens, 1000));
    for (int64_t i = 0; prompts[i]; i++)
        CT_TRY(wait_with_beginning(q, prompts[i], 0));
    return CT_OK;
}

static void end(queue *q)
{
    ct_scheduler_clear(&q->scheduler);
    ct_kv_pool_unref(&q->pool);
}

/* One step, as "0 1:7 2": who runs, and how many pieces where it is not one; a "!" behind those who
 * get a piece. */
static const char *step_text(queue *q)
{
    static char text[300];
    ct_generated *chosen[16];
    int64_t n;
    size_t used = 0;
    text[0] = 0;
    if (ct_scheduler_choose(&q->scheduler, chosen, &n) != CT_OK)
        return ct_message();
    for (int64_t i = 0; i < n; i++) {
        ct_generated *one = chosen[i];
        bool emits = ct_generated_emits(one);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%d", i ? " " : "",
                                 (int)one->number);
        if (one->chunk != 1)
            used += (size_t)snprintf(text + used, sizeof text - used, ":%d", (int)one->chunk);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s", emits ? "!" : "");
        ct_kv_sequence_advance(&one->cache, one->chunk);
        q->n_computed += one->chunk;
        ct_scheduler_settle(&q->scheduler, one);
        if (emits)
            ct_generated_append(one, (int32_t)(1000000 * (one->number + 1) + one->n_ids));
    }
    return text;
}

/* Steps until everybody has its last piece of `pieces`; the number of steps. */
static int64_t run_to_end(queue *q, int64_t pieces)
{
    int64_t steps = 0;
    for (; q->scheduler.n_running > 0 || q->scheduler.first; steps++) {
        step_text(q);
        for (int64_t i = q->scheduler.n_running - 1; i >= 0; i--)
            if (q->scheduler.slots[i]->n_generated >= pieces)
                ct_scheduler_remove(&q->scheduler, q->scheduler.slots[i]->number);
    }
    return steps;
}

/* ---- tokens and slots ---- */

static void prompts_are_taken_in_chunks_up_to_the_budget(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 8, 10, (int64_t[]){4, 6, 1, 23, 2, 0}));
    CHECK_TEXT(step_text(&q), "0:4! 1:6!");
    CHECK_TEXT(step_text(&q), "0! 1! 2! 3:7");
    CHECK_TEXT(step_text(&q), "0! 1! 2! 3:7");
    CHECK_TEXT(step_text(&q), "0! 1! 2! 3:7");
    CHECK_TEXT(step_text(&q), "0! 1! 2! 3:2! 4:2!"); /* 7 + 7 + 7 + 2 */
    CHECK_TEXT(step_text(&q), "0! 1! 2! 3! 4!");
    end(&q);
}

static void a_long_prompt_holds_nobody_up(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 3, 8, (int64_t[]){2, 900, 3, 0}));
    CHECK_TEXT(step_text(&q), "0:2! 1:6");
    for (int i = 0; i < 100; i++) {
        CHECK_TEXT(step_text(&q), "0! 1:7");
    }
    end(&q);
}

static void there_are_no_more_slots_than_tokens(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 100, 3, (int64_t[]){1, 1, 1, 1, 1, 0}));
    CHECK_TEXT(step_text(&q), "0! 1! 2!");
    CHECK_TEXT(step_text(&q), "0! 1! 2!");
    end(&q);
}

static void those_who_wait_take_slots_in_their_order(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 2, 100, (int64_t[]){1, 1, 1, 1, 1, 0}));
    CHECK_TEXT(step_text(&q), "0! 1!");
    CHECK_TEXT(step_text(&q), "0! 1!");
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(step_text(&q), "1! 2!");
    CHECK_TEXT(step_text(&q), "1! 2!");
    ct_scheduler_remove(&q.scheduler, 1);
    ct_scheduler_remove(&q.scheduler, 2);
    CHECK_TEXT(step_text(&q), "3! 4!");
    ct_scheduler_remove(&q.scheduler, 4);
    ct_scheduler_remove(&q.scheduler, 3);
    CHECK_TEXT(step_text(&q), "");
    end(&q);
}

/* Whoever waits may go, wherever it stands; later ones still join at the end. */
static void the_queue_stays_whole_when_somebody_leaves(void)
{
    for (int64_t leaves = 0; leaves < 4; leaves++) {
        static const char *const left[] = {"1! 2! 3! 4!", "0! 2! 3! 4!", "0! 1! 3! 4!",
                                           "0! 1! 2! 4!"};
        queue q;
        CHECK_OK(wait_with(&q, 8, 100, (int64_t[]){1, 1, 1, 1, 0}));
        ct_scheduler_remove(&q.scheduler, leaves);
        ct_scheduler_remove(&q.scheduler, leaves); /* unknown now */
        ct_scheduler_remove(&q.scheduler, 77);
        CHECK_OK(wait_with_beginning(&q, 1, 0));
        CHECK_TEXT(step_text(&q), left[leaves]);
        end(&q);
    }
}

static void an_emptied_queue_starts_again(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 1, 100, (int64_t[]){1, 1, 0}));
    CHECK_TEXT(step_text(&q), "0!");
    ct_scheduler_remove(&q.scheduler, 1); /* the only one that waits */
    CHECK_OK(wait_with_beginning(&q, 1, 0));
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(step_text(&q), "2!");
    end(&q);
}

/* ---- equal beginnings ---- */

/* The first to come computes them, the others wait that long and compute the rest. */
static void equal_beginnings_are_computed_once(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 1000, 1000));
    for (int i = 0; i < 3; i++)
        CHECK_OK(wait_with_beginning(&q, 2 * PAGE + 10, 2 * PAGE));
    CHECK_OK(wait_with_beginning(&q, 2 * PAGE + 10, PAGE)); /* only the first page is the same */
    CHECK_TEXT(step_text(&q), "0:138!");
    CHECK_TEXT(step_text(&q), "0! 1:10! 2:10! 3:74!");
    for (int i = 0; i < 3; i++)
        ct_scheduler_remove(&q.scheduler, i);
    CHECK_OK(wait_with_beginning(&q, 2 * PAGE + 1, 2 * PAGE)); /* still there when they are gone */
    CHECK_TEXT(step_text(&q), "3! 4!");
    CHECK_INT(q.scheduler.slots[1]->cache.length, 2 * PAGE + 1);
    end(&q);
}

/* The piece behind the last one has to be chosen from something. */
static void the_last_piece_is_computed_always(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 1000, 1000));
    CHECK_OK(wait_with_beginning(&q, 2 * PAGE, 2 * PAGE));
    CHECK_OK(wait_with_beginning(&q, 2 * PAGE, 2 * PAGE));
    CHECK_TEXT(step_text(&q), "0:128!");
    CHECK_TEXT(step_text(&q), "0! 1:64!");
    const ct_kv_sequence *first = &q.scheduler.slots[0]->cache,
                         *second = &q.scheduler.slots[1]->cache;
    CHECK(first->pages[0] == second->pages[0] && first->pages[1] == second->pages[1]);
    end(&q);
}

static void a_beginning_is_shared_across_chunks(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 40, 1000)); /* pages take two steps */
    for (int i = 0; i < 2; i++)
        CHECK_OK(wait_with_beginning(&q, 2 * PAGE + 5, 2 * PAGE));
    run_to_end(&q, 1);
    CHECK_INT(q.n_computed, 2 * PAGE + 5 + 5);
    end(&q);
}

static void generated_pieces_are_a_beginning_for_others(void)
{
    queue q;
    int32_t ids[PAGE + 9];
    CHECK_OK(begin(&q, 8, 1000, 1000));
    CHECK_OK(wait_with_beginning(&q, PAGE - 2, 0));
    for (int i = 0; i < 4; i++)
        step_text(&q);
    memcpy(ids, q.scheduler.slots[0]->ids, sizeof *ids * PAGE);
    for (int i = PAGE; i < PAGE + 9; i++)
        ids[i] = i;
    ct_request request = {.prompt = ids, .n_prompt = PAGE + 9};
    CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 1));
    CHECK_TEXT(step_text(&q), "0! 1:9!");
    end(&q);
}

static void who_waits_for_a_page_computes_it_when_its_maker_goes(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 40, 1000));
    for (int i = 0; i < 2; i++)
        CHECK_OK(wait_with_beginning(&q, 2 * PAGE, 2 * PAGE));
    CHECK_TEXT(step_text(&q), "0:40");
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(step_text(&q), "1:40");
    CHECK_TEXT(step_text(&q), "1:40");
    end(&q);
}

static void a_step_that_came_to_nothing_is_chosen_again(void)
{
    queue q;
    ct_generated *chosen[16];
    int64_t n;
    CHECK_OK(begin(&q, 8, 100, 4));
    CHECK_OK(wait_with_beginning(&q, PAGE + 9, PAGE));
    CHECK_OK(wait_with_beginning(&q, PAGE + 9, PAGE));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(ct_scheduler_choose(&q.scheduler, chosen, &n));
        CHECK(n == 1 && chosen[0]->number == 0 && chosen[0]->chunk == PAGE + 9);
    }
    CHECK_TEXT(step_text(&q), "0:73!");
    CHECK_TEXT(step_text(&q), "0! 1:9!");
    end(&q);
}

/* ---- pages ---- */

static void prompts_wait_for_pages(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 1000, 4));
    for (int i = 0; i < 3; i++)
        CHECK_OK(wait_with_beginning(&q, PAGE + 1, 0)); /* 2 pages */
    CHECK_TEXT(step_text(&q), "0:65! 1:65!");
    CHECK_TEXT(step_text(&q), "0! 1!");
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(step_text(&q), "1! 2:65!"); /* the page that 0 left behind made way */
    end(&q);
}

static void the_youngest_makes_way_and_comes_back(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 1000, 3));
    for (int i = 0; i < 3; i++)
        CHECK_OK(wait_with_beginning(&q, PAGE - 2, 0));
    CHECK_TEXT(step_text(&q), "0:62! 1:62! 2:62!");
    CHECK_TEXT(step_text(&q), "0! 1! 2!");
    CHECK_TEXT(step_text(&q), "0! 1! 2!");
    CHECK_TEXT(step_text(&q),
               "0!"); /* a second page for 0; then for 1, which is the youngest left */
    CHECK_INT(q.scheduler.first->number, 1);
    CHECK_INT(q.scheduler.first->next->number, 2);
    CHECK_INT(q.scheduler.first->n_generated, 3);
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(step_text(&q), "1!"); /* its full page was still there */
    run_to_end(&q, 10);
    CHECK(!q.scheduler.first && q.scheduler.n_running == 0);
    end(&q);
}

static void who_runs_alone_has_the_pages_it_needs(void)
{
    queue q;
    CHECK_OK(begin(&q, 8, 1000, 1));
    CHECK_OK(wait_with_beginning(&q, 5 * PAGE, 0));
    CHECK_OK(wait_with_beginning(&q, 3, 0));
    CHECK_TEXT(step_text(&q), "0:320!");
    for (int i = 0; i < PAGE; i++)
        CHECK_TEXT(step_text(&q), "0!");
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(step_text(&q), "1:3!");
    end(&q);
}

/* Many sequences with few pages: all come to their end, and the pages stay within the limit
 * whenever more than one runs. */
static void everybody_ends_however_short_pages_are(void)
{
    for (int64_t pages = 1; pages < 12; pages += 2) {
        int64_t live = live_blocks();
        queue q;
        CHECK_OK(begin(&q, 6, 50, pages));
        for (int i = 0; i < 12; i++)
            CHECK_OK(wait_with_beginning(&q, 1 + 37 * i % 150, i % 2 ? 70 : 0));
        for (int steps = 0; q.scheduler.n_running > 0 || q.scheduler.first; steps++) {
            CHECK(steps < 5000);
            step_text(&q);
            int64_t used = q.scheduler.prefixes.n_pages;
            for (int64_t i = 0; i < q.scheduler.n_running; i++)
                used += q.scheduler.slots[i]->cache.n_pages - q.scheduler.slots[i]->n_settled;
            CHECK(q.scheduler.n_running == 1 || used <= pages);
            for (int64_t i = q.scheduler.n_running - 1; i >= 0; i--)
                if (q.scheduler.slots[i]->n_generated >= 40)
                    ct_scheduler_remove(&q.scheduler, q.scheduler.slots[i]->number);
        }
        end(&q);
        CHECK_INT(live_blocks(), live);
    }
}

/* One step, whose pieces come when the next one was foreseen, or not. */
static bool step_foresees(queue *q)
{
    ct_generated *chosen[16];
    int64_t n;
    bool foreseen;
    if (ct_scheduler_choose(&q->scheduler, chosen, &n) != CT_OK)
        return false;
    for (int64_t i = 0; i < n; i++)
        ct_kv_sequence_advance(&chosen[i]->cache, chosen[i]->chunk);
    if (ct_scheduler_foresee(&q->scheduler, &foreseen) != CT_OK)
        return false;
    for (int64_t i = 0; i < n; i++) {
        ct_scheduler_settle(&q->scheduler, chosen[i]);
        if (chosen[i]->cache.length == chosen[i]->n_ids)
            ct_generated_append(chosen[i], 7);
    }
    return foreseen;
}

static void a_step_is_foreseen_when_nobody_comes_or_goes(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 2, 10, (int64_t[]){4, 12, 3, 0}));
    CHECK(!step_foresees(&q)); /* 1 has half of its prompt */
    CHECK(step_foresees(&q));
    CHECK(step_foresees(&q)); /* 2 waits for a slot */
    ct_scheduler_remove(&q.scheduler, 1);
    CHECK_TEXT(step_text(&q), "0! 2:3!");
    CHECK(step_foresees(&q));
    CHECK_OK(wait_with_beginning(&q, 5, 0));
    CHECK(step_foresees(&q));
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_OK(wait_with_beginning(&q, 5, 0));
    CHECK_TEXT(step_text(&q), "2! 3:5!");
    end(&q);
    CHECK_OK(begin(&q, 4, 10, 1000)); /* slots and tokens are left */
    CHECK_OK(wait_with_beginning(&q, 3, 0));
    CHECK(step_foresees(&q));
    ct_generated *chosen[16];
    int64_t n;
    bool foreseen;
    CHECK_OK(ct_scheduler_choose(&q.scheduler, chosen, &n));
    ct_kv_sequence_advance(&chosen[0]->cache, 1);
    CHECK_OK(wait_with_beginning(&q, 3, 0));
    CHECK_OK(ct_scheduler_foresee(&q.scheduler, &foreseen));
    CHECK(!foreseen); /* it can join */
    end(&q);
}

/* Two of them on three pages: when both reach the end of their first, one has to go. */
static void a_step_that_is_foreseen_has_its_pages(void)
{
    queue q;
    CHECK_OK(begin(&q, 4, 200, 3));
    CHECK_OK(wait_with_beginning(&q, PAGE - 3, 0));
    CHECK_OK(wait_with_beginning(&q, PAGE - 3, 0));
    for (int i = 0; i < 3; i++)
        CHECK(step_foresees(&q));
    CHECK_INT(q.scheduler.slots[0]->cache.n_pages, 1);
    CHECK(!step_foresees(&q));
    CHECK_INT(q.scheduler.n_running, 2); /* and nobody was put back for it */
    CHECK_INT(q.scheduler.slots[0]->cache.n_pages, 2);
    CHECK_TEXT(step_text(&q), "0!");
    CHECK(step_foresees(&q)); /* 1 waits for pages */
    end(&q);
}

static void a_request_is_copied_and_freed(void)
{
    int64_t live = live_blocks();
    queue q;
    int32_t prompt[] = {3, 5}, eos[] = {7};
    int32_t banned[] = {1, 2}, words[] = {2, 3, 4};
    CHECK_OK(wait_with(&q, 1, 100, (int64_t[]){0}));
    ct_request request = {
        .prompt = prompt,
        .n_prompt = 2,
        .sampling = {.banned = banned, .n_banned = 2, .bad_words = words, .n_bad_words = 3},
        .eos_ids = eos,
        .n_eos = 1};
    CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 0));
    prompt[0] = prompt[1] = eos[0] = banned[1] = words[2] = 9;
    const ct_request *kept = &q.scheduler.first->request;
    const int32_t *ids = q.scheduler.first->ids;
    CHECK(!kept->prompt && ids[0] == 3 && ids[1] == 5 && kept->eos_ids[0] == 7);
    CHECK(kept->sampling.banned[0] == 1 && kept->sampling.banned[1] == 2);
    CHECK(kept->sampling.bad_words[0] == 2 && kept->sampling.bad_words[2] == 4);
    request.eos_ids = NULL;
    request.n_eos = 0;
    request.sampling.n_banned = request.sampling.n_bad_words = 0;
    CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 1));
    CHECK(!q.scheduler.last->request.eos_ids && !q.scheduler.last->request.sampling.banned);
    CHECK_TEXT(step_text(&q), "0:2!"); /* one runs, one waits */
    end(&q);
    CHECK_INT(live_blocks(), live);
}

static void a_sequence_ends_by_piece_number_or_position(void)
{
    static const int32_t eos[] = {5, 7};
    ct_generated one = {.request = {.eos_ids = eos, .n_eos = 2, .max_pieces = 3}};
    CHECK_INT(ct_stop_after(&one, 6, 0), CT_FINISH_NONE);
    CHECK_INT(ct_stop_after(&one, 5, 0), CT_FINISH_EOS);
    CHECK_INT(ct_stop_after(&one, 7, 0), CT_FINISH_EOS);
    one.n_generated = 1;
    CHECK_INT(ct_stop_after(&one, 6, 0), CT_FINISH_NONE);
    one.n_generated = 2; /* this is the third */
    CHECK_INT(ct_stop_after(&one, 6, 0), CT_FINISH_LENGTH);
    CHECK_INT(ct_stop_after(&one, 7, 0), CT_FINISH_EOS);
    one.request.max_pieces = 0;
    one.n_generated = 1000;
    CHECK_INT(ct_stop_after(&one, 6, 0), CT_FINISH_NONE);
    one.cache.length = 39; /* the piece still has a place */
    CHECK_INT(ct_stop_after(&one, 6, 40), CT_FINISH_NONE);
    one.cache.length = 40;
    CHECK_INT(ct_stop_after(&one, 6, 40), CT_FINISH_LENGTH);
    CHECK_INT(ct_stop_after(&one, 5, 40), CT_FINISH_EOS);
}

const ct_test suite_scheduler[] = {
    TEST(prompts_are_taken_in_chunks_up_to_the_budget),
    TEST(a_long_prompt_holds_nobody_up),
    TEST(there_are_no_more_slots_than_tokens),
    TEST(those_who_wait_take_slots_in_their_order),
    TEST(the_queue_stays_whole_when_somebody_leaves),
    TEST(an_emptied_queue_starts_again),
    TEST(equal_beginnings_are_computed_once),
    TEST(the_last_piece_is_computed_always),
    TEST(a_beginning_is_shared_across_chunks),
    TEST(generated_pieces_are_a_beginning_for_others),
    TEST(who_waits_for_a_page_computes_it_when_its_maker_goes),
    TEST(a_step_that_came_to_nothing_is_chosen_again),
    TEST(prompts_wait_for_pages),
    TEST(the_youngest_makes_way_and_comes_back),
    TEST(who_runs_alone_has_the_pages_it_needs),
    TEST(everybody_ends_however_short_pages_are),
    TEST(a_step_is_foreseen_when_nobody_comes_or_goes),
    TEST(a_step_that_is_foreseen_has_its_pages),
    TEST(a_request_is_copied_and_freed),
    TEST(a_sequence_ends_by_piece_number_or_position),
    TESTS_END,
};
