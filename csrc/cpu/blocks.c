/* x is rounded once for a product, and read by all threads. */
#include "cpu/blocks.h"

#include "core/memory.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

bool ct_blocks_round(const ct_tensor *weight, const ct_quantized_compute *how)
{
    return ct_dtype_is_quantized(weight->dtype) && !ct_dtype_has_scales(weight->dtype) &&
           how->model_dtype != CT_F32 && ct_cpu_kernels->int16_is_fast;
}

ct_status ct_blocks_prepare(ct_blocks_input *input, ct_rows x, ct_arena *arena)
{
    int64_t k = x.width, per_row = k / CT_INT16_BLOCK;
    size_t n_words, n_blocks = (size_t)(x.n_rows * per_row);
    input->k = k;
    CT_TRY(ct_mul_size(&n_words, (size_t)(x.n_rows * k), sizeof *input->x));
    CT_TRY(ct_arena_alloc(arena, (void **)&input->x, n_words));
    CT_TRY(ct_arena_alloc(arena, (void **)&input->scales, n_blocks * sizeof *input->scales));
    CT_TRY(ct_arena_alloc(arena, (void **)&input->sums, n_blocks * sizeof *input->sums));
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(x.n_rows *k))
    for (int64_t i = 0; i < x.n_rows; i++)
        ct_cpu_kernels->int16_input(input->x + i * k, input->scales + i * per_row,
                                    input->sums + i * per_row, (const float *)x.data + i * x.stride,
                                    k);
    return CT_OK;
}

void ct_blocks_products(float *y, int64_t ldy, const ct_blocks_input *input, int64_t first,
                        int64_t m, const ct_tensor *weight, int64_t begin, int64_t n)
{
    int64_t k = input->k, per_row = k / CT_INT16_BLOCK;
    int64_t row_bytes =
        k / ct_dtype_block_values(weight->dtype) * (int64_t)ct_dtype_block_bytes(weight->dtype);
    const char *rows = (const char *)ct_tensor_data(weight) + begin * row_bytes;
    ct_cpu_kernels->gemv_int16[weight->dtype](
        y, ldy, input->x + first * k, k, input->scales + first * per_row,
        input->sums + first * per_row, per_row, m, rows, row_bytes, n, k);
}
