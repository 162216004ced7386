/* Pages and who may write them. The tests write keys and values as an operation of a device does,
 * and read them back by position. */
#include "kv_author.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/memory.h"

/* ---- sequences ---- */

static void pages_fill_one_after_the_other(void)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    static const int64_t steps[] = {1, 62, 1, 1, 63, 64, 129, 0, 7};
    int64_t live = live_blocks();
    for (int d = 0; d < 3; d++) {
        ct_kv_pool *pool;
        ct_kv_sequence sequence;
        int64_t length = 0;
        CHECK_OK(pool_of(&pool, dtypes[d]));
        ct_kv_sequence_init(&sequence, pool);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            void *first = length ? sequence.data[0] : NULL;
            CHECK_OK(append(&sequence, 1, steps[i]));
            length += steps[i];
            CHECK_INT(sequence.length, length);
            CHECK_INT(sequence.n_pages, (length + 63) / 64);
            CHECK(!first || sequence.data[0] == first); /* nothing moves */
            CHECK(holds(&sequence, dtypes[d], 1, 0, length));
        }
        ct_kv_sequence_clear(&sequence);
        ct_kv_pool_unref(&pool);
        CHECK_INT(live_blocks(), live);
    }
}

static void the_first_to_go_on_writes_in_place_and_the_second_copies(void)
{
    int64_t live = live_blocks();
    ct_kv_pool *pool;
    ct_kv_sequence one, other;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&one, pool);
    CHECK_OK(append(&one, 1, 70));
    CHECK_OK(ct_kv_sequence_share(&other, &one));
    CHECK(other.length == 70 && other.data[0] == one.data[0] && other.data[1] == one.data[1]);

    void *shared = one.data[1];
    CHECK_OK(append(&one, 1, 3));
    CHECK(one.data[1] == shared); /* in place */
    CHECK_OK(append(&other, 2, 5));
    CHECK(other.data[0] == one.data[0] && other.data[1] != shared); /* only its last page */
    CHECK(holds(&one, CT_F32, 1, 0, 73));
    CHECK(holds(&other, CT_F32, 1, 0, 70));
    CHECK(holds(&other, CT_F32, 2, 70, 75));

    void *own = other.data[1];
    CHECK_OK(append(&other, 2, 60)); /* its own now, and over the page's end */
    CHECK(other.data[1] == own);
    CHECK(holds(&other, CT_F32, 2, 70, 135));
    CHECK(holds(&one, CT_F32, 1, 0, 73));
    ct_kv_sequence_clear(&one);
    CHECK(holds(&other, CT_F32, 1, 0, 70));
    ct_kv_sequence_clear(&other);
    ct_kv_pool_unref(&pool);
    CHECK_INT(live_blocks(), live);
}

static void the_last_user_of_a_page_writes_over_what_others_wrote(void)
{
    ct_kv_pool *pool;
    ct_kv_sequence one, other;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&one, pool);
    CHECK_OK(append(&one, 1, 10));
    CHECK_OK(ct_kv_sequence_share(&other, &one));
    CHECK_OK(append(&one, 1, 10));
    ct_kv_sequence_clear(&one);
    void *page = other.data[0];
    CHECK_OK(append(&other, 2, 4));
    CHECK(other.data[0] == page);
    CHECK(holds(&other, CT_F32, 1, 0, 10));
    CHECK(holds(&other, CT_F32, 2, 10, 14));
    ct_kv_sequence_clear(&other);
    ct_kv_pool_unref(&pool);
}

static void full_pages_are_shared_for_good(void)
{
    ct_kv_pool *pool;
    ct_kv_sequence one, other;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&one, pool);
    CHECK_OK(append(&one, 1, 64));
    CHECK_OK(ct_kv_sequence_share(&other, &one));
    CHECK_OK(append(&one, 1, 1));
    CHECK_OK(append(&other, 2, 1));
    CHECK(one.data[0] == other.data[0] && one.data[1] != other.data[1]);
    CHECK(holds(&one, CT_F32, 1, 0, 65));
    CHECK(holds(&other, CT_F32, 1, 0, 64) && holds(&other, CT_F32, 2, 64, 65));
    ct_kv_sequence_clear(&one);
    ct_kv_sequence_clear(&other);
    ct_kv_pool_unref(&pool);
}

/* Room was made, the call failed, nothing was written: the next call finds the sequence as it was,
 * and whoever shares its page may not take the room for its own. */
