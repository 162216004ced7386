/* Weights go to the device's memory. Blocks go in bands to scratch, where a kernel takes them
 * apart. */
#include "weights.h"

#include <stddef.h>

#include "device.h"
#include "runtime.h"

#define THREADS 256
#define BAND_BYTES ((size_t)32 << 20) /* of blocks that are taken apart at a time */
#define PLANE_ALIGNMENT 256

/* ---- elements as they are ---- */

static bool is_here(const ct_tensor *tensor)
{
    return tensor->storage->device.kind == CT_DEVICE_CUDA;
}

/* A contiguous tensor in the same memory; *out is owned. */
static ct_status as_contiguous(ct_tensor **out, ct_tensor *tensor)
{
    if (!is_here(tensor))
        return ct_tensor_contiguous(out, tensor);
    if (!ct_tensor_is_contiguous(tensor))
        return ct_fail(CT_UNSUPPORTED, "weights in a GPU's memory have to be contiguous");
    *out = ct_tensor_ref(tensor);
    return CT_OK;
}

ct_status ct_cuda_elements_new(ct_cuda_elements *out, ct_tensor *tensor)
{
    ct_status status = CT_OK;
    ct_tensor *whole = NULL;
    *out = {};
    CT_TRY(as_contiguous(&whole, tensor));
    if (is_here(tensor)) {
        out->tensor = whole;
        out->data = ct_tensor_data(whole);
        return CT_OK;
    }
    out->index = ct_cuda_index();
    out->size = ct_tensor_bytes(whole);
    CT_TRY_TO(done, ct_cuda_alloc(out->index, &out->memory, out->size));
    CT_TRY_TO(done, ct_cuda_upload(out->memory, ct_tensor_data(whole), out->size));
    out->data = out->memory;
done:
    ct_tensor_unref(&whole);
    if (status != CT_OK)
        ct_cuda_elements_free(out);
    return status;
}

void ct_cuda_elements_free(ct_cuda_elements *elements)
{
    ct_tensor_unref(&elements->tensor);
    if (elements->memory)
        ct_cuda_free(elements->index, elements->memory, elements->size);
    *elements = {};
}

/* ---- blocks, taken apart ---- */

CT_DEVICE uint32_t two_bytes(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8;
}

/* Nibbles of 32 values in 16 bytes, the first half's low. */
CT_DEVICE uint32_t nibble_of(const uint8_t *q, int i)
{
    return q[i % 16] >> i / 16 * 4 & 15u;
}

/* Bit i of some bytes. */
CT_DEVICE uint32_t bit_of(const uint8_t *bytes, int i)
{
    return bytes[i / 8] >> i % 8 & 1u;
}

/* Value i of a block; see the formats' headers for where its bits lie. */
CT_DEVICE uint32_t code_of(ct_dtype dtype, const uint8_t *block, int i)
{
    int group = i / 32, place = i % 32; /* of the K formats */
    switch (dtype) {
    case CT_Q8_0:
        return block[offsetof(ct_block_q8_0, q) + i] ^ 128u;
    case CT_Q4_0:
        return nibble_of(block + offsetof(ct_block_q4_0, q), i);
    case CT_Q4_1:
        return nibble_of(block + offsetof(ct_block_q4_1, q), i);
    case CT_Q5_0:
        return nibble_of(block + offsetof(ct_block_q5_0, q), i) |
               bit_of(block + offsetof(ct_block_q5_0, high), i) << 4;
    case CT_Q5_1:
        return nibble_of(block + offsetof(ct_block_q5_1, q), i) |
               bit_of(block + offsetof(ct_block_q5_1, high), i) << 4;
    case CT_Q4_K:
        return block[offsetof(ct_block_q4_k, q) + group / 2 * 32 + place] >> group % 2 * 4 & 15u;
    case CT_Q5_K:
        return (block[offsetof(ct_block_q5_k, q) + group / 2 * 32 + place] >> group % 2 * 4 & 15u) |
               (block[offsetof(ct_block_q5_k, high) + place] >> group & 1u) << 4;
    default: { /* q6_k */
        int half = group / 4, quarter = group % 4;
        int low = half * 64 + quarter % 2 * 32 + place, high = half * 32 + place;
        return (block[offsetof(ct_block_q6_k, q) + low] >> quarter / 2 * 4 & 15u) |
               (block[offsetof(ct_block_q6_k, high) + high] >> 2 * quarter & 3u) << 4;
    }
    }
}

