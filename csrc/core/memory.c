/* Aligned allocation over the C library, with a count of live blocks and a switch that makes one
 * allocation fail, both for tests. */
#include "core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_llong fail_after = -1;
static atomic_llong live_blocks;
static atomic_llong allocations;

static bool must_fail(void)
{
    long long left = atomic_load(&fail_after);
    while (left >= 0) {
        if (atomic_compare_exchange_weak(&fail_after, &left, left - 1))
            return left == 0;
    }
    return false;
}

ct_status ct_alloc(void **out, size_t size)
{
    *out = NULL;
    atomic_fetch_add(&allocations, 1);
    void *block = NULL;
    if (must_fail() || posix_memalign(&block, CT_ALIGNMENT, size ? size : 1) != 0)
        return ct_fail(CT_MEMORY, "out of memory: cannot allocate %zu bytes", size);
    atomic_fetch_add(&live_blocks, 1);
    *out = block;
    return CT_OK;
}

ct_status ct_alloc_zeroed(void **out, size_t count, size_t size)
{
    *out = NULL;
    size_t total;
    CT_TRY(ct_mul_size(&total, count, size));
    CT_TRY(ct_alloc(out, total));
    memset(*out, 0, total);
    return CT_OK;
}

void ct_free(void *pointer)
{
    void *block;
    memcpy(&block, pointer, sizeof block);
    if (block) {
        free(block);
        atomic_fetch_sub(&live_blocks, 1);
        block = NULL;
        memcpy(pointer, &block, sizeof block);
    }
}

ct_status ct_mul_size(size_t *out, size_t a, size_t b)
{
    if (__builtin_mul_overflow(a, b, out))
        return ct_fail(CT_VALUE, "a size of %zu * %zu bytes does not fit this machine", a, b);
    return CT_OK;
}

void ct_memory_fail_after(int64_t successes)
{
    atomic_store(&fail_after, successes);
}

int64_t ct_memory_live_blocks(void)
{
    return atomic_load(&live_blocks);
}

int64_t ct_memory_allocations(void)
{
    return atomic_load(&allocations);
}
