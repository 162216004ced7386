/* Element types. A quantized format is an element type whose elements come in blocks along the last
 * dimension: 32 values of q4_1, for instance, are 20 bytes. Of the last three, only the codes lie
 * in the elements, and their scales beside the tensor (scales.h). */
#ifndef CT_TENSOR_DTYPE_H
#define CT_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* X(enumerator, name, values per block, bytes per block) */
#define CT_DTYPES(X)                                                                               \
    X(CT_F32, "float32", 1, 4)                                                                     \
    X(CT_F16, "float16", 1, 2)                                                                     \
    X(CT_BF16, "bfloat16", 1, 2)                                                                   \
    X(CT_I64, "int64", 1, 8)                                                                       \
    X(CT_I32, "int32", 1, 4)                                                                       \
    X(CT_I8, "int8", 1, 1)                                                                         \
    X(CT_U8, "uint8", 1, 1)                                                                        \
    X(CT_BOOL, "bool", 1, 1)                                                                       \
    X(CT_Q8_0, "q8_0", 32, 34)                                                                     \
    X(CT_Q4_0, "q4_0", 32, 18)                                                                     \
    X(CT_Q4_1, "q4_1", 32, 20)                                                                     \
    X(CT_Q5_0, "q5_0", 32, 22)                                                                     \
    X(CT_Q5_1, "q5_1", 32, 24)                                                                     \
    X(CT_Q4_K, "q4_k", 256, 144)                                                                   \
    X(CT_Q5_K, "q5_k", 256, 176)                                                                   \
    X(CT_Q6_K, "q6_k", 256, 210)                                                                   \
    X(CT_LLM_INT8, "llm_int8", 1, 1)                                                               \
    X(CT_FP4, "fp4", 2, 1)                                                                         \
    X(CT_NF4, "nf4", 2, 1)

#define CT_DTYPE_MAX_BLOCK 256

#define CT_DTYPE_ENUM(id, name, values, bytes) id,
typedef enum ct_dtype { CT_DTYPES(CT_DTYPE_ENUM) CT_DTYPE_COUNT } ct_dtype;
#undef CT_DTYPE_ENUM

const char *ct_dtype_name(ct_dtype dtype);
int ct_dtype_block_values(ct_dtype dtype);
size_t ct_dtype_block_bytes(ct_dtype dtype);
static inline bool ct_dtype_is_quantized(ct_dtype dtype)
{
    return dtype > CT_BOOL;
}
/* The numbers are codes; what scales them lies beside the tensor, not in its blocks. */
static inline bool ct_dtype_has_scales(ct_dtype dtype)
{
    return dtype >= CT_LLM_INT8;
}
static inline bool ct_dtype_is_float(ct_dtype dtype)
{
    return dtype == CT_F32 || dtype == CT_F16 || dtype == CT_BF16;
}

/* Bytes of `n` contiguous values; CT_VALUE when n is no multiple of the block or too large. */
CT_MUST_CHECK ct_status ct_dtype_row_bytes(size_t *out, ct_dtype dtype, int64_t n);

/* CT_VALUE with the list of names when `name` is none of them. */
CT_MUST_CHECK ct_status ct_dtype_from_name(ct_dtype *out, const char *name);

/* Single values; rows are converted by the kernels. Round to nearest, ties to even; NaN stays NaN.
 */
float ct_f16_to_f32(uint16_t bits);
uint16_t ct_f16_from_f32(float value);
static inline float ct_bf16_to_f32(uint16_t bits)
{
    union {
        uint32_t bits;
        float value;
    } word = {(uint32_t)bits << 16};
    return word.value;
}
uint16_t ct_bf16_from_f32(float value);

#endif
