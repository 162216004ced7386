/* Many rows of x by 4-bit weights by cuBLASLt: values of codes times their scales are rounded once,
 * to x's type, as bitsandbytes does, in scratch from which linear_blas.cu multiplies. */
#include "scaled_products.h"

#define THREADS 256

typedef struct shape {
    ct_codebook book;
    int64_t first_scale; /* of the first value, in blocks of 32 */
    int shift;           /* a scale serves 2^shift of them */
} shape;

/* A thread has eight values of the matrix's; `n` counts them from weight row `first` on. */
CT_KERNEL expand_kernel(ct_rows to, ct_cuda_scaled weight, shape s, int64_t first, int n)
{
    const float *book = ct_shared_codebook(s.book);
    int eight = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (eight >= n)
        return;
    int64_t value = first * weight.k + (int64_t)eight * 8;
    uint32_t codes = *(const uint32_t *)(weight.codes + value / 2);
    float scale = weight.scales[(s.first_scale + value / 32) >> s.shift], values[8];
    CT_UNROLL
    for (int i = 0; i < 4; i++) {
        uint32_t byte = codes >> 8 * i & 255u;
        values[2 * i] = book[byte >> 4] * scale;
        values[2 * i + 1] = book[byte & 15u] * scale;
    }
    ct_put8(to.dtype, to.data, (int64_t)eight * 8, values);
}

/* A ct_cuda_decode of a ct_cuda_scaled. */
static ct_status expand(ct_rows to, const void *matrix, int64_t first)
{
    const ct_cuda_scaled *weight = (const ct_cuda_scaled *)matrix;
    shape s = {ct_cuda_codebook(weight->dtype), weight->first_value / 32,
               ct_cuda_block_shift(weight, 32)};
    int eights = (int)(to.n_rows * to.width / 8);
    CT_KERNEL_CALL(expand_kernel, (unsigned)((eights + THREADS - 1) / THREADS), THREADS, 0,
                   ct_cuda_stream(), to, *weight, s, first, eights);
    return ct_cuda_launched("4 bits, decoding");
}

ct_status ct_cuda_codes_blas(const ct_scaled_product *product, int part, ct_arena *arena)
{
    const ct_scaled_part *from = &product->part[part];
    ct_cuda_product own = {};
    own.x = product->x;
    own.y = product->y;
    own.epilogue = product->epilogue;
    ct_cuda_part to = {};
    to.weight.n = from->weight.n;
    to.weight.k = from->weight.k;
    to.bias = from->bias;
    to.column = from->column;
    return ct_cuda_product_decoded(&own, &to, expand, &from->weight, arena);
}
