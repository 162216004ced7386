/* Which sequence a row of the batch belongs to, and where its cached keys lie. */
#ifndef CT_CUDA_SEQUENCES_H
#define CT_CUDA_SEQUENCES_H

#include "csrc.h"
#include "device.h"

/* The sequence whose rows hold `row`: the last one that begins there or before. */
CT_DEVICE int64_t ct_sequence_of(const int64_t *offsets, int64_t n_sequences, int64_t row)
{
    int64_t first = 0, end = n_sequences;
    while (end - first > 1) {
        int64_t middle = first + (end - first) / 2;
        if (offsets[middle] <= row)
            first = middle;
        else
            end = middle;
    }
    return first;
}

CT_DEVICE int64_t ct_cached_value_bytes(const ct_kv_view &cache)
{
    return cache.dtype == CT_F32 ? 4 : 2;
}

/* The layer's keys, of all heads, in the page of a sequence that holds `place`. */
CT_DEVICE char *ct_cached_keys(const ct_kv_view &cache, int64_t sequence, int64_t place)
{
    char *page = (char *)cache.pages[sequence][place / CT_PAGE_POSITIONS];
    return page + cache.layer_offset * ct_cached_value_bytes(cache);
}

#endif
