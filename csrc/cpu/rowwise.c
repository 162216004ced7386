/* Splits rows over threads; what happens to a row is a kernel's. */
#include "cpu/rowwise.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

#define NARROW_PIECE 512 /* values normed in f32 before they are rounded */

static void *row_of(const ct_rows *rows, int64_t i)
{
    return (char *)rows->data + i * rows->stride * (int64_t)ct_dtype_block_bytes(rows->dtype);
}

/* One norm over n values. A 16-bit result needs an f32 copy of the row: it goes through `own`. */
static void norm_group(ct_norm_kind kind, void *y, ct_dtype dtype, const float *x,
                       const float *weight, const float *bias, float eps, int64_t n, float *own)
{
    float *out = dtype == CT_F32 ? y : own;
    if (kind == CT_NORM_RMS)
        ct_cpu_kernels->rms_norm(out, x, weight, eps, n);
    else
        ct_cpu_kernels->layer_norm(out, x, weight, bias, eps, n);
    if (dtype != CT_F32)
        ct_cpu_kernels->from_f32[dtype](y, own, n);
}

ct_status ct_cpu_norm(ct_norm_kind kind, ct_rows y, ct_rows x, const float *weight,
                      const float *bias, float eps, int64_t groups)
{
    int64_t n = x.width / groups, value = (int64_t)ct_dtype_block_bytes(y.dtype);
#pragma omp parallel num_threads(ct_parallel_threads(x.n_rows *x.width))
    {
        float own[n]; /* a row of activations; widths are bounded by the spec */
#pragma omp for schedule(static)
        for (int64_t i = 0; i < x.n_rows; i++) {
            const float *from = row_of(&x, i);
            char *to = row_of(&y, i);
            for (int64_t g = 0; g < groups; g++)
                norm_group(kind, to + g * n * value, y.dtype, from + g * n, weight, bias, eps, n,
                           own);
        }
    }
    return CT_OK;
}

ct_status ct_cpu_add(ct_rows y, ct_rows x, ct_rows z)
{
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(x.n_rows *x.width))
    for (int64_t i = 0; i < x.n_rows; i++)
        ct_cpu_kernels->add(row_of(&y, i), row_of(&x, i), row_of(&z, i), x.width);
    return CT_OK;
}

ct_status ct_cpu_scale(ct_rows x, float scale, float cap)
{
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(x.n_rows *x.width))
    for (int64_t i = 0; i < x.n_rows; i++) {
        float *row = row_of(&x, i);
        ct_cpu_kernels->scale(row, cap > 0 ? scale / cap : scale, x.width);
        for (int64_t j = 0; cap > 0 && j < x.width; j++)
            row[j] = cap * tanhf(row[j]);
    }
    return CT_OK;
}

/* ---- rotation and the cache ---- */

static void rotate_head(float *head, const ct_rotary *rotary, int64_t position)
{
    int64_t half = rotary->width / 2;
    const float *cos = rotary->cos + position * half, *sin = rotary->sin + position * half;
    if (rotary->interleaved)
        ct_cpu_kernels->rotary_pairs(head, cos, sin, half);
    else
        ct_cpu_kernels->rotary_halves(head, cos, sin, half);
}

static void rotate_row(float *row, const ct_head_layout *layout, const ct_rotary *rotary,
                       int64_t position)
{
    int64_t group = layout->n_heads / layout->n_kv_heads;
    for (int64_t g = 0; g < layout->n_kv_heads; g++) {
        float *queries = row + layout->q_offset + g * layout->q_group_stride;
        for (int64_t h = 0; h < group; h++)
            rotate_head(queries + h * layout->head_width, rotary, position);
        rotate_head(row + layout->k_offset + g * layout->kv_group_stride, rotary, position);
    }
}

/* Writes d values to every `step`-th element of dst, which holds elements of `dtype`. */
static void write_column(void *dst, int64_t step, const float *src, int64_t d, ct_dtype dtype)
{
    if (dtype == CT_F32) {
        for (int64_t i = 0; i < d; i++)
            ((float *)dst)[i * step] = src[i];
        return;
    }
    uint16_t narrow[NARROW_PIECE];
    for (int64_t start = 0; start < d; start += NARROW_PIECE) {
        int64_t n = d - start < NARROW_PIECE ? d - start : NARROW_PIECE;
        ct_cpu_kernels->from_f32[dtype](narrow, src + start, n);
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)dst)[(start + i) * step] = narrow[i];
    }
}

