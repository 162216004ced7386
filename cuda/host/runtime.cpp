/* A device whose memory is the host's and whose stream does everything at once.
 *
 * What is allocated here may be touched by kernels and by the functions that copy, and by nobody
 * else: outside of them it has no access rights, so that host code which reads through a device's
 * pointer ends at that place, as it would beside a GPU. A block ends where a page does that is not
 * there, which finds what goes beyond it. */
#include "runtime.h"

#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "host/access.h"

/* AddressSanitizer finds what a page cannot: the bytes between a block and its pages' borders. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(memory, size) ASAN_POISON_MEMORY_REGION(memory, size)
#define UNPOISON(memory, size) ASAN_UNPOISON_MEMORY_REGION(memory, size)
#else
#define POISON(memory, size) ((void)(memory), (void)(size))
#define UNPOISON(memory, size) ((void)(memory), (void)(size))
#endif

static thread_local int entered = -1;

namespace
{

std::recursive_mutex lock;         /* of all below, and of whoever touches the memory */
std::map<char *, size_t> mappings; /* the pages of each block, without the one behind it */
int n_open;
std::string orders; /* what was asked of streams since a test has read it */

#define N_DEVICES 2
#define DEVICE_BYTES ((size_t)1 << 30) /* that each of them has */
size_t used[N_DEVICES];
std::mutex entering[N_DEVICES]; /* held by the thread whose operations run */

typedef std::vector<std::function<void()>> recording;
recording *recorded; /* what is being recorded, or null */
bool spoiled;
ct_cuda_programs programs[2];

size_t pages_of(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

size_t rounded(size_t size)
{
    return (size + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT;
}

void set_access(int access)
{
    for (auto &one : mappings)
        mprotect(one.first, one.second, access);
}

} // namespace

void ct_host_open()
{
    lock.lock();
    if (n_open++ == 0)
        set_access(PROT_READ | PROT_WRITE);
}

void ct_host_close()
{
    if (--n_open == 0)
        set_access(PROT_NONE);
    lock.unlock();
}

ct_status ct_cuda_check(int index)
{
    if (index >= N_DEVICES)
        return ct_fail(CT_VALUE, "device \"cuda:%d\" does not exist: this machine has 2 GPUs",
                       index);
    return CT_OK;
}

ct_status ct_cuda_enter(int index)
{
    CT_TRY(ct_cuda_check(index));
    entering[index].lock();
    entered = index;
    return CT_OK;
}

void ct_cuda_leave(int index)
{
    entered = -1;
    entering[index].unlock();
}

static ct_status out_of_memory(int index, size_t size)
{
    return ct_fail(CT_MEMORY,
                   "out of memory on device \"cuda:%d\": cannot allocate %zu bytes, %zu of %zu are "
                   "free",
                   index, size, DEVICE_BYTES - used[index], DEVICE_BYTES);
}

ct_status ct_cuda_alloc(int index, void **out, size_t size)
{
    *out = nullptr;
    std::lock_guard<std::recursive_mutex> held(lock);
    if (size > DEVICE_BYTES || pages_of(rounded(size) + 1) > DEVICE_BYTES - used[index])
        return out_of_memory(index, size);
    spoiled = true;
    size_t length = pages_of(rounded(size) + 1);
    char *pages = (char *)mmap(nullptr, length + pages_of(1), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return out_of_memory(index, size);
    memset(pages, 0xff, length); /* NaN, and indices outside of anything */
    mprotect(pages + length, pages_of(1), PROT_NONE);
    if (!n_open)
        mprotect(pages, length, PROT_NONE);
    mappings[pages] = length;
    used[index] += length;
    char *block = pages + length - rounded(size);
    POISON(pages, (size_t)(block - pages));
    POISON(block + size, rounded(size) - size);
    *out = block;
    return CT_OK;
}

void ct_cuda_free(int index, void *memory, size_t)
{
    if (!memory)
        return;
    std::lock_guard<std::recursive_mutex> held(lock);
    ct_races_boundary();
    auto one = --mappings.upper_bound((char *)memory);
    UNPOISON(one->first, one->second);
    munmap(one->first, one->second + pages_of(1));
    used[index] -= one->second;
    mappings.erase(one);
}

static ct_status copy(void *to, const void *from, size_t size)
{
    ct_host_open();
    ct_races_boundary();
    memcpy(to, from, size);
    ct_host_close();
    return CT_OK;
}

ct_status ct_cuda_upload(void *to, const void *from, size_t size)
{
    spoiled = true;
    return copy(to, from, size);
}

ct_status ct_cuda_download(void *to, const void *from, size_t size)
{
    spoiled = true;
    return copy(to, from, size);
}

ct_status ct_cuda_copy(void *to, const void *from, size_t size)
{
    ct_host_do([=] { (void)copy(to, from, size); });
    return CT_OK;
}

/* Pinned memory gets what was copied only when that is waited for. */
struct ct_fetch {
    std::vector<char> copied, memory;
};

ct_status ct_cuda_fetch_new(int, ct_fetch **out, size_t size)
{
    *out = new ct_fetch;
    (*out)->memory.resize(size, (char)0xff);
    return CT_OK;
}

void ct_cuda_fetch_free(ct_fetch **fetch)
{
    delete *fetch;
    *fetch = nullptr;
}

ct_status ct_cuda_fetch(ct_fetch *fetch, const void *from, size_t size)
{
    spoiled = true;
    fetch->copied.resize(size);
    return copy(fetch->copied.data(), from, size);
}

ct_status ct_cuda_fetched(ct_fetch *fetch, const void **data)
{
    std::copy(fetch->copied.begin(), fetch->copied.end(), fetch->memory.begin());
    *data = fetch->memory.data();
    return CT_OK;
}

ct_status ct_cuda_available(int index, size_t *bytes)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    *bytes = DEVICE_BYTES - used[index];
    return CT_OK;
}

/* ---- order, which is kept by itself: what is asked for is written down ---- */

static void write_down(int index, const char *what)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    orders += "cuda:" + std::to_string(index) + " " + what + "\n";
}

