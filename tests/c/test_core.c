/* Status, memory, arena, refcount, processor features, threads. */
#include "test.h"

#include <omp.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/cpuinfo.h"
#include "core/memory.h"
#include "core/refcount.h"
#include "core/sysmem.h"
#include "core/threads.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

/* ---- status ---- */

static void *fail_elsewhere(void *unused)
{
    (void)unused;
    return ct_fail(CT_IO, "of the other thread") == CT_IO ? "" : NULL;
}

static void a_message_belongs_to_its_thread(void)
{
    CHECK_FAILS(ct_fail(CT_VALUE, "row %d of %s", 3, "x"), CT_VALUE, "row 3 of x");
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK_TEXT(ct_message(), "row 3 of x");
}

static void a_long_message_is_cut(void)
{
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    CHECK_FAILS(ct_fail(CT_VALUE, "%s", text), CT_VALUE, "xxx");
    CHECK_INT(strlen(ct_message()), 1023);
}

static ct_status try_and_count(int *steps, ct_status code)
{
    CT_TRY(code);
    ++*steps;
    ct_status status = CT_OK;
    CT_TRY_TO(done, ct_fail(CT_TYPE, "second"));
    ++*steps;
done:
    return status;
}

static void failures_are_handed_up(void)
{
    int steps = 0;
    CHECK_INT(try_and_count(&steps, CT_INDEX), CT_INDEX);
    CHECK_INT(steps, 0);
    CHECK_INT(try_and_count(&steps, CT_OK), CT_TYPE);
    CHECK_INT(steps, 1);
}

/* ---- memory ---- */

static void allocations_are_aligned_and_counted(void)
{
    int64_t live = ct_memory_live_blocks(), made = ct_memory_allocations();
    void *blocks[3];
    CHECK_OK(ct_alloc(&blocks[0], 0));
    CHECK_OK(ct_alloc(&blocks[1], 1));
    CHECK_OK(ct_alloc_zeroed(&blocks[2], 7, 13));
    for (int i = 0; i < 3; i++)
        CHECK_INT((uintptr_t)blocks[i] % CT_ALIGNMENT, 0);
    for (int i = 0; i < 7 * 13; i++)
        CHECK_INT(((char *)blocks[2])[i], 0);
    CHECK_INT(ct_memory_live_blocks(), live + 3);
    CHECK_INT(ct_memory_allocations(), made + 3);
    for (int i = 0; i < 3; i++) {
        ct_free(&blocks[i]);
        CHECK(!blocks[i]);
        ct_free(&blocks[i]); /* NULL inside is allowed */
    }
    CHECK_INT(ct_memory_live_blocks(), live);
}

static void the_chosen_allocation_fails_once(void)
{
    void *block = &block;
    ct_memory_fail_after(1);
    CHECK_OK(ct_alloc(&block, 1));
    ct_free(&block);
    block = &block;
    CHECK_FAILS(ct_alloc(&block, 123456), CT_MEMORY, "out of memory: cannot allocate 123456 bytes");
    CHECK(!block);
    CHECK_OK(ct_alloc(&block, 1));
    ct_free(&block);
}

static void sizes_do_not_overflow(void)
{
    size_t size;
    void *block = &block;
    CHECK_OK(ct_mul_size(&size, 6, 7));
    CHECK_INT(size, 42);
    CHECK_FAILS(ct_mul_size(&size, SIZE_MAX, 2), CT_VALUE, "18446744073709551615 * 2");
    CHECK_FAILS(ct_alloc_zeroed(&block, SIZE_MAX / 2, 3), CT_VALUE, "does not fit");
    CHECK(!block);
    ct_arena arena = {0};
    CHECK_FAILS(ct_arena_alloc(&arena, &block, SIZE_MAX), CT_MEMORY, "out of memory");
    CHECK(!block && !arena.blocks);
}

/* ---- arena ---- */

