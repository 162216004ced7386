/* A table of any format is looked up as it lies: only the rows asked for are decoded. */
#include "ops.h"

#include "block_decode.h"
#include "fours.h"
#include "runtime.h"

typedef struct lookup {
    ct_rows y;
    const uint8_t *table;
    int64_t row_bytes;
    const int32_t *ids;
    float scale;
    bool accumulate, table_in_fours, y_in_fours;
} lookup;

/* A four does not cross blocks. */
template <ct_dtype dtype>
CT_DEVICE void decode4(float values[4], const uint8_t *row, int64_t column, int64_t left,
                       bool in_fours)
{
    if constexpr (dtype == CT_F32 || dtype == CT_F16 || dtype == CT_BF16) {
        ct_get4(values, dtype, row, column, left, in_fours);
    } else {
        constexpr int n = ct_block_of<dtype>::values;
        const uint8_t *block = row + column / n * ct_block_of<dtype>::bytes;
        for (int j = 0; j < 4; j++)
            values[j] = ct_block_value<dtype>(block, (int)(column % n) + j);
    }
}

template <ct_dtype dtype> CT_KERNEL embed_kernel(lookup job)
{
    int64_t row = ct_fours_row(), column = ct_fours_column(), left = job.y.width - column;
    if (row >= job.y.n_rows || left <= 0)
        return;
    float values[4], before[4] = {0};
    int64_t to = row * job.y.stride + column;
    decode4<dtype>(values, job.table + job.ids[row] * job.row_bytes, column, left,
                   job.table_in_fours);
    if (job.accumulate)
        ct_get4(before, CT_F32, job.y.data, to, left, job.y_in_fours);
    for (int j = 0; j < 4; j++) { /* rounded twice, as the CPU does */
        values[j] = ct_mul_exact(values[j], job.scale);
        if (job.accumulate)
            values[j] = ct_add_exact(before[j], values[j]);
    }
    ct_put4(CT_F32, job.y.data, to, values, left, job.y_in_fours);
}

#define LOOK_UP(dtype)                                                                             \
    case dtype:                                                                                    \
        CT_KERNEL_CALL((embed_kernel<dtype>), fours.grid, fours.block, 0, ct_cuda_stream(), job);  \
        break;

ct_status ct_cuda_embed(ct_rows y, const ct_tensor *table, const int32_t *ids, float scale,
                        bool accumulate)
{
    size_t row_bytes;
    CT_TRY(ct_dtype_row_bytes(&row_bytes, table->dtype, y.width));
    if (y.n_rows == 0 || y.width == 0)
        return CT_OK;
    ct_rows rows = {ct_tensor_data(table), table->dtype, table->shape[0], y.width, y.width};
    lookup job = {y,          (const uint8_t *)rows.data, (int64_t)row_bytes, ids, scale,
                  accumulate, ct_in_fours(rows),          ct_in_fours(y)};
    ct_fours fours = ct_fours_over(y.n_rows, y.width);
    switch (table->dtype) {
        CT_PLAIN_WEIGHTS(LOOK_UP)
    default:
        return ct_fail(CT_UNSUPPORTED, "a table of %s cannot be looked up on a CUDA device",
                       ct_dtype_name(table->dtype));
    }
    return ct_cuda_launched("embed");
}