static void append_row(const float *row, const ct_head_layout *layout, const ct_kv_view *cache,
                       int64_t sequence, int64_t place)
{
    int64_t d = layout->head_width, block = d * CT_PAGE_POSITIONS;
    int64_t value = (int64_t)ct_dtype_block_bytes(cache->dtype);
    int64_t column = place % CT_PAGE_POSITIONS;
    char *keys =
        (char *)cache->pages[sequence][place / CT_PAGE_POSITIONS] + cache->layer_offset * value;
    char *values = keys + layout->n_kv_heads * block * value;
    for (int64_t g = 0; g < layout->n_kv_heads; g++) {
        const float *key = row + layout->k_offset + g * layout->kv_group_stride;
        const float *val = row + layout->v_offset + g * layout->kv_group_stride;
        write_column(keys + (g * block + column) * value, CT_PAGE_POSITIONS, key, d, cache->dtype);
        ct_cpu_kernels->from_f32[cache->dtype](values + (g * block + column * d) * value, val, d);
    }
}

/* The rows [begin, end) of the batch, which may belong to several sequences. */
static void rotary_append_rows(const ct_attention_args *args, int64_t begin, int64_t end)
{
    const ct_rotary *rotary = &args->rotary;
    const ct_kv_view *cache = args->cache;
    int64_t sequence = 0;
    for (int64_t i = begin; i < end; i++) {
        while (args->offsets[sequence + 1] <= i)
            sequence++;
        float *row = row_of(&args->qkv, i);
        if (rotary->width)
            rotate_row(row, &args->layout, rotary, rotary->positions[i]);
        if (cache)
            append_row(row, &args->layout, cache, sequence,
                       cache->lengths[sequence] + i - args->offsets[sequence]);
    }
}

void ct_cpu_rotary_append(const ct_attention_args *args)
{
    int64_t n = args->qkv.n_rows;
    if (!args->cache && !args->rotary.width)
        return;
#pragma omp parallel num_threads(ct_parallel_threads(n * args->qkv.width))
    {
        int64_t begin, end;
        ct_threads_slice(n, 1, ct_thread_id(), ct_thread_count(), &begin, &end);
        rotary_append_rows(args, begin, end);
    }
}

/* ---- copies ---- */

static void convert_row(void *dst, ct_dtype to, const void *src, ct_dtype from, int64_t n)
{
    if (from == to) {
        memcpy(dst, src, (size_t)n * ct_dtype_block_bytes(to));
    } else if (from == CT_F32) {
        ct_cpu_kernels->from_f32[to](dst, src, n);
    } else if (to == CT_F32) {
        ct_cpu_kernels->to_f32[from](dst, src, n);
    } else { /* between two 16-bit types */
        float wide[NARROW_PIECE];
        size_t value = ct_dtype_block_bytes(to);
        for (int64_t start = 0; start < n; start += NARROW_PIECE) {
            int64_t m = n - start < NARROW_PIECE ? n - start : NARROW_PIECE;
            ct_cpu_kernels->to_f32[from](wide, (const char *)src + (size_t)start * value, m);
            ct_cpu_kernels->from_f32[to]((char *)dst + (size_t)start * value, wide, m);
        }
    }
}

/* map rises, so the rows of dst between two of its entries, before the first and behind the last
 * are the ones to zero. */
static void zero_rows(const ct_rows *dst, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        memset(row_of(dst, i), 0, (size_t)dst->width * ct_dtype_block_bytes(dst->dtype));
}

ct_status ct_cpu_scatter(ct_rows dst, ct_rows x, const int64_t *map)
{
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(dst.n_rows *dst.width))
    for (int64_t i = 0; i < x.n_rows; i++) {
        int64_t to = map ? map[i] : i;
        convert_row(row_of(&dst, to), dst.dtype, row_of(&x, i), x.dtype, x.width);
        if (map)
            zero_rows(&dst, i ? map[i - 1] + 1 : 0, to);
    }
    zero_rows(&dst, x.n_rows ? (map ? map[x.n_rows - 1] + 1 : x.n_rows) : 0, dst.n_rows);
    return CT_OK;
}

ct_status ct_cpu_gather(ct_rows dst, ct_rows x, const int64_t *map)
{
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(dst.n_rows *dst.width))
    for (int64_t i = 0; i < dst.n_rows; i++)
        memcpy(row_of(&dst, i), row_of(&x, map[i]), (size_t)x.width * sizeof(float));
    return CT_OK;
}
