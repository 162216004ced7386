/* Linear layers. Parts in one element type are one product:
 *
 * few    up to 8 rows: a pass over the weights, bound by memory, in one launch
 * blas   more rows: by cuBLASLt
 * many   where that is not there: tiles in shared memory, f32 arithmetic, in one launch
 *
 * By cuBLASLt x is in the type of the weights, to which it is rounded, and blocks become floats of
 * the model's type, or of that which 4-bit weights are computed with. So linear_input tells whether
 * it is taken: parts that would want x in different types do without, but for those in f32.
 *
 * Parts in bitsandbytes' formats are scaled.cu's. LLM.int8 makes bytes of x, which is f32, and
 * takes cuBLASLt for those.
 *
 * Products of few rows norm x as they read it, and multiply gate and up together. */
#include "ops.h"

#include "gemm.h"
#include "linear.h"
#include "runtime.h"
#include "scaled.h"
#include "weights.h"

struct ct_linear {
    int n_parts;
    int64_t n[CT_LINEAR_MAX_PARTS];
    ct_dtype dtype[CT_LINEAR_MAX_PARTS];
    ct_cuda_weight weight[CT_LINEAR_MAX_PARTS];
    ct_cuda_scaled scaled[CT_LINEAR_MAX_PARTS]; /* instead, where the dtype has scales */
    ct_cuda_elements bias[CT_LINEAR_MAX_PARTS]; /* without data: none */
    ct_cuda_input_norm norm;                    /* lies in: */
    ct_cuda_elements norm_weight, norm_bias;
    bool gated;
    ct_quantized_compute quantized;
    bool blas; /* the device has cuBLASLt */
};

static ct_status new_part(ct_linear *linear, int p, const ct_linear_desc *desc)
{
    ct_tensor *weight = desc->weight[p];
    linear->n[p] = weight->shape[0];
    linear->dtype[p] = weight->dtype;
    if (ct_dtype_has_scales(weight->dtype))
        CT_TRY(ct_cuda_scaled_new(&linear->scaled[p], weight));
    else
        CT_TRY(ct_cuda_weight_new(&linear->weight[p], weight));
    linear->n_parts = p + 1; /* from here on the layer's to free */
    return desc->bias[p] ? ct_cuda_elements_new(&linear->bias[p], desc->bias[p]) : CT_OK;
}

static ct_status new_norm(ct_linear *linear, const ct_input_norm *norm)
{
    if (norm->weight)
        CT_TRY(ct_cuda_elements_new(&linear->norm_weight, norm->weight));
    if (norm->bias)
        CT_TRY(ct_cuda_elements_new(&linear->norm_bias, norm->bias));
    const float *weight = (const float *)linear->norm_weight.data;
    const float *bias = (const float *)linear->norm_bias.data;
    bool in_fours = ((uintptr_t)weight | (uintptr_t)bias) % 16 == 0;
    linear->norm = {norm->kind, weight, bias, norm->eps, in_fours};
    return CT_OK;
}

ct_status ct_cuda_linear_new(ct_linear **out, const ct_linear_desc *desc)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_linear *linear;
    CT_TRY(ct_alloc_zeroed((void **)&linear, 1, sizeof *linear));
    linear->quantized = desc->quantized;
    linear->gated = desc->gated;
    CT_TRY_TO(failed, new_norm(linear, &desc->norm));
    CT_TRY_TO(failed, ct_cuda_gemm_available(&linear->blas));
    for (int p = 0; p < desc->n_parts; p++)
        CT_TRY_TO(failed, new_part(linear, p, desc));
    *out = linear;
    return CT_OK;
failed:
    ct_cuda_linear_free(&linear);
    return status;
}

void ct_cuda_linear_free(ct_linear **linear)
{
    if (!*linear)
        return;
    for (int p = 0; p < (*linear)->n_parts; p++) {
        if (ct_dtype_has_scales((*linear)->dtype[p]))
            ct_cuda_scaled_free(&(*linear)->scaled[p]);
        else
            ct_cuda_weight_free(&(*linear)->weight[p]);
        ct_cuda_elements_free(&(*linear)->bias[p]);
    }
    ct_cuda_elements_free(&(*linear)->norm_weight);
    ct_cuda_elements_free(&(*linear)->norm_bias);
    ct_free(linear);
}

/* ---- how a product is made ---- */

/* The type of x for a product with part p by cuBLASLt: of 16 bits only in models, or with 4-bit
 * weights, that compute in such a type. */
static ct_dtype blas_input(const ct_linear *linear, int p)
{
    ct_dtype weight = linear->dtype[p], model = linear->quantized.model_dtype;
    if (ct_dtype_has_scales(weight))
        return ct_cuda_scaled_input(&linear->scaled[p], &linear->quantized);
    if (weight == CT_F32 || model == CT_F32)
        return CT_F32;
    return ct_code_bits(weight) > 0 ? model : weight;
}

