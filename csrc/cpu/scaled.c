#include "cpu/scaled.h"

#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "quant/bnb.h"
#include "quant/scaled.h"

#define CHUNK 64           /* weight rows whose sums of bytes stay on the stack */
#define SCALES_BUFFER 4096 /* scales that are restored at a time */
#define CODEBOOK_MAX_K (SCALES_BUFFER * (int64_t)CT_CODEBOOK_BLOCK)

ct_status ct_scaled_check(const ct_tensor *weight)
{
    int64_t k = weight->shape[1];
    int64_t most = weight->dtype == CT_LLM_INT8 ? CT_INT8_MAX_K : CODEBOOK_MAX_K;
    if (k > most)
        return ct_fail(CT_VALUE, "a %s matrix has rows of at most %lld values, not %lld",
                       ct_dtype_name(weight->dtype), (long long)most, (long long)k);
    return CT_OK;
}

/* ---- 4 bits ---- */

/* Whether every row is a whole number of the kernels' blocks. Others are decoded value by value. */
static bool is_aligned(const ct_tensor *weight)
{
    return weight->scales->block == CT_CODEBOOK_BLOCK &&
           weight->shape[1] % CT_CODEBOOK_BLOCK == 0 &&
           weight->first_value % CT_CODEBOOK_BLOCK == 0;
}

/* FP4's magnitudes are multiples of 1/192, which bf16 holds exactly. */
#define FP4_UNIT (1.0f / 192)

/* The codebook as the kernels multiply it, and what their sums are multiplied by then. bf16 keeps
 * as much of NF4's values as bitsandbytes does when it computes in it. */
static float codebook(float table[16], ct_dtype format, ct_dtype compute)
{
    const float *values = ct_bnb_codebook(format);
    for (int i = 0; i < 16; i++) {
        table[i] = values[i];
        if (format == CT_FP4)
            table[i] = (float)(int)(values[i] * 192 + (values[i] < 0 ? -0.5f : 0.5f));
        else if (compute == CT_BF16)
            table[i] = ct_bf16_to_f32(ct_bf16_from_f32(values[i]));
    }
    return format == CT_FP4 ? FP4_UNIT : 1;
}

/* The codebook in whole numbers of 16 bits; FP4's are exact. */
static float word_codebook(int16_t table[16], ct_dtype format)
{
    const float *values = ct_bnb_codebook(format);
    float most = CT_CODEBOOK_INT16_MAX;
    if (format == CT_FP4)
        most = (float)(CT_CODEBOOK_INT16_MAX / 192 * 192);
    for (int i = 0; i < 16; i++)
        table[i] = (int16_t)(values[i] * most + (values[i] < 0 ? -0.5f : 0.5f));
    return 1 / most;
}

/* The codebook in bytes. */
static float byte_codebook(int8_t table[16], ct_dtype format)
{
    const float *values = ct_bnb_codebook(format);
    for (int i = 0; i < 16; i++)
        table[i] = (int8_t)(values[i] * 127 + (values[i] < 0 ? -0.5f : 0.5f));
    return CT_BNB_INT8_UNIT;
}

static const uint8_t *code_row(const ct_tensor *weight, int64_t row)
{
    return (const uint8_t *)ct_tensor_data(weight) + row * (weight->shape[1] / 2);
}

/* The scales of `n` rows that begin with a block: as they lie, or restored to `buffer`. */
static const float *row_scales(float *buffer, const ct_tensor *weight, int64_t row, int64_t n)
{
    const ct_scales *scales = weight->scales;
    int64_t per_row = weight->shape[1] / CT_CODEBOOK_BLOCK;
    int64_t first = weight->first_value / CT_CODEBOOK_BLOCK + row * per_row;
    if (!scales->nested_absmax)
        return (const float *)ct_tensor_data(scales->absmax) + first;
    ct_scales_restore(buffer, scales, first, n * per_row);
    return buffer;
}

static void scale_products(float *y, int64_t ldy, int64_t m, int64_t n, float factor)
{
    if (factor != 1)
        for (int64_t i = 0; i < m; i++)
            ct_cpu_kernels->scale(y + i * ldy, factor, n);
}

