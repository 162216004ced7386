/* Rotation of queries and keys, and new keys and values into the cache, in one launch: a block for
 * one KV head and its queries in a few rows. Attention of single rows does without it
 * (attention_decode.cu). */
#include "rotary.h"

#include "rows.h"
#include "runtime.h"
#include "sequences.h"

#define THREADS 256
#define MAX_ROWS CT_WARP /* of a block: neighbouring positions, which lie side by side in pages */

/* Rows [first, first + n) of one KV head. */
typedef struct part {
    int64_t first, kv_head;
    int n;
} part;

CT_DEVICE float *row_of(const ct_rows &qkv, int64_t row)
{
    return (float *)qkv.data + row * qkv.stride;
}

CT_DEVICE void rotate(const ct_rows &qkv, const ct_head_layout &layout, const ct_rotary &rotary,
                      const part &part)
{
    int group = (int)(layout.n_heads / layout.n_kv_heads), half = (int)(rotary.width / 2);
    int step = rotary.interleaved ? 1 : half;
    int64_t queries = layout.q_offset + part.kv_head * layout.q_group_stride;
    int64_t key = layout.k_offset + part.kv_head * layout.kv_group_stride;
    for (int i = threadIdx.x; i < part.n * (group + 1) * half; i += THREADS) {
        int pair = i % half, head = i / half % (group + 1);
        int64_t row = part.first + i / half / (group + 1);
        float *x = row_of(qkv, row) + (head < group ? queries + head * layout.head_width : key);
        float *a = x + (rotary.interleaved ? 2 * pair : pair), *b = a + step;
        ct_turn turn = ct_turn_of(rotary, row, (int)(a - x));
        float before = *a;
        *a = ct_turned(before, *b, turn);
        *b = ct_turned(*b, before, {0, turn.cos, -turn.sin});
    }
}

/* Lanes run along the rows: those of a sequence are neighbours in a page. */
CT_DEVICE void append_keys(const ct_rows &qkv, const ct_head_layout &layout, ct_dtype dtype,
                           const part &part, char *const *pages, const int *columns)
{
    int64_t d = layout.head_width, block = part.kv_head * d * CT_PAGE_POSITIONS;
    int64_t key = layout.k_offset + part.kv_head * layout.kv_group_stride;
    for (int i = threadIdx.x; i < part.n * d; i += THREADS) {
        int row = i % part.n, feature = i / part.n;
        ct_put_as(dtype, pages[row], block + feature * CT_PAGE_POSITIONS + columns[row],
                  row_of(qkv, part.first + row)[key + feature]);
    }
}

CT_DEVICE void append_values(const ct_rows &qkv, const ct_head_layout &layout, ct_dtype dtype,
                             const part &part, char *const *pages, const int *columns)
{
    int d = (int)layout.head_width;
    int64_t block = (layout.n_kv_heads + part.kv_head) * d * CT_PAGE_POSITIONS;
    int64_t value = layout.v_offset + part.kv_head * layout.kv_group_stride;
    for (int i = threadIdx.x; i < part.n * d; i += THREADS) {
        int row = i / d, feature = i % d;
        ct_put_as(dtype, pages[row], block + columns[row] * d + feature,
                  row_of(qkv, part.first + row)[value + feature]);
    }
}

CT_KERNEL CT_BOUNDS(THREADS, 4)
    rotary_append_kernel(ct_rows qkv, ct_head_layout layout, ct_rotary rotary, int64_t n_sequences,
                         const int64_t *offsets, ct_kv_view cache, bool appends, int rows_of_block)
{
    CT_SHARED(char *, pages, MAX_ROWS); /* what each row's key and value go into */
    CT_SHARED(int, columns, MAX_ROWS);
    part part = {(int64_t)blockIdx.x * rows_of_block, blockIdx.y, rows_of_block};
    if (qkv.n_rows - part.first < part.n)
        part.n = (int)(qkv.n_rows - part.first);
    if (rotary.width)
        rotate(qkv, layout, rotary, part);
    if (!appends)
        return;
    if ((int)threadIdx.x < part.n) {
        int64_t row = part.first + threadIdx.x;
        int64_t sequence = ct_sequence_of(offsets, n_sequences, row);
        int64_t place = cache.lengths[sequence] + row - offsets[sequence];
        pages[threadIdx.x] = ct_cached_keys(cache, sequence, place);
        columns[threadIdx.x] = (int)(place % CT_PAGE_POSITIONS);
    }
    ct_barrier(); /* rotated keys are read by other threads, too */
    append_keys(qkv, layout, cache.dtype, part, pages, columns);
    append_values(qkv, layout, cache.dtype, part, pages, columns);
}

/* Many rows a block write keys with few transactions; few keep all multiprocessors busy. */
static int choose_rows(int64_t n_rows, int64_t kv_heads)
{
    int rows = MAX_ROWS;
    while (rows > 1 && n_rows / rows * kv_heads < 4 * ct_cuda_multiprocessors())
        rows /= 2;
    return rows;
}

ct_status ct_cuda_rotary_append(const ct_attention_args *args)
{
    if (args->rotary.width == 0 && !args->cache)
        return CT_OK;
    int64_t n_rows = args->qkv.n_rows, kv_heads = args->layout.n_kv_heads;
    int rows = choose_rows(n_rows, kv_heads);
    dim3 grid((unsigned)((n_rows + rows - 1) / rows), (unsigned)kv_heads);
    ct_kv_view view = args->cache ? *args->cache : ct_kv_view();
    CT_KERNEL_CALL(rotary_append_kernel, grid, THREADS, 0, ct_cuda_stream(), args->qkv,
                   args->layout, args->rotary, args->n_sequences, args->offsets, view,
                   args->cache != NULL, rows);
    return ct_cuda_launched("rotating and appending");
}
