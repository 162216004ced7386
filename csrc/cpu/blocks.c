/* x is converted once for a product, and read by all threads. */
#include "cpu/blocks.h"

#include "core/memory.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

int ct_blocks_words(const ct_tensor *weight, const ct_quantized_compute *how)
{
    if (!ct_dtype_is_quantized(weight->dtype) || ct_dtype_has_scales(weight->dtype) ||
        !ct_cpu_kernels->words_are_fast)
        return 0;
    return how->model_dtype == CT_F32 ? 2 : 1;
}

ct_status ct_blocks_prepare(ct_blocks_input *input, ct_rows x, int n_words, ct_arena *arena)
{
    ct_int16_input convert =
        n_words == 2 ? ct_cpu_kernels->int31_input : ct_cpu_kernels->int16_input;
    int64_t k = x.width, per_row = k / CT_INT16_BLOCK;
    size_t size, n_blocks = (size_t)(x.n_rows * per_row);
    input->k = k;
    input->n_words = n_words;
    CT_TRY(ct_mul_size(&size, (size_t)(x.n_rows * k), (size_t)n_words * sizeof *input->x));
    CT_TRY(ct_arena_alloc(arena, (void **)&input->x, size));
    CT_TRY(ct_arena_alloc(arena, (void **)&input->scales, n_blocks * sizeof *input->scales));
    CT_TRY(ct_arena_alloc(arena, (void **)&input->sums, n_blocks * sizeof *input->sums));
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(x.n_rows *k))
    for (int64_t i = 0; i < x.n_rows; i++)
        convert(input->x + i * k * n_words, input->scales + i * per_row, input->sums + i * per_row,
                (const float *)x.data + i * x.stride, k);
    return CT_OK;
}

void ct_blocks_products(float *y, int64_t ldy, const ct_blocks_input *input, int64_t first,
                        int64_t m, const ct_tensor *weight, int64_t begin, int64_t n)
{
    const ct_gemv_int16_kernel *gemv =
        input->n_words == 2 ? ct_cpu_kernels->gemv_int31 : ct_cpu_kernels->gemv_int16;
    int64_t k = input->k, per_row = k / CT_INT16_BLOCK, ldx = k * input->n_words;
    int64_t row_bytes =
        k / ct_dtype_block_values(weight->dtype) * (int64_t)ct_dtype_block_bytes(weight->dtype);
    const char *rows = (const char *)ct_tensor_data(weight) + begin * row_bytes;
    gemv[weight->dtype](y, ldy, input->x + first * ldx, ldx, input->scales + first * per_row,
                        input->sums + first * per_row, per_row, m, rows, row_bytes, n, k);
}
