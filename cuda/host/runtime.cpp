/* A device whose memory is the host's and whose stream does everything at once. */
#include "runtime.h"

#include <stdlib.h>

static thread_local int entered = -1;

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
    entered = index;
    return CT_OK;
}

void ct_cuda_leave(int)
{
    entered = -1;
}

ct_status ct_cuda_alloc(int, void **out, size_t size)
{
    return ct_alloc(out, size);
}

void ct_cuda_free(int, void *memory, size_t)
{
    ct_free(&memory);
}

ct_status ct_cuda_upload(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
    return CT_OK;
}

ct_status ct_cuda_download(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
    return CT_OK;
}

cudaStream_t ct_cuda_stream()
{
    return nullptr;
}

ct_status ct_cuda_zero(void *memory, size_t size)
{
    memset(memory, 0, size);
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
