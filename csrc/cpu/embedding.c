/* A table of any format is looked up as it lies: only the rows asked for are decoded. */
#include "cpu/embedding.h"

#include "cpu/kernels.h"
#include "cpu/parallel.h"

ct_status ct_cpu_embed(ct_rows y, const ct_tensor *table, const int32_t *ids, float scale,
                       bool accumulate)
{
    size_t row_bytes;
    CT_TRY(ct_dtype_row_bytes(&row_bytes, table->dtype, y.width));
    const char *rows = ct_tensor_data(table);
#pragma omp parallel num_threads(ct_parallel_threads(y.n_rows *y.width))
    {
        float own[y.width]; /* a row of activations; widths are bounded by the spec */
#pragma omp for schedule(static)
        for (int64_t i = 0; i < y.n_rows; i++) {
            float *out = (float *)y.data + i * y.stride, *row = accumulate ? own : out;
            ct_cpu_kernels->to_f32[table->dtype](row, rows + (size_t)ids[i] * row_bytes, y.width);
            if (scale != 1)
                ct_cpu_kernels->scale(row, scale, y.width);
            if (accumulate)
                ct_cpu_kernels->add(out, out, own, y.width);
        }
    }
    return CT_OK;
}
