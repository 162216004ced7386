/* Recordings of programs: a CUDA graph each. */
#include "gpu/gpu.h"

ct_cuda_programs *ct_cuda_known_programs()
{
    return &ct_gpu_here()->programs;
}

/* In a stream of its own: what other threads take and free meanwhile is in the device's. */
ct_status ct_cuda_record()
{
    ct_gpu *d = ct_gpu_here();
    CUDA_TRY(ct_cuda_index(), "recording a program",
             cudaStreamBeginCapture(d->recorder, cudaStreamCaptureModeRelaxed));
    d->recording = true;
    d->spoiled = false;
    return CT_OK;
}

/* What CUDA could not record is found out when the program runs as it is. */
void *ct_cuda_recorded(bool wanted)
{
    ct_gpu *d = ct_gpu_here();
    cudaGraph_t graph = NULL;
    cudaGraphExec_t recording = NULL;
    d->recording = false;
    cudaError_t error = cudaStreamEndCapture(d->recorder, &graph);
    if (error == cudaSuccess && wanted && !d->spoiled)
        error = cudaGraphInstantiate(&recording, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    cudaGetLastError();
    return error == cudaSuccess ? recording : NULL;
}

ct_status ct_cuda_play(void *recording)
{
    CUDA_TRY(ct_cuda_index(), "repeating a program",
             cudaGraphLaunch((cudaGraphExec_t)recording, ct_gpu_here()->stream));
    return CT_OK;
}

/* It may be under way. */
void ct_cuda_forget(void *recording)
{
    cudaStreamSynchronize(ct_gpu_here()->stream);
    cudaGraphExecDestroy((cudaGraphExec_t)recording);
    cudaGetLastError();
}
