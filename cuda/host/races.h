/* Races of kernels that run as fibers: what two threads touch, at least one of them writing, with
 * nothing between that orders them. fibers.cpp tells what orders: barriers, warp barriers, fences
 * and counters. What is touched is told by the compiler, where -fsanitize=thread is among its
 * flags (without that sanitizer's library, which knows threads of the host only); else nothing of
 * this does anything. */
#ifndef CT_CUDA_HOST_RACES_H
#define CT_CUDA_HOST_RACES_H

#include <stddef.h>

/* What launches before have done is done; but of the one before an `early` one, until a thread has
 * waited for it. */
void ct_races_launch(unsigned n_threads, bool early);
/* What is not a kernel comes between two launches. */
void ct_races_boundary();
void ct_races_over();
void ct_races_block();
/* Thread `index` of the block goes on; its own stack is nobody else's. */
void ct_races_thread(unsigned index, const void *stack, size_t stack_bytes);
void ct_races_barrier();
void ct_races_warp_barrier(unsigned warp);
/* Memory that the block has from here on. */
void ct_races_new(const void *memory, size_t size);

/* By the thread that runs: */
void ct_races_waited();
void ct_races_fence();
void ct_races_count(const void *counter);
void ct_races_atomic(const void *place, size_t size);
/* A copy of `size` bytes, of which `n_read` are read; the kernel does it at `code`. */
void ct_races_copy(const void *to, size_t size, const void *from, size_t n_read, void *code);

#endif
