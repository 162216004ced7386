/* The atomic count that storages, tensors and models share. */
#ifndef CT_CORE_REFCOUNT_H
#define CT_CORE_REFCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>

typedef struct ct_refcount {
    atomic_int count;
} ct_refcount;

static inline void ct_refcount_init(ct_refcount *refs)
{
    atomic_init(&refs->count, 1);
}

static inline void ct_refcount_take(ct_refcount *refs)
{
    atomic_fetch_add_explicit(&refs->count, 1, memory_order_relaxed);
}

/* True when the caller dropped the last reference and has to free the object. */
static inline bool ct_refcount_drop(ct_refcount *refs)
{
    return atomic_fetch_sub_explicit(&refs->count, 1, memory_order_acq_rel) == 1;
}

static inline int ct_refcount_get(const ct_refcount *refs)
{
    return atomic_load_explicit(&((ct_refcount *)refs)->count, memory_order_acquire);
}

#endif
