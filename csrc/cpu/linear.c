/* x W^T + bias and what follows it. The first of these that takes the case does it:
 *
 * oneDNN: packed weights, and many rows of bf16 where the CPU has bf16 products.
 *
 * gemv: few rows. One pass over the weights as they lie, bound by memory, in f32 or by x rounded as
 * cpu/scaled and cpu/blocks say; and any number of rows by LLM.int8, whose sums are exact.
 *
 * bytes: many rows by LLM.int8 where the CPU has products of tiles of bytes. oneDNN sums them,
 * block by block, with the bits of gemv.
 *
 * panel: many rows of 4-bit codes that are computed with in bf16, where the CPU has bf16 products.
 * Bands of weight rows are decoded in cache and multiplied by oneDNN.
 *
 * gemm: many rows. Bands of weight rows are decoded to f32 in cache and multiplied by blocks; by
 * float weights with the bits of gemv, so that what a decoder computes for a row does not depend on
 * what it is computed with. */
#include "cpu/linear.h"

#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "cpu/blocks.h"
#include "cpu/kernels.h"
#include "cpu/onednn.h"
#include "cpu/parallel.h"
#include "cpu/rowwise.h"
#include "cpu/scaled.h"

/* Measured on 2 cores, 5632 x 2048 bf16: from here on oneDNN is faster than further passes. */
#define GEMV_MAX_ROWS 8
/* On 2 AVX2 cores, for rows of 576 and 2048: below, packing costs more than further passes. */
#define GEMM_MIN_ROWS 24
#define BAND_BYTES ((int64_t)1 << 18)  /* of weights that several passes read, to stay in cache */
#define PANEL_BYTES ((int64_t)1 << 19) /* of decoded weights, likewise */
/* Sums of bytes that stay in cache until they are scaled: so many rows of x by weight rows. */
#define BYTES_ROWS 512
#define BYTES_COLUMNS 512
/* Fewer rows leave most of oneDNN's tiles empty. */
#define BYTES_MIN_ROWS 16
#define GRAIN CT_GEMM_BLOCK_W /* weight rows that stay with one thread */
/* Of the weight rows, for each thread, which takes the next when it is done: cores differ. */
#define SHARES 8

struct ct_linear {
    int n_parts;
    ct_tensor *weight[CT_LINEAR_MAX_PARTS]; /* NULL when packed */
    ct_tensor *bias[CT_LINEAR_MAX_PARTS];
    int64_t n[CT_LINEAR_MAX_PARTS];
    int64_t n_total, k;
    ct_dtype dtype[CT_LINEAR_MAX_PARTS];
    size_t row_bytes[CT_LINEAR_MAX_PARTS];
    bool uniform; /* all parts have the dtype of the first */
    bool int8;    /* a part is LLM.int8 */
    bool scaled;  /* a part has scales */
    ct_quantized_compute quantized;
    ct_packed *packed;
    ct_tensor *joined_bias; /* [n_total] beside packed, or NULL */
    ct_input_norm norm;     /* owned */
    ct_linear *gate;        /* of a gated layer, which is `up` then; or NULL */
};

typedef enum method { METHOD_ONEDNN, METHOD_GEMV, METHOD_BYTES, METHOD_PANEL, METHOD_GEMM } method;

static ct_status join_bias(ct_linear *linear);
static ct_status own(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue, ct_rows y,
                     bool many, ct_arena *arena);
static ct_status dense(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                       ct_rows y, ct_arena *arena);
static ct_status panel(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                       ct_rows y, ct_arena *arena);
static ct_status bytes(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                       ct_rows y, ct_arena *arena);

