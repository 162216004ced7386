/* One stack for each thread of a block, resumed in turn. A context of the system's enters a fiber;
 * from then on it is left and resumed by the compiler's jumps, which need no system call. A fiber
 * that waits gives the word to the next; when a whole round passes in which nobody could go on, the
 * block is stuck. */
#include "host/fibers.h"

#include "host/access.h"
#include "host/races.h"
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <map>
#include <memory>
#include <vector>

#define STACK_BYTES (256 * 1024)
#define LANES 32

thread_local ct_fiber_place ct_here;

namespace
{

enum stage { RUNS, AT_BARRIER, AT_WARP, DONE };

typedef void *jump[5];

struct copy {
    char *to;
    const void *from;
    int n;
};

struct fiber {
    ucontext_t context;
    jump place;
    bool entered;
    std::unique_ptr<char[]> stack;
    dim3 thread;
    stage state;
    uint64_t handed_in;
    bool orders_memory;       /* what it waits for with its warp */
    std::vector<copy> copies; /* under way */
    bool has_waited;          /* for the kernel before */
};

/* What the lanes of a warp have handed in: of the exchange that goes on, and of the last one. */
struct warp {
    uint64_t values[LANES];
};

struct block {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    std::map<const void *, std::unique_ptr<char[]>> shared;
    std::unique_ptr<char[]> dynamic;
    size_t shared_bytes; /* of both */
    const std::function<void()> *body;
    jump scheduler;
    size_t running, n_threads;
    bool early;
};

thread_local block *current;

/* AddressSanitizer would clean the stack before each jump, as if it were left for good: nothing
 * here tells it that a jump does not come back. */
#define SWITCHES __attribute__((noinline, no_sanitize("address")))

SWITCHES void go(void **place)
{
    __builtin_longjmp(place, 1);
}

[[noreturn]] void stuck(const char *what)
{
    fprintf(stderr, "block (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z, what);
    abort();
}

void run_fiber()
{
    (*current->body)();
    if (!current->fibers[current->running].copies.empty())
        stuck("a thread does not wait for its copies");
    if (current->early && !current->fibers[current->running].has_waited)
        stuck("a thread does not wait for the kernel before");
    current->fibers[current->running].state = DONE;
    go(current->scheduler);
}

SWITCHES void wait_as(stage why)
{
    fiber &self = current->fibers[current->running];
    self.state = why;
    if (__builtin_setjmp(self.place) == 0)
        go(current->scheduler);
}

/* Returns when the fiber waits or is done. */
SWITCHES void resume(block &b, fiber &one)
{
    if (__builtin_setjmp(b.scheduler) != 0)
        return;
    if (one.entered)
        go(one.place);
    one.entered = true;
    setcontext(&one.context);
}

size_t count(const block &b, size_t first, size_t end, stage wanted)
{
    size_t n = 0;
    for (size_t i = first; i < end; i++)
        n += b.fibers[i].state == wanted;
    return n;
}

/* Lets go on what has met; false when nothing has. */
bool release(block &b)
{
    bool any = false;
    for (size_t w = 0; w * LANES < b.n_threads; w++) {
        size_t first = w * LANES, end = first + LANES < b.n_threads ? first + LANES : b.n_threads;
        if (count(b, first, end, AT_WARP) != end - first)
            continue;
        for (size_t i = first; i < end; i++) {
            b.warps[w].values[i - first] = b.fibers[i].handed_in;
            b.fibers[i].state = RUNS;
        }
        if (b.fibers[first].orders_memory)
            ct_races_warp_barrier((unsigned)w);
        any = true;
    }
    if (!any && count(b, 0, b.n_threads, AT_BARRIER) == b.n_threads) {
        for (size_t i = 0; i < b.n_threads; i++)
            b.fibers[i].state = RUNS;
        ct_races_barrier();
        any = true;
    }
    return any;
}

void start_fiber(fiber &one)
{
    one.state = RUNS;
    one.entered = false;
    one.has_waited = false;
    getcontext(&one.context);
    one.context.uc_stack.ss_sp = one.stack.get();
    one.context.uc_stack.ss_size = STACK_BYTES;
    one.context.uc_link = nullptr;
    makecontext(&one.context, run_fiber, 0);
}

void run_block(block &b)
{
    ct_races_block();
    for (size_t i = 0; i < b.n_threads; i++)
        start_fiber(b.fibers[i]);
    do {
        for (size_t i = 0; i < b.n_threads; i++) {
            if (b.fibers[i].state != RUNS)
                continue;
            b.running = i;
            ct_here.thread = b.fibers[i].thread;
            ct_races_thread((unsigned)i, b.fibers[i].stack.get(), STACK_BYTES);
            resume(b, b.fibers[i]);
        }
        if (count(b, 0, b.n_threads, DONE) == b.n_threads)
            return;
    } while (release(b));
    stuck(count(b, 0, b.n_threads, AT_WARP) ? "not all lanes of a warp reach a warp operation"
                                            : "not all threads reach a barrier");
}

} // namespace

void ct_wait_for_earlier()
{
    current->fibers[current->running].has_waited = true;
    ct_races_waited();
}

void ct_host_launch(dim3 grid, dim3 size, size_t shared, bool early,
                    const std::function<void()> &body)
{
    static thread_local block b; /* its stacks serve the next launch */
    b.n_threads = (size_t)size.x * size.y * size.z;
    if (b.n_threads == 0 || b.n_threads > 1024 || (size_t)grid.x * grid.y * grid.z == 0 ||
        grid.y > 65535 || grid.z > 65535) {
        fprintf(stderr, "a launch of (%u, %u, %u) blocks of %zu threads is not valid\n", grid.x,
                grid.y, grid.z, b.n_threads);
        abort();
    }
    while (b.fibers.size() < b.n_threads) {
        b.fibers.emplace_back();
        b.fibers.back().stack.reset(new char[STACK_BYTES]);
    }
    b.warps.resize((b.n_threads + LANES - 1) / LANES);
    b.body = &body;
    b.early = early;
    current = &b;
    ct_host_open();
    ct_races_launch((unsigned)b.n_threads, early);
    size_t i = 0;
    for (unsigned z = 0; z < size.z; z++)
        for (unsigned y = 0; y < size.y; y++)
            for (unsigned x = 0; x < size.x; x++)
                b.fibers[i++].thread = dim3(x, y, z);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                ct_here.block = dim3(x, y, z);
                ct_here.block_size = size;
                ct_here.grid_size = grid;
                b.shared.clear(); /* what a block left behind must not help the next */
                b.shared_bytes = shared;
                b.dynamic.reset(new char[shared ? shared : 1]);
                memset(b.dynamic.get(), 0xff, shared); /* NaN */
                ct_races_new(b.dynamic.get(), shared);
                run_block(b);
            }
    ct_races_over();
    b.shared.clear();
    b.dynamic.reset();
    current = nullptr;
    ct_host_close();
}

