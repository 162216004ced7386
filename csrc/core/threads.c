/* OpenMP keeps its number of threads per calling thread, and users call us from many; so the number
 * lives here and every parallel region asks for it by num_threads(ct_threads_get()). oneDNN reads
 * OpenMP's own value, which ct_threads_enter sets for the calling thread. */
#include "core/threads.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/cpuinfo.h"

static atomic_int n_threads = 1;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int atfork_error;

static void release_pool(void)
{
    omp_pause_resource_all(omp_pause_soft);
}

static void init(void)
{
    const char *wanted = getenv("OMP_NUM_THREADS");
    int n = wanted && *wanted ? omp_get_max_threads() : ct_cpuinfo_get()->n_cores;
    atomic_store(&n_threads, n);
    atfork_error = pthread_atfork(release_pool, NULL, NULL);
}

ct_status ct_threads_init(void)
{
    pthread_once(&once, init);
    if (atfork_error)
        return ct_fail(CT_MEMORY, "out of memory: cannot register the fork handler");
    return CT_OK;
}

int ct_threads_get(void)
{
    return atomic_load_explicit(&n_threads, memory_order_relaxed);
}

void ct_threads_enter(void)
{
    int n = ct_threads_get();
    if (omp_get_max_threads() != n)
        omp_set_num_threads(n);
}

ct_status ct_threads_set(int n)
{
    if (n < 1 || n > 1024)
        return ct_fail(CT_VALUE, "the number of threads must be between 1 and 1024, was: %d", n);
    CT_TRY(ct_threads_init());
    atomic_store(&n_threads, n);
    return CT_OK;
}
