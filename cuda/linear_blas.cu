/* Many rows of x by cuBLASLt. It adds bias and residual itself; what else follows a product is done
 * by a kernel of its own, in y or from scratch. Codes of 4 to 8 bits are decoded to scratch, in x's
 * type: that takes the way of the weights to memory and back, which more than a few rows of x are
 * worth. */
#include "linear.h"

#include "decode.h"
#include "fours.h"
#include "gemm.h"
#include "runtime.h"

#define THREADS 256

/* ---- blocks become floats ---- */

/* A thread has eight values of the matrix's; `n` counts them from weight row `first` on. */
template <ct_dtype dtype>
CT_KERNEL decode_kernel(ct_rows to, ct_cuda_planes weight, int64_t first, int n)
{
    int eight = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (eight >= n)
        return;
    ct_bits bits = {};
    ct_read_eight<dtype>(&bits, weight, first, eight);
    float values[8], scale = ct_scale<dtype>(bits, 0), minimum = ct_minimum<dtype>(bits);
    ct_four_values<dtype>(values, bits, 0);
    ct_four_values<dtype>(values + 4, bits, 1);
    for (int i = 0; i < 8; i++)
        values[i] = scale * values[i] + minimum;
    ct_put8(to.dtype, to.data, (int64_t)eight * 8, values);
}

typedef void (*kernel_function)(ct_rows, ct_cuda_planes, int64_t, int);

#define KERNEL(dtype)                                                                              \
    case dtype:                                                                                    \
        return decode_kernel<dtype>;
static kernel_function kernel_of(ct_dtype dtype)
{
    switch (dtype) {
        CT_BLOCK_WEIGHTS(KERNEL)
    default:
        return NULL;
    }
}

typedef struct block_matrix {
    ct_dtype dtype;
    ct_cuda_planes planes;
} block_matrix;

/* A ct_cuda_decode of a block_matrix. */
static ct_status decode_blocks(ct_rows to, const void *matrix, int64_t first)
{
    const block_matrix *blocks = (const block_matrix *)matrix;
    int eights = (int)(to.n_rows * to.width / 8);
    kernel_function kernel = kernel_of(blocks->dtype);
    CT_KERNEL_CALL(kernel, (unsigned)((eights + THREADS - 1) / THREADS), THREADS, 0,
                   ct_cuda_stream(), to, blocks->planes, first, eights);
    return ct_cuda_launched("linear, decoding blocks");
}

/* ---- products with floats ---- */

/* Products of one part with float weights, which has all columns of y and epilogue. */
typedef struct float_product {
    ct_dtype dtype;
    ct_cuda_planes weight;
    const float *bias;
    ct_rows x, y;
    ct_cuda_epilogue epilogue;
} float_product;

static bool takes_bias(const float_product *p)
{
    return p->bias && (uintptr_t)p->bias % CT_GEMM_ALIGNMENT == 0;
}

/* Whether it does all that follows the product. */
static bool takes_all(const float_product *p)
{
    const ct_rows *residual = &p->epilogue.residual;
    return (!p->bias || takes_bias(p)) && p->epilogue.clip == 0 &&
           p->epilogue.activation == CT_ACT_NONE && !p->epilogue.multiply.data &&
           (!residual->data || residual->dtype == CT_F32);
}

/* Where the library writes: y, unless that has another type or has to be read afterwards. */
static bool is_in_place(const float_product *p)
{
    bool is_read = p->epilogue.multiply.data == p->y.data ||
                   (p->epilogue.residual.data == p->y.data && !takes_all(p));
    return p->y.dtype == CT_F32 && !is_read;
}

static ct_status without_library(const float_product *p)
{
    ct_cuda_product product = {};
    product.dtype = p->dtype;
    product.n_parts = 1;
    product.part[0] = {p->weight, p->bias, 0};
    product.x = p->x;
    product.y = p->y;
    product.epilogue = p->epilogue;
    return ct_cuda_product_many(&product);
}

