/* Cached keys or values of a layer as an array, and back: a thread for each of its elements. */
#include "ops.h"

#include "runtime.h"
#include "sequences.h"

#define THREADS 256

/* Where an element of the array is in the page of its position, counted from the layer's keys. */
CT_DEVICE int64_t place_in_page(const ct_kv_array &array, int64_t head, int64_t place,
                                int64_t feature, bool values)
{
    int64_t d = array.head_width, block = head * d * CT_PAGE_POSITIONS;
    if (!values)
        return block + feature * CT_PAGE_POSITIONS + place;
    return array.n_kv_heads * d * CT_PAGE_POSITIONS + block + place * d + feature;
}

/* Bits are moved, whatever they stand for: Word has the size of an element. */
template <typename Word>
CT_KERNEL CT_BOUNDS(THREADS, 4)
    move_pages_kernel(ct_kv_view cache, ct_kv_array array, int64_t n, bool values, bool store)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n)
        return;
    int64_t feature = i % array.head_width, row = i / array.head_width;
    int64_t column = row % array.n_columns, head = row / array.n_columns % array.n_kv_heads;
    int64_t sequence = row / array.n_columns / array.n_kv_heads;
    int64_t place = array.places[sequence * array.n_columns + column];
    Word *element = (Word *)array.data + i;
    if (place < 0) {
        if (!store)
            *element = 0;
        return;
    }
    Word *stored = (Word *)ct_cached_keys(cache, sequence, place) +
                   place_in_page(array, head, place % CT_PAGE_POSITIONS, feature, values);
    if (store)
        *stored = *element;
    else
        *element = *stored;
}

ct_status ct_cuda_move_pages(const ct_kv_view *cache, const ct_kv_array *array, bool values,
                             bool store)
{
    int64_t n = array->n_sequences * array->n_kv_heads * array->n_columns * array->head_width;
    unsigned blocks = (unsigned)((n + THREADS - 1) / THREADS);
    if (n == 0)
        return CT_OK;
    if (cache->dtype == CT_F32)
        CT_KERNEL_CALL(move_pages_kernel<uint32_t>, blocks, THREADS, 0, ct_cuda_stream(), *cache,
                       *array, n, values, store);
    else
        CT_KERNEL_CALL(move_pages_kernel<uint16_t>, blocks, THREADS, 0, ct_cuda_stream(), *cache,
                       *array, n, values, store);
    return ct_cuda_launched("moving cached keys and values");
}
