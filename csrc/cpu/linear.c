/* x W^T + bias and what follows it. The first of these that takes the case does it, in
 * linear_onednn.c or linear_own.c:
 *
 * oneDNN: packed weights, and many rows of bf16 where the CPU has bf16 products.
 *
 * gemv: few rows. One pass over the weights as they lie, bound by memory, in f32 or by x rounded as
 * cpu/scaled and cpu/blocks say; and any number of rows by LLM.int8, whose sums are exact.
 *
 * bytes: many rows by LLM.int8 where the CPU has products of tiles of bytes. oneDNN sums them,
 * block by block, with the bits of gemv.
 *
 * panel: many rows of 4-bit codes that are computed with in bf16, where the CPU has bf16 products.
 * Bands of weight rows are decoded in cache and multiplied by oneDNN.
 *
 * gemm: many rows. Bands of weight rows are decoded to f32 in cache and multiplied by blocks; by
 * float weights with the bits of gemv, so that what a decoder computes for a row does not depend on
 * what it is computed with. */
#include "cpu/linear.h"

#include <string.h>

#include "core/memory.h"
#include "cpu/kernels.h"
#include "cpu/linear_ways.h"
#include "cpu/rowwise.h"
#include "cpu/scaled.h"

/* Measured on 2 cores, 5632 x 2048 bf16: from here on oneDNN is faster than further passes. */
#define GEMV_MAX_ROWS 8
/* On 2 AVX2 cores, for rows of 576 and 2048: below, packing costs more than further passes. */
#define GEMM_MIN_ROWS 24
/* Fewer rows leave most of oneDNN's tiles empty. */
#define BYTES_MIN_ROWS 16

typedef enum method { METHOD_ONEDNN, METHOD_GEMV, METHOD_BYTES, METHOD_PANEL, METHOD_GEMM } method;

static ct_status join_bias(ct_linear *linear)
{
    bool any = false;
    for (int i = 0; i < linear->n_parts; i++)
        any = any || linear->bias[i];
    if (!any)
        return CT_OK;
    CT_TRY(ct_tensor_new(&linear->joined_bias, CT_F32, 1, &linear->n_total));
    float *to = ct_tensor_data(linear->joined_bias);
    for (int i = 0; i < linear->n_parts; to += linear->n[i++]) {
        if (linear->bias[i])
            memcpy(to, ct_tensor_data(linear->bias[i]), sizeof *to * (size_t)linear->n[i]);
        else
            memset(to, 0, sizeof *to * (size_t)linear->n[i]);
    }
    return CT_OK;
}

/* The product by n_parts of the parts, `first` and those behind it. */
static ct_status new_product(ct_linear **out, const ct_linear_desc *desc, int first, int n_parts)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_tensor *const *weight = desc->weight + first, *const *bias = desc->bias + first;
    ct_linear *linear;
    CT_TRY(ct_alloc_zeroed((void **)&linear, 1, sizeof *linear));
    linear->n_parts = n_parts;
    linear->k = weight[0]->shape[1];
    linear->uniform = true;
    linear->quantized = desc->quantized;
    for (int i = 0; i < n_parts; i++) {
        linear->n[i] = weight[i]->shape[0];
        linear->n_total += linear->n[i];
        linear->dtype[i] = weight[i]->dtype;
        linear->uniform = linear->uniform && linear->dtype[i] == linear->dtype[0];
        CT_TRY_TO(failed, ct_dtype_row_bytes(&linear->row_bytes[i], linear->dtype[i], linear->k));
        if (ct_dtype_has_scales(linear->dtype[i])) {
            linear->scaled = true;
            linear->int8 = linear->int8 || linear->dtype[i] == CT_LLM_INT8;
            CT_TRY_TO(failed, ct_scaled_check(weight[i]));
        }
        if (bias[i])
            linear->bias[i] = ct_tensor_ref(bias[i]);
        CT_TRY_TO(failed, ct_tensor_contiguous(&linear->weight[i], weight[i]));
    }
    if (desc->use == CT_LINEAR_BATCH && linear->uniform && ct_onednn_takes(linear->dtype[0])) {
        CT_TRY_TO(failed, ct_packed_new(&linear->packed, linear->weight, linear->n_parts));
        CT_TRY_TO(failed, join_bias(linear));
        for (int i = 0; i < linear->n_parts; i++)
            ct_tensor_unref(&linear->weight[i]);
    }
    *out = linear;
    return CT_OK;
