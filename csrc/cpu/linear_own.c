/* Linear layers by our own kernels: passes over the weights as they lie, or blocks. */
#include "cpu/linear_ways.h"

#include <string.h>

#include "core/threads.h"
#include "cpu/blocks.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/rowwise.h"
#include "cpu/scaled.h"

#define BAND_BYTES ((int64_t)1 << 18) /* of weights that several passes read, to stay in cache */
/* Of the weight rows, for each thread, which takes the next when it is done: cores differ. */
#define SHARES 8

/* What the threads of one product share. A residual may lie in y; then products go to `apart` first
 * and are moved when they are finished. */
typedef struct own_call {
    const ct_linear *linear;
    ct_rows x, y;
    const ct_cpu_epilogue *epilogue;
    ct_rows apart;           /* [pass rows, n_total], or without data */
    int64_t pass;            /* rows of x that are multiplied at a time */
    float *panels, *scratch; /* of gemm: x, packed; CT_GEMM_SCRATCH for each thread; or NULL */
    ct_scaled_input scaled;  /* of gemv: forms of x for weights that have scales, */
    ct_blocks_input blocks;  /* and for blocks of GGUF files */
    float *decoded;          /* of gemm, CT_GEMM_BLOCK_W rows for each thread; NULL: all are f32 */
} own_call;

/* Rows [first, first + n) of a part's weight in f32: as they lie, or decoded. */
static const float *float_weights(const own_call *call, int part, int64_t first, int64_t n)
{
    const ct_linear *linear = call->linear;
    const ct_tensor *weight = linear->weight[part];
    const char *rows = ct_tensor_data(weight);
    int64_t k = linear->k, row_bytes = (int64_t)linear->row_bytes[part];
    if (weight->dtype == CT_F32)
        return (const float *)(rows + first * row_bytes);
    float *decoded = call->decoded + ct_thread_id() * CT_GEMM_BLOCK_W * k;
    for (int64_t j = 0; j < n; j++) {
        if (weight->scales)
            ct_scaled_row(decoded + j * k, weight, first + j, linear->quantized.compute_dtype);
        else
            ct_cpu_kernels->to_f32[weight->dtype](decoded + j * k, rows + (first + j) * row_bytes,
                                                  k);
    }
    return decoded;
}

/* y [m, n] = all rows of x by the weight rows [first, first + n) of a part. */
static void gemm_band(const own_call *call, float *y, int64_t ldy, int64_t m, int part,
                      int64_t first, int64_t n)
{
    int64_t k = call->linear->k;
    ct_cpu_kernels->gemm(y, ldy, call->panels, m, float_weights(call, part, first, n), k, n, k,
                         call->scratch + ct_thread_id() * CT_GEMM_SCRATCH);
}

/* The columns [begin, end) of y: weight rows of `part`, whose first one is y's `part_begin`. */
static void own_band(const own_call *call, int part, int64_t part_begin, int64_t begin, int64_t end)
{
    const ct_linear *linear = call->linear;
    const ct_rows *x = &call->x, *y = &call->y;
    int64_t row_bytes = (int64_t)linear->row_bytes[part], n = end - begin;
    const char *weights =
        (const char *)ct_tensor_data(linear->weight[part]) + (begin - part_begin) * row_bytes;
    const float *bias = NULL;
    if (linear->bias[part])
        bias = (const float *)ct_tensor_data(linear->bias[part]) + begin - part_begin;
    for (int64_t i = 0; i < x->n_rows; i += call->pass) {
        int64_t m = x->n_rows - i < call->pass ? x->n_rows - i : call->pass;
        ct_rows to = call->apart;
        if (!to.data) {
            to = *y;
            to.data = ct_linear_row(y, i);
        }
        float *products = (float *)to.data + begin;
        if (call->panels)
            gemm_band(call, products, to.stride, m, part, begin - part_begin, n);
        else if (ct_dtype_has_scales(linear->dtype[part]))
            ct_scaled_products(products, to.stride, &call->scaled, i, m, linear->weight[part],
                               begin - part_begin, n);
        else if (call->blocks.n_words && ct_dtype_is_quantized(linear->dtype[part]))
            ct_blocks_products(products, to.stride, &call->blocks, i, m, linear->weight[part],
                               begin - part_begin, n);
        else
            ct_cpu_kernels->gemv[linear->dtype[part]](products, to.stride, ct_linear_row(x, i),
                                                      x->stride, m, weights, row_bytes, n,
                                                      linear->k);
        for (int64_t r = 0; r < m; r++) {
            float *row = products + r * to.stride;
            ct_linear_finish(row, i + r, begin, n, bias, call->epilogue);
            if (call->apart.data)
                memcpy(ct_linear_row(y, i + r) + begin, row, sizeof *row * (size_t)n);
        }
    }
}

