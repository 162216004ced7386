/* The number of threads that kernels use, and what keeps OpenMP's pool usable across fork.
 *
 * oneDNN and our kernels share OpenMP's pool. The number is, in this order: ct_threads_set's,
 * OMP_NUM_THREADS, the cores that ct_cpuinfo counts. */
#ifndef CT_CORE_THREADS_H
#define CT_CORE_THREADS_H

#include <stdint.h>

#include "core/status.h"

/* Called once before the first parallel region: takes the number of threads, registers the fork
 * handler that releases the pool (the child makes a new one). Later calls do nothing. */
CT_MUST_CHECK ct_status ct_threads_init(void);

/* What every parallel region of ours passes to num_threads(...). */
int ct_threads_get(void);

/* Makes the number known to OpenMP's calling thread too, for libraries that ask it (oneDNN). */
void ct_threads_enter(void);

/* CT_VALUE unless 1 <= n <= 1024. */
CT_MUST_CHECK ct_status ct_threads_set(int n);

/* The half-open part of `n` items that belongs to `thread` of `n_threads`, cut at multiples of
 * `grain`. */
static inline void ct_threads_slice(int64_t n, int64_t grain, int thread, int n_threads,
                                    int64_t *begin, int64_t *end)
{
    int64_t grains = (n + grain - 1) / grain;
    int64_t from = grains * thread / n_threads * grain;
    int64_t to = grains * (thread + 1) / n_threads * grain;
    *begin = from < n ? from : n;
    *end = to < n ? to : n;
}

#endif