static void codebook_products(float *y, int64_t ldy, const ct_scaled_input *input, int64_t first,
                              int64_t m, const ct_tensor *weight, int64_t begin, int64_t n)
{
    int64_t k = weight->shape[1], per_row = k / CT_CODEBOOK_BLOCK;
    int64_t step = weight->scales->nested_absmax ? SCALES_BUFFER / per_row : n;
    float buffer[SCALES_BUFFER], table[16], unit;
    int16_t word_table[16];
    int8_t byte_table[16];
    unit = input->bytes   ? byte_codebook(byte_table, weight->dtype)
           : input->words ? word_codebook(word_table, weight->dtype)
                          : codebook(table, weight->dtype, input->how->compute_dtype);
    for (int64_t j = 0; j < n; j += step) {
        int64_t rows = n - j < step ? n - j : step;
        const uint8_t *codes = code_row(weight, begin + j);
        const float *scales = row_scales(buffer, weight, begin + j, rows);
        const float *x_scales = input->code_scales ? input->code_scales + first * per_row : NULL;
        if (input->bytes)
            ct_cpu_kernels->gemv_codebook_int8(y + j, ldy, input->bytes + first * k, k, x_scales,
                                               per_row, m, codes, scales, rows, k, byte_table);
        else if (input->words)
            ct_cpu_kernels->gemv_codebook_int16(y + j, ldy, input->words + first * k, k, x_scales,
                                                per_row, m, codes, scales, rows, k, word_table);
        else
            ct_cpu_kernels->gemv_codebook(y + j, ldy, input->ordered + first * k, k, m, codes,
                                          scales, rows, k, table);
    }
    scale_products(y, ldy, m, n, unit);
}

static void decoded_products(float *y, int64_t ldy, const ct_scaled_input *input, int64_t first,
                             int64_t m, const ct_tensor *weight, int64_t begin, int64_t n)
{
    int64_t k = weight->shape[1];
    float *row = input->decoded + ct_thread_id() * k;
    const float *x = (const float *)input->x.data + first * input->x.stride;
    for (int64_t j = 0; j < n; j++) {
        ct_scaled_to_f32(row, weight, (begin + j) * k, k);
        ct_cpu_kernels->gemv[CT_F32](y + j, ldy, x, input->x.stride, m, row, 0, 1, k);
    }
}

/* The codebook's values themselves, as far as they are computed with. */
static void value_codebook(float table[16], ct_dtype format, ct_dtype compute)
{
    float unit = codebook(table, format, compute);
    for (int i = 0; i < 16; i++)
        table[i] *= unit;
}

void ct_scaled_row(float *dst, const ct_tensor *weight, int64_t row, ct_dtype compute)
{
    int64_t k = weight->shape[1];
    if (weight->dtype == CT_LLM_INT8 || !is_aligned(weight)) {
        ct_scaled_to_f32(dst, weight, row * k, k);
        return;
    }
    float buffer[SCALES_BUFFER], table[16];
    value_codebook(table, weight->dtype, compute);
    ct_cpu_kernels->codebook_to_f32(dst, code_row(weight, row), row_scales(buffer, weight, row, 1),
                                    k, table);
}

void ct_scaled_rows_bf16(uint16_t *dst, float *wide, const ct_tensor *weight, int64_t row,
                         int64_t n)
{
    int64_t k = weight->shape[1];
    if (!is_aligned(weight)) {
        for (int64_t j = 0; j < n; j++) {
            ct_scaled_to_f32(wide, weight, (row + j) * k, k);
            ct_cpu_kernels->from_f32[CT_BF16](dst + j * k, wide, k);
        }
        return;
    }
    float buffer[SCALES_BUFFER], table[16];
    value_codebook(table, weight->dtype, CT_BF16);
    int64_t step = SCALES_BUFFER / (k / CT_CODEBOOK_BLOCK);
    for (int64_t j = 0; j < n; j += step) { /* rows follow each other without gaps */
        int64_t rows = n - j < step ? n - j : step;
        ct_cpu_kernels->codebook_to_bf16(dst + j * k, code_row(weight, row + j),
                                         row_scales(buffer, weight, row + j, rows), rows * k,
                                         table);
    }
}

/* ---- LLM.int8 ---- */

/* Rows of a weight: n <= CHUNK. */
typedef struct int8_rows {
    const int8_t *codes;
    const float *absmax;
    int64_t n, k;
} int8_rows;

