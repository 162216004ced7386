/* When work is worth a parallel region: entering and leaving one costs a few microseconds. */
#ifndef CT_CPU_PARALLEL_H
#define CT_CPU_PARALLEL_H

#include <omp.h>
#include <stdint.h>

#include "core/threads.h"

#define CT_PARALLEL_MIN 32768 /* elements touched, below which one thread does it sooner */

static inline int ct_parallel_threads(int64_t elements)
{
    return elements < CT_PARALLEL_MIN ? 1 : ct_threads_get();
}

/* Inside a parallel region: which of how many threads this is. */
static inline int ct_thread_id(void)
{
    return omp_get_thread_num();
}

static inline int ct_thread_count(void)
{
    return omp_get_num_threads();
}

#endif
