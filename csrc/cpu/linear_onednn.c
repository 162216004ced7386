/* Linear layers by oneDNN: of weights in a type that it multiplies, decoded to one, or in bytes. */
#include "cpu/linear_ways.h"

#include "core/threads.h"
#include "cpu/kernels.h"
#include "cpu/onednn.h"
#include "cpu/parallel.h"
#include "cpu/scaled.h"

#define PANEL_BYTES ((int64_t)1 << 19) /* of decoded weights, to stay in cache */
/* Sums of bytes that stay in cache until they are scaled: so many rows of x by weight rows. */
#define BYTES_ROWS 512
#define BYTES_COLUMNS 512

/* The columns [first, first + width) of all rows. */
static ct_rows columns(ct_rows rows, int64_t first, int64_t width)
{
    rows.data = (char *)rows.data + first * (int64_t)ct_dtype_block_bytes(rows.dtype);
    rows.width = width;
    return rows;
}

/* The epilogue of the output columns [first, first + width); `narrowed` holds its rows. */
static ct_cpu_epilogue epilogue_columns(const ct_cpu_epilogue *epilogue, int64_t first,
                                        int64_t width, ct_rows *narrowed)
{
    ct_cpu_epilogue part = *epilogue;
    const ct_rows *other = part.multiply ? part.multiply : part.residual;
    if (other) {
        *narrowed = columns(*other, first, width);
        *(part.multiply ? &part.multiply : &part.residual) = narrowed;
    }
    return part;
}

ct_status ct_linear_onednn(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                           ct_rows y, ct_arena *arena)
{
    if (linear->packed) {
        ct_matmul product = {.x = x, .packed = linear->packed, .epilogue = *epilogue, .y = y};
        if (linear->joined_bias)
            product.bias = ct_tensor_data(linear->joined_bias);
        return ct_onednn_matmul(&product, arena);
    }
    int64_t first = 0;
    for (int p = 0; p < linear->n_parts; first += linear->n[p++]) {
        ct_rows narrowed;
        ct_matmul product = {
            .x = x,
            .weights = ct_tensor_data(linear->weight[p]),
            .bias = linear->bias[p] ? ct_tensor_data(linear->bias[p]) : NULL,
            .epilogue = epilogue_columns(epilogue, first, linear->n[p], &narrowed),
            .y = columns(y, first, linear->n[p]),
        };
        CT_TRY(ct_onednn_matmul(&product, arena));
    }
    return CT_OK;
}

/* Rows [first, first + n) of a part's weight in bf16. */
static void decode_rows(uint16_t *dst, float *wide, const ct_linear *linear, int part,
                        int64_t first, int64_t n)
{
    int64_t k = linear->k;
#pragma omp parallel num_threads(ct_parallel_threads(n *k))
    {
        int64_t begin, end;
        ct_threads_slice(n, 1, ct_thread_id(), ct_thread_count(), &begin, &end);
        ct_scaled_rows_bf16(dst + begin * k, wide + ct_thread_id() * k, linear->weight[part],
                            first + begin, end - begin);
    }
}

ct_status ct_linear_panel(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                          ct_rows y, ct_arena *arena)
{
    int64_t k = linear->k, band = PANEL_BYTES / (k * (int64_t)sizeof(uint16_t)) / CT_LINEAR_GRAIN *
                                  CT_LINEAR_GRAIN;
    if (band < CT_LINEAR_GRAIN)
        band = CT_LINEAR_GRAIN;
    uint16_t *decoded;
    float *wide;
    CT_TRY(ct_arena_alloc(arena, (void **)&decoded, sizeof *decoded * (size_t)(band * k)));
    CT_TRY(ct_arena_alloc(arena, (void **)&wide, sizeof *wide * (size_t)(ct_threads_get() * k)));
    int64_t first = 0;
    for (int p = 0; p < linear->n_parts; first += linear->n[p++]) {
        const float *bias = linear->bias[p] ? ct_tensor_data(linear->bias[p]) : NULL;
        for (int64_t row = 0; row < linear->n[p]; row += band) {
            int64_t n = linear->n[p] - row < band ? linear->n[p] - row : band;
            decode_rows(decoded, wide, linear, p, row, n);
            ct_rows narrowed;
            ct_matmul product = {
                .x = x,
                .weights = decoded,
                .bias = bias ? bias + row : NULL,
                .epilogue = epilogue_columns(epilogue, first + row, n, &narrowed),
                .y = columns(y, first + row, n),
            };
            CT_TRY(ct_onednn_matmul(&product, arena));
        }
    }
    return CT_OK;
}

