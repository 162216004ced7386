/* Who gets a slot and runs, and when a sequence ends; without a model. */
#include "test.h"

#include "core/memory.h"
#include "generation/scheduler.h"
#include "generation/stop.h"
#include "tiny_model.h"

typedef struct queue {
    ct_kv_pool *pool;
    ct_scheduler scheduler;
} queue;

/* Prompts of these lengths wait; a length of 0 ends the list. */
static ct_status wait_with(queue *q, int64_t slots, int64_t tokens, const int64_t *prompts)
{
    static const int32_t ids[16];
    CT_TRY(ct_kv_pool_new(&q->pool, 1, 1, 2, CT_F32));
    CT_TRY(ct_scheduler_init(&q->scheduler, slots, tokens));
    for (int64_t i = 0; prompts[i]; i++) {
        ct_request request = {.prompt = ids, .n_prompt = prompts[i]};
        CT_TRY(ct_scheduler_add(&q->scheduler, &request, i, q->pool));
    }
    return CT_OK;
}

static void end(queue *q)
{
    ct_scheduler_clear(&q->scheduler);
    ct_kv_pool_unref(&q->pool);
}

/* The numbers of those chosen, as "0 1 2"; they count as prefilled afterwards. */
static const char *chosen_text(queue *q)
{
    static char text[100];
    ct_generated *chosen[16];
    int64_t n;
    size_t used = 0;
    text[0] = 0;
    ct_scheduler_choose(&q->scheduler, chosen, &n);
    for (int64_t i = 0; i < n; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%d", i ? " " : "",
                                 (int)chosen[i]->number);
        chosen[i]->prefilled = true;
    }
    return text;
}

static void prompts_are_taken_up_to_the_budget(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 8, 10, (int64_t[]){4, 6, 1, 11, 2, 3, 0}));
    CHECK_TEXT(chosen_text(&q), "0 1"); /* 4 + 6 */
    CHECK_TEXT(chosen_text(&q), "2");   /* 1 + 11 are too many */
    CHECK_TEXT(chosen_text(&q), "3");   /* alone it may be longer */
    CHECK_TEXT(chosen_text(&q), "4 5");
    CHECK_TEXT(chosen_text(&q), "0 1 2 3 4 5"); /* now everybody */
    CHECK_TEXT(chosen_text(&q), "0 1 2 3 4 5");
    end(&q);
}

static void those_who_wait_take_slots_in_their_order(void)
{
    queue q;
    CHECK_OK(wait_with(&q, 2, 100, (int64_t[]){1, 1, 1, 1, 1, 0}));
    CHECK_TEXT(chosen_text(&q), "0 1");
    CHECK_TEXT(chosen_text(&q), "0 1");
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(chosen_text(&q), "2"); /* prefilled before the others go on */
    CHECK_TEXT(chosen_text(&q), "1 2");
    ct_scheduler_remove(&q.scheduler, 1);
    ct_scheduler_remove(&q.scheduler, 2);
    CHECK_TEXT(chosen_text(&q), "3 4");
    ct_scheduler_remove(&q.scheduler, 4);
    ct_scheduler_remove(&q.scheduler, 3);
    CHECK_TEXT(chosen_text(&q), "");
    end(&q);
}

/* Whoever waits may go, wherever it stands; later ones still join at the end. */
static void the_queue_stays_whole_when_somebody_leaves(void)
{
    for (int64_t leaves = 0; leaves < 4; leaves++) {
        static const char *const left[] = {"1 2 3 4", "0 2 3 4", "0 1 3 4", "0 1 2 4"};
        static const int32_t id = 1;
        queue q;
        CHECK_OK(wait_with(&q, 8, 100, (int64_t[]){1, 1, 1, 1, 0}));
        ct_scheduler_remove(&q.scheduler, leaves);
        ct_scheduler_remove(&q.scheduler, leaves); /* unknown now */
        ct_scheduler_remove(&q.scheduler, 77);
        ct_request request = {.prompt = &id, .n_prompt = 1};
        CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 4, q.pool));
        CHECK_TEXT(chosen_text(&q), left[leaves]);
        end(&q);
    }
}

static void an_emptied_queue_starts_again(void)
{
    static const int32_t id = 1;
    queue q;
    CHECK_OK(wait_with(&q, 1, 100, (int64_t[]){1, 1, 0}));
    CHECK_TEXT(chosen_text(&q), "0");
    ct_scheduler_remove(&q.scheduler, 1); /* the only one that waits */
    ct_request request = {.prompt = &id, .n_prompt = 1};
    CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 2, q.pool));
    ct_scheduler_remove(&q.scheduler, 0);
    CHECK_TEXT(chosen_text(&q), "2");
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
    CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 0, q.pool));
    prompt[0] = prompt[1] = eos[0] = banned[1] = words[2] = 9;
    const ct_request *kept = &q.scheduler.first->request;
    CHECK(kept->prompt[0] == 3 && kept->prompt[1] == 5 && kept->eos_ids[0] == 7);
    CHECK(kept->sampling.banned[0] == 1 && kept->sampling.banned[1] == 2);
    CHECK(kept->sampling.bad_words[0] == 2 && kept->sampling.bad_words[2] == 4);
    request.eos_ids = NULL;
    request.n_eos = 0;
    request.sampling.n_banned = request.sampling.n_bad_words = 0;
    CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 1, q.pool));
    CHECK(!q.scheduler.last->request.eos_ids && !q.scheduler.last->request.sampling.banned);
    CHECK_TEXT(chosen_text(&q), "0"); /* one runs, one waits */
    end(&q);
    CHECK_INT(live_blocks(), live);
}

/* Long texts need more room than they get at first. */
static void a_sequence_keeps_its_pieces_however_many_come(void)
{
    for (int64_t most = 0; most <= 3; most += 3) {
        queue q;
        CHECK_OK(wait_with(&q, 1, 100, (int64_t[]){0}));
        ct_request request = {.prompt = (int32_t[]){70, 71}, .n_prompt = 2, .max_pieces = most};
        CHECK_OK(ct_scheduler_add(&q.scheduler, &request, 0, q.pool));
        ct_generated *one = q.scheduler.first;
        int32_t n = most ? 3 : 5000;
        for (int32_t i = 0; i < n; i++) {
            CHECK_OK(ct_generated_reserve(one));
            one->ids[one->n_ids++] = i;
        }
        CHECK(one->ids[0] == 70 && one->ids[1] == 71 && one->request.prompt == one->ids);
        for (int32_t i = 0; i < n; i++)
            CHECK_INT(one->ids[2 + i], i);
        end(&q);
    }
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
    TEST(prompts_are_taken_up_to_the_budget),
    TEST(those_who_wait_take_slots_in_their_order),
    TEST(the_queue_stays_whole_when_somebody_leaves),
    TEST(an_emptied_queue_starts_again),
    TEST(a_request_is_copied_and_freed),
    TEST(a_sequence_keeps_its_pieces_however_many_come),
    TEST(a_sequence_ends_by_piece_number_or_position),
    TESTS_END,
};
