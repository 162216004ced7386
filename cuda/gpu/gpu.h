/* A GPU as runtime.h's functions keep it, for the files beside this one. */
#ifndef CT_CUDA_GPU_H
#define CT_CUDA_GPU_H

#include "runtime.h"

#include <pthread.h>

/* Pinned memory through which uploads go, so that what they are made from may change while the copy
 * waits for its turn. Slots are used in turn; one is free again when its event has happened. */
#define CT_GPU_SLOTS 64
#define CT_GPU_STAGERS 4 /* threads that fill pinned memory: one does not keep up with the bus */
typedef struct ct_gpu_ring {
    size_t slot_bytes;
    int n_slots, next;
    unsigned char *memory; /* NULL: not yet used */
    cudaEvent_t copied[CT_GPU_SLOTS];
} ct_gpu_ring;

typedef struct ct_gpu {
    pthread_mutex_t entered; /* held by the thread whose operations run */
    bool ready;
    cudaStream_t stream, copies; /* the second for uploads of more than a small slot */
    cudaStream_t recorder;       /* of what is recorded */
    bool recording;
    bool spoiled; /* by what cannot be in a recording */
    ct_cuda_programs programs;
    cudaMemPool_t pool;
    int multiprocessors, shared_limit;
    bool overlaps; /* it can begin a kernel before the one before has ended, in a recording, too */
    ct_gpu_ring small, large;
} ct_gpu;

extern ct_gpu ct_gpus[CT_CUDA_MAX_DEVICES];
/* The one that this thread has entered. */
ct_gpu *ct_gpu_here();

/* Makes `index` the runtime's device of this thread, which until ct_gpu_restore is not that of
 * whoever called us, torch for instance. */
ct_status ct_gpu_use(int index, int *before);
void ct_gpu_restore(int index, int before);

/* What is done now is not part of what is being recorded. */
void ct_gpu_spoil();
/* What is asked of `later` from now on waits for what was asked of `earlier` so far. */
cudaError_t ct_gpu_follow(cudaStream_t later, cudaStream_t earlier);

/* What failed does not stay behind as the runtime's last error. */
ct_status ct_gpu_fail(int index, cudaError_t error, const char *doing);

#define CUDA_TRY(index, doing, call)                                                               \
    do {                                                                                           \
        cudaError_t cuda_error = (call);                                                           \
        if (cuda_error != cudaSuccess)                                                             \
            return ct_gpu_fail(index, cuda_error, doing);                                          \
    } while (0)

#endif
