/* Heap memory: aligned allocation with checked sizes, and the hook with which a test makes the
 * n-th allocation fail. */
#ifndef CT_CORE_MEMORY_H
#define CT_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

#define CT_ALIGNMENT 64 /* a cache line, and the widest vector register */

/* *out gets `size` uninitialised bytes aligned to CT_ALIGNMENT (size 0 gives a valid pointer).
 * On failure *out is NULL and CT_MEMORY names the size. */
CT_MUST_CHECK ct_status ct_alloc(void **out, size_t size);

/* The same, `count` elements of `size` bytes, zeroed, the product checked. */
CT_MUST_CHECK ct_status ct_alloc_zeroed(void **out, size_t count, size_t size);

/* Frees *pointer and sets it to NULL; NULL inside is allowed. `pointer` is the address of any
 * object pointer. */
void ct_free(void *pointer);

/* *out = a * b, or CT_VALUE when it does not fit. */
CT_MUST_CHECK ct_status ct_mul_size(size_t *out, size_t a, size_t b);

/* For tests: the next `successes` allocations succeed, the one after fails, once. Negative: off. */
void ct_memory_fail_after(int64_t successes);

/* For tests: blocks handed out and not freed, by ct_alloc of every thread. */
int64_t ct_memory_live_blocks(void);
/* For tests: calls of ct_alloc so far. */
int64_t ct_memory_allocations(void);

#endif
