/* Copies between the host and a GPU, by way of pinned memory. */
#include "gpu/gpu.h"

static ct_status make_ring(ct_gpu_ring *r)
{
    if (r->memory)
        return CT_OK;
    for (int i = 0; i < r->n_slots; i++)
        if (!r->copied[i])
            CUDA_TRY(ct_cuda_index(), "preparing to copy",
                     cudaEventCreateWithFlags(&r->copied[i], cudaEventDisableTiming));
    CUDA_TRY(ct_cuda_index(), "allocating pinned memory of the host",
             cudaMallocHost((void **)&r->memory, r->slot_bytes * (size_t)r->n_slots));
    return CT_OK;
}

/* At most a slot's bytes. */
static cudaError_t upload_piece(const ct_gpu_ring *r, int slot, cudaStream_t stream, void *to,
                                const void *from, size_t size)
{
    unsigned char *staging = r->memory + r->slot_bytes * (size_t)slot;
    cudaError_t error = cudaEventSynchronize(r->copied[slot]);
    if (error != cudaSuccess)
        return error;
    memcpy(staging, from, size);
    error = cudaMemcpyAsync(to, staging, size, cudaMemcpyHostToDevice, stream);
    return error == cudaSuccess ? cudaEventRecord(r->copied[slot], stream) : error;
}

/* Many slots, so that the uploads of several steps may be under way. */
static ct_status upload_small(void *to, const void *from, size_t size)
{
    ct_gpu_ring *r = &ct_gpu_here()->small;
    CT_TRY(make_ring(r));
    CUDA_TRY(ct_cuda_index(), "copying to it",
             upload_piece(r, r->next, ct_gpu_here()->stream, to, from, size));
    r->next = (r->next + 1) % r->n_slots;
    return CT_OK;
}

/* Every CT_GPU_STAGERS-th piece of a large upload: it has two slots, one of which is filled while
 * the other is on its way. */
typedef struct stager {
    int index, number; /* the device, and which of the stagers it is */
    char *to;
    const char *from;
    size_t size;
    pthread_t thread;
    bool started;
    cudaError_t error;
} stager;

static void *stage(void *context)
{
    stager *s = (stager *)context;
    const ct_gpu *d = &ct_gpus[s->index];
    size_t piece = d->large.slot_bytes, at = piece * (size_t)s->number;
    s->error = cudaSetDevice(s->index);
    for (int slot = s->number; s->error == cudaSuccess && at < s->size;
         slot = (slot + CT_GPU_STAGERS) % d->large.n_slots, at += piece * CT_GPU_STAGERS)
        s->error = upload_piece(&d->large, slot, d->copies, s->to + at, s->from + at,
                                s->size - at < piece ? s->size - at : piece);
    return NULL;
}

/* A stager that gets no thread does its work in this one. */
static cudaError_t stage_all(void *to, const void *from, size_t size)
{
    stager stagers[CT_GPU_STAGERS];
    cudaError_t error = cudaSuccess;
    for (int i = CT_GPU_STAGERS - 1; i >= 0; i--) {
        stager *s = &stagers[i];
        *s = {ct_cuda_index(), i, (char *)to, (const char *)from, size, {}, false, cudaSuccess};
        if (ct_gpu_here()->large.slot_bytes * (size_t)i >= size)
            continue;
        s->started = i > 0 && pthread_create(&s->thread, NULL, stage, s) == 0;
        if (!s->started)
            stage(s);
    }
    for (stager &s : stagers) {
        if (s.started)
            pthread_join(s.thread, NULL);
        if (s.error != cudaSuccess)
            error = s.error;
    }
    return error;
}

/* The stream of copies waits for this memory to be there, and operations wait for the copies, those
 * before an error, too: the memory may be freed then. */
static ct_status upload_large(void *to, const void *from, size_t size)
{
    const ct_gpu *d = ct_gpu_here();
    CT_TRY(make_ring(&ct_gpu_here()->large));
    CUDA_TRY(ct_cuda_index(), "copying to it", ct_gpu_follow(d->copies, d->stream));
    cudaError_t error = stage_all(to, from, size), joined = ct_gpu_follow(d->stream, d->copies);
    CUDA_TRY(ct_cuda_index(), "copying to it", error);
    CUDA_TRY(ct_cuda_index(), "copying to it", joined);
    return CT_OK;
}

