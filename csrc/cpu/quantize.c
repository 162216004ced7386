/* Quantizing a matrix, a piece of it per thread at a time. */
#include "cpu/quantize.h"

#include <stdatomic.h>
#include <string.h>

#include "core/memory.h"
#include "core/threads.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "quant/bnb.h"
#include "quant/bnb_rules.h"

#define PIECE (64 * CT_BNB_BLOCK) /* values of 4 bits at a time; their bytes begin a cache line */

typedef struct job {
    const char *values;
    ct_dtype from, format;
    int64_t size, row; /* values in all, and in a row */
    void *codes;
    float *absmax;
    int64_t piece;  /* values at a time: PIECE, or a row */
    float *buffers; /* [threads, piece] */
    uint16_t *halves;
    atomic_bool nan;
} job;

/* x [n] = the source's values from `first` on, as f16 holds them. */
static void read_values(job *job, float *x, uint16_t *halves, int64_t first, int64_t n)
{
    const char *source = job->values + first * (int64_t)ct_dtype_block_bytes(job->from);
    ct_cpu_kernels->to_f32[job->from](x, source, n);
    int n_nan = 0;
    for (int64_t i = 0; i < n; i++) {
        n_nan |= x[i] != x[i];
        x[i] = x[i] > CT_F16_MAX ? CT_F16_MAX : x[i] < -CT_F16_MAX ? -CT_F16_MAX : x[i];
    }
    if (n_nan)
        atomic_store(&job->nan, true);
    ct_cpu_kernels->from_f32[CT_F16](halves, x, n);
    ct_cpu_kernels->to_f32[CT_F16](x, halves, n);
}

static void quantize_piece(job *job, int64_t first, int thread)
{
    int64_t n = job->size - first < job->piece ? job->size - first : job->piece;
    float *x = job->buffers + thread * job->piece;
    read_values(job, x, job->halves + thread * job->piece, first, n);
    if (job->format == CT_LLM_INT8) {
        job->absmax[first / job->row] =
            ct_cpu_kernels->int8_quantize((int8_t *)job->codes + first, x, n);
        return;
    }
    uint8_t *codes = (uint8_t *)job->codes + first / 2;
    float *absmax = job->absmax + first / CT_BNB_BLOCK;
    int64_t whole = n / CT_BNB_BLOCK * CT_BNB_BLOCK;
    ct_cpu_kernels->codebook_quantize(codes, absmax, x, whole, job->format);
    ct_bnb_quantize_4bit(codes + whole / 2, absmax + whole / CT_BNB_BLOCK, x + whole, n - whole,
                         CT_BNB_BLOCK, job->format);
}

static ct_status run(job *job)
{
    ct_status status = CT_OK;
    size_t n_buffered;
    CT_TRY(ct_mul_size(&n_buffered, (size_t)job->piece, (size_t)ct_threads_get()));
    CT_TRY(ct_alloc_zeroed((void **)&job->buffers, n_buffered, sizeof *job->buffers));
    CT_TRY_TO(done, ct_alloc_zeroed((void **)&job->halves, n_buffered, sizeof *job->halves));
    int64_t n_pieces = (job->size + job->piece - 1) / job->piece;
#pragma omp parallel for schedule(static) num_threads(ct_parallel_threads(job->size))
    for (int64_t i = 0; i < n_pieces; i++)
        quantize_piece(job, i * job->piece, ct_thread_id());
    if (atomic_load(&job->nan))
        status =
            ct_fail(CT_VALUE, "a matrix with values that are not a number cannot be quantized");
done:
    ct_free(&job->halves);
    ct_free(&job->buffers);
    return status;
}