/* For tests: what was written down since the last call. */
extern "C" __attribute__((visibility("default"))) const char *ct_host_orders()
{
    static std::string told;
    std::lock_guard<std::recursive_mutex> held(lock);
    told = orders;
    orders.clear();
    return told.c_str();
}

ct_status ct_cuda_trim(int index)
{
    write_down(index, "trim");
    return CT_OK;
}

ct_status ct_cuda_stream_name(int index, intptr_t *stream)
{
    *stream = 0x1000 + index;
    return CT_OK;
}

ct_status ct_cuda_let_wait(int index, intptr_t stream)
{
    write_down(index, ("lets wait " + std::to_string(stream)).c_str());
    return CT_OK;
}

void ct_cuda_wait_for(int index, intptr_t stream)
{
    write_down(index, ("waits for " + std::to_string(stream)).c_str());
}

void ct_cuda_finish(int index)
{
    write_down(index, "finishes");
}

cudaStream_t ct_cuda_stream()
{
    return nullptr;
}

ct_status ct_cuda_launched(const char *)
{
    return CT_OK;
}

int ct_cuda_multiprocessors()
{
    return 4; /* few, so that tests see blocks that go round */
}

int ct_cuda_index()
{
    return entered;
}

size_t ct_cuda_shared_limit()
{
    return 99 * 1024; /* what every GPU has that there are kernels for: 8.6 and 8.9 no more */
}

ct_status ct_cuda_allow_shared(const void *, size_t size)
{
    return size <= ct_cuda_shared_limit()
               ? CT_OK
               : ct_fail(CT_INTERNAL, "a kernel asks for %zu bytes of shared memory", size);
}

/* ---- recordings ---- */

void ct_host_do(const std::function<void()> &work)
{
    if (recorded)
        recorded->push_back(work);
    else
        work();
}

ct_cuda_programs *ct_cuda_known_programs()
{
    return &programs[entered];
}

ct_status ct_cuda_record()
{
    recorded = new recording;
    spoiled = false;
    return CT_OK;
}

void *ct_cuda_recorded(bool wanted)
{
    recording *whole = recorded;
    recorded = nullptr;
    if (wanted && !spoiled)
        return whole;
    delete whole;
    return nullptr;
}

ct_status ct_cuda_play(void *what)
{
    for (const auto &work : *(recording *)what)
        work();
    return CT_OK;
}

void ct_cuda_forget(void *what)
{
    delete (recording *)what;
}
