#include "scaled.h"

#include "scaled_products.h"

#include "rows.h"

#define ROW_ALIGNMENT 16
#define STAGING_BYTES ((int64_t)1 << 20) /* of the host's memory, while a weight is made */
#define COPY_THREADS 256
#define INT8_MAX_K 132104 /* so many products of 127 and -128 fit 32 bits */

/* ---- preparing ---- */

static int64_t round_up(int64_t n, int64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

static bool is_here(const ct_tensor *tensor)
{
    return tensor->storage->device.kind == CT_DEVICE_CUDA;
}

/* The rows of codes as they lie in the tensor: 4 bits are one row. */
typedef struct code_rows {
    const uint8_t *data;
    int64_t n, width, stride; /* bytes; stride: as the kernels want them */
} code_rows;

static code_rows rows_of(const ct_cuda_scaled *weight, const ct_tensor *tensor)
{
    code_rows rows = {};
    rows.data = (const uint8_t *)ct_tensor_data(tensor);
    rows.n = weight->dtype == CT_LLM_INT8 ? weight->n : 1;
    rows.width = weight->dtype == CT_LLM_INT8 ? weight->k : weight->n * weight->k / 2;
    rows.stride = round_up(rows.width, ROW_ALIGNMENT);
    return rows;
}

CT_KERNEL copy_rows_kernel(uint8_t *to, code_rows from)
{
    int64_t size = from.n * from.stride, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        int64_t row = i / from.stride, place = i % from.stride;
        to[i] = place < from.width ? from.data[row * from.width + place] : 0;
    }
}

static ct_status copy_rows(uint8_t *to, code_rows from)
{
    int64_t blocks = (from.n * from.stride + COPY_THREADS - 1) / COPY_THREADS;
    CT_KERNEL_CALL(copy_rows_kernel, (unsigned)(blocks < 65536 ? blocks : 65536), COPY_THREADS, 0,
                   ct_cuda_stream(), to, from);
    return ct_cuda_launched("copy of codes");
}

/* Padded on the way, some rows at a time. */
static ct_status upload_rows(uint8_t *to, code_rows from)
{
    if (from.n == 1 || from.width == from.stride)
        return ct_cuda_upload(to, from.data, (size_t)(from.n * from.width));
    ct_status status = CT_OK;
    int64_t at_once = STAGING_BYTES / from.stride > 0 ? STAGING_BYTES / from.stride : 1;
    uint8_t *staging;
    CT_TRY(ct_alloc_zeroed((void **)&staging, (size_t)at_once, (size_t)from.stride));
    for (int64_t row = 0; row < from.n; row += at_once) {
        int64_t n = from.n - row < at_once ? from.n - row : at_once;
        for (int64_t i = 0; i < n; i++)
            memcpy(staging + i * from.stride, from.data + (row + i) * from.width,
                   (size_t)from.width);
        CT_TRY_TO(done, ct_cuda_upload(to + row * from.stride, staging, (size_t)(n * from.stride)));
    }
done:
    ct_free(&staging);
    return status;
}

/* A vector in the host's memory: where it is, or copied to *copy, which is owned. */
typedef struct host_vector {
    ct_storage storage;
    ct_tensor tensor;
    void *copy;
} host_vector;

static ct_status to_host(host_vector *out, ct_tensor **vector)
{
    if (!*vector || !is_here(*vector))
        return CT_OK;
    size_t size = ct_tensor_bytes(*vector);
    CT_TRY(ct_alloc(&out->copy, size));
    CT_TRY(ct_cuda_download(out->copy, ct_tensor_data(*vector), size));
    out->storage.data = out->copy;
    out->tensor.storage = &out->storage;
    *vector = &out->tensor;
    return CT_OK;
}

