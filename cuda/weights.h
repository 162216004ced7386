/* The matrices of linear layers in the device's memory, as the kernels read them.
 *
 * Floats lie as they came. The blocks of GGUF files have 18 to 210 bytes, which no lane can read in
 * one aligned load: they are taken apart when a weight is made. Codes of 32 values, a chunk, are 16
 * bytes of low halves (32 where a code has 8 bits); fifth and sixth bits, scales, and what the
 * scales of 256 values are multiplied with lie apart. So a warp's lanes read neighbouring 16 bytes,
 * and one decoder serves all eight formats. K formats with minima take 4.625 bits a value for 4.5,
 * because scales of 6 bits become bytes.
 *
 * Word i of a chunk's low halves has the values 8 i + b in the low nibble of byte b, 8 i + 4 + b in
 * the high one; of 8 bits, word i has the values 4 i + b. Bit j of byte b of the fifth bits belongs
 * to value 4 j + b, and so do bits 2 (j % 4) and the next of byte b of word j / 4 of fifth and
 * sixth bits. */
#ifndef CT_CUDA_WEIGHTS_H
#define CT_CUDA_WEIGHTS_H

#include "csrc.h"
#include "device.h"

#define CT_CHUNK 32 /* values of blocks' codes that lie together */

/* A tensor's elements in the device's memory: where they were, or copied there. */
typedef struct ct_cuda_elements {
    const void *data;
    ct_tensor *tensor; /* owned: what data belongs to; or NULL, then this is: */
    void *memory;
    size_t size;
    int index;
} ct_cuda_elements;

CT_MUST_CHECK ct_status ct_cuda_elements_new(ct_cuda_elements *out, ct_tensor *tensor);
void ct_cuda_elements_free(ct_cuda_elements *elements);

/* What kernels get of a matrix [n, k]. */
typedef struct ct_cuda_planes {
    int64_t n, k;
    const uint8_t *codes; /* floats: the values */
    const uint8_t *high, *scales, *supers;
    bool aligned; /* of floats: every row begins at a multiple of 16 bytes */
} ct_cuda_planes;

typedef struct ct_cuda_weight {
    ct_dtype dtype;
    ct_cuda_planes planes;
    ct_cuda_elements elements; /* owned: what the planes lie in */
} ct_cuda_weight;

/* Floats or GGUF blocks, in the host's memory or the device's. Blocks are always copied. */
CT_MUST_CHECK ct_status ct_cuda_weight_new(ct_cuda_weight *out, ct_tensor *tensor);
void ct_cuda_weight_free(ct_cuda_weight *weight);

/* ---- what the formats are like ---- */

/* 0: floats. */
CT_CONSTANT int ct_code_bits(ct_dtype dtype)
{
    switch (dtype) {
    case CT_Q4_0:
    case CT_Q4_1:
    case CT_Q4_K:
        return 4;
    case CT_Q5_0:
    case CT_Q5_1:
    case CT_Q5_K:
        return 5;
    case CT_Q6_K:
        return 6;
    case CT_Q8_0:
        return 8;
    default:
        return 0;
    }
}

/* The code of 0, which is taken off; signed bytes are stored with 128 added. */
CT_CONSTANT int ct_code_zero(ct_dtype dtype)
{
    switch (dtype) {
    case CT_Q4_0:
        return 8;
    case CT_Q5_0:
        return 16;
    case CT_Q6_K:
        return 32;
    case CT_Q8_0:
        return 128;
    default:
        return 0;
    }
}

/* value = scale * code + minimum */
CT_CONSTANT bool ct_has_minimum(ct_dtype dtype)
{
    return dtype == CT_Q4_1 || dtype == CT_Q5_1 || dtype == CT_Q4_K || dtype == CT_Q5_K;
}

/* Scales are codes. */
CT_CONSTANT bool ct_has_supers(ct_dtype dtype)
{
    return dtype == CT_Q4_K || dtype == CT_Q5_K || dtype == CT_Q6_K;
}

/* ---- bytes of the planes, of each chunk; supers: of each 256 values ---- */

CT_CONSTANT int ct_low_bytes(ct_dtype dtype)
{
    return ct_code_bits(dtype) == 8 ? CT_CHUNK : CT_CHUNK / 2;
}

CT_CONSTANT int ct_high_bytes(ct_dtype dtype)
{
    int bits = ct_code_bits(dtype);
    return bits == 5 ? CT_CHUNK / 8 : bits == 6 ? CT_CHUNK / 4 : 0;
}

/* f16 (scale) or f16, f16 (and minimum); with supers: two bytes, scale and minimum, or (q6_k) the
 * scales of 16 values each. */
CT_CONSTANT int ct_scale_bytes(ct_dtype dtype)
{
    return ct_has_minimum(dtype) && !ct_has_supers(dtype) ? 4 : 2;
}

/* f16 of scales, and f16 of minima where there are such. */
CT_CONSTANT int ct_super_bytes(ct_dtype dtype)
{
    return !ct_has_supers(dtype) ? 0 : ct_has_minimum(dtype) ? 4 : 2;
}

#endif