static void fill(ct_arena *arena, int n, size_t size)
{
    for (int i = 0; i < n; i++) {
        void *piece;
        CHECK_OK(ct_arena_alloc(arena, &piece, size));
        CHECK_INT((uintptr_t)piece % CT_ALIGNMENT, 0);
        memset(piece, i, size);
    }
}

static void a_warm_arena_allocates_nothing(void)
{
    int64_t live = ct_memory_live_blocks();
    ct_arena arena = {0};
    fill(&arena, 300, 1000);
    CHECK(arena.used >= 300 * 1000);
    CHECK(ct_memory_live_blocks() > live + 1);
    ct_arena_reset(&arena);
    CHECK_INT(arena.used, 0);
    CHECK_INT(ct_memory_live_blocks(), live + 1);
    int64_t made = ct_memory_allocations();
    for (int i = 0; i < 3; i++) {
        fill(&arena, 300, 1000);
        ct_arena_reset(&arena);
    }
    CHECK_INT(ct_memory_allocations(), made);
    ct_arena_clear(&arena);
    ct_arena_clear(&arena);
    CHECK_INT(ct_memory_live_blocks(), live);
}

static void from_the_same_place_come_the_same_addresses(void)
{
    ct_arena arena = {0};
    void *first, *second;
    CHECK(!ct_arena_next(&arena).data && ct_arena_is_whole(&arena));
    fill(&arena, 300, 1000);
    CHECK(!ct_arena_is_whole(&arena));
    ct_arena_reset(&arena);
    CHECK(ct_arena_is_whole(&arena));
    ct_arena_place place = ct_arena_next(&arena);
    CHECK(place.size >= 300 * 1000);
    CHECK_OK(ct_arena_alloc(&arena, &first, 100));
    CHECK(place.data == first && ct_arena_next(&arena).data != first);
    CHECK(ct_arena_next(&arena).size < place.size);
    ct_arena_reset(&arena);
    CHECK(ct_arena_next(&arena).data == place.data && ct_arena_next(&arena).size == place.size);
    CHECK_OK(ct_arena_alloc(&arena, &second, 100));
    CHECK(first == second);
    ct_arena_clear(&arena);
}

static void a_reset_without_memory_keeps_the_largest_block(void)
{
    int64_t live = ct_memory_live_blocks();
    ct_arena arena = {0};
    fill(&arena, 300, 1000);
    ct_memory_fail_after(0);
    ct_arena_reset(&arena);
    CHECK_INT(ct_memory_live_blocks(), live + 1);
    fill(&arena, 300, 1000);
    ct_arena_clear(&arena);
    CHECK_INT(ct_memory_live_blocks(), live);
}

static void what_the_arena_has_not_given_out_is_poisoned(void)
{
#if defined(__SANITIZE_ADDRESS__)
    ct_arena arena = {0};
    char *first, *second;
    CHECK_OK(ct_arena_alloc(&arena, (void **)&first, 64));
    CHECK_OK(ct_arena_alloc(&arena, (void **)&second, 10));
    CHECK(!__asan_region_is_poisoned(first, 64) && !__asan_region_is_poisoned(second, 10));
    CHECK(__asan_address_is_poisoned(first + 64));
    CHECK(__asan_address_is_poisoned(second + 10));
    ct_arena_reset(&arena);
    CHECK(__asan_address_is_poisoned(first));
    ct_arena_clear(&arena);
#endif
}

/* ---- refcount, processor, threads ---- */

static void the_last_reference_is_told(void)
{
    ct_refcount refs;
    ct_refcount_init(&refs);
    ct_refcount_take(&refs);
    CHECK_INT(ct_refcount_get(&refs), 2);
    CHECK(!ct_refcount_drop(&refs));
    CHECK(ct_refcount_drop(&refs));
}

static void processor_features_build_on_each_other(void)
{
    const ct_cpuinfo *info = ct_cpuinfo_get();
    CHECK(info == ct_cpuinfo_get());
    CHECK(info->n_cores >= 1);
    CHECK(info->n_cores <= sysconf(_SC_NPROCESSORS_CONF));
    CHECK(info->avx2 || !info->avx512);
    CHECK(info->avx512 || !info->avx512_bf16);
}