failed:
    ct_cpu_linear_free(&linear);
    return status;
}

ct_status ct_cpu_linear_new(ct_linear **out, const ct_linear_desc *desc)
{
    const ct_input_norm *norm = &desc->norm;
    if (!desc->gated)
        CT_TRY(new_product(out, desc, 0, desc->n_parts));
    else
        CT_TRY(new_product(out, desc, 1, 1));
    (*out)->norm = *norm;
    if (norm->weight)
        (*out)->norm.weight = ct_tensor_ref(norm->weight);
    if (norm->bias)
        (*out)->norm.bias = ct_tensor_ref(norm->bias);
    ct_status status = desc->gated ? new_product(&(*out)->gate, desc, 0, 1) : CT_OK;
    if (status != CT_OK)
        ct_cpu_linear_free(out);
    return status;
}

void ct_cpu_linear_free(ct_linear **linear)
{
    if (!*linear)
        return;
    for (int i = 0; i < CT_LINEAR_MAX_PARTS; i++) {
        ct_tensor_unref(&(*linear)->weight[i]);
        ct_tensor_unref(&(*linear)->bias[i]);
    }
    ct_tensor_unref(&(*linear)->joined_bias);
    ct_tensor_unref(&(*linear)->norm.weight);
    ct_tensor_unref(&(*linear)->norm.bias);
    ct_cpu_linear_free(&(*linear)->gate);
    ct_packed_free(&(*linear)->packed);
    ct_free(linear);
}

static method choose(const ct_linear *linear, int64_t n_rows)
{
    if (linear->packed)
        return METHOD_ONEDNN;
    if (linear->int8 && linear->uniform && n_rows >= BYTES_MIN_ROWS && ct_onednn_takes(CT_I8))
        return METHOD_BYTES;
    if (n_rows <= GEMV_MAX_ROWS || linear->int8)
        return METHOD_GEMV;
    ct_dtype dtype = linear->dtype[0];
    if (linear->uniform && dtype != CT_F32 && ct_onednn_takes(dtype))
        return METHOD_ONEDNN;
    bool bf16 = linear->quantized.compute_dtype == CT_BF16 && ct_onednn_takes(CT_BF16);
    if (linear->uniform && linear->scaled && bf16)
        return METHOD_PANEL;
    if (linear->uniform && ct_dtype_is_float(dtype) && n_rows < GEMM_MIN_ROWS)
        return METHOD_GEMV;
    return METHOD_GEMM;
}

/* The type in which its product wants x. */
static ct_dtype product_input(const ct_linear *linear, int64_t n_rows)
{
    method chosen = choose(linear, n_rows);
    return chosen == METHOD_ONEDNN ? linear->dtype[0] : chosen == METHOD_PANEL ? CT_BF16 : CT_F32;
}

/* The same of all products; f32 where they differ. */
static ct_dtype common_input(const ct_linear *linear, int64_t n_rows)
{
    ct_dtype own = product_input(linear, n_rows);
    return !linear->gate || product_input(linear->gate, n_rows) == own ? own : CT_F32;
}

ct_dtype ct_cpu_linear_input(const ct_linear *linear, int64_t n_rows)
{
    return linear->norm.weight ? CT_F32 : common_input(linear, n_rows);
}

static ct_status norm_input(const ct_linear *linear, ct_rows *x, ct_arena *arena)
{
    const ct_input_norm *norm = &linear->norm;
    ct_rows from = *x;
    CT_TRY(ct_linear_as_dtype(x, common_input(linear, from.n_rows), true, arena));
    return ct_cpu_norm(norm->kind, *x, from, ct_tensor_data(norm->weight),
                       norm->bias ? ct_tensor_data(norm->bias) : NULL, norm->eps, 1);
}

