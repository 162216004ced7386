/* Each scenario again and again, with its first, second, ... allocation failing once, until there
 * is no further one: no crash, no leak, and the error of a failed allocation or none. */
#include "test.h"

#include "core/memory.h"
#include "tiny_model.h"

/* A scenario frees all that it made, whether it fails or not. One that shrugs a failure off (an
 * arena that could not join its blocks) may return CT_OK. */
#define SCENARIOS(X)                                                                               \
    X(arena)                                                                                       \
    X(tensor)                                                                                      \
    X(map_file)                                                                                    \
    X(dlpack)                                                                                      \
    X(linear)                                                                                      \
    X(scaled)                                                                                      \
    X(attention)                                                                                   \
    X(sample)                                                                                      \
    X(kv_cache)                                                                                    \
    X(kv_arrays)                                                                                   \
    X(model)                                                                                       \
    X(forward)                                                                                     \
    X(session)                                                                                     \
    X(transfers)

static void check_scenario(const char *name, ct_status (*scenario)(void))
{
    for (int64_t n = 0;; n++) {
        int64_t live = live_blocks(); /* kept blocks would save allocations, and count as leaks */
        int64_t made = ct_memory_allocations();
        ct_memory_fail_after(n);
        ct_status status = scenario();
        ct_memory_fail_after(-1);
        made = ct_memory_allocations() - made;
        int64_t leaked = live_blocks() - live;
        if (leaked != 0)
            FAIL("%s leaks %lld blocks when allocation %lld fails", name, (long long)leaked,
                 (long long)n);
        if (made <= n && status == CT_OK)
            return; /* nothing failed */
        if (made <= n || (status != CT_OK && status != CT_MEMORY))
            FAIL("%s gave %d when allocation %lld of %lld failed: %s", name, (int)status,
                 (long long)n, (long long)made, ct_message());
    }
}

#define DEFINE(name)                                                                               \
    ct_status fault_##name(void);                                                                  \
    static void name##_survives_failing_allocations(void)                                          \
    {                                                                                              \
        check_scenario(#name, fault_##name);                                                       \
    }
SCENARIOS(DEFINE)

#define ROW(name) TEST(name##_survives_failing_allocations),
const ct_test suite_fault[] = {SCENARIOS(ROW) TESTS_END};