/* The product by n_parts of the parts, `first` and those behind it. */
static ct_status new_product(ct_linear **out, const ct_linear_desc *desc, int first, int n_parts)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_tensor *const *weight = desc->weight + first, *const *bias = desc->bias + first;
    ct_linear *linear;
    CT_TRY(ct_alloc_zeroed((void **)&linear, 1, sizeof *linear));
    linear->n_parts = n_parts;
    linear->k = weight[0]->shape[1];
    linear->uniform = true;
    linear->quantized = desc->quantized;
    for (int i = 0; i < n_parts; i++) {
        linear->n[i] = weight[i]->shape[0];
        linear->n_total += linear->n[i];
        linear->dtype[i] = weight[i]->dtype;
        linear->uniform = linear->uniform && linear->dtype[i] == linear->dtype[0];
        CT_TRY_TO(failed, ct_dtype_row_bytes(&linear->row_bytes[i], linear->dtype[i], linear->k));
        if (ct_dtype_has_scales(linear->dtype[i])) {
            linear->scaled = true;
            linear->int8 = linear->int8 || linear->dtype[i] == CT_LLM_INT8;
            CT_TRY_TO(failed, ct_scaled_check(weight[i]));
        }
        if (bias[i])
            linear->bias[i] = ct_tensor_ref(bias[i]);
        CT_TRY_TO(failed, ct_tensor_contiguous(&linear->weight[i], weight[i]));
    }
    if (desc->use == CT_LINEAR_BATCH && linear->uniform && ct_onednn_takes(linear->dtype[0])) {
        CT_TRY_TO(failed, ct_packed_new(&linear->packed, linear->weight, linear->n_parts));
        CT_TRY_TO(failed, join_bias(linear));
        for (int i = 0; i < linear->n_parts; i++)
            ct_tensor_unref(&linear->weight[i]);
    }
    *out = linear;
    return CT_OK;
failed:
    ct_cpu_linear_free(&linear);
    return status;
}

ct_status ct_cpu_linear_new(ct_linear **out, const ct_linear_desc *desc)
{
    const ct_input_norm *norm = &desc->norm;
    if (!desc->gated)
        CT_TRY(new_product(out, desc, 0, desc->n_parts));
    else
        CT_TRY(new_product(out, desc, 1, 1));
    (*out)->norm = *norm;
    if (norm->weight)
        (*out)->norm.weight = ct_tensor_ref(norm->weight);
    if (norm->bias)
        (*out)->norm.bias = ct_tensor_ref(norm->bias);
    ct_status status = desc->gated ? new_product(&(*out)->gate, desc, 0, 1) : CT_OK;
    if (status != CT_OK)
        ct_cpu_linear_free(out);
    return status;
}

void ct_cpu_linear_free(ct_linear **linear)
{
    if (!*linear)
        return;
    for (int i = 0; i < CT_LINEAR_MAX_PARTS; i++) {
        ct_tensor_unref(&(*linear)->weight[i]);
        ct_tensor_unref(&(*linear)->bias[i]);
    }
    ct_tensor_unref(&(*linear)->joined_bias);
    ct_tensor_unref(&(*linear)->norm.weight);
    ct_tensor_unref(&(*linear)->norm.bias);
    ct_cpu_linear_free(&(*linear)->gate);
    ct_packed_free(&(*linear)->packed);
    ct_free(linear);
}

static method choose(const ct_linear *linear, int64_t n_rows)
{
    if (linear->packed)
        return METHOD_ONEDNN;
    if (linear->int8 && linear->uniform && n_rows >= BYTES_MIN_ROWS && ct_onednn_takes(CT_I8))
        return METHOD_BYTES;
    if (n_rows <= GEMV_MAX_ROWS || linear->int8)
        return METHOD_GEMV;
    ct_dtype dtype = linear->dtype[0];
    if (linear->uniform && dtype != CT_F32 && ct_onednn_takes(dtype))
        return METHOD_ONEDNN;
    bool bf16 = linear->quantized.compute_dtype == CT_BF16 && ct_onednn_takes(CT_BF16);
    if (linear->uniform && linear->scaled && bf16)
        return METHOD_PANEL;
    if (linear->uniform && ct_dtype_is_float(dtype) && n_rows < GEMM_MIN_ROWS)
        return METHOD_GEMV;
    return METHOD_GEMM;
}

/* The type in which its product wants x. */
static ct_dtype product_input(const ct_linear *linear, int64_t n_rows)
{
    method chosen = choose(linear, n_rows);
    return chosen == METHOD_ONEDNN ? linear->dtype[0] : chosen == METHOD_PANEL ? CT_BF16 : CT_F32;
}

/* The same of all products; f32 where they differ. */
static ct_dtype common_input(const ct_linear *linear, int64_t n_rows)
{
    ct_dtype own = product_input(linear, n_rows);
    return !linear->gate || product_input(linear->gate, n_rows) == own ? own : CT_F32;
}

ct_dtype ct_cpu_linear_input(const ct_linear *linear, int64_t n_rows)
{
    return linear->norm.weight ? CT_F32 : common_input(linear, n_rows);
}

