/* Rows of values in one of the float types, for kernels. */
#ifndef CT_CUDA_ROWS_H
#define CT_CUDA_ROWS_H

#include "csrc.h"
#include "device.h"

/* The element types of weights that need no scales beside them. */
#define CT_PLAIN_WEIGHTS(X)                                                                        \
    X(CT_F32)                                                                                      \
    X(CT_F16)                                                                                      \
    X(CT_BF16)                                                                                     \
    CT_BLOCK_WEIGHTS(X)
#define CT_BLOCK_WEIGHTS(X)                                                                        \
    X(CT_Q8_0)                                                                                     \
    X(CT_Q4_0)                                                                                     \
    X(CT_Q4_1)                                                                                     \
    X(CT_Q5_0)                                                                                     \
    X(CT_Q5_1)                                                                                     \
    X(CT_Q4_K)                                                                                     \
    X(CT_Q5_K)                                                                                     \
    X(CT_Q6_K)

/* ---- parts of rows; without data: still none ---- */

static inline void *ct_value_at(ct_rows rows, int64_t i)
{
    return (char *)rows.data + i * (rows.dtype == CT_F32 ? 4 : 2);
}

/* At most `n` rows from `first` on. */
static inline ct_rows ct_rows_from(ct_rows rows, int64_t first, int64_t n)
{
    if (rows.data)
        rows.data = ct_value_at(rows, first * rows.stride);
    rows.n_rows = rows.n_rows - first < n ? rows.n_rows - first : n;
    return rows;
}

static inline ct_rows ct_columns_from(ct_rows rows, int64_t first, int64_t n)
{
    if (rows.data)
        rows.data = ct_value_at(rows, first);
    rows.width = n;
    return rows;
}

/* ---- values ---- */

/* Of bf16 and f16, which hold 16 bits each, by name. */
template <ct_dtype dtype> struct ct_stored {
    typedef uint16_t type;
};
template <> struct ct_stored<CT_F32> {
    typedef float type;
};

template <ct_dtype dtype> CT_DEVICE float ct_get(const void *data, int64_t i)
{
    if (dtype == CT_F32)
        return ((const float *)data)[i];
    uint16_t bits = ((const uint16_t *)data)[i];
    return dtype == CT_F16 ? ct_half_to_float(bits) : ct_bfloat_to_float(bits);
}

template <ct_dtype dtype> CT_DEVICE void ct_put(void *data, int64_t i, float value)
{
    if (dtype == CT_F32)
        ((float *)data)[i] = value;
    else
        ((uint16_t *)data)[i] =
            dtype == CT_F16 ? ct_float_to_half(value) : ct_float_to_bfloat(value);
}

/* The same where the type is known when the kernel runs. */
CT_DEVICE float ct_get_as(ct_dtype dtype, const void *data, int64_t i)
{
    return dtype == CT_F32   ? ct_get<CT_F32>(data, i)
           : dtype == CT_F16 ? ct_get<CT_F16>(data, i)
                             : ct_get<CT_BF16>(data, i);
}

CT_DEVICE void ct_put_as(ct_dtype dtype, void *data, int64_t i, float value)
{
    if (dtype == CT_F32)
        ct_put<CT_F32>(data, i, value);
    else if (dtype == CT_F16)
        ct_put<CT_F16>(data, i, value);
    else
        ct_put<CT_BF16>(data, i, value);
}

CT_DEVICE float ct_activate(ct_activation activation, float x)
{
    switch (activation) {
    case CT_ACT_RELU:
        return x > 0 || x != x ? x : 0;
    case CT_ACT_GELU:
        return x * (0.5f * erfcf(-x * 0.70710678f));
    case CT_ACT_GELU_TANH:
        return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case CT_ACT_SILU:
        return x / (1 + expf(-x));
    default:
        return x;
    }
}

#endif
