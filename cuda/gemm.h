/* Products of matrices by cuBLASLt. */
#ifndef CT_CUDA_GEMM_H
#define CT_CUDA_GEMM_H

#include "csrc.h"

/* y [m, n] = x [m, k] W^T + bias + residual, summed in f32; of bytes the sums alone, exact. */
typedef struct ct_gemm {
    ct_dtype dtype;     /* of weight and x: f32, f16, bf16, or int8 */
    const void *weight; /* [n, k], row behind row */
    ct_rows x, y;       /* y f32, int32 of bytes; its width is n */
    const float *bias;  /* [n], aligned to CT_GEMM_ALIGNMENT, or NULL */
    ct_rows residual;   /* f32; without data: none; may be y */
} ct_gemm;

#define CT_GEMM_ALIGNMENT 16

/* Whether the device that this thread has entered can be used with the library. CT_UNSUPPORTED when
 * it was named and cannot be opened or started. */
CT_MUST_CHECK ct_status ct_cuda_gemm_available(bool *out);

/* *done = false, and nothing is done, where the library has no way to compute it. Matrices are not
 * empty. Only after ct_cuda_gemm_available. What kernel is taken, and with it the order of sums,
 * depends on all sizes: a row's bits may change with the number of rows. */
CT_MUST_CHECK ct_status ct_cuda_gemm(bool *done, const ct_gemm *gemm, ct_arena *arena);

#endif
