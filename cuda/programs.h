/* Programs that are recorded, so that asking for one again is one launch. The rules are here, for
 * every runtime; what a recording is, a runtime knows (runtime.h). */
#ifndef CT_CUDA_PROGRAMS_H
#define CT_CUDA_PROGRAMS_H

#include "csrc.h"

/* Of a device. The one that was not asked for for the longest time makes room for another. */
#define CT_CUDA_PROGRAMS 32

typedef struct ct_cuda_program {
    void *key; /* NULL: the place is free */
    size_t key_size;
    uint64_t asked;  /* when it was asked for last */
    int attempts;    /* to record it */
    void *recording; /* NULL: not yet */
} ct_cuda_program;

typedef struct ct_cuda_programs {
    ct_cuda_program all[CT_CUDA_PROGRAMS];
    uint64_t asked; /* how often, for any */
} ct_cuda_programs;

/* See ct_ops. The first time a program runs as it is, which gets arenas and workspaces their size;
 * the second time it is recorded. One that cannot be recorded, because it asks for what is no
 * operation, runs as it is as well. */
ct_status ct_cuda_repeat(const ct_program *program);

#endif
