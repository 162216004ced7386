/* What cuda/host/races.cpp finds: kernels with a race, and the same without. Each runs in a process
 * of its own, which ends with 66 when there was one. */
#include "device.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/access.h"
#include "runtime.h"

#define THREADS 64

/* The device's memory is the program's here. */
static uint32_t memory[2 * THREADS];
CT_KEPT(unsigned, ended, 1);

void ct_host_open()
{
}
void ct_host_close()
{
}
size_t ct_cuda_shared_limit()
{
    return 48 << 10;
}

/* ---- in a block ---- */

CT_DEVICE void rotate(uint32_t *values, int n, bool waits)
{
    int i = (int)threadIdx.x;
    values[i] = (uint32_t)i;
    if (waits)
        ct_barrier();
    memory[i] = values[(i + 1) % n];
}

CT_KERNEL reads_behind_a_barrier()
{
    CT_SHARED(uint32_t, values, THREADS);
    rotate(values, THREADS, true);
}

CT_KERNEL reads_without_a_barrier()
{
    CT_SHARED(uint32_t, values, THREADS);
    rotate(values, THREADS, false);
}

CT_KERNEL writes_again_too_early()
{
    CT_SHARED(uint32_t, values, THREADS);
    rotate(values, THREADS, true);
    values[threadIdx.x] = 7;
}

CT_DEVICE void write_bytes(int stride)
{
    CT_SHARED(uint8_t, bytes, 2 * THREADS);
    bytes[threadIdx.x * stride] = (uint8_t)threadIdx.x;
    bytes[threadIdx.x * stride + 1] = 1;
}

CT_KERNEL writes_bytes_of_its_own()
{
    write_bytes(2);
}

CT_KERNEL writes_bytes_of_others()
{
    write_bytes(1);
}

/* ---- in a warp ---- */

CT_DEVICE void swap(uint32_t *values, int with, bool waits)
{
    int i = (int)threadIdx.x;
    values[i] = (uint32_t)i;
    ct_shuffle_xor(i, 1);
    if (waits)
        ct_warp_barrier();
    memory[i] = values[i ^ with];
}

CT_KERNEL reads_behind_a_warp_barrier()
{
    CT_SHARED(uint32_t, values, THREADS);
    swap(values, 1, true);
}

CT_KERNEL reads_behind_a_shuffle()
{
    CT_SHARED(uint32_t, values, THREADS);
    swap(values, 1, false);
}

CT_KERNEL reads_of_another_warp()
{
    CT_SHARED(uint32_t, values, THREADS);
    swap(values, CT_WARP, true);
}

/* ---- copies ---- */

CT_DEVICE void copy(bool waits_first)
{
    CT_SHARED(uint4, values, THREADS);
    ct_copy_async(&values[threadIdx.x], memory + threadIdx.x % 4 * 4, 16);
    if (waits_first)
        ct_wait_copies();
    ct_barrier();
    memory[THREADS + threadIdx.x] = values[threadIdx.x ^ 1].x;
    ct_wait_copies();
}

CT_KERNEL waits_for_copies()
{
    copy(true);
}

CT_KERNEL waits_for_copies_too_late()
{
    copy(false);
}

/* ---- among blocks ---- */

CT_KERNEL writes_what_others_write()
{
    memory[threadIdx.x] = threadIdx.x + 1;
}

CT_KERNEL writes_something_else()
{
    memory[threadIdx.x] = blockIdx.x + 1;
}

CT_DEVICE void sum_blocks()
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < gridDim.x; i++)
        sum += memory[i];
    memory[THREADS + threadIdx.x] = sum;
}

CT_KERNEL sums_when_it_is_last()
{
    if (threadIdx.x == 0)
        memory[blockIdx.x] = blockIdx.x + 1;
    if (ct_block_is_last(&ended[0], gridDim.x))
        sum_blocks();
}

CT_KERNEL sums_without_a_fence()
{
    CT_SHARED(bool, last, 1);
    if (threadIdx.x == 0) {
        memory[blockIdx.x] = blockIdx.x + 1;
        last[0] = ct_count_to(&ended[0], gridDim.x);
    }
    ct_barrier();
    if (last[0])
        sum_blocks();
}

CT_KERNEL counts_together()
{
    ct_atomic_add(&memory[0], 1u);
}

CT_KERNEL counts_and_looks()
{
    ct_atomic_add(&memory[0], 1u);
    memory[THREADS + threadIdx.x] = memory[0];
}

/* ---- beside the kernel before ---- */

CT_KERNEL writes_a_row()
{
    memory[blockIdx.x * THREADS + threadIdx.x] = threadIdx.x;
}

CT_DEVICE void read_what_is_written(bool waits_first)
{
    CT_SHARED(uint32_t, values, THREADS);
    if (waits_first)
        ct_wait_for_earlier();
    values[threadIdx.x] = memory[threadIdx.x];
    ct_wait_for_earlier();
}

CT_KERNEL waits_for_the_kernel_before()
{
    read_what_is_written(true);
}

CT_KERNEL waits_for_it_too_late()
{
    read_what_is_written(false);
}

/* ---- the program ---- */

#define RACE 66

static const struct kernel_case {
    const char *name;
    void (*kernel)();
    int status;
    bool early; /* behind writes_a_row, which may still run */
} cases[] = {
#define CLEAN(name)                                                                                \
    {                                                                                              \
#name, name, 0, false                                                                      \
    }
#define RACES(name)                                                                                \
    {                                                                                              \
#name, name, RACE, false                                                                   \
    }
    CLEAN(reads_behind_a_barrier),
    RACES(reads_without_a_barrier),
    RACES(writes_again_too_early),
    CLEAN(writes_bytes_of_its_own),
    RACES(writes_bytes_of_others),
    CLEAN(reads_behind_a_warp_barrier),
    RACES(reads_behind_a_shuffle),
    RACES(reads_of_another_warp),
    CLEAN(waits_for_copies),
    RACES(waits_for_copies_too_late),
    CLEAN(writes_what_others_write),
    RACES(writes_something_else),
    CLEAN(sums_when_it_is_last),
    RACES(sums_without_a_fence),
    CLEAN(counts_together),
    RACES(counts_and_looks),
    {"waits_for_the_kernel_before", waits_for_the_kernel_before, 0, true},
    {"waits_for_it_too_late", waits_for_it_too_late, RACE, true},
};

static int status_of(const kernel_case &one)
{
    pid_t child = fork();
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        if (one.early)
            ct_host_launch(2, THREADS, 0, false, writes_a_row);
        ct_host_launch(2, THREADS, 0, one.early, one.kernel);
        exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main()
{
    int n_failed = 0, n = (int)(sizeof cases / sizeof *cases);
    for (int i = 0; i < n; i++) {
        int status = status_of(cases[i]);
        if (status != cases[i].status)
            n_failed += fprintf(stderr, "FAIL %s: ends with %d\n", cases[i].name, status) > 0;
    }
    printf("%d passed, %d failed\n", n - n_failed, n_failed);
    return n_failed != 0;
}