/* The scale of group g of a q4_k or q5_k block in the first byte, its minimum in the second. */
CT_DEVICE uint32_t k_scale(const uint8_t *packed, int g)
{
    if (g < 4)
        return (packed[g] & 63u) | (packed[4 + g] & 63u) << 8;
    uint32_t low = packed[4 + g];
    uint32_t scale = (low & 15) | packed[g - 4] >> 6 << 4;
    uint32_t minimum = low >> 4 | packed[g] >> 6 << 4;
    return scale | minimum << 8;
}

/* What lies in the plane of scales for chunk `group` of a block. */
CT_DEVICE uint32_t scale_of(ct_dtype dtype, const uint8_t *block, int group)
{
    switch (dtype) {
    case CT_Q4_K:
        return k_scale(block + offsetof(ct_block_q4_k, scales), group);
    case CT_Q5_K:
        return k_scale(block + offsetof(ct_block_q5_k, scales), group);
    case CT_Q6_K:
        return two_bytes(block + offsetof(ct_block_q6_k, scales) + 2 * group);
    case CT_Q4_1:
    case CT_Q5_1:
        return two_bytes(block) | two_bytes(block + 2) << 16;
    default:
        return two_bytes(block);
    }
}

CT_DEVICE void put_bytes(const uint8_t *plane, int64_t i, int n_bytes, uint32_t value)
{
    if (n_bytes == 2)
        ((uint16_t *)plane)[i] = (uint16_t)value;
    else if (n_bytes == 4)
        ((uint32_t *)plane)[i] = value;
}

CT_DEVICE void split_codes(ct_dtype dtype, ct_cuda_planes to, int64_t chunk, const uint8_t *block,
                           int first)
{
    int bits = ct_code_bits(dtype);
    uint32_t high_first = 0, high_last = 0;
    for (int j = 0; j < CT_CHUNK / 4; j++) { /* four values each */
        uint32_t low = 0;
        for (int b = 0; b < 4; b++) {
            uint32_t code = code_of(dtype, block, first + 4 * j + b);
            low |= (bits == 8 ? code : code & 15) << 8 * b;
            if (bits == 5)
                high_first |= code >> 4 << (8 * b + j);
            if (bits == 6)
                (j < 4 ? high_first : high_last) |= code >> 4 << (8 * b + 2 * (j % 4));
        }
        uint32_t *words = (uint32_t *)(to.codes + chunk * ct_low_bytes(dtype));
        if (bits == 8)
            words[j] = low;
        else if (j % 2 == 0)
            words[j / 2] = low;
        else
            words[j / 2] |= low << 4;
    }
    uint32_t *words = (uint32_t *)(to.high + chunk * ct_high_bytes(dtype));
    if (bits == 5 || bits == 6)
        words[0] = high_first;
    if (bits == 6)
        words[1] = high_last;
}

/* A thread for each of `n` chunks, the first of which is chunk `begin` of the matrix. */
CT_KERNEL split_kernel(ct_dtype dtype, ct_cuda_planes to, const uint8_t *blocks, int block_values,
                       int block_bytes, int64_t begin, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int64_t chunk = begin + i;
    int chunks = block_values / CT_CHUNK, group = (int)(i % chunks);
    const uint8_t *block = blocks + i / chunks * block_bytes;
    split_codes(dtype, to, chunk, block, group * CT_CHUNK);
    put_bytes(to.scales, chunk, ct_scale_bytes(dtype), scale_of(dtype, block, group));
    if (group != 0 || !ct_has_supers(dtype))
        return;
    uint32_t super = dtype == CT_Q6_K ? two_bytes(block + offsetof(ct_block_q6_k, d))
                                      : two_bytes(block) | two_bytes(block + 2) << 16;
    put_bytes(to.supers, chunk / chunks, ct_super_bytes(dtype), super);
}

/* Takes `n_blocks` blocks in the device's memory apart, the first of which is the matrix's `begin`.
 */
static ct_status split_blocks(const ct_cuda_weight *weight, const void *blocks, int64_t begin,
                              int64_t n_blocks)
{
    int values = ct_dtype_block_values(weight->dtype), chunks = values / CT_CHUNK;
    int64_t n = n_blocks * chunks;
    if (n == 0)
        return CT_OK;
    CT_KERNEL_CALL(split_kernel, (unsigned)((n + THREADS - 1) / THREADS), THREADS, 0,
                   ct_cuda_stream(), weight->dtype, weight->planes, (const uint8_t *)blocks, values,
                   (int)ct_dtype_block_bytes(weight->dtype), begin * chunks, n);
    return ct_cuda_launched("split_blocks");
}

