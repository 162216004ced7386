/* CUDA's row of the operation table. */
#include "ops.h"

#include "runtime.h"

extern const ct_ops ct_cuda_table = {
    .abi = CT_OPS_ABI,
    .size = sizeof(ct_ops),
    .name = "cuda",
    .host_memory = false,
    .check = ct_cuda_check,
    .enter = ct_cuda_enter,
    .leave = ct_cuda_leave,
    .alloc = ct_cuda_alloc,
    .free = ct_cuda_free,
    .upload = ct_cuda_upload,
    .download = ct_cuda_download,
    .copy = ct_cuda_copy,
    .available = ct_cuda_available,
    .trim = ct_cuda_trim,
    .stream = ct_cuda_stream_name,
    .let_wait = ct_cuda_let_wait,
    .wait_for = ct_cuda_wait_for,
    .finish = ct_cuda_finish,
    .linear_new = ct_cuda_linear_new,
    .linear_free = ct_cuda_linear_free,
    .linear_input = ct_cuda_linear_input,
    .linear = ct_cuda_linear,
    .embed = ct_cuda_embed,
    .norm = ct_cuda_norm,
    .add = ct_cuda_add,
    .scale = ct_cuda_scale,
    .rotary_append = ct_cuda_rotary_append,
    .attention = ct_cuda_attention,
    .scatter = ct_cuda_scatter,
    .gather = ct_cuda_gather,
    .pool = ct_cuda_pool,
    .sample = ct_cuda_sample,
};