/* The scales of a 4-bit matrix, quantized themselves. */
static ct_status nest(ct_scales *parts)
{
    ct_status status = CT_OK;
    int64_t n = ct_scales_count(parts), n_blocks = (n + CT_NESTED_BLOCK - 1) / CT_NESTED_BLOCK;
    ct_tensor *codes = NULL;
    CT_TRY(ct_tensor_new(&codes, CT_U8, 1, &n));
    CT_TRY_TO(failed, ct_tensor_new(&parts->nested_absmax, CT_F32, 1, &n_blocks));
    CT_TRY_TO(failed, ct_tensor_new(&parts->nested_map, CT_F32, 1, (int64_t[]){CT_NESTED_CODES}));
    memcpy(ct_tensor_data(parts->nested_map), ct_bnb_dynamic_map, sizeof ct_bnb_dynamic_map);
    ct_bnb_quantize_scales(ct_tensor_data(codes), ct_tensor_data(parts->nested_absmax),
                           &parts->nested_offset, ct_tensor_data(parts->absmax), n);
    ct_tensor_unref(&parts->absmax);
    parts->absmax = codes;
    return CT_OK;
failed:
    ct_tensor_unref(&codes);
    return status;
}

static ct_status check(const ct_tensor *matrix, ct_dtype format)
{
    if (!ct_dtype_has_scales(format))
        return ct_fail(CT_VALUE, "matrices are quantized to llm_int8, fp4 or nf4, not to %s",
                       ct_dtype_name(format));
    if (matrix->n_dims != 2 || !ct_dtype_is_float(matrix->dtype))
        return ct_fail(CT_VALUE,
                       "only a matrix of floats can be quantized to %s, not %d dimensions "
                       "of %s",
                       ct_dtype_name(format), matrix->n_dims, ct_dtype_name(matrix->dtype));
    int values = ct_dtype_block_values(format);
    if (matrix->shape[1] % values != 0)
        return ct_fail(CT_VALUE,
                       "rows of %lld values cannot be quantized to %s: they must be "
                       "multiples of %d",
                       (long long)matrix->shape[1], ct_dtype_name(format), values);
    return CT_OK;
}

ct_status ct_cpu_quantize(ct_tensor **out, const ct_tensor *matrix, ct_dtype format, bool nested)
{
    *out = NULL;
    CT_TRY(check(matrix, format));
    ct_status status = CT_OK;
    ct_tensor *source, *codes = NULL;
    ct_scales *scales = NULL;
    bool rows = format == CT_LLM_INT8;
    int64_t size = ct_tensor_size(matrix), row = matrix->shape[1];
    ct_scales parts = {
        .n_values = size, .block = rows ? (row > 0 ? row : 1) : CT_BNB_BLOCK, .origin = CT_F16};
    int64_t n_scales = rows ? matrix->shape[0] : ct_scales_count(&parts);
    int64_t n_codes = size / ct_dtype_block_values(format);
    CT_TRY(ct_tensor_contiguous(&source, matrix));
    CT_TRY_TO(done, ct_tensor_new(&codes, rows ? CT_I8 : CT_U8, 1, &n_codes));
    CT_TRY_TO(done, ct_tensor_new(&parts.absmax, CT_F32, 1, &n_scales));
    job job = {.values = ct_tensor_data(source),
               .from = source->dtype,
               .format = format,
               .size = size,
               .row = row,
               .codes = ct_tensor_data(codes),
               .absmax = ct_tensor_data(parts.absmax),
               .piece = rows ? row : PIECE};
    if (size > 0)
        CT_TRY_TO(done, run(&job));
    if (nested && !rows)
        CT_TRY_TO(done, nest(&parts));
    CT_TRY_TO(done, ct_scales_new(&scales, &parts));
    CT_TRY_TO(done, ct_tensor_scaled(out, codes, format, 2, matrix->shape, scales));
done:
    ct_tensor_unref(&source);
    ct_tensor_unref(&codes);
    ct_tensor_unref(&parts.absmax);
    ct_tensor_unref(&parts.nested_absmax);
    ct_tensor_unref(&parts.nested_map);
    ct_scales_unref(&scales);
    return status;
}
