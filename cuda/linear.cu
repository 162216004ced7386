/* Linear layers. Parts in one element type are one product, in one launch:
 *
 * few    up to 8 rows: a pass over the weights, bound by memory
 * many   more rows: tiles in shared memory, f32 arithmetic
 *
 * Parts in bitsandbytes' formats are scaled.cu's; what follows their products is done here. */
#include "ops.h"

#include "linear.h"
#include "runtime.h"
#include "scaled.h"
#include "weights.h"

#define THREADS 256
#define MAX_BLOCKS 2048 /* of elementwise kernels, whose blocks go round */

struct ct_linear {
    int n_parts;
    int64_t n[CT_LINEAR_MAX_PARTS];
    ct_dtype dtype[CT_LINEAR_MAX_PARTS];
    ct_cuda_weight weight[CT_LINEAR_MAX_PARTS];
    ct_cuda_scaled scaled[CT_LINEAR_MAX_PARTS]; /* instead, where the dtype has scales */
    ct_cuda_elements bias[CT_LINEAR_MAX_PARTS]; /* without data: none */
    ct_quantized_compute quantized;
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

ct_status ct_cuda_linear_new(ct_linear **out, const ct_linear_desc *desc)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_linear *linear;
    CT_TRY(ct_alloc_zeroed((void **)&linear, 1, sizeof *linear));
    linear->quantized = desc->quantized;
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
    ct_free(linear);
}

ct_dtype ct_cuda_linear_input(const ct_linear *, int64_t)
{
    return CT_F32;
}

/* ---- products here ---- */

typedef enum method { METHOD_FEW, METHOD_MANY } method;

static method choose(int64_t n_rows)
{
    return n_rows <= CT_FEW_ROWS ? METHOD_FEW : METHOD_MANY;
}

static ct_cuda_epilogue epilogue_of(const ct_epilogue *epilogue)
{
    ct_cuda_epilogue own = {};
    own.clip = epilogue->clip;
    own.activation = epilogue->activation;
    if (epilogue->multiply)
        own.multiply = *epilogue->multiply;
    if (epilogue->residual)
        own.residual = *epilogue->residual;
    return own;
}

static int64_t column_of(const ct_linear *linear, int part)
{
    int64_t column = 0;
    for (int p = 0; p < part; p++)
        column += linear->n[p];
    return column;
}

/* Part `first`, and those behind it in the same element type. */
static ct_status float_parts(const ct_linear *linear, int first, ct_cuda_product product)
{
    product.dtype = linear->dtype[first];
    product.n_parts = 0;
    for (int p = first; p < linear->n_parts; p++) {
        if (linear->dtype[p] != product.dtype || linear->n[p] == 0)
            continue;
        ct_cuda_part *part = &product.part[product.n_parts++];
        part->weight = linear->weight[p].planes;
        part->bias = (const float *)linear->bias[p].data;
        part->column = column_of(linear, p);
    }
    if (product.n_parts == 0)
        return CT_OK;
    switch (choose(product.x.n_rows)) {
    case METHOD_FEW:
        return ct_cuda_product_few(&product);
    default:
        return ct_cuda_product_many(&product);
    }
}

static bool is_first_of_its_type(const ct_linear *linear, int part)
{
    for (int p = 0; p < part; p++)
        if (linear->dtype[p] == linear->dtype[part])
            return false;
    return true;
}

/* ---- products by scaled.cu ---- */

/* y's columns from `column` on = epilogue(products + bias); products may lie in their place. */
CT_KERNEL finish_kernel(ct_cuda_epilogue epilogue, ct_rows y, int64_t column, ct_rows products,
                        const float *bias)
{
    int64_t n = products.width, size = products.n_rows * n, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        int64_t row = i / n, j = i % n;
        float value = ((const float *)products.data)[row * products.stride + j];
        ct_finish(epilogue, y, row, column + j, bias ? value + bias[j] : value);
    }
}

static ct_status new_rows(ct_rows *out, int64_t n_rows, int64_t width, ct_arena *arena)
{
    size_t size;
    *out = {NULL, CT_F32, n_rows, width, width};
    CT_TRY(ct_mul_size(&size, (size_t)n_rows * sizeof(float), (size_t)width));
    return ct_arena_alloc(arena, &out->data, size);
}

static ct_status scaled_part(const ct_linear *linear, int part, const ct_cuda_product *product,
                             ct_arena *arena)
{
    const ct_cuda_epilogue *epilogue = &product->epilogue;
    int64_t n = linear->n[part], column = column_of(linear, part);
    ct_rows y = product->y, products = y;
    if (n == 0)
        return CT_OK;
    bool is_read = epilogue->residual.data == y.data || epilogue->multiply.data == y.data;
    if (y.dtype != CT_F32 || is_read)
        CT_TRY(new_rows(&products, y.n_rows, n, arena));
    else
        products.data = (float *)y.data + column;
    products.width = n;
    CT_TRY(ct_cuda_scaled_products(products, product->x, &linear->scaled[part], &linear->quantized,
                                   arena));
    int64_t blocks = (y.n_rows * n + THREADS - 1) / THREADS;
    CT_KERNEL_CALL(finish_kernel, (unsigned)(blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS), THREADS, 0,
                   ct_cuda_stream(), *epilogue, y, column, products,
                   (const float *)linear->bias[part].data);
    return ct_cuda_launched("linear, epilogue");
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
    ct_cuda_product wide = product; /* for scaled.cu, which takes f32 */
    for (int p = 0; p < linear->n_parts; p++) {
        bool scaled = ct_dtype_has_scales(linear->dtype[p]);
        if (scaled && wide.x.dtype != CT_F32) {
            CT_TRY(new_rows(&wide.x, x.n_rows, x.width, arena));
            CT_TRY(ct_cuda_scatter(wide.x, x, NULL));
        }
        if (scaled)
            CT_TRY(scaled_part(linear, p, &wide, arena));
        else if (is_first_of_its_type(linear, p))
            CT_TRY(float_parts(linear, p, product));
    }
    return CT_OK;
}