/* A copy of `rows` in another type, its memory from the arena, filled unless `empty`. */
static ct_status as_dtype(ct_rows *rows, ct_dtype dtype, bool empty, ct_arena *arena)
{
    ct_rows copy = {
        .dtype = dtype, .n_rows = rows->n_rows, .width = rows->width, .stride = rows->width};
    size_t size;
    CT_TRY(ct_mul_size(&size, (size_t)(rows->n_rows * rows->width), ct_dtype_block_bytes(dtype)));
    CT_TRY(ct_arena_alloc(arena, &copy.data, size));
    if (!empty)
        CT_TRY(ct_cpu_scatter(copy, *rows, NULL));
    *rows = copy;
    return CT_OK;
}

static ct_status norm_input(const ct_linear *linear, ct_rows *x, ct_arena *arena)
{
    const ct_input_norm *norm = &linear->norm;
    ct_rows from = *x;
    CT_TRY(as_dtype(x, common_input(linear, from.n_rows), true, arena));
    return ct_cpu_norm(norm->kind, *x, from, ct_tensor_data(norm->weight),
                       norm->bias ? ct_tensor_data(norm->bias) : NULL, norm->eps, 1);
}

static ct_status multiply(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                          ct_rows y, ct_arena *arena)
{
    ct_dtype wanted = product_input(linear, x.n_rows);
    if (x.dtype != wanted)
        CT_TRY(as_dtype(&x, wanted, false, arena));
    method chosen = choose(linear, x.n_rows);
    if (chosen == METHOD_ONEDNN && wanted == CT_F32 && y.dtype != CT_F32) {
        ct_rows wide = y; /* oneDNN does not narrow f32 products */
        CT_TRY(as_dtype(&wide, CT_F32, true, arena));
        CT_TRY(dense(linear, x, epilogue, wide, arena));
        return ct_cpu_scatter(y, wide, NULL);
    }
    if (chosen == METHOD_ONEDNN)
        return dense(linear, x, epilogue, y, arena);
    if (chosen == METHOD_PANEL)
        return panel(linear, x, epilogue, y, arena);
    if (chosen == METHOD_BYTES)
        return bytes(linear, x, epilogue, y, arena);
    return own(linear, x, epilogue, y, chosen == METHOD_GEMM, arena);
}

ct_status ct_cpu_linear(const ct_linear *linear, ct_rows x, const ct_epilogue *epilogue, ct_rows y,
                        ct_arena *arena)
{
    ct_cpu_epilogue own = {epilogue->clip, epilogue->activation, NULL, epilogue->residual};
    ct_rows gates = y;
    if (linear->norm.weight)
        CT_TRY(norm_input(linear, &x, arena));
    if (linear->gate) {
        CT_TRY(as_dtype(&gates, y.dtype, true, arena));
        CT_TRY(multiply(linear->gate, x, &own, gates, arena));
        own = (ct_cpu_epilogue){.multiply = &gates};
    }
    return multiply(linear, x, &own, y, arena);
}

static ct_status join_bias(ct_linear *linear)
{
    bool any = false;
    for (int i = 0; i < linear->n_parts; i++)
        any = any || linear->bias[i];
    if (!any)
        return CT_OK;
    CT_TRY(ct_tensor_new(&linear->joined_bias, CT_F32, 1, &linear->n_total));
    float *to = ct_tensor_data(linear->joined_bias);
    for (int i = 0; i < linear->n_parts; to += linear->n[i++]) {
        if (linear->bias[i])
            memcpy(to, ct_tensor_data(linear->bias[i]), sizeof *to * (size_t)linear->n[i]);
        else
            memset(to, 0, sizeof *to * (size_t)linear->n[i]);
    }
    return CT_OK;
}

/* The columns [first, first + width) of all rows. */
static ct_rows columns(ct_rows rows, int64_t first, int64_t width)
{
    rows.data = (char *)rows.data + first * (int64_t)ct_dtype_block_bytes(rows.dtype);
    rows.width = width;
    return rows;
}

static float *float_row(const ct_rows *rows, int64_t row)
{
    return (float *)rows->data + row * rows->stride;
}

/* ---- our own products ---- */

