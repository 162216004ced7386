/* The products that scaled.cu chooses from. x has a row and a column at least, and is f32 unless
 * something else is said. Only those of few rows norm and gate. */
#ifndef CT_CUDA_SCALED_PRODUCTS_H
#define CT_CUDA_SCALED_PRODUCTS_H

#include "linear.h"
#include "runtime.h"
#include "scaled.h"

/* scaled_int8.cu: LLM.int8, any number of rows, of which many are multiplied by cuBLASLt where
 * `blas`. */
CT_MUST_CHECK ct_status ct_cuda_int8_products(const ct_scaled_product *product, float threshold,
                                              bool blas, ct_arena *arena);

/* ---- 4 bits ---- */

/* scaled_few.cu: up to 8 rows at a time by tensor cores, of which each weight is read once. Blocks
 * have 64 values or a multiple of them, and begin where rows begin or between their 64s. All parts
 * in one launch. `fine`: values in 16 bits instead of bf16. */
CT_MUST_CHECK ct_status ct_cuda_codes_few(const ct_scaled_product *product, bool fine);
/* Rows of x that it can take at a time, 0: none, because they are too long. */
int64_t ct_cuda_codes_few_rows(int64_t k);

/* scaled_exact.cu: any number of rows, in f32; blocks of multiples of 32 values, as above. */
CT_MUST_CHECK ct_status ct_cuda_codes_exact(const ct_scaled_product *product, int part);
int64_t ct_cuda_codes_exact_rows(int64_t k);

/* scaled_many.cu: any number of rows by tensor cores, in bf16 or (`fine`) with 16 bits; blocks of
 * multiples of 32 values. */
CT_MUST_CHECK ct_status ct_cuda_codes_many(const ct_scaled_product *product, int part, bool fine);

/* scaled_blas.cu: any number of rows by cuBLASLt, in the type of x; blocks of multiples of 32
 * values. */
CT_MUST_CHECK ct_status ct_cuda_codes_blas(const ct_scaled_product *product, int part,
                                           ct_arena *arena);

/* scaled_exact.cu: any blocks and any number of rows, in f32, slowly. */
CT_MUST_CHECK ct_status ct_cuda_codes_any(const ct_scaled_product *product, int part);

/* At most `n` rows of x from `first` on, with theirs of y. */
static inline ct_scaled_product ct_scaled_rows(ct_scaled_product product, int64_t first, int64_t n)
{
    product.x = ct_rows_from(product.x, first, n);
    product.y = ct_rows_from(product.y, first, n);
    product.epilogue = ct_epilogue_rows(product.epilogue, first, n);
    return product;
}

CT_DEVICE float ct_add_bias(const ct_scaled_part &part, int64_t row, float product)
{
    return part.bias ? product + part.bias[row] : product;
}

/* Of row x_row of x by weight row `row` of a part. */
CT_DEVICE void ct_finish_part(const ct_scaled_product &product, const ct_scaled_part &part,
                              int64_t x_row, int64_t row, float value)
{
    ct_finish(product.epilogue, product.y, x_row, part.column + row, ct_add_bias(part, row, value));
}

/* Matrices whose scales serve multiples of `values` values that begin at such in each row. */
static inline bool ct_cuda_codes_align(const ct_cuda_scaled *weight, int64_t values)
{
    return weight->block % values == 0 && (weight->block & (weight->block - 1)) == 0 &&
           weight->k % values == 0 && weight->first_value % values == 0;
}

/* Of which the block is 2^that many. */
static inline int ct_cuda_block_shift(const ct_cuda_scaled *weight, int64_t values)
{
    int shift = 0;
    while (values << shift < weight->block)
        shift++;
    return shift;
}

/* The codebook by value, as kernels need it. */
typedef struct ct_codebook {
    float values[16];
} ct_codebook;

static inline ct_codebook ct_cuda_codebook(ct_dtype format)
{
    ct_codebook book;
    memcpy(book.values, ct_bnb_codebook(format), sizeof book.values);
    return book;
}

/* The same in shared memory, where an index may differ from lane to lane; by all threads. */
CT_DEVICE const float *ct_shared_codebook(const ct_codebook &book)
{
    CT_SHARED(float, values, 16);
    if (threadIdx.x == 0) {
        CT_UNROLL
        for (int i = 0; i < 16; i++)
            values[i] = book.values[i];
    }
    ct_barrier();
    return values;
}

#endif