/* Blocks are decoded to any type, floats multiplied as they lie. */
static bool blas_takes(const ct_linear *linear, int p)
{
    ct_dtype weight = linear->dtype[p];
    return ct_code_bits(weight) > 0 || weight == blas_input(linear, p);
}

/* The type in which most products want x. */
static ct_dtype product_input(const ct_linear *linear, int64_t n_rows)
{
    if (!linear->blas || n_rows <= CT_FEW_ROWS)
        return CT_F32;
    for (int p = 1; p < linear->n_parts; p++)
        if (blas_input(linear, p) != blas_input(linear, 0))
            return CT_F32;
    return blas_input(linear, 0);
}

ct_dtype ct_cuda_linear_input(const ct_linear *linear, int64_t n_rows)
{
    return linear->norm.weight ? CT_F32 : product_input(linear, n_rows);
}

/* Whether all products are those of few rows, which norm and, in one launch, gate. */
static bool is_few(const ct_linear *linear, int64_t n_rows)
{
    bool few = n_rows <= CT_FEW_ROWS;
    for (int p = 0; p < linear->n_parts; p++)
        if (ct_dtype_has_scales(linear->dtype[p]))
            few = few && ct_cuda_scaled_is_few(&linear->scaled[p], n_rows, &linear->quantized);
    return few;
}

typedef enum method { METHOD_FEW, METHOD_BLAS, METHOD_MANY } method;

/* For a part in floats or blocks. */
static method choose(const ct_linear *linear, int p, int64_t n_rows)
{
    if (n_rows <= CT_FEW_ROWS)
        return METHOD_FEW;
    bool agrees = blas_input(linear, p) == product_input(linear, n_rows);
    return linear->blas && agrees && blas_takes(linear, p) ? METHOD_BLAS : METHOD_MANY;
}

/* ---- products here ---- */

static ct_cuda_epilogue epilogue_of(const ct_epilogue *epilogue)
{
    ct_cuda_epilogue own = {};
    own.clip = epilogue->clip;
    own.activation = epilogue->activation;
    if (epilogue->residual)
        own.residual = *epilogue->residual;
    return own;
}

/* Parts [begin, end) of a layer, which are multiplied together. */
typedef struct part_range {
    int begin, end;
    bool gated;
} part_range;

/* Where a part's products begin in y. */
static int64_t column_of(const ct_linear *linear, part_range range, int part)
{
    int64_t column = 0;
    for (int p = range.begin; p < part && !range.gated; p++)
        column += linear->n[p];
    return column;
}

static bool is_first_of_its_type(const ct_linear *linear, part_range range, int part)
{
    for (int p = range.begin; p < part; p++)
        if (linear->dtype[p] == linear->dtype[part])
            return false;
    return true;
}

ct_status ct_cuda_new_rows(ct_rows *out, ct_dtype dtype, int64_t n_rows, int64_t width,
                           ct_arena *arena)
{
    size_t size;
    *out = {NULL, dtype, n_rows, width, width};
    CT_TRY(ct_mul_size(&size, (size_t)n_rows * ct_dtype_block_bytes(dtype), (size_t)width));
    return ct_arena_alloc(arena, &out->data, size);
}

/* Converts them, unless they are of that type. */
static ct_status as_dtype(ct_rows *rows, ct_dtype dtype, ct_arena *arena)
{
    ct_rows from = *rows;
    if (from.dtype == dtype)
        return CT_OK;
    CT_TRY(ct_cuda_new_rows(rows, dtype, from.n_rows, from.width, arena));
    return ct_cuda_scatter(*rows, from, NULL);
}

/* Part `first`, and those behind it in the same element type. */
static ct_status float_parts(const ct_linear *linear, part_range range, int first,
                             ct_cuda_product product, ct_arena *arena)
{
    product.dtype = linear->dtype[first];
    for (int p = first; p < range.end; p++) {
        if (linear->dtype[p] != product.dtype || linear->n[p] == 0)
            continue;
        ct_cuda_part *part = &product.part[product.n_parts++];
        part->weight = linear->weight[p].planes;
        part->bias = (const float *)linear->bias[p].data;
        part->column = column_of(linear, range, p);
    }
    if (product.n_parts == 0)
        return CT_OK;
    switch (choose(linear, first, product.x.n_rows)) {
    case METHOD_FEW:
        return ct_cuda_product_few(&product);
    case METHOD_BLAS:
        CT_TRY(as_dtype(&product.x, blas_input(linear, first), arena));
        return ct_cuda_product_blas(&product, arena);
    default:
        return ct_cuda_product_many(&product);
    }
}

