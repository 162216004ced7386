/* Products with matrices in bitsandbytes' formats, for linear.cu. See csrc/cpu/scaled.h for what
 * they compute; scales that are quantized in turn are restored when a weight is prepared. */
#ifndef CT_CUDA_SCALED_H
#define CT_CUDA_SCALED_H

#include "csrc.h"
#include "device.h"

/* A weight of a linear in LLM.int8, FP4 or NF4, in the device's memory. */
typedef struct ct_cuda_scaled {
    ct_dtype dtype;
    int64_t n, k;          /* of the matrix (rows of it, where the tensor is a view) */
    const uint8_t *codes;  /* rows of it: k bytes each, or (where is_whole) k / 2 */
    int64_t first_value;   /* of 4 bits: where codes begin, counted from a multiple of the block */
    int64_t block;         /* values that share a scale, of 4 bits */
    const float *scales;   /* [blocks] from the block on that holds the first value; of LLM.int8 [n] */
    void *memory;          /* owned: what codes and scales lie in */
    size_t memory_size;
} ct_cuda_scaled;

/* Copies codes and scales of `weight`, which may be in the host's memory or the device's. */
CT_MUST_CHECK ct_status ct_cuda_scaled_new(ct_cuda_scaled *out, const ct_tensor *weight);
void ct_cuda_scaled_free(ct_cuda_scaled *weight);

/* y [m, n] f32 = x [m, k] f32 by `weight`, for any m; x and y of any stride. Scratch comes from the
 * arena; the forms of x that it makes there serve one call. */
CT_MUST_CHECK ct_status ct_cuda_scaled_products(ct_rows y, ct_rows x, const ct_cuda_scaled *weight,
                                                const ct_quantized_compute *how, ct_arena *arena);

#endif