/* The same from the host's memory. */
static ct_status upload_blocks(const ct_cuda_weight *weight, const char *blocks, int64_t n_blocks)
{
    ct_status status = CT_OK;
    int64_t bytes = (int64_t)ct_dtype_block_bytes(weight->dtype);
    int64_t band = (int64_t)BAND_BYTES / bytes < n_blocks ? (int64_t)BAND_BYTES / bytes : n_blocks;
    int index = weight->elements.index;
    void *scratch;
    CT_TRY(ct_cuda_alloc(index, &scratch, (size_t)(band * bytes)));
    for (int64_t i = 0; i < n_blocks; i += band) {
        int64_t n = n_blocks - i < band ? n_blocks - i : band;
        CT_TRY_TO(done, ct_cuda_upload(scratch, blocks + i * bytes, (size_t)(n * bytes)));
        CT_TRY_TO(done, split_blocks(weight, scratch, i, n));
    }
done:
    ct_cuda_free(index, scratch, (size_t)(band * bytes));
    return status;
}

/* `bytes` for each of `n` chunks (or more values) behind what *size counts already. */
static size_t reserve(size_t *size, int64_t n, int bytes)
{
    size_t begin = *size, end = begin + (size_t)n * (size_t)bytes;
    *size = (end + PLANE_ALIGNMENT - 1) / PLANE_ALIGNMENT * PLANE_ALIGNMENT;
    return begin;
}

static ct_status alloc_planes(ct_cuda_weight *weight)
{
    ct_dtype dtype = weight->dtype;
    ct_cuda_planes *planes = &weight->planes;
    ct_cuda_elements *elements = &weight->elements;
    int64_t n_chunks = planes->n * planes->k / CT_CHUNK;
    size_t size = 0;
    size_t codes = reserve(&size, n_chunks, ct_low_bytes(dtype));
    size_t high = reserve(&size, n_chunks, ct_high_bytes(dtype));
    size_t scales = reserve(&size, n_chunks, ct_scale_bytes(dtype));
    size_t supers = reserve(&size, planes->n * planes->k / CT_KBLOCK, ct_super_bytes(dtype));
    elements->index = ct_cuda_index();
    elements->size = size;
    CT_TRY(ct_cuda_alloc(elements->index, &elements->memory, size));
    const uint8_t *base = (const uint8_t *)elements->memory;
    planes->codes = base + codes;
    planes->high = base + high;
    planes->scales = base + scales;
    planes->supers = base + supers;
    return CT_OK;
}

static ct_status new_blocks(ct_cuda_weight *weight, ct_tensor *tensor)
{
    ct_status status = CT_OK;
    ct_tensor *whole = NULL;
    int64_t n_blocks = ct_tensor_size(tensor) / ct_dtype_block_values(weight->dtype);
    CT_TRY(as_contiguous(&whole, tensor));
    CT_TRY_TO(done, alloc_planes(weight));
    if (is_here(tensor))
        status = split_blocks(weight, ct_tensor_data(whole), 0, n_blocks);
    else
        status = upload_blocks(weight, (const char *)ct_tensor_data(whole), n_blocks);
done:
    ct_tensor_unref(&whole);
    return status;
}

ct_status ct_cuda_weight_new(ct_cuda_weight *out, ct_tensor *tensor)
{
    *out = {};
    out->dtype = tensor->dtype;
    out->planes.n = tensor->shape[0];
    out->planes.k = tensor->shape[1];
    if (ct_code_bits(out->dtype) == 0) {
        CT_TRY(ct_cuda_elements_new(&out->elements, tensor));
        size_t row_bytes = ct_dtype_block_bytes(out->dtype) * (size_t)out->planes.k;
        out->planes.codes = (const uint8_t *)out->elements.data;
        out->planes.aligned = row_bytes % 16 == 0 && (uintptr_t)out->planes.codes % 16 == 0;
        return CT_OK;
    }
    ct_status status = new_blocks(out, tensor);
    if (status != CT_OK)
        ct_cuda_weight_free(out);
    return status;
}

void ct_cuda_weight_free(ct_cuda_weight *weight)
{
    ct_cuda_elements_free(&weight->elements);
    *weight = {};
}