/* Weight rows that stay in cache while all rows of x pass; where there is one pass, any number. */
static int64_t own_band_rows(const own_call *call, int part)
{
    if (call->decoded)
        return CT_GEMM_BLOCK_W;
    if (call->x.n_rows <= call->pass)
        return call->linear->n_total;
    int64_t rows =
        BAND_BYTES / (int64_t)call->linear->row_bytes[part] / CT_LINEAR_GRAIN * CT_LINEAR_GRAIN;
    return rows < CT_LINEAR_GRAIN ? CT_LINEAR_GRAIN : rows;
}

/* The columns [begin, end) of y, over all parts, as far as there are such. */
static void own_slice(const own_call *call, int64_t begin, int64_t end)
{
    int64_t first = 0;
    for (int p = 0; p < call->linear->n_parts; first += call->linear->n[p++]) {
        int64_t lo = begin > first ? begin : first, last = first + call->linear->n[p];
        int64_t hi = end < last ? end : last, band = own_band_rows(call, p);
        for (; lo < hi; lo += band)
            own_band(call, p, first, lo, hi - lo < band ? hi : lo + band);
    }
}

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Rows [begin, end) of x go to their place in the panels. */
static void pack_slice(const own_call *call, int64_t begin, int64_t end)
{
    int64_t k = call->linear->k;
    ct_cpu_kernels->gemm_pack(call->panels + begin * round_up(k, CT_GEMM_COLUMNS),
                              ct_linear_row(&call->x, begin), call->x.stride, end - begin, k);
}

/* Words of a value of x for those parts that are blocks of GGUF files, or 0. */
static int words_for_blocks(const ct_linear *linear)
{
    int n_words = 0;
    for (int i = 0; i < linear->n_parts && !n_words; i++)
        n_words = ct_blocks_words(linear->weight[i], &linear->quantized);
    return n_words;
}

/* Rows of x that one pass over the weights serves. */
static int64_t pass_rows(const ct_linear *linear)
{
    return linear->int8 && linear->uniform ? CT_SCALED_GROUP : CT_GEMV_MAX_M;
}

ct_status ct_linear_own(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                        ct_rows y, bool many, ct_arena *arena)
{
    ct_cpu_epilogue plain = *epilogue;
    ct_rows factor;
    int n_threads = ct_parallel_threads(linear->n_total * linear->k * x.n_rows);
    own_call call = {.linear = linear,
                     .x = x,
                     .y = y,
                     .epilogue = &plain,
                     .pass = many ? x.n_rows : pass_rows(linear)};
    if (y.dtype != CT_F32)
        CT_TRY(ct_linear_as_dtype(&call.y, CT_F32, true, arena));
    CT_TRY(ct_linear_widen_factor(&plain, &factor, arena));
    if (plain.residual && plain.residual->data == call.y.data) {
        call.apart = call.y;
        call.apart.n_rows = x.n_rows < call.pass ? x.n_rows : call.pass;
        CT_TRY(ct_linear_as_dtype(&call.apart, CT_F32, true, arena));
    }
    if (many) {
        int64_t packed = round_up(x.n_rows, CT_GEMM_ROWS) * round_up(linear->k, CT_GEMM_COLUMNS);
        CT_TRY(ct_arena_alloc(arena, (void **)&call.panels, sizeof *call.panels * (size_t)packed));
        CT_TRY(ct_arena_alloc(arena, (void **)&call.scratch,
                              sizeof *call.scratch * CT_GEMM_SCRATCH * (size_t)n_threads));
        if (!linear->uniform || linear->dtype[0] != CT_F32)
            CT_TRY(ct_arena_alloc(arena, (void **)&call.decoded,
                                  sizeof *call.decoded * CT_GEMM_BLOCK_W *
                                      (size_t)(linear->k * n_threads)));
    }
    int64_t share = round_up((linear->n_total + SHARES * n_threads - 1) / (SHARES * n_threads),
                             CT_LINEAR_GRAIN);
    if (linear->scaled && !many)
        CT_TRY(ct_scaled_prepare(&call.scaled, x, linear->weight, linear->n_parts,
                                 &linear->quantized, arena));
    int n_words = many ? 0 : words_for_blocks(linear);
    if (n_words)
        CT_TRY(ct_blocks_prepare(&call.blocks, x, n_words, arena));
#pragma omp parallel num_threads(n_threads)
    {
        if (many) {
            int64_t begin, end;
            ct_threads_slice(x.n_rows, CT_GEMM_ROWS, ct_thread_id(), ct_thread_count(), &begin,
                             &end);
            pack_slice(&call, begin, end);
#pragma omp barrier
        }
#pragma omp for schedule(dynamic) nowait
        for (int64_t first = 0; first < linear->n_total; first += share)
            own_slice(&call, first, first + share);
    }
    return y.dtype == CT_F32 ? CT_OK : ct_cpu_scatter(y, call.y, NULL);
}