/* Restores the scales [n] from block `first` on to `to`, in the device's memory. */
static ct_status upload_scales(float *to, const ct_scales *scales, int64_t first, int64_t n)
{
    ct_status status = CT_OK;
    ct_scales here = *scales; /* borrows what it points to */
    host_vector absmax = {}, nested = {}, map = {};
    const int64_t at_once = STAGING_BYTES / (int64_t)sizeof(float);
    float *staging = NULL;
    CT_TRY_TO(done, to_host(&absmax, &here.absmax));
    CT_TRY_TO(done, to_host(&nested, &here.nested_absmax));
    CT_TRY_TO(done, to_host(&map, &here.nested_map));
    CT_TRY_TO(done, ct_alloc((void **)&staging, STAGING_BYTES));
    for (int64_t i = 0; i < n; i += at_once) {
        int64_t count = n - i < at_once ? n - i : at_once;
        ct_scales_restore(staging, &here, first + i, count);
        CT_TRY_TO(done, ct_cuda_upload(to + i, staging, (size_t)count * sizeof *to));
    }
done:
    ct_free(&staging);
    ct_free(&map.copy);
    ct_free(&nested.copy);
    ct_free(&absmax.copy);
    return status;
}

/* Codes that can be read where they are. */
static bool can_stay(const ct_tensor *tensor, code_rows rows)
{
    return is_here(tensor) && (uintptr_t)rows.data % ROW_ALIGNMENT == 0 &&
           (rows.n == 1 || rows.width == rows.stride);
}

static ct_status fill(ct_cuda_scaled *out, const ct_tensor *tensor)
{
    const ct_scales *scales = tensor->scales;
    code_rows rows = rows_of(out, tensor);
    bool stays = can_stay(tensor, rows);
    int64_t first = tensor->first_value / scales->block;
    int64_t values = out->first_value + out->n * out->k;
    int64_t n_scales = (values + scales->block - 1) / scales->block;
    size_t code_bytes = stays ? 0 : (size_t)(rows.n * rows.stride);
    out->memory_size = code_bytes + (size_t)n_scales * sizeof(float);
    CT_TRY(ct_cuda_alloc(out->index, &out->memory, out->memory_size));
    uint8_t *codes = (uint8_t *)out->memory;
    float *to = (float *)(codes + code_bytes);
    out->codes = stays ? rows.data : codes;
    out->stride = rows.stride;
    out->scales = to;
    if (stays)
        out->tensor = ct_tensor_ref((ct_tensor *)tensor);
    else
        CT_TRY(is_here(tensor) ? copy_rows(codes, rows) : upload_rows(codes, rows));
    return upload_scales(to, scales, first, n_scales);
}

ct_status ct_cuda_scaled_new(ct_cuda_scaled *out, const ct_tensor *weight)
{
    *out = {};
    out->dtype = weight->dtype;
    out->n = weight->shape[0];
    out->k = weight->shape[1];
    out->block = weight->scales->block;
    out->first_value = weight->first_value % out->block;
    out->index = ct_cuda_index();
    if (out->dtype == CT_LLM_INT8 && out->k > INT8_MAX_K)
        return ct_fail(CT_VALUE, "a %s matrix has rows of at most %d values, not %lld",
                       ct_dtype_name(out->dtype), INT8_MAX_K, (long long)out->k);
    if (out->n == 0 || out->k == 0)
        return CT_OK;
    ct_status status = fill(out, weight);
    if (status != CT_OK)
        ct_cuda_scaled_free(out);
    return status;
}

void ct_cuda_scaled_free(ct_cuda_scaled *weight)
{
    ct_tensor_unref(&weight->tensor);
    if (weight->memory)
        ct_cuda_free(weight->index, weight->memory, weight->memory_size);
    *weight = {};
}

/* ---- products ---- */

#define BAND 32768 /* rows at a time: grids count groups of them by y, which ends at 65535 */

static bool few_takes(const ct_cuda_scaled *weight, int64_t n_rows, ct_dtype compute)
{
    return compute != CT_F32 && n_rows <= CT_FEW_ROWS && ct_cuda_codes_align(weight, 64) &&
           ct_cuda_codes_few_rows(weight->k) > 0;
}

