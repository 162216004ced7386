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

static const size_t memory_size = (size_t)1 << 30;
static thread_local int entered = -1;

namespace
{

std::recursive_mutex lock;         /* one device, one caller */
std::map<char *, size_t> mappings; /* the pages of each block, without the one behind it */
int n_open;

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
    if (index > 1)
        return ct_fail(CT_VALUE, "device \"cuda:%d\" does not exist: this machine has 2 GPUs",
                       index);
    return CT_OK;
}

ct_status ct_cuda_enter(int index)
{
    CT_TRY(ct_cuda_check(index));
    lock.lock();
    entered = index;
    return CT_OK;
}

void ct_cuda_leave(int)
{
    entered = -1;
    lock.unlock();
}

static ct_status out_of_memory(int index, size_t size)
{
    return ct_fail(CT_MEMORY,
                   "out of memory on device \"cuda:%d\": cannot allocate %zu bytes, %zu of %zu are "
                   "free",
                   index, size, memory_size, memory_size);
}

ct_status ct_cuda_alloc(int index, void **out, size_t size)
{
    *out = nullptr;
    if (size > memory_size)
        return out_of_memory(index, size);
    size_t length = pages_of(rounded(size) + 1);
    std::lock_guard<std::recursive_mutex> held(lock);
    char *pages = (char *)mmap(nullptr, length + pages_of(1), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return out_of_memory(index, size);
    memset(pages, 0xff, length); /* NaN, and indices outside of anything */
    mprotect(pages + length, pages_of(1), PROT_NONE);
    if (!n_open)
        mprotect(pages, length, PROT_NONE);
    mappings[pages] = length;
    char *block = pages + length - rounded(size);
    POISON(pages, (size_t)(block - pages));
    POISON(block + size, rounded(size) - size);
    *out = block;
    return CT_OK;
}

void ct_cuda_free(int, void *memory, size_t)
{
    if (!memory)
        return;
    std::lock_guard<std::recursive_mutex> held(lock);
    auto one = --mappings.upper_bound((char *)memory);
    UNPOISON(one->first, one->second);
    munmap(one->first, one->second + pages_of(1));
    mappings.erase(one);
}

static ct_status copy(void *to, const void *from, size_t size)
{
    ct_host_open();
    memcpy(to, from, size);
    ct_host_close();
    return CT_OK;
}

ct_status ct_cuda_upload(void *to, const void *from, size_t size)
{
    return copy(to, from, size);
}

ct_status ct_cuda_download(void *to, const void *from, size_t size)
{
    return copy(to, from, size);
}

ct_status ct_cuda_copy(void *to, const void *from, size_t size)
{
    return copy(to, from, size);
}

ct_status ct_cuda_available(int, size_t *bytes)
{
    *bytes = memory_size;
    return CT_OK;
}

cudaStream_t ct_cuda_stream()
{
    return nullptr;
}

ct_status ct_cuda_zero(void *memory, size_t size)
{
    ct_host_open();
    memset(memory, 0, size);
    ct_host_close();
    return CT_OK;
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
    return 227 * 1024;
}

ct_status ct_cuda_allow_shared(const void *, size_t size)
{
    return size <= ct_cuda_shared_limit()
               ? CT_OK
               : ct_fail(CT_INTERNAL, "a kernel asks for %zu bytes of shared memory", size);
}