static int8_rows int8_chunk(const ct_tensor *weight, int64_t begin, int64_t n)
{
    int64_t k = weight->shape[1], first = weight->first_value / weight->scales->block + begin;
    return (int8_rows){
        .codes = (const int8_t *)ct_tensor_data(weight) + begin * k,
        .absmax = (const float *)ct_tensor_data(weight->scales->absmax) + first,
        .n = n < CHUNK ? n : CHUNK,
        .k = k,
    };
}

/* The first column in which a row of x has an outlier behind the `done` ones, or the width. */
static int64_t next_column(const ct_scaled_input *input, int64_t first, int64_t m,
                           const int64_t *done)
{
    int64_t column = input->x.width;
    for (int64_t i = 0; i < m; i++) {
        if (done[i] == input->n_outliers[first + i])
            continue;
        int64_t own = input->outliers[(first + i) * input->x.width + done[i]];
        column = own < column ? own : column;
    }
    return column;
}

/* sums [m, CHUNK] = what outliers add, column by column: rows tend to have theirs in the same,
 * which are collected once. A row's bits do not depend on the others. */
static void outlier_sums(float *sums, const ct_scaled_input *input, int64_t first, int64_t m,
                         const int8_rows *weight)
{
    int64_t width = input->x.width, done[CT_SCALED_GROUP] = {0}, column;
    float collected[CHUNK];
    memset(sums, 0, sizeof *sums * (size_t)(m * CHUNK));
    while ((column = next_column(input, first, m, done)) < width) {
        for (int64_t r = 0; r < weight->n; r++)
            collected[r] = (float)weight->codes[r * weight->k + column];
        for (int64_t i = 0; i < m; i++) {
            int64_t row = first + i;
            if (done[i] == input->n_outliers[row] ||
                input->outliers[row * width + done[i]] != column)
                continue;
            float x = ((const float *)input->x.data)[row * input->x.stride + column];
            float *to = sums + i * CHUNK;
#pragma omp simd
            for (int64_t r = 0; r < weight->n; r++)
                to[r] += x * collected[r];
            done[i]++;
        }
    }
}

static void scale_sums(float *y, int64_t ldy, const int32_t *sums, int64_t lds,
                       const ct_scaled_input *input, int64_t first, int64_t m,
                       const int8_rows *weight)
{
    float others[CT_SCALED_GROUP * CHUNK];
    bool any = false;
    for (int64_t i = 0; i < m; i++)
        any = any || input->n_outliers[first + i];
    if (any)
        outlier_sums(others, input, first, m, weight);
    for (int64_t i = 0; i < m; i++) {
        float row_absmax = input->absmax[first + i], *to = y + i * ldy;
#pragma omp simd
        for (int64_t r = 0; r < weight->n; r++)
            to[r] = (float)sums[i * lds + r] * (row_absmax * weight->absmax[r]) *
                    (CT_BNB_INT8_UNIT * CT_BNB_INT8_UNIT);
        if (!input->n_outliers[first + i])
            continue;
#pragma omp simd
        for (int64_t r = 0; r < weight->n; r++)
            to[r] += others[i * CHUNK + r] * (weight->absmax[r] * CT_BNB_INT8_UNIT);
    }
}

static void int8_products(float *y, int64_t ldy, const ct_scaled_input *input, int64_t first,
                          int64_t m, const ct_tensor *weight, int64_t begin, int64_t n)
{
    int64_t k = weight->shape[1];
    int32_t sums[CT_SCALED_GROUP * CHUNK];
    for (int64_t j = 0; j < n; j += CHUNK) {
        int8_rows rows = int8_chunk(weight, begin + j, n - j);
        for (int64_t i = 0; i < m; i += CT_GEMV_MAX_M)
            ct_cpu_kernels->gemv_int8(sums + i * CHUNK, CHUNK, input->codes + (first + i) * k, k,
                                      m - i < CT_GEMV_MAX_M ? m - i : CT_GEMV_MAX_M, rows.codes, k,
                                      rows.n, k);
        scale_sums(y + j, ldy, sums, CHUNK, input, first, m, &rows);
    }
}

void ct_scaled_int8_finish(float *y, int64_t ldy, const int32_t *sums, int64_t lds,
                           const ct_scaled_input *input, int64_t first, int64_t m,
                           const ct_tensor *weight, int64_t begin, int64_t n)
{
    for (int64_t j = 0; j < n; j += CHUNK) {
        int8_rows rows = int8_chunk(weight, begin + j, n - j);
        scale_sums(y + j, ldy, sums + j, lds, input, first, m, &rows);
    }
}

