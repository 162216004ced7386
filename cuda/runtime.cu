/* GPUs, by the CUDA runtime, which is linked statically and looks for the driver when it is first
 * called. What a device needs is made when it is first used, and kept until the process ends. */
#include "runtime.h"

#include <pthread.h>
#include <stdlib.h>

/* Pinned memory through which uploads go, so that what they are made from may change while the copy
 * waits for its turn. Slots are used in turn; one is free again when its event has happened. */
#define MAX_SLOTS 64
typedef struct ring {
    size_t slot_bytes;
    int n_slots, next;
    unsigned char *memory; /* NULL: not yet used */
    cudaEvent_t copied[MAX_SLOTS];
} ring;

typedef struct device {
    pthread_mutex_t entered; /* held by the thread whose operations run */
    bool ready;
    cudaStream_t stream;
    cudaMemPool_t pool;
    int multiprocessors, shared_limit;
    ring small, large;
} device;

static device devices[CT_CUDA_MAX_DEVICES];
static pthread_mutex_t setting_up = PTHREAD_MUTEX_INITIALIZER; /* of `ready` and what it covers */
static thread_local int current = -1;                          /* the device that was entered */

static device *here()
{
    return &devices[current];
}

/* ---- errors ---- */

/* An error that every call repeats from now on, whatever it is: the kernel's fault is the context's
 * end. */
static bool is_sticky(int index)
{
    cudaStream_t stream = devices[index].stream;
    cudaError_t error = stream ? cudaStreamQuery(stream) : cudaSuccess;
    cudaGetLastError();
    return error != cudaSuccess && error != cudaErrorNotReady;
}

/* What failed does not stay behind as the runtime's last error. */
static ct_status fail(int index, cudaError_t error, const char *doing)
{
    cudaGetLastError();
    const char *advice = is_sticky(index) ? "; this process cannot use the device any more and has "
                                            "to be started anew"
                                          : "";
    return ct_fail(error == cudaErrorMemoryAllocation ? CT_MEMORY : CT_INTERNAL,
                   "device \"cuda:%d\", %s: %s (%s)%s", index, doing, cudaGetErrorName(error),
                   cudaGetErrorString(error), advice);
}

#define CUDA_TRY(index, doing, call)                                                               \
    do {                                                                                           \
        cudaError_t cuda_error = (call);                                                           \
        if (cuda_error != cudaSuccess)                                                             \
            return fail(index, cuda_error, doing);                                                 \
    } while (0)

/* ---- which devices there are ---- */

static ct_status no_driver()
{
    int version = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0)
        return ct_fail(CT_UNSUPPORTED, "no NVIDIA driver: libcuda.so.1 was not found");
    return ct_fail(
        CT_UNSUPPORTED,
        "the NVIDIA driver supports CUDA %d.%d, this build needs %d.0: update the driver",
        version / 1000, version % 1000 / 10, CUDART_VERSION / 1000);
}

static ct_status no_device()
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible)
        return ct_fail(CT_UNSUPPORTED, "no NVIDIA GPU (CUDA_VISIBLE_DEVICES is \"%.100s\")",
                       visible);
    return ct_fail(CT_UNSUPPORTED, "no NVIDIA GPU in this machine");
}

static ct_status count(int *out)
{
    *out = 0;
    cudaError_t error = cudaGetDeviceCount(out);
    cudaGetLastError();
    if (error == cudaErrorInsufficientDriver)
        return no_driver();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && *out == 0))
        return no_device();
    if (error != cudaSuccess)
        return ct_fail(CT_UNSUPPORTED, "CUDA cannot be started: %s (%s)", cudaGetErrorName(error),
                       cudaGetErrorString(error));
    return CT_OK;
}

/* Machine code serves later minor versions of its major one; the newest is here as PTX, too, which
 * the driver compiles for what came after. */
static bool is_built_for(int major, int minor)
{
    static const int built[] = {__CUDA_ARCH_LIST__}; /* 900: 9.0 */
    int wanted = major * 100 + minor * 10, newest = 0;
    for (int one : built) {
        if (one <= wanted && one / 100 == major)
            return true;
        newest = one > newest ? one : newest;
    }
    return newest <= wanted;
}