static void room_that_was_not_used_stays_claimed(void)
{
    ct_kv_pool *pool;
    ct_kv_sequence one, other;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&one, pool);
    CHECK_OK(append(&one, 1, 10));
    CHECK_OK(ct_kv_sequence_share(&other, &one));
    CHECK_OK(ct_kv_sequence_reserve(&one, 100));
    CHECK_INT(one.length, 10);
    CHECK_OK(append(&other, 2, 4));
    CHECK(other.data[0] != one.data[0]);
    CHECK_OK(append(&one, 3, 80));
    CHECK(holds(&one, CT_F32, 1, 0, 10) && holds(&one, CT_F32, 3, 10, 90));
    CHECK(holds(&other, CT_F32, 1, 0, 10) && holds(&other, CT_F32, 2, 10, 14));
    ct_kv_sequence_clear(&one);
    ct_kv_sequence_clear(&other);
    ct_kv_pool_unref(&pool);
}

static void spare_pages_are_used_again(void)
{
    int64_t live = live_blocks();
    ct_kv_pool *pool;
    ct_kv_sequence sequence;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&sequence, pool);
    CHECK_OK(append(&sequence, 1, 200)); /* four pages of two blocks */
    ct_kv_sequence_clear(&sequence);
    CHECK_INT(live_blocks(), live + 1 + 4 * 2);
    ct_kv_sequence_init(&sequence, pool);
    int64_t made = ct_memory_allocations();
    CHECK_OK(ct_kv_sequence_reserve(&sequence, 200));
    CHECK_INT(ct_memory_allocations() - made, 2); /* the tables of pages */
    CHECK_OK(append(&sequence, 2, 200));
    CHECK(holds(&sequence, CT_F32, 2, 0, 200));
    ct_kv_sequence_clear(&sequence);
    ct_kv_pool_unref(&pool);
    CHECK_INT(live_blocks(), live);
}

/* 1 MiB a page: 256 of them may be kept, the rest goes back. */
static void what_is_kept_of_pages_is_bounded(void)
{
    int64_t live = live_blocks();
    ct_kv_pool *pool;
    ct_kv_sequence sequence;
    CHECK_OK(ct_kv_pool_new(&pool, (ct_device_id){CT_DEVICE_CPU, 0}, 32, 1, 64, CT_F32));
    ct_kv_sequence_init(&sequence, pool);
    CHECK_OK(ct_kv_sequence_reserve(&sequence, 300 * CT_PAGE_POSITIONS));
    ct_kv_sequence_clear(&sequence);
    CHECK_INT(live_blocks(), live + 1 + 256 * 2);
    ct_kv_pool_unref(&pool);
    CHECK_INT(live_blocks(), live);
}

static void a_pool_lives_as_long_as_its_sequences(void)
{
    int64_t live = live_blocks();
    ct_kv_pool *pool;
    ct_kv_sequence one, other;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&one, pool);
    ct_kv_pool_unref(&pool);
    CHECK_OK(append(&one, 1, 70));
    CHECK_OK(ct_kv_sequence_share(&other, &one));
    ct_kv_sequence_clear(&one);
    CHECK(holds(&other, CT_F32, 1, 0, 70));
    ct_kv_sequence_clear(&other);
    CHECK_INT(live_blocks(), live);
}

static void a_pool_beyond_the_address_space_is_refused(void)
{
    ct_kv_pool *pool = NULL;
    CHECK_FAILS(ct_kv_pool_new(&pool, (ct_device_id){CT_DEVICE_CPU, 0}, INT64_MAX / 4, 1,
                               INT64_MAX / 128, CT_F32),
                CT_VALUE, "does not fit");
    CHECK(!pool);
}

/* ---- snapshots ---- */

static void keys_and_values_are_read_by_column(void)
{
    static const ct_dtype dtypes[] = {CT_F32, CT_F16, CT_BF16};
    int64_t live = live_blocks();
    for (int d = 0; d < 3; d++) {
        batch b;
        ct_kv_cache *cache;
        CHECK_OK(make_batch(&b, dtypes[d]));
        CHECK_OK(ct_kv_cache_new(&cache, b.pointers, 3, b.columns));
        check_reads(cache, dtypes[d], (int[]){0, 1, 2}, 3);
        clear_batch(&b);
        check_reads(cache, dtypes[d], (int[]){0, 1, 2}, 3); /* it holds what it needs */
        ct_kv_cache_unref(&cache);
        CHECK_INT(live_blocks(), live);
    }
}