/* `products` is y or scratch. */
static ct_status multiply(const float_product *p, ct_rows products, ct_arena *arena)
{
    bool done, whole = takes_all(p);
    ct_gemm gemm = {};
    gemm.dtype = p->dtype;
    gemm.weight = p->weight.codes;
    gemm.x = p->x;
    gemm.y = products;
    if (takes_bias(p))
        gemm.bias = p->bias;
    if (whole)
        gemm.residual = p->epilogue.residual;
    CT_TRY(ct_cuda_gemm(&done, &gemm, arena));
    if (!done && gemm.bias) { /* perhaps only the bias is too much */
        gemm.bias = NULL;
        CT_TRY(ct_cuda_gemm(&done, &gemm, arena));
    }
    if (!done)
        return without_library(p);
    const float *bias = gemm.bias ? NULL : p->bias;
    if (whole && !bias && products.data == p->y.data)
        return CT_OK;
    ct_cuda_epilogue rest = p->epilogue;
    if (whole)
        rest.residual = {};
    return ct_cuda_finish(&rest, p->y, products, bias);
}

/* Products beside y are limited to bands of rows. */
static ct_status float_rows(const float_product *p, ct_arena *arena)
{
    if (is_in_place(p))
        return multiply(p, p->y, arena);
    int64_t n_rows = p->x.n_rows, row_bytes = p->y.width * (int64_t)sizeof(float);
    int64_t at_once = ct_band_rows(n_rows, row_bytes);
    ct_rows products;
    CT_TRY(ct_cuda_new_rows(&products, CT_F32, at_once, p->y.width, arena));
    for (int64_t i = 0; i < n_rows; i += at_once) {
        float_product band = *p;
        band.x = ct_rows_from(p->x, i, at_once);
        band.y = ct_rows_from(p->y, i, at_once);
        band.epilogue = ct_epilogue_rows(p->epilogue, i, at_once);
        CT_TRY(multiply(&band, ct_rows_from(products, 0, band.x.n_rows), arena));
    }
    return CT_OK;
}

/* Decoded weights are limited to bands of their rows, which begin where columns of y and biases are
 * aligned as those of the first are. */
static ct_status decoded_rows(const float_product *p, ct_cuda_decode decode, const void *matrix,
                              ct_arena *arena)
{
    const int64_t n = p->weight.n, k = p->weight.k, aligned = 64;
    int64_t at_once = ct_band_rows(n, k * (int64_t)ct_dtype_block_bytes(p->dtype));
    ct_rows decoded;
    at_once = at_once < n ? (at_once + aligned - 1) / aligned * aligned : n;
    CT_TRY(ct_cuda_new_rows(&decoded, p->dtype, at_once, k, arena));
    for (int64_t i = 0; i < n; i += at_once) {
        float_product band = *p;
        decoded.n_rows = n - i < at_once ? n - i : at_once;
        band.weight = {};
        band.weight.n = decoded.n_rows;
        band.weight.k = k;
        band.weight.codes = (const uint8_t *)decoded.data;
        band.weight.aligned = true;
        band.bias = p->bias ? p->bias + i : NULL;
        band.y = ct_columns_from(p->y, i, band.weight.n);
        band.epilogue = ct_epilogue_columns(p->epilogue, i, band.weight.n);
        CT_TRY(decode(decoded, matrix, i));
        CT_TRY(float_rows(&band, arena));
    }
    return CT_OK;
}

static float_product product_of(const ct_cuda_product *product, const ct_cuda_part *part)
{
    int64_t n = part->weight.n;
    float_product p = {};
    p.dtype = product->x.dtype;
    p.weight = part->weight;
    p.bias = part->bias;
    p.x = product->x;
    p.y = ct_columns_from(product->y, part->column, n);
    p.epilogue = ct_epilogue_columns(product->epilogue, part->column, n);
    return p;
}

ct_status ct_cuda_product_decoded(const ct_cuda_product *product, const ct_cuda_part *part,
                                  ct_cuda_decode decode, const void *matrix, ct_arena *arena)
{
    float_product p = product_of(product, part);
    return decoded_rows(&p, decode, matrix, arena);
}

ct_status ct_cuda_product_blas(const ct_cuda_product *product, ct_arena *arena)
{
    bool floats = ct_code_bits(product->dtype) == 0;
    if (product->x.width == 0)
        return ct_cuda_product_many(product);
    for (int i = 0; i < product->n_parts; i++) {
        float_product p = product_of(product, &product->part[i]);
        const block_matrix blocks = {product->dtype, p.weight};
        CT_TRY(floats ? float_rows(&p, arena) : decoded_rows(&p, decode_blocks, &blocks, arena));
    }
    return CT_OK;
}