/* ---- all ---- */

void ct_scaled_products(float *y, int64_t ldy, const ct_scaled_input *input, int64_t first,
                        int64_t m, const ct_tensor *weight, int64_t begin, int64_t n)
{
    if (weight->dtype == CT_LLM_INT8)
        int8_products(y, ldy, input, first, m, weight, begin, n);
    else if (is_aligned(weight))
        codebook_products(y, ldy, input, first, m, weight, begin, n);
    else
        decoded_products(y, ldy, input, first, m, weight, begin, n);
}

/* [n, width] of `size` bytes each. */
static ct_status allocate(void *out, int64_t n, int64_t width, size_t size, ct_arena *arena)
{
    size_t bytes;
    CT_TRY(ct_mul_size(&bytes, (size_t)n, (size_t)width));
    CT_TRY(ct_mul_size(&bytes, bytes, size));
    return ct_arena_alloc(arena, (void **)out, bytes);
}

static ct_status allocate_int8(ct_scaled_input *input, ct_arena *arena)
{
    int64_t m = input->x.n_rows, k = input->x.width;
    CT_TRY(allocate(&input->codes, m, k, sizeof *input->codes, arena));
    CT_TRY(allocate(&input->absmax, m, 1, sizeof *input->absmax, arena));
    CT_TRY(allocate(&input->outliers, m, k, sizeof *input->outliers, arena));
    return allocate(&input->n_outliers, m, 1, sizeof *input->n_outliers, arena);
}

static ct_status allocate_codebook(ct_scaled_input *input, ct_arena *arena)
{
    int64_t m = input->x.n_rows, k = input->x.width;
    bool words = ct_cpu_kernels->int16_codebook_is_fast && input->how->compute_dtype != CT_F32;
    if (input->how->int8_activations)
        CT_TRY(allocate(&input->bytes, m, k, sizeof *input->bytes, arena));
    else if (words)
        CT_TRY(allocate(&input->words, m, k, sizeof *input->words, arena));
    else
        return allocate(&input->ordered, m, k, sizeof *input->ordered, arena);
    return allocate(&input->code_scales, m, k / CT_CODEBOOK_BLOCK, sizeof *input->code_scales,
                    arena);
}

static void prepare_row(const ct_scaled_input *input, int64_t i)
{
    int64_t k = input->x.width, per_row = k / CT_CODEBOOK_BLOCK;
    const float *x = (const float *)input->x.data + i * input->x.stride;
    if (input->codes)
        input->n_outliers[i] = ct_cpu_kernels->int8_input(input->codes + i * k, input->absmax + i,
                                                          input->outliers + i * k, x, k,
                                                          input->how->outlier_threshold);
    if (input->ordered)
        ct_cpu_kernels->codebook_input(input->ordered + i * k, x, k);
    if (input->words)
        ct_cpu_kernels->codebook_input_int16(input->words + i * k, input->code_scales + i * per_row,
                                             x, k);
    if (input->bytes)
        ct_cpu_kernels->codebook_input_int8(input->bytes + i * k, input->code_scales + i * per_row,
                                            x, k);
}

ct_status ct_scaled_prepare(ct_scaled_input *input, ct_rows x, ct_tensor *const *weights,
                            int n_weights, const ct_quantized_compute *how, ct_arena *arena)
{
    *input = (ct_scaled_input){.x = x, .how = how};
    for (int i = 0; i < n_weights; i++) {
        if (weights[i]->dtype == CT_LLM_INT8 && !input->codes)
            CT_TRY(allocate_int8(input, arena));
        if (weights[i]->dtype == CT_LLM_INT8 || !ct_dtype_has_scales(weights[i]->dtype))
            continue;
        if (is_aligned(weights[i]) && !input->ordered && !input->code_scales)
            CT_TRY(allocate_codebook(input, arena));
        if (!is_aligned(weights[i]) && !input->decoded)
            CT_TRY(allocate(&input->decoded, ct_threads_get(), x.width, sizeof *input->decoded,
                            arena));
    }
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(x.n_rows *x.width))
    for (int64_t i = 0; i < x.n_rows; i++)
        prepare_row(input, i);
    return CT_OK;
}