ct_status ct_cuda_upload(void *to, const void *from, size_t size)
{
    if (size == 0)
        return CT_OK;
    ct_gpu_spoil();
    return size <= ct_gpu_here()->small.slot_bytes ? upload_small(to, from, size)
                                                   : upload_large(to, from, size);
}

/* What is small, such as the pieces of a step, comes by way of pinned memory: from other memory the
 * driver copies in several turns. */
ct_status ct_cuda_download(void *to, const void *from, size_t size)
{
    ct_gpu_ring *r = &ct_gpu_here()->small;
    bool small = size <= r->slot_bytes;
    if (size == 0)
        return CT_OK;
    ct_gpu_spoil();
    CT_TRY(make_ring(r));
    void *staging = r->memory + r->slot_bytes * (size_t)r->next;
    CUDA_TRY(ct_cuda_index(), "waiting for a copy to it", cudaEventSynchronize(r->copied[r->next]));
    CUDA_TRY(ct_cuda_index(), "copying from it",
             cudaMemcpyAsync(small ? staging : to, from, size, cudaMemcpyDeviceToHost,
                             ct_gpu_here()->stream));
    CUDA_TRY(ct_cuda_index(), "waiting for its operations",
             cudaStreamSynchronize(ct_gpu_here()->stream));
    if (small)
        memcpy(to, staging, size);
    return CT_OK;
}

ct_status ct_cuda_copy(void *to, const void *from, size_t size)
{
    CUDA_TRY(ct_cuda_index(), "copying on it",
             cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, ct_cuda_stream()));
    return CT_OK;
}

/* ---- downloads that are waited for later ---- */

struct ct_fetch {
    int index;
    void *memory; /* of the host, pinned */
    cudaEvent_t copied;
};

static ct_status make_fetch(ct_fetch *fetch, size_t size)
{
    CUDA_TRY(fetch->index, "preparing to copy",
             cudaEventCreateWithFlags(&fetch->copied, cudaEventDisableTiming));
    CUDA_TRY(fetch->index, "allocating pinned memory of the host",
             cudaMallocHost(&fetch->memory, size));
    return CT_OK;
}

ct_status ct_cuda_fetch_new(int index, ct_fetch **out, size_t size)
{
    int before;
    *out = NULL;
    CT_TRY(ct_gpu_use(index, &before));
    ct_status status = ct_alloc_zeroed((void **)out, 1, sizeof **out);
    if (status == CT_OK) {
        (*out)->index = index;
        status = make_fetch(*out, size);
    }
    if (status != CT_OK)
        ct_cuda_fetch_free(out);
    ct_gpu_restore(index, before);
    return status;
}

void ct_cuda_fetch_free(ct_fetch **fetch)
{
    ct_fetch *old = *fetch;
    int before;
    if (!old)
        return;
    if (ct_gpu_use(old->index, &before) == CT_OK) {
        if (old->copied) {
            cudaEventSynchronize(old->copied);
            cudaEventDestroy(old->copied);
        }
        cudaFreeHost(old->memory);
        cudaGetLastError();
        ct_gpu_restore(old->index, before);
    }
    ct_free(fetch);
}

ct_status ct_cuda_fetch(ct_fetch *fetch, const void *from, size_t size)
{
    cudaStream_t stream = ct_gpu_here()->stream;
    ct_gpu_spoil();
    CUDA_TRY(fetch->index, "copying from it",
             cudaMemcpyAsync(fetch->memory, from, size, cudaMemcpyDeviceToHost, stream));
    CUDA_TRY(fetch->index, "copying from it", cudaEventRecord(fetch->copied, stream));
    return CT_OK;
}

ct_status ct_cuda_fetched(ct_fetch *fetch, const void **data)
{
    *data = fetch->memory;
    CUDA_TRY(fetch->index, "waiting for its results", cudaEventSynchronize(fetch->copied));
    return CT_OK;
}