ct_status ct_cuda_check(int index)
{
    int n, major = 0, minor = 0;
    CT_TRY(count(&n));
    n = n < CT_CUDA_MAX_DEVICES ? n : CT_CUDA_MAX_DEVICES;
    if (index >= n)
        return ct_fail(CT_VALUE, "device \"cuda:%d\" does not exist: this machine has %d GPU%s",
                       index, n, n == 1 ? "" : "s");
    CUDA_TRY(index, "asking what it is",
             cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    CUDA_TRY(index, "asking what it is",
             cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
    if (!is_built_for(major, minor))
        return ct_fail(CT_UNSUPPORTED,
                       "this build has no kernels for GPU %d, of compute capability %d.%d", index,
                       major, minor);
    return CT_OK;
}

/* ---- a device's things ---- */

/* A pool of our own: what others in this process set or take stays theirs. Memory that is freed
 * stays in it, as to get memory from the driver takes as long as many kernels. */
static ct_status make_pool(int index, cudaMemPool_t *out)
{
    cudaMemPoolProps properties = {};
    uint64_t threshold = UINT64_MAX;
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = index;
    CUDA_TRY(index, "making its memory pool", cudaMemPoolCreate(out, &properties));
    CUDA_TRY(index, "making its memory pool",
             cudaMemPoolSetAttribute(*out, cudaMemPoolAttrReleaseThreshold, &threshold));
    return CT_OK;
}

/* What was made before a failure is found by the next attempt. */
static ct_status make(int index)
{
    device *d = &devices[index];
    CT_TRY(ct_cuda_check(index));
    CUDA_TRY(index, "starting", cudaSetDevice(index));
    CUDA_TRY(index, "starting",
             cudaDeviceGetAttribute(&d->multiprocessors, cudaDevAttrMultiProcessorCount, index));
    CUDA_TRY(
        index, "starting",
        cudaDeviceGetAttribute(&d->shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
    if (!d->pool)
        CT_TRY(make_pool(index, &d->pool));
    if (!d->stream)
        CUDA_TRY(index, "making its stream",
                 cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    pthread_mutex_init(&d->entered, NULL);
    d->small.slot_bytes = 16 << 10;
    d->small.n_slots = MAX_SLOTS;
    d->large.slot_bytes = 8 << 20;
    d->large.n_slots = 2;
    d->ready = true;
    return CT_OK;
}

static ct_status make_ready(int index)
{
    pthread_mutex_lock(&setting_up);
    ct_status status = devices[index].ready ? CT_OK : make(index);
    pthread_mutex_unlock(&setting_up);
    return status;
}

/* Makes `index` the runtime's device of this thread, until restore. */
static ct_status use(int index)
{
    CT_TRY(make_ready(index));
    CUDA_TRY(index, "using it", cudaSetDevice(index));
    return CT_OK;
}

static void restore(int index)
{
    if (current >= 0 && current != index)
        cudaSetDevice(current);
}

ct_status ct_cuda_enter(int index)
{
    CT_TRY(use(index));
    pthread_mutex_lock(&devices[index].entered);
    current = index;
    return CT_OK;
}

void ct_cuda_leave(int index)
{
    current = -1;
    pthread_mutex_unlock(&devices[index].entered);
}

/* ---- memory ---- */

static cudaError_t take(const device *d, void **out, size_t size)
{
    return cudaMallocFromPoolAsync(out, size ? size : 1, d->pool, d->stream);
}

/* What was freed in the stream's future is free when that has come; then the pool's spare memory,
 * which may be in pieces, goes back to the driver. */
static cudaError_t take_after_trim(const device *d, void **out, size_t size)
{
    cudaError_t error = cudaStreamSynchronize(d->stream);
    if (error == cudaSuccess)
        error = cudaMemPoolTrimTo(d->pool, 0);
    return error == cudaSuccess ? take(d, out, size) : error;
}

static ct_status out_of_memory(int index, size_t size)
{
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    cudaGetLastError();
    return ct_fail(CT_MEMORY,
                   "out of memory on device \"cuda:%d\": cannot allocate %zu bytes, %zu of %zu are "
                   "free",
                   index, size, free, total);
}

ct_status ct_cuda_alloc(int index, void **out, size_t size)
{
    const device *d = &devices[index];
    *out = NULL;
    CT_TRY(use(index));
    cudaError_t error = take(d, out, size);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        error = take_after_trim(d, out, size);
    }
    ct_status status = CT_OK;
    if (error != cudaSuccess) {
        *out = NULL;
        cudaGetLastError();
        status = error == cudaErrorMemoryAllocation ? out_of_memory(index, size)
                                                    : fail(index, error, "allocating memory");
    }
    restore(index);
    return status;
}

/* Behind the operations so far. A failure has nobody to tell: the context is gone, or the process
 * ends. */
void ct_cuda_free(int index, void *memory, size_t)
{
    if (!memory)
        return;
    cudaSetDevice(index);
    cudaFreeAsync(memory, devices[index].stream);
    cudaGetLastError();
    restore(index);
}

/* What the driver has, and what the pool keeps for reuse. */
ct_status ct_cuda_available(int index, size_t *bytes)
{
    size_t free, total;
    uint64_t reserved = 0, used = 0;
    const device *d = &devices[index];
    CT_TRY(use(index));
    CUDA_TRY(index, "asking for its memory", cudaMemGetInfo(&free, &total));
    CUDA_TRY(index, "asking for its memory",
             cudaMemPoolGetAttribute(d->pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
    CUDA_TRY(index, "asking for its memory",
             cudaMemPoolGetAttribute(d->pool, cudaMemPoolAttrUsedMemCurrent, &used));
    *bytes = free + (size_t)(reserved - used);
    restore(index);
    return CT_OK;
}

ct_status ct_cuda_zero(void *memory, size_t size)
{
    CUDA_TRY(current, "filling memory", cudaMemsetAsync(memory, 0, size, here()->stream));
    return CT_OK;
}

/* ---- copies ---- */

static ct_status make_ring(ring *r)
{
    if (r->memory)
        return CT_OK;
    for (int i = 0; i < r->n_slots; i++)
        if (!r->copied[i])
            CUDA_TRY(current, "preparing to copy",
                     cudaEventCreateWithFlags(&r->copied[i], cudaEventDisableTiming));
    CUDA_TRY(current, "allocating pinned memory of the host",
             cudaMallocHost((void **)&r->memory, r->slot_bytes * (size_t)r->n_slots));
    return CT_OK;
}

/* At most a slot's bytes. */
static ct_status upload_piece(ring *r, void *to, const void *from, size_t size)
{
    int slot = r->next;
    unsigned char *staging = r->memory + r->slot_bytes * (size_t)slot;
    CUDA_TRY(current, "waiting for a copy to it", cudaEventSynchronize(r->copied[slot]));
    memcpy(staging, from, size);
    CUDA_TRY(current, "copying to it",
             cudaMemcpyAsync(to, staging, size, cudaMemcpyHostToDevice, here()->stream));
    CUDA_TRY(current, "copying to it", cudaEventRecord(r->copied[slot], here()->stream));
    r->next = (slot + 1) % r->n_slots;
    return CT_OK;
}

/* Small ones have many slots, so that those of several steps may be under way. */
ct_status ct_cuda_upload(void *to, const void *from, size_t size)
{
    device *d = here();
    ring *r = size <= d->small.slot_bytes ? &d->small : &d->large;
    CT_TRY(make_ring(r));
    for (size_t at = 0; at < size; at += r->slot_bytes) {
        size_t piece = size - at < r->slot_bytes ? size - at : r->slot_bytes;
        CT_TRY(upload_piece(r, (char *)to + at, (const char *)from + at, piece));
    }
    return CT_OK;
}

ct_status ct_cuda_download(void *to, const void *from, size_t size)
{
    if (size == 0)
        return CT_OK;
    CUDA_TRY(current, "copying from it",
             cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, here()->stream));
    CUDA_TRY(current, "waiting for its operations", cudaStreamSynchronize(here()->stream));
    return CT_OK;
}

ct_status ct_cuda_copy(void *to, const void *from, size_t size)
{
    CUDA_TRY(current, "copying on it",
             cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, here()->stream));
    return CT_OK;
}

/* ---- for launches ---- */

cudaStream_t ct_cuda_stream()
{
    return here()->stream;
}

ct_status ct_cuda_launched(const char *what)
{
    CUDA_TRY(current, what, cudaGetLastError());
    return CT_OK;
}

int ct_cuda_multiprocessors()
{
    return here()->multiprocessors;
}

int ct_cuda_index()
{
    return current;
}

size_t ct_cuda_shared_limit()
{
    return (size_t)here()->shared_limit;
}

ct_status ct_cuda_allow_shared(const void *kernel, size_t size)
{
    CUDA_TRY(current, "giving a kernel shared memory",
             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)size));
    return CT_OK;
}
