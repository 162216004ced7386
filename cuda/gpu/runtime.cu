/* GPUs, by the CUDA runtime, which is linked statically and looks for the driver when it is first
 * called. What a device needs is made when it is first used, and kept until the process ends. */
#include "gpu/gpu.h"

#include <stdlib.h>

ct_gpu ct_gpus[CT_CUDA_MAX_DEVICES];
static pthread_mutex_t setting_up = PTHREAD_MUTEX_INITIALIZER; /* of `ready` and what it covers */
static thread_local int current = -1;                          /* the device that was entered */
static thread_local int outside;                               /* the thread's own one meanwhile */

ct_gpu *ct_gpu_here()
{
    return &ct_gpus[current];
}

/* ---- errors ---- */

/* An error that every call repeats from now on, whatever it is: the kernel's fault is the context's
 * end. */
static bool is_sticky(int index)
{
    cudaStream_t stream = ct_gpus[index].stream;
    cudaError_t error = stream ? cudaStreamQuery(stream) : cudaSuccess;
    cudaGetLastError();
    return error != cudaSuccess && error != cudaErrorNotReady;
}

ct_status ct_gpu_fail(int index, cudaError_t error, const char *doing)
{
    cudaGetLastError();
    const char *advice = is_sticky(index) ? "; this process cannot use the device any more and has "
                                            "to be started anew"
                                          : "";
    return ct_fail(error == cudaErrorMemoryAllocation ? CT_MEMORY : CT_INTERNAL,
                   "device \"cuda:%d\", %s: %s (%s)%s", index, doing, cudaGetErrorName(error),
                   cudaGetErrorString(error), advice);
}

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