/* ---- what follows products ---- */

CT_KERNEL finish_kernel(ct_cuda_epilogue epilogue, ct_rows y, ct_rows products, const float *bias,
                        bool in_fours)
{
    int64_t row = ct_fours_row(), column = ct_fours_column(), left = products.width - column;
    if (row >= products.n_rows || left <= 0)
        return;
    float values[4];
    ct_get4(values, CT_F32, products.data, row * products.stride + column, left, in_fours);
    for (int i = 0; i < 4; i++)
        if (bias && i < left)
            values[i] += bias[column + i];
    ct_finish4(epilogue, y, row, column, values, left, in_fours);
}

ct_status ct_cuda_finish(const ct_cuda_epilogue *epilogue, ct_rows y, ct_rows products,
                         const float *bias)
{
    bool in_fours = ct_in_fours(products) && ct_finish_in_fours(epilogue, y);
    ct_fours fours = ct_fours_over(products.n_rows, products.width);
    CT_KERNEL_CALL(finish_kernel, fours.grid, fours.block, 0, ct_cuda_stream(), *epilogue, y,
                   products, bias, in_fours);
    return ct_cuda_launched("linear, epilogue");
}

/* ---- all products ---- */

/* Part `first`, and those behind it in the same format, by scaled.cu. */
static ct_status scaled_parts(const ct_linear *linear, part_range range, int first,
                              const ct_cuda_product *product, ct_arena *arena)
{
    ct_scaled_product scaled = {};
    scaled.gated = product->gated;
    scaled.x = product->x;
    scaled.y = product->y;
    scaled.norm = product->norm;
    scaled.epilogue = product->epilogue;
    for (int p = first; p < range.end; p++) {
        if (linear->dtype[p] != linear->dtype[first] || linear->n[p] == 0)
            continue;
        ct_scaled_part *part = &scaled.part[scaled.n_parts++];
        part->weight = linear->scaled[p];
        part->bias = (const float *)linear->bias[p].data;
        part->column = column_of(linear, range, p);
    }
    CT_TRY(as_dtype(&scaled.x, product_input(linear, scaled.x.n_rows), arena));
    return ct_cuda_scaled_products(&scaled, &linear->quantized, linear->blas, arena);
}

static ct_status multiply(const ct_linear *linear, part_range range, ct_cuda_product product,
                          ct_arena *arena)
{
    product.gated = range.gated;
    for (int p = range.begin; p < range.end; p++) {
        if (!is_first_of_its_type(linear, range, p))
            continue;
        if (ct_dtype_has_scales(linear->dtype[p]))
            CT_TRY(scaled_parts(linear, range, p, &product, arena));
        else
            CT_TRY(float_parts(linear, range, p, product, arena));
    }
    return CT_OK;
}

/* Gates go to memory. */
static ct_status multiply_apart(const ct_linear *linear, ct_cuda_product product, ct_arena *arena)
{
    ct_rows y = product.y;
    CT_TRY(ct_cuda_new_rows(&product.y, y.dtype, y.n_rows, y.width, arena));
    CT_TRY(multiply(linear, {0, 1, false}, product, arena));
    product.epilogue = {};
    product.epilogue.multiply = product.y;
    product.y = y;
    return multiply(linear, {1, 2, false}, product, arena);
}

/* Now, or by the product. */
static ct_status norm_input(const ct_linear *linear, ct_cuda_product *product, ct_arena *arena)
{
    const ct_cuda_input_norm *norm = &linear->norm;
    ct_rows x = product->x;
    if (!norm->weight)
        return CT_OK;
    if (is_few(linear, x.n_rows)) {
        product->norm = *norm;
        return CT_OK;
    }
    CT_TRY(
        ct_cuda_new_rows(&product->x, product_input(linear, x.n_rows), x.n_rows, x.width, arena));
    return ct_cuda_norm(norm->kind, product->x, x, norm->weight, norm->bias, norm->eps, 1);
}

ct_status ct_cuda_linear(const ct_linear *linear, ct_rows x, const ct_epilogue *epilogue, ct_rows y,
                         ct_arena *arena)
{
    if (x.n_rows == 0)
        return CT_OK;
    ct_cuda_product product = {};
    product.x = x;
    product.y = y;
    product.epilogue = epilogue_of(epilogue);
    CT_TRY(norm_input(linear, &product, arena));
    bool together = linear->dtype[0] == linear->dtype[1] && is_few(linear, x.n_rows);
    if (linear->gated && !together)
        return multiply_apart(linear, product, arena);
    return multiply(linear, {0, linear->n_parts, linear->gated}, product, arena);
}