static ct_status multiply(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                          ct_rows y, ct_arena *arena)
{
    ct_dtype wanted = product_input(linear, x.n_rows);
    if (x.dtype != wanted)
        CT_TRY(ct_linear_as_dtype(&x, wanted, false, arena));
    method chosen = choose(linear, x.n_rows);
    if (chosen == METHOD_ONEDNN && wanted == CT_F32 && y.dtype != CT_F32) {
        ct_rows wide = y; /* oneDNN does not narrow f32 products */
        CT_TRY(ct_linear_as_dtype(&wide, CT_F32, true, arena));
        CT_TRY(ct_linear_onednn(linear, x, epilogue, wide, arena));
        return ct_cpu_scatter(y, wide, NULL);
    }
    if (chosen == METHOD_ONEDNN)
        return ct_linear_onednn(linear, x, epilogue, y, arena);
    if (chosen == METHOD_PANEL)
        return ct_linear_panel(linear, x, epilogue, y, arena);
    if (chosen == METHOD_BYTES)
        return ct_linear_bytes(linear, x, epilogue, y, arena);
    return ct_linear_own(linear, x, epilogue, y, chosen == METHOD_GEMM, arena);
}

ct_status ct_cpu_linear(const ct_linear *linear, ct_rows x, const ct_epilogue *epilogue, ct_rows y,
                        ct_arena *arena)
{
    ct_cpu_epilogue own = {epilogue->clip, epilogue->activation, NULL, epilogue->residual};
    ct_rows gates = y;
    if (linear->norm.weight)
        CT_TRY(norm_input(linear, &x, arena));
    if (linear->gate) {
        CT_TRY(ct_linear_as_dtype(&gates, y.dtype, true, arena));
        CT_TRY(multiply(linear->gate, x, &own, gates, arena));
        own = (ct_cpu_epilogue){.multiply = &gates};
    }
    return multiply(linear, x, &own, y, arena);
}

/* ---- what the ways share ---- */

ct_status ct_linear_as_dtype(ct_rows *rows, ct_dtype dtype, bool empty, ct_arena *arena)
{
    ct_rows copy = {
        .dtype = dtype, .n_rows = rows->n_rows, .width = rows->width, .stride = rows->width};
    size_t size;
    CT_TRY(ct_mul_size(&size, (size_t)(rows->n_rows * rows->width), ct_dtype_block_bytes(dtype)));
    CT_TRY(ct_arena_alloc(arena, &copy.data, size));
    if (!empty)
        CT_TRY(ct_cpu_scatter(copy, *rows, NULL));
    *rows = copy;
    return CT_OK;
}

ct_status ct_linear_widen_factor(ct_cpu_epilogue *epilogue, ct_rows *factor, ct_arena *arena)
{
    if (!epilogue->multiply || epilogue->multiply->dtype == CT_F32)
        return CT_OK;
    *factor = *epilogue->multiply;
    epilogue->multiply = factor;
    return ct_linear_as_dtype(factor, CT_F32, false, arena);
}

void ct_linear_finish(float *y, int64_t row, int64_t first, int64_t n, const float *bias,
                      const ct_cpu_epilogue *epilogue)
{
    if (bias)
        ct_cpu_kernels->add(y, y, bias, n);
    if (epilogue->clip > 0)
        for (int64_t j = 0; j < n; j++)
            y[j] = y[j] > epilogue->clip    ? epilogue->clip
                   : y[j] < -epilogue->clip ? -epilogue->clip
                                            : y[j];
    if (epilogue->activation != CT_ACT_NONE)
        ct_cpu_kernels->activate[epilogue->activation](y, y, n);
    if (epilogue->multiply)
        ct_cpu_kernels->mul(y, y, ct_linear_row(epilogue->multiply, row) + first, n);
    if (epilogue->residual)
        ct_cpu_kernels->add(y, y, ct_linear_row(epilogue->residual, row) + first, n);
}