/* Graphs can hold kernels that overlap since CUDA 12.3; which GPUs do, is known by their number. */
static ct_status find_overlap(int index, bool *out)
{
    int driver, major;
    CUDA_TRY(index, "starting", cudaDriverGetVersion(&driver));
    CUDA_TRY(index, "starting",
             cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
    *out = driver >= 12030 && CUDART_VERSION >= 12030 && major >= 9;
    return CT_OK;
}

/* What was made before a failure is found by the next attempt. */
static ct_status make(int index)
{
    ct_gpu *d = &ct_gpus[index];
    CT_TRY(ct_cuda_check(index));
    CUDA_TRY(index, "starting", cudaSetDevice(index));
    CUDA_TRY(index, "starting",
             cudaDeviceGetAttribute(&d->multiprocessors, cudaDevAttrMultiProcessorCount, index));
    CUDA_TRY(
        index, "starting",
        cudaDeviceGetAttribute(&d->shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
    CT_TRY(find_overlap(index, &d->overlaps));
    if (!d->pool)
        CT_TRY(make_pool(index, &d->pool));
    if (!d->stream)
        CUDA_TRY(index, "making its stream",
                 cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking));
    if (!d->recorder)
        CUDA_TRY(index, "making its stream",
                 cudaStreamCreateWithFlags(&d->recorder, cudaStreamNonBlocking));
    if (!d->copies)
        CUDA_TRY(index, "making its stream of copies",
                 cudaStreamCreateWithFlags(&d->copies, cudaStreamNonBlocking));
    pthread_mutex_init(&d->entered, NULL);
    d->small.slot_bytes = 16 << 10;
    d->small.n_slots = CT_GPU_SLOTS;
    d->large.slot_bytes = 4 << 20;
    d->large.n_slots = 2 * CT_GPU_STAGERS;
    d->ready = true;
    return CT_OK;
}

static ct_status make_ready(int index)
{
    pthread_mutex_lock(&setting_up);
    ct_status status = ct_gpus[index].ready ? CT_OK : make(index);
    pthread_mutex_unlock(&setting_up);
    return status;
}

void ct_gpu_restore(int index, int before)
{
    if (before != index)
        cudaSetDevice(before);
}

ct_status ct_gpu_use(int index, int *before)
{
    if (cudaGetDevice(before) != cudaSuccess) { /* why, making it ready will say */
        cudaGetLastError();
        *before = index;
    }
    ct_status status = make_ready(index);
    if (status != CT_OK) {
        ct_gpu_restore(index, *before);
        return status;
    }
    if (*before != index)
        CUDA_TRY(index, "using it", cudaSetDevice(index));
    return CT_OK;
}

ct_status ct_cuda_enter(int index)
{
    int before;
    CT_TRY(ct_gpu_use(index, &before));
    pthread_mutex_lock(&ct_gpus[index].entered);
    current = index;
    outside = before;
    return CT_OK;
}

void ct_cuda_leave(int index)
{
    current = -1;
    pthread_mutex_unlock(&ct_gpus[index].entered);
    ct_gpu_restore(index, outside);
}

void ct_gpu_spoil()
{
    ct_gpu_here()->spoiled = ct_gpu_here()->recording;
}

/* ---- memory ---- */

static cudaError_t take(const ct_gpu *d, void **out, size_t size)
{
    return cudaMallocFromPoolAsync(out, size ? size : 1, d->pool, d->stream);
}

/* What was freed in the stream's future is free when that has come; then the pool's spare memory,
 * which may be in pieces, goes back to the driver. */
static cudaError_t trim(const ct_gpu *d)
{
    cudaError_t error = cudaStreamSynchronize(d->stream);
    return error == cudaSuccess ? cudaMemPoolTrimTo(d->pool, 0) : error;
}

static cudaError_t take_after_trim(const ct_gpu *d, void **out, size_t size)
{
    cudaError_t error = trim(d);
    return error == cudaSuccess ? take(d, out, size) : error;
}

/* A device that was not used yet keeps nothing, and is not started for this. */
ct_status ct_cuda_trim(int index)
{
    int before;
    pthread_mutex_lock(&setting_up);
    bool ready = ct_gpus[index].ready;
    pthread_mutex_unlock(&setting_up);
    if (!ready)
        return CT_OK;
    CT_TRY(ct_gpu_use(index, &before));
    cudaError_t error = trim(&ct_gpus[index]);
    ct_gpu_restore(index, before);
    return error == cudaSuccess ? CT_OK : ct_gpu_fail(index, error, "giving memory back");
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
    const ct_gpu *d = &ct_gpus[index];
    int before;
    *out = NULL;
    CT_TRY(ct_gpu_use(index, &before));
    if (index == current)
        ct_gpu_spoil();
    cudaError_t error = take(d, out, size);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        error = take_after_trim(d, out, size);
    }
    ct_status status = CT_OK;
    if (error != cudaSuccess) {
        *out = NULL;
        cudaGetLastError();
        status = error == cudaErrorMemoryAllocation
                     ? out_of_memory(index, size)
                     : ct_gpu_fail(index, error, "allocating memory");
    }
    ct_gpu_restore(index, before);
    return status;
}

/* Behind the operations so far. A failure has nobody to tell: the context is gone, or the process
 * ends. */
void ct_cuda_free(int index, void *memory, size_t)
{
    int before;
    if (!memory || ct_gpu_use(index, &before) != CT_OK)
        return;
    cudaFreeAsync(memory, ct_gpus[index].stream);
    cudaGetLastError();
    ct_gpu_restore(index, before);
}

/* What the driver has, and what the pool keeps for reuse. */
static ct_status available(int index, size_t *bytes)
{
    size_t free, total;
    uint64_t reserved = 0, used = 0;
    const ct_gpu *d = &ct_gpus[index];
    CUDA_TRY(index, "asking for its memory", cudaMemGetInfo(&free, &total));
    CUDA_TRY(index, "asking for its memory",
             cudaMemPoolGetAttribute(d->pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
    CUDA_TRY(index, "asking for its memory",
             cudaMemPoolGetAttribute(d->pool, cudaMemPoolAttrUsedMemCurrent, &used));
    *bytes = free + (size_t)(reserved - used);
    return CT_OK;
}

ct_status ct_cuda_available(int index, size_t *bytes)
{
    int before;
    CT_TRY(ct_gpu_use(index, &before));
    ct_status status = available(index, bytes);
    ct_gpu_restore(index, before);
    return status;
}

/* ---- order between streams ---- */

cudaError_t ct_gpu_follow(cudaStream_t later, cudaStream_t earlier)
{
    cudaEvent_t event;
    cudaError_t error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (error != cudaSuccess)
        return error;
    error = cudaEventRecord(event, earlier);
    if (error == cudaSuccess)
        error = cudaStreamWaitEvent(later, event, 0);
    cudaEventDestroy(event); /* takes place when it has happened */
    return error;
}

ct_status ct_cuda_stream_name(int index, intptr_t *stream)
{
    int before;
    *stream = 0;
    CT_TRY(ct_gpu_use(index, &before));
    *stream = (intptr_t)ct_gpus[index].stream;
    ct_gpu_restore(index, before);
    return CT_OK;
}

/* DLPack's 1 and 2 are the handles of the default streams in CUDA, too. */
ct_status ct_cuda_let_wait(int index, intptr_t stream)
{
    const ct_gpu *d = &ct_gpus[index];
    int before;
    if (stream == -1)
        return CT_OK;
    CT_TRY(ct_gpu_use(index, &before));
    cudaStream_t other = (cudaStream_t)stream;
    cudaError_t error = other == d->stream ? cudaSuccess : ct_gpu_follow(other, d->stream);
    ct_gpu_restore(index, before);
    return error == cudaSuccess ? CT_OK
                                : ct_gpu_fail(index, error, "letting another stream wait for it");
}

/* The legacy default stream waits for those of all threads, which need not be this one. */
void ct_cuda_wait_for(int index, intptr_t stream)
{
    const ct_gpu *d = &ct_gpus[index];
    cudaError_t error = cudaErrorUnknown;
    int before;
    if (ct_gpu_use(index, &before) != CT_OK)
        return;
    if ((cudaStream_t)stream == d->stream)
        error = cudaSuccess;
    else if (stream == 1 || stream == 2)
        error = ct_gpu_follow(d->stream, cudaStreamLegacy);
    if (error != cudaSuccess)
        cudaDeviceSynchronize();
    cudaGetLastError();
    ct_gpu_restore(index, before);
}

void ct_cuda_finish(int index)
{
    int before;
    if (ct_gpu_use(index, &before) != CT_OK)
        return;
    cudaStreamSynchronize(ct_gpus[index].stream);
    cudaGetLastError();
    ct_gpu_restore(index, before);
}

/* ---- for launches ---- */

cudaStream_t ct_cuda_stream()
{
    return ct_gpu_here()->recording ? ct_gpu_here()->recorder : ct_gpu_here()->stream;
}

ct_status ct_cuda_launched(const char *what)
{
    CUDA_TRY(current, what, cudaGetLastError());
    return CT_OK;
}

int ct_cuda_multiprocessors()
{
    return ct_gpu_here()->multiprocessors;
}

/* In recordings only: before one there may be a kernel that makes the weights themselves. */
bool ct_cuda_overlaps()
{
    return ct_gpu_here()->recording && ct_gpu_here()->overlaps;
}

int ct_cuda_index()
{
    return current;
}

size_t ct_cuda_shared_limit()
{
    return (size_t)ct_gpu_here()->shared_limit;
}

#define ALWAYS_ALLOWED (48 << 10) /* bytes, what a kernel declares included */

/* All that there is, once: what is allowed never becomes less, as recordings hold launches with
 * more than a later one of the same kernel asks for. */
ct_status ct_cuda_allow_shared(const void *kernel, size_t size)
{
    cudaFuncAttributes has;
    CUDA_TRY(current, "asking what a kernel has", cudaFuncGetAttributes(&has, kernel));
    int most = ct_gpu_here()->shared_limit - (int)has.sharedSizeBytes;
    if (size + has.sharedSizeBytes <= ALWAYS_ALLOWED || has.maxDynamicSharedSizeBytes >= most)
        return CT_OK;
    CUDA_TRY(current, "giving a kernel shared memory",
             cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    return CT_OK;
}
