/* The device that this thread has entered: its memory, its stream, what went wrong on it. One
 * implementation for GPUs (gpu/) and one for the tests without (host/runtime.cpp). */
#ifndef CT_CUDA_RUNTIME_H
#define CT_CUDA_RUNTIME_H

#include "csrc.h"
#include "device.h"
#include "programs.h"

#define CT_CUDA_MAX_DEVICES 64 /* those behind are not used */

/* See ct_ops. */
ct_status ct_cuda_check(int index);
ct_status ct_cuda_enter(int index);
void ct_cuda_leave(int index);
ct_status ct_cuda_alloc(int index, void **out, size_t size);
void ct_cuda_free(int index, void *memory, size_t size);
ct_status ct_cuda_upload(void *to, const void *from, size_t size);
ct_status ct_cuda_download(void *to, const void *from, size_t size);
ct_status ct_cuda_copy(void *to, const void *from, size_t size);
ct_status ct_cuda_fetch_new(int index, ct_fetch **out, size_t size);
void ct_cuda_fetch_free(ct_fetch **fetch);
ct_status ct_cuda_fetch(ct_fetch *fetch, const void *from, size_t size);
ct_status ct_cuda_fetched(ct_fetch *fetch, const void **data);
ct_status ct_cuda_available(int index, size_t *bytes);
ct_status ct_cuda_trim(int index);
ct_status ct_cuda_stream_name(int index, intptr_t *stream);
ct_status ct_cuda_let_wait(int index, intptr_t stream);
void ct_cuda_wait_for(int index, intptr_t stream);
void ct_cuda_finish(int index);

/* All work of a device is in one stream, in the order in which it was asked for; but for what is
 * being recorded. */
cudaStream_t ct_cuda_stream();
/* Whether the launches since the last call were accepted; `what` stands in the message. */
ct_status ct_cuda_launched(const char *what);
/* From now on launches, zeros and copies on the device are recorded instead of being done. */
ct_status ct_cuda_record();
/* Until now. The recording, or NULL: it is not wanted, or something else was asked for in between
 * (memory, a copy from or to the host), which was done at once. */
void *ct_cuda_recorded(bool wanted);
/* Does what was recorded, in the stream's order. */
ct_status ct_cuda_play(void *recording);
void ct_cuda_forget(void *recording);
/* Of the device that was entered. */
ct_cuda_programs *ct_cuda_known_programs();
int ct_cuda_multiprocessors();
int ct_cuda_index();
/* Dynamic shared memory that a block may have. */
size_t ct_cuda_shared_limit();
/* Lets a kernel have `size` bytes of it, which may be more than the 48 KiB that all may have. */
ct_status ct_cuda_allow_shared(const void *kernel, size_t size);

#endif