static void reading_goes_over_pages(void)
{
    ct_kv_pool *pool;
    ct_kv_sequence sequence, *pointer = &sequence;
    ct_kv_cache *cache;
    ct_tensor *columns, *read;
    CHECK_OK(pool_of(&pool, CT_F32));
    ct_kv_sequence_init(&sequence, pool);
    CHECK_OK(append(&sequence, 1, 130));
    CHECK_OK(ct_tensor_new(&columns, CT_BOOL, 2, (int64_t[]){1, 131}));
    memset(ct_tensor_data(columns), 1, 131);
    *(uint8_t *)ct_tensor_data(columns) = 0;
    CHECK_OK(ct_kv_cache_new(&cache, &pointer, 1, columns));
    CHECK_OK(ct_kv_cache_read(&read, cache, 1, false));
    for (int64_t p = 0; p < 130; p++)
        CHECK_NEAR(((float *)ct_tensor_data(read))[(2 * 131 + p + 1) * WIDTH + 4],
                   written(1, 1, 2, false, p, 4), 0);
    ct_tensor_unref(&read);
    ct_kv_cache_unref(&cache);
    ct_tensor_unref(&columns);
    ct_kv_sequence_clear(&sequence);
    ct_kv_pool_unref(&pool);
}

static void a_snapshot_stays_when_its_owner_goes_on(void)
{
    batch b;
    ct_kv_cache *cache;
    CHECK_OK(make_batch(&b, CT_F32));
    CHECK_OK(ct_kv_cache_new(&cache, b.pointers, 3, b.columns));
    for (int i = 0; i < 3; i++)
        CHECK_OK(append(&b.sequences[i], 5, 100));
    check_reads(cache, CT_F32, (int[]){0, 1, 2}, 3);
    CHECK(holds(&b.sequences[0], CT_F32, 1, 0, 3) && holds(&b.sequences[0], CT_F32, 5, 3, 103));
    ct_kv_cache_unref(&cache);
    clear_batch(&b);
}

static void rows_are_selected_and_repeated(void)
{
    int64_t live = live_blocks();
    batch b;
    ct_kv_cache *cache, *chosen = NULL, *none;
    ct_tensor *read = NULL;
    static const int origins[] = {2, 0, 0, 1};
    CHECK_OK(make_batch(&b, CT_F32));
    CHECK_OK(ct_kv_cache_new(&cache, b.pointers, 3, b.columns));
    CHECK_OK(ct_kv_cache_select(&chosen, cache, (int64_t[]){2, 0, 0, 1}, 4));
    check_reads(chosen, CT_F32, origins, 4);
    for (int i = 0; i < 4; i++)
        CHECK_INT(chosen->sequences[i].length, b.sequences[origins[i]].length);
    CHECK(memcmp(ct_tensor_data(chosen->columns), "\0\0\0\0\1\0\1\1\1\0\1\1\0\0\1\0", 16) == 0);
    /* The two that repeat a row go on apart. */
    CHECK_OK(append(&chosen->sequences[1], 7, 2));
    CHECK_OK(append(&chosen->sequences[2], 8, 2));
    CHECK(holds(&chosen->sequences[1], CT_F32, 7, 3, 5));
    CHECK(holds(&chosen->sequences[2], CT_F32, 8, 3, 5));
    check_reads(cache, CT_F32, (int[]){0, 1, 2}, 3);
    ct_kv_cache_unref(&chosen);
    CHECK_FAILS(ct_kv_cache_select(&chosen, cache, (int64_t[]){0, 3}, 2), CT_INDEX,
                "sequence 3 is outside a cache of 3");
    CHECK_FAILS(ct_kv_cache_select(&chosen, cache, (int64_t[]){-1}, 1), CT_INDEX, "sequence -1");
    CHECK(!chosen);
    CHECK_OK(ct_kv_cache_select(&none, cache, NULL, 0));
    CHECK_INT(none->n_sequences, 0);
    CHECK_FAILS(ct_kv_cache_read(&read, none, 0, false), CT_VALUE, "holds no sequences");
    CHECK_FAILS(ct_kv_cache_read(&read, cache, 2, false), CT_INDEX,
                "layer 2 is outside a cache of 2 layers");
    CHECK_FAILS(ct_kv_cache_read(&read, cache, -1, true), CT_INDEX, "layer -1");
    CHECK(!read);
    ct_kv_cache_unref(&none);
    ct_kv_cache *same = ct_kv_cache_ref(cache);
    ct_kv_cache_unref(&cache);
    check_reads(same, CT_F32, (int[]){0, 1, 2}, 3);
    ct_kv_cache_unref(&same);
    clear_batch(&b);
    CHECK_INT(live_blocks(), live);
}