/* What the threads of one product of bytes share. */
typedef struct bytes_call {
    const ct_linear *linear;
    const ct_cpu_epilogue *epilogue;
    const ct_scaled_input *input;
    ct_rows y;
    int32_t *sums;   /* of a block, without gaps */
    float *products; /* CT_SCALED_GROUP rows of a block for each thread */
} bytes_call;

/* A block of y: rows [row, row + m), columns [column, column + n), weight rows from `begin` of a
 * part on. */
typedef struct bytes_block {
    int64_t row, m, column, n;
    int part;
    int64_t begin;
} bytes_block;

static ct_status sum_bytes(const bytes_call *call, const bytes_block *b, ct_arena *arena)
{
    int64_t k = call->linear->k;
    ct_matmul product = {
        .x = {call->input->codes + b->row * k, CT_I8, b->m, k, k},
        .weights = (const int8_t *)ct_tensor_data(call->linear->weight[b->part]) + b->begin * k,
        .y = {call->sums, CT_I32, b->m, b->n, b->n},
    };
    return ct_onednn_matmul(&product, arena);
}

/* Rows [first, first + m) of a block, from their sums. */
static void finish_bytes(const bytes_call *call, const bytes_block *b, int64_t first, int64_t m)
{
    const ct_tensor *bias = call->linear->bias[b->part];
    float *products = call->products + ct_thread_id() * CT_SCALED_GROUP * BYTES_COLUMNS;
    ct_scaled_int8_finish(products, b->n, call->sums + first * b->n, b->n, call->input,
                          b->row + first, m, call->linear->weight[b->part], b->begin, b->n);
    ct_rows to = columns(call->y, b->column, b->n);
    for (int64_t i = 0; i < m; i++) {
        int64_t row = b->row + first + i;
        ct_linear_finish(products + i * b->n, row, b->column, b->n,
                         bias ? (const float *)ct_tensor_data(bias) + b->begin : NULL,
                         call->epilogue);
        ct_cpu_kernels->from_f32[to.dtype](
            (char *)to.data + row * to.stride * (int64_t)ct_dtype_block_bytes(to.dtype),
            products + i * b->n, b->n);
    }
}

static ct_status bytes_rows(const bytes_call *call, int64_t row, int64_t m, ct_arena *arena)
{
    int64_t first = 0;
    for (int p = 0; p < call->linear->n_parts; first += call->linear->n[p++])
        for (int64_t begin = 0; begin < call->linear->n[p]; begin += BYTES_COLUMNS) {
            int64_t left = call->linear->n[p] - begin;
            bytes_block b = {row, m,    first + begin, left < BYTES_COLUMNS ? left : BYTES_COLUMNS,
                             p,   begin};
            CT_TRY(sum_bytes(call, &b, arena));
#pragma omp parallel for schedule(dynamic) num_threads(ct_parallel_threads(b.m *b.n))
            for (int64_t i = 0; i < m; i += CT_SCALED_GROUP)
                finish_bytes(call, &b, i, m - i < CT_SCALED_GROUP ? m - i : CT_SCALED_GROUP);
        }
    return CT_OK;
}

ct_status ct_linear_bytes(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                          ct_rows y, ct_arena *arena)
{
    ct_cpu_epilogue plain = *epilogue;
    ct_rows factor;
    ct_scaled_input input;
    bytes_call call = {.linear = linear, .epilogue = &plain, .input = &input, .y = y};
    int64_t n_blocks = (x.n_rows + BYTES_ROWS - 1) / BYTES_ROWS;
    int64_t at_once = (x.n_rows + n_blocks - 1) / n_blocks;
    CT_TRY(ct_linear_widen_factor(&plain, &factor, arena));
    CT_TRY(
        ct_scaled_prepare(&input, x, linear->weight, linear->n_parts, &linear->quantized, arena));
    CT_TRY(ct_arena_alloc(arena, (void **)&call.sums,
                          sizeof *call.sums * (size_t)(at_once * BYTES_COLUMNS)));
    CT_TRY(ct_arena_alloc(arena, (void **)&call.products,
                          sizeof *call.products * CT_SCALED_GROUP * BYTES_COLUMNS *
                              (size_t)ct_threads_get()));
    for (int64_t row = 0; row < x.n_rows; row += at_once)
        CT_TRY(bytes_rows(&call, row, x.n_rows - row < at_once ? x.n_rows - row : at_once, arena));
    return CT_OK;
}