bool ct_cuda_scaled_is_few(const ct_cuda_scaled *weight, int64_t n_rows,
                           const ct_quantized_compute *how)
{
    if (weight->k == 0)
        return false;
    if (weight->dtype == CT_LLM_INT8)
        return n_rows <= CT_FEW_ROWS;
    return few_takes(weight, n_rows, how->compute_dtype);
}

ct_dtype ct_cuda_scaled_input(const ct_cuda_scaled *weight, const ct_quantized_compute *how)
{
    bool codes = weight->dtype != CT_LLM_INT8 && ct_cuda_codes_align(weight, 32);
    return codes ? how->compute_dtype : CT_F32;
}

/* The parts that few_takes, up to 8 rows of x, as many at a time as the kernel can take. */
static ct_status codes_few(const ct_scaled_product *product, ct_dtype compute)
{
    ct_scaled_product taken = *product;
    taken.n_parts = 0;
    for (int p = 0; p < product->n_parts; p++)
        if (few_takes(&product->part[p].weight, product->x.n_rows, compute))
            taken.part[taken.n_parts++] = product->part[p];
    if (taken.n_parts == 0)
        return CT_OK;
    int64_t at_once = ct_cuda_codes_few_rows(taken.x.width);
    for (int64_t i = 0; i < taken.x.n_rows; i += at_once) {
        ct_scaled_product rows = ct_scaled_rows(taken, i, at_once);
        CT_TRY(ct_cuda_codes_few(&rows, compute == CT_F16));
    }
    return CT_OK;
}

static ct_status codes_part(const ct_scaled_product *product, int part, ct_dtype compute)
{
    if (!ct_cuda_codes_align(&product->part[part].weight, 32))
        return ct_cuda_codes_any(product, part);
    if (compute != CT_F32 && product->x.n_rows > CT_FEW_ROWS)
        return ct_cuda_codes_many(product, part, compute == CT_F16);
    if (ct_cuda_codes_exact_rows(product->x.width) > 0)
        return ct_cuda_codes_exact(product, part);
    return ct_cuda_codes_any(product, part);
}

static ct_status codes_products(const ct_scaled_product *product, ct_dtype compute)
{
    for (int64_t i = 0; i < product->x.n_rows; i += BAND) {
        ct_scaled_product band = ct_scaled_rows(*product, i, BAND);
        CT_TRY(codes_few(&band, compute));
        for (int p = 0; p < band.n_parts; p++)
            if (!few_takes(&band.part[p].weight, band.x.n_rows, compute))
                CT_TRY(codes_part(&band, p, compute));
    }
    return CT_OK;
}

/* Of rows of x without a column. */
CT_KERNEL nothing_kernel(ct_scaled_product product, ct_scaled_part part)
{
    int64_t size = product.x.n_rows * part.weight.n, step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step)
        ct_finish_part(product, part, i / part.weight.n, i % part.weight.n, 0);
}

static ct_status no_products(const ct_scaled_product *product, int part)
{
    CT_KERNEL_CALL(nothing_kernel, 64, COPY_THREADS, 0, ct_cuda_stream(), *product,
                   product->part[part]);
    return ct_cuda_launched("products of nothing");
}

ct_status ct_cuda_scaled_products(const ct_scaled_product *product, const ct_quantized_compute *how,
                                  bool blas, ct_arena *arena)
{
    if (product->x.n_rows == 0 || product->n_parts == 0)
        return CT_OK;
    if (product->x.width == 0) {
        for (int p = 0; p < product->n_parts; p++)
            CT_TRY(no_products(product, p));
        return CT_OK;
    }
    if (product->part[0].weight.dtype == CT_LLM_INT8)
        return ct_cuda_int8_products(product, how->outlier_threshold, blas, arena);
    if (product->x.dtype == CT_F32)
        return codes_products(product, how->compute_dtype);
    for (int p = 0; p < product->n_parts; p++)
        CT_TRY(ct_cuda_codes_blas(product, p, arena));
    return CT_OK;
}