void *ct_host_shared(const void *key, size_t size)
{
    std::unique_ptr<char[]> &place = current->shared[key];
    if (!place) {
        current->shared_bytes += size;
        if (current->shared_bytes > ct_cuda_shared_limit())
            stuck("more shared memory than a block may have");
        place.reset(new char[size]);
        memset(place.get(), 0xff, size);
        ct_races_new(place.get(), size);
    }
    return place.get();
}

void *ct_dynamic_shared()
{
    return current->dynamic.get();
}

void ct_barrier()
{
    wait_as(AT_BARRIER);
}

void ct_copy_async(void *to, const void *from, int n)
{
    ct_races_copy(to, 16, from, (size_t)n, __builtin_return_address(0));
    memset(__builtin_assume_aligned(to, 16), 0xff, 16);
    current->fibers[current->running].copies.push_back({(char *)to, from, n});
}

void ct_wait_copies()
{
    std::vector<copy> &copies = current->fibers[current->running].copies;
    for (const copy &one : copies) {
        ct_races_copy(one.to, 16, one.from, (size_t)one.n, __builtin_return_address(0));
        memcpy(one.to, __builtin_assume_aligned(one.from, 16), (size_t)one.n);
        memset(one.to + one.n, 0, (size_t)(16 - one.n));
    }
    copies.clear();
}

static void wait_with_warp(uint64_t mine, bool orders_memory)
{
    fiber &self = current->fibers[current->running];
    self.handed_in = mine;
    self.orders_memory = orders_memory;
    wait_as(AT_WARP);
}

const uint64_t *ct_warp_exchange(uint64_t mine)
{
    wait_with_warp(mine, false);
    return current->warps[current->running / LANES].values;
}

void ct_warp_barrier()
{
    wait_with_warp(0, true);
}