/* Applies bias and epilogue to the columns [first, first + n) of one row of products. */
static void finish_slice(float *y, int64_t row, int64_t first, int64_t n, const float *bias,
                         const ct_cpu_epilogue *epilogue)
{
    if (bias)
        ct_cpu_kernels->add(y, y, bias, n);
    if (epilogue->clip > 0)
        for (int64_t j = 0; j < n; j++)
            y[j] = y[j] > epilogue->clip    ? epilogue->clip
                   : y[j] < -epilogue->clip ? -epilogue->clip
                                            : y[j];
    if (epilogue->activation != CT_ACT_NONE)
        ct_cpu_kernels->activate[epilogue->activation](y, y, n);
    if (epilogue->multiply)
        ct_cpu_kernels->mul(y, y, float_row(epilogue->multiply, row) + first, n);
    if (epilogue->residual)
        ct_cpu_kernels->add(y, y, float_row(epilogue->residual, row) + first, n);
}

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
            to.data = float_row(y, i);
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
            ct_cpu_kernels->gemv[linear->dtype[part]](products, to.stride, float_row(x, i),
                                                      x->stride, m, weights, row_bytes, n,
                                                      linear->k);
        for (int64_t r = 0; r < m; r++) {
            float *row = products + r * to.stride;
            finish_slice(row, i + r, begin, n, bias, call->epilogue);
            if (call->apart.data)
                memcpy(float_row(y, i + r) + begin, row, sizeof *row * (size_t)n);
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
    int64_t rows = BAND_BYTES / (int64_t)call->linear->row_bytes[part] / GRAIN * GRAIN;
    return rows < GRAIN ? GRAIN : rows;
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
                              float_row(&call->x, begin), call->x.stride, end - begin, k);
}

/* Words of a value of x for those parts that are blocks of GGUF files, or 0. */
static int words_for_blocks(const ct_linear *linear)
{
    int n_words = 0;
    for (int i = 0; i < linear->n_parts && !n_words; i++)
        n_words = ct_blocks_words(linear->weight[i], &linear->quantized);
    return n_words;
}

/* `factor` holds the rows that an epilogue in f32 multiplies by. */
static ct_status widen_factor(ct_cpu_epilogue *epilogue, ct_rows *factor, ct_arena *arena)
{
    if (!epilogue->multiply || epilogue->multiply->dtype == CT_F32)
        return CT_OK;
    *factor = *epilogue->multiply;
    epilogue->multiply = factor;
    return as_dtype(factor, CT_F32, false, arena);
}

/* Rows of x that one pass over the weights serves. */
static int64_t pass_rows(const ct_linear *linear)
{
    return linear->int8 && linear->uniform ? CT_SCALED_GROUP : CT_GEMV_MAX_M;
}

static ct_status own(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue, ct_rows y,
                     bool many, ct_arena *arena)
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
        CT_TRY(as_dtype(&call.y, CT_F32, true, arena));
    CT_TRY(widen_factor(&plain, &factor, arena));
    if (plain.residual && plain.residual->data == call.y.data) {
        call.apart = call.y;
        call.apart.n_rows = x.n_rows < call.pass ? x.n_rows : call.pass;
        CT_TRY(as_dtype(&call.apart, CT_F32, true, arena));
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
    int64_t share = round_up(linear->n_total / (SHARES * n_threads) + 1, GRAIN);
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

/* ---- products by oneDNN ---- */

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

static ct_status dense(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
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

static ct_status panel(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                       ct_rows y, ct_arena *arena)
{
    int64_t k = linear->k, band = PANEL_BYTES / (k * (int64_t)sizeof(uint16_t)) / GRAIN * GRAIN;
    if (band < GRAIN)
        band = GRAIN;
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
        finish_slice(products + i * b->n, row, b->column, b->n,
                     bias ? (const float *)ct_tensor_data(bias) + b->begin : NULL, call->epilogue);
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

static ct_status bytes(const ct_linear *linear, ct_rows x, const ct_cpu_epilogue *epilogue,
                       ct_rows y, ct_arena *arena)
{
    ct_cpu_epilogue plain = *epilogue;
    ct_rows factor;
    ct_scaled_input input;
    bytes_call call = {.linear = linear, .epilogue = &plain, .input = &input, .y = y};
    int64_t n_blocks = (x.n_rows + BYTES_ROWS - 1) / BYTES_ROWS;
    int64_t at_once = (x.n_rows + n_blocks - 1) / n_blocks;
    CT_TRY(widen_factor(&plain, &factor, arena));
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
