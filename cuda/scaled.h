/* Products with matrices in bitsandbytes' formats, for linear.cu. See csrc/cpu/scaled.h for what
 * they compute; scales that are quantized in turn are restored when a weight is prepared.
 *
 * Values of 4-bit codes are exact where f32 is computed with. By cuBLASLt, many rows of x and the
 * products of value and scale are rounded to the type that is computed in, f16 or bf16. Our own
 * kernels give them 16 bits for f16; for bf16 they round NF4's values to it, and where there are
 * many rows x and products as well. ct_quantized_compute.int8_activations is an allowance of error
 * for the sake of speed, of which nothing is used: bytes would not be faster here. */
#ifndef CT_CUDA_SCALED_H
#define CT_CUDA_SCALED_H

#include "linear.h"

/* A weight of a linear in LLM.int8, FP4 or NF4, in the device's memory. */
typedef struct ct_cuda_scaled {
    ct_dtype dtype;
    int64_t n, k;         /* of the matrix (rows of it, where the tensor is a view) */
    const uint8_t *codes; /* n * k / 2 bytes; of LLM.int8 rows of bytes, each padded with zeros */
    int64_t stride;       /* to a multiple of 16, this */
    int64_t block;        /* values that share a scale, of 4 bits */
    int64_t first_value;  /* in [0, block): where codes begin in the first block */
    const float *scales;  /* [blocks] from the one on that holds the first value; LLM.int8: [n] */
    /* Owned: what codes and scales lie in. */
    ct_tensor *tensor; /* codes that were in the device's memory already, or NULL */
    void *memory;
    size_t memory_size;
    int index; /* of the device */
} ct_cuda_scaled;

/* Takes codes and scales of `weight`, which may be in the host's memory or the device's: a
 * reference to codes that can stay where they are, else copies. CT_VALUE when rows of LLM.int8 are
 * so long that their sums may not fit 32 bits. On failure there is nothing to free. */
CT_MUST_CHECK ct_status ct_cuda_scaled_new(ct_cuda_scaled *out, const ct_tensor *weight);
/* Of a zeroed one, too. */
void ct_cuda_scaled_free(ct_cuda_scaled *weight);

/* A part of a layer: columns of y from `column` on. */
typedef struct ct_scaled_part {
    ct_cuda_scaled weight; /* borrowed */
    const float *bias;     /* or NULL */
    int64_t column;
} ct_scaled_part;

/* As ct_cuda_product, of parts in one format; x [m, k] f32, or in their ct_cuda_scaled_input. */
typedef struct ct_scaled_product {
    int n_parts;
    bool gated;
    ct_scaled_part part[CT_LINEAR_MAX_PARTS];
    ct_rows x, y;
    ct_cuda_input_norm norm;
    ct_cuda_epilogue epilogue;
} ct_scaled_product;

/* Whether n_rows of x are normed and gated on the way, if all parts are taken so. */
bool ct_cuda_scaled_is_few(const ct_cuda_scaled *weight, int64_t n_rows,
                           const ct_quantized_compute *how);

/* The type of x in which many rows are multiplied by cuBLASLt; f32: they are not, but for
 * LLM.int8, which becomes bytes. */
ct_dtype ct_cuda_scaled_input(const ct_cuda_scaled *weight, const ct_quantized_compute *how);

/* For any m; `blas`: the device has cuBLASLt. Without it a row's sums are the same bits when a part
 * is alone. Scratch comes from the arena; the forms of x that it makes there serve all parts. */
CT_MUST_CHECK ct_status ct_cuda_scaled_products(const ct_scaled_product *product,
                                                const ct_quantized_compute *how, bool blas,
                                                ct_arena *arena);

#endif