static int team_size(void)
{
    int size = 0;
#pragma omp parallel num_threads(ct_threads_get())
#pragma omp single
    size = omp_get_num_threads();
    return size;
}

static void the_number_of_threads_reaches_openmp(void)
{
    CHECK_OK(ct_threads_init());
    CHECK_OK(ct_threads_init());
    int before = ct_threads_get();
    CHECK(before >= 1);
    CHECK_FAILS(ct_threads_set(0), CT_VALUE, "between 1 and 1024, was: 0");
    CHECK_FAILS(ct_threads_set(1025), CT_VALUE, "1025");
    CHECK_INT(ct_threads_get(), before);
    CHECK_OK(ct_threads_set(3));
    ct_threads_enter();
    CHECK_INT(omp_get_max_threads(), 3);
    CHECK_INT(team_size(), 3);
    CHECK_OK(ct_threads_set(before));
    ct_threads_enter();
}

static void a_fork_after_use_can_use_threads_again(void)
{
    CHECK_OK(ct_threads_init());
    int before = ct_threads_get();
    CHECK_OK(ct_threads_set(2));
    CHECK_INT(team_size(), 2);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(20); /* a child that waits for threads it does not have must not hang the tests */
        _exit(team_size() == 2 ? 0 : 1);
    }
    int result = -1;
    CHECK(waitpid(child, &result, 0) == child);
    CHECK_INT(result, 0);
    CHECK_INT(team_size(), 2);
    CHECK_OK(ct_threads_set(before));
}

static void slices_cover_everything_once(void)
{
    static const int64_t lengths[] = {0, 1, 15, 16, 17, 100, 1 << 20};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int n_threads = 1; n_threads < 9; n_threads++) {
            int64_t next = 0, begin, end;
            for (int thread = 0; thread < n_threads; thread++) {
                ct_threads_slice(lengths[i], 16, thread, n_threads, &begin, &end);
                CHECK_INT(begin, next);
                CHECK(end >= begin && (end % 16 == 0 || end == lengths[i]));
                next = end;
            }
            CHECK_INT(next, lengths[i]);
        }
    }
}

/* The arena grows over several blocks, so that more than one allocation can fail. */
ct_status fault_arena(void)
{
    ct_arena arena = {0};
    void *piece;
    ct_status status = CT_OK;
    for (int call = 0; call < 2; call++) {
        for (int i = 0; i < 10; i++)
            CT_TRY_TO(done, ct_arena_alloc(&arena, &piece, 100000));
        ct_arena_reset(&arena);
    }
done:
    ct_arena_clear(&arena);
    return status;
}

static void available_memory_is_part_of_the_machines(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    size_t available = ct_sysmem_available();
    CHECK(available > 1 << 20); /* or this would not run */
    CHECK(available <= (size_t)pages * (size_t)size);
}

const ct_test suite_core[] = {
    TEST(a_message_belongs_to_its_thread),
    TEST(a_long_message_is_cut),
    TEST(failures_are_handed_up),
    TEST(allocations_are_aligned_and_counted),
    TEST(the_chosen_allocation_fails_once),
    TEST(sizes_do_not_overflow),
    TEST(a_warm_arena_allocates_nothing),
    TEST(from_the_same_place_come_the_same_addresses),
    TEST(a_reset_without_memory_keeps_the_largest_block),
    TEST(what_the_arena_has_not_given_out_is_poisoned),
    TEST(the_last_reference_is_told),
    TEST(processor_features_build_on_each_other),
    TEST(available_memory_is_part_of_the_machines),
    TEST(the_number_of_threads_reaches_openmp),
    TEST(a_fork_after_use_can_use_threads_again),
    TEST(slices_cover_everything_once),
    TESTS_END,
};