/* ---- threads ---- */

typedef struct worker {
    const ct_kv_cache *cache;
    int author;
    ct_status status;
    bool right;
} worker;

static void *go_on(void *argument)
{
    worker *w = argument;
    ct_kv_sequence own;
    w->status = ct_kv_sequence_share(&own, &w->cache->sequences[0]);
    if (w->status != CT_OK)
        return NULL;
    for (int step = 0; step < 3 && w->status == CT_OK; step++)
        w->status = append(&own, w->author, 25);
    w->right =
        own.length == 78 && holds(&own, CT_F32, 1, 0, 3) && holds(&own, CT_F32, w->author, 3, 78);
    ct_kv_sequence_clear(&own);
    return NULL;
}

/* One of them gets the rest of the snapshot's page, the others copy it while it is being written.
 */
static void check_round(const ct_kv_cache *cache)
{
    pthread_t threads[3];
    worker workers[3];
    for (int i = 0; i < 3; i++) {
        workers[i] = (worker){.cache = cache, .author = 10 + i};
        CHECK_INT(pthread_create(&threads[i], NULL, go_on, &workers[i]), 0);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(workers[i].status, CT_OK);
        CHECK(workers[i].right);
    }
}

static void threads_go_on_from_one_snapshot(void)
{
    int64_t live = live_blocks();
    for (int round = 0; round < 100; round++) {
        batch b;
        ct_kv_cache *cache;
        CHECK_OK(make_batch(&b, CT_F32));
        CHECK_OK(ct_kv_cache_new(&cache, b.pointers, 3, b.columns));
        check_round(cache);
        check_reads(cache, CT_F32, (int[]){0, 1, 2}, 3);
        ct_kv_cache_unref(&cache);
        clear_batch(&b);
    }
    CHECK_INT(live_blocks(), live);
}

/* Two sequences share a page, both go on, one row is chosen and read. */
ct_status fault_kv_cache(void)
{
    ct_status status = CT_OK;
    batch b = {0};
    ct_kv_cache *cache = NULL, *chosen = NULL;
    ct_tensor *read = NULL;
    CT_TRY_TO(done, make_batch(&b, CT_F32));
    CT_TRY_TO(done, ct_kv_cache_new(&cache, b.pointers, 3, b.columns));
    CT_TRY_TO(done, append(&b.sequences[0], 1, 70));
    CT_TRY_TO(done, append(&cache->sequences[0], 2, 70));
    CT_TRY_TO(done, ct_kv_cache_select(&chosen, cache, (int64_t[]){1, 0}, 2));
    CT_TRY_TO(done, ct_kv_cache_read(&read, chosen, 1, true));
done:
    ct_tensor_unref(&read);
    ct_kv_cache_unref(&chosen);
    ct_kv_cache_unref(&cache);
    for (int i = 0; i < 3; i++)
        if (b.sequences[i].pool)
            ct_kv_sequence_clear(&b.sequences[i]);
    ct_tensor_unref(&b.columns);
    ct_kv_pool_unref(&b.pool);
    return status;
}

const ct_test suite_kv_cache[] = {
    TEST(pages_fill_one_after_the_other),
    TEST(the_first_to_go_on_writes_in_place_and_the_second_copies),
    TEST(the_last_user_of_a_page_writes_over_what_others_wrote),
    TEST(full_pages_are_shared_for_good),
    TEST(room_that_was_not_used_stays_claimed),
    TEST(spare_pages_are_used_again),
    TEST(what_is_kept_of_pages_is_bounded),
    TEST(a_pool_lives_as_long_as_its_sequences),
    TEST(a_pool_beyond_the_address_space_is_refused),
    TEST(keys_and_values_are_read_by_column),
    TEST(reading_goes_over_pages),
    TEST(a_snapshot_stays_when_its_owner_goes_on),
    TEST(rows_are_selected_and_repeated),
    TEST(threads_go_on_from_one_snapshot),
    TESTS_END,
};
