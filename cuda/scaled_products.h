/* The products that scaled.cu chooses from. Rows of x and y are f32, with a row and a column at
 * least. */
#ifndef CT_CUDA_SCALED_PRODUCTS_H
#define CT_CUDA_SCALED_PRODUCTS_H

#include "linear.h"
#include "runtime.h"
#include "scaled.h"

/* scaled_int8.cu: LLM.int8, any number of rows. */
CT_MUST_CHECK ct_status ct_cuda_int8_products(const ct_scaled_product *product, float threshold,
                                              ct_arena *arena);

/* ---- 4 bits ---- */

/* scaled_few.cu: up to 8 rows at a time by tensor cores, of which each weight is read once. Blocks
 * have 64 values or a multiple of them, and begin where rows begin or between their 64s. All parts
 * in one launch. `fine`: values in 16 bits instead of bf16. */
CT_MUST_CHECK ct_status ct_cuda_codes_few(const ct_scaled_product *product, bool fine);
/* Rows of x that it can take at a time, 0: none, because they are too long. */
int64_t ct_cuda_codes_few_rows(int64_t k);

/* scaled_exact.cu: any number of rows, in f32; blocks of multiples of 32 values, as above. */
CT_MUST_CHECK ct_status ct_cuda_codes_exact(ct_rows y, ct_rows x, const ct_cuda_scaled *weight);
int64_t ct_cuda_codes_exact_rows(int64_t k);

/* scaled_many.cu: any number of rows by tensor cores, in bf16 or (`fine`) with 16 bits; blocks of
 * multiples of 32 values. */
CT_MUST_CHECK ct_status ct_cuda_codes_many(ct_rows y, ct_rows x, const ct_cuda_scaled *weight,
                                           bool fine);

/* scaled_exact.cu: any blocks and any number of rows, in f32, slowly. */
CT_MUST_CHECK ct_status ct_cuda_codes_any(ct_rows y, ct_rows x, const ct_cuda_scaled *weight);

/* At most `n` rows of x from `first` on, with theirs of y. */
static inline ct_scaled_product ct_scaled_rows(ct_scaled_product product, int64_t first, int64_t n)
{
    product.x = ct_rows_from(product.x, first, n);
    for (int p = 0; p < product.n_parts; p++)
        product.part[p].y = ct_rows_from(product.part[p].y, first, n);
    return product;
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
