/* Pages and who may write them. A page's `written` says how many of its positions are spoken for; a
 * sequence that ends just there claims the next ones under the pool's lock, any other sequence that
 * shares the page copies it. */
#include "model/kv_cache.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "ops/device.h"
#include "ops/memory.h"

#define SPARE_BYTES ((size_t)1 << 28) /* of pages kept for reuse */

struct ct_kv_page {
    ct_refcount refs;
    int64_t written;   /* guarded by the pool's lock */
    ct_kv_page *spare; /* the next one in the pool's list */
    void *data;
};

struct ct_kv_pool {
    ct_refcount refs;
    const ct_ops *ops;
    ct_device_id device;
    int64_t n_layers, n_kv_heads, head_width;
    ct_dtype dtype;
    size_t page_bytes;
    pthread_mutex_t lock;
    ct_kv_page *spares;
    size_t spare_bytes;
};

static ct_status new_page(ct_kv_page **out, ct_kv_pool *pool);
static void drop_page(ct_kv_page **page, ct_kv_pool *pool);
static ct_status own_last_page(ct_kv_sequence *sequence, int64_t n_new);
static ct_status grow_tables(ct_kv_sequence *sequence, int64_t n_pages);

/* ---- the pool ---- */

ct_status ct_kv_pool_new(ct_kv_pool **out, ct_device_id device, int64_t n_layers,
                         int64_t n_kv_heads, int64_t head_width, ct_dtype dtype)
{
    *out = NULL;
    const ct_ops *ops;
    ct_kv_pool *pool;
    size_t values;
    CT_TRY(ct_device_ops(device, &ops));
    CT_TRY(ct_mul_size(&values, (size_t)(n_layers * 2 * n_kv_heads),
                       (size_t)(head_width * CT_PAGE_POSITIONS)));
    CT_TRY(ct_alloc_zeroed((void **)&pool, 1, sizeof *pool));
    ct_refcount_init(&pool->refs);
    pthread_mutex_init(&pool->lock, NULL);
    pool->ops = ops;
    pool->device = device;
    pool->n_layers = n_layers;
    pool->n_kv_heads = n_kv_heads;
    pool->head_width = head_width;
    pool->dtype = dtype;
    pool->page_bytes = values * ct_dtype_block_bytes(dtype);
    *out = pool;
    return CT_OK;
}

ct_kv_pool *ct_kv_pool_ref(ct_kv_pool *pool)
{
    ct_refcount_take(&pool->refs);
    return pool;
}

static void free_page(ct_kv_page **page, const ct_kv_pool *pool)
{
    pool->ops->free(pool->device.index, (*page)->data, pool->page_bytes);
    ct_free(page);
}

void ct_kv_pool_unref(ct_kv_pool **pool)
{
    ct_kv_pool *old = *pool;
    *pool = NULL;
    if (!old || !ct_refcount_drop(&old->refs))
        return;
    while (old->spares) {
        ct_kv_page *page = old->spares;
        old->spares = page->spare;
        free_page(&page, old);
    }
    pthread_mutex_destroy(&old->lock);
    ct_free(&old);
}

size_t ct_kv_pool_page_bytes(const ct_kv_pool *pool)
{
    return pool->page_bytes;
}

ct_kv_page *ct_kv_page_ref(ct_kv_page *page)
{
    ct_refcount_take(&page->refs);
    return page;
}

void ct_kv_page_unref(ct_kv_page **page, ct_kv_pool *pool)
{
    if (*page)
        drop_page(page, pool);
}

static ct_status new_page(ct_kv_page **out, ct_kv_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    ct_kv_page *page = pool->spares;
    if (page) {
        pool->spares = page->spare;
        pool->spare_bytes -= pool->page_bytes;
    }
    pthread_mutex_unlock(&pool->lock);
    if (!page) {
        CT_TRY(ct_alloc_zeroed((void **)&page, 1, sizeof *page));
        ct_status status = pool->ops->alloc(pool->device.index, &page->data, pool->page_bytes);
        if (status != CT_OK) {
            ct_free(&page);
            return status;
        }
    }
    ct_refcount_init(&page->refs);
    page->written = 0;
    *out = page;
    return CT_OK;
}

static void drop_page(ct_kv_page **page, ct_kv_pool *pool)
{
    ct_kv_page *old = *page;
    *page = NULL;
    if (!ct_refcount_drop(&old->refs))
        return;
    pthread_mutex_lock(&pool->lock);
    bool keep = pool->spare_bytes + pool->page_bytes <= SPARE_BYTES;
    if (keep) {
        old->spare = pool->spares;
        pool->spares = old;
        pool->spare_bytes += pool->page_bytes;
    }
    pthread_mutex_unlock(&pool->lock);
    if (!keep)
        free_page(&old, pool);
}

/* ---- a sequence ---- */

void ct_kv_sequence_init(ct_kv_sequence *sequence, ct_kv_pool *pool)
{
    *sequence = (ct_kv_sequence){.pool = ct_kv_pool_ref(pool)};
}

/* Leaves the first n_pages. */
static void cut_pages(ct_kv_sequence *sequence, int64_t n_pages)
{
    while (sequence->n_pages > n_pages)
        drop_page(&sequence->pages[--sequence->n_pages], sequence->pool);
}

void ct_kv_sequence_reset(ct_kv_sequence *sequence)
{
    cut_pages(sequence, 0);
    sequence->length = 0;
}

void ct_kv_sequence_clear(ct_kv_sequence *sequence)
{
    cut_pages(sequence, 0);
    ct_free(&sequence->pages);
    ct_free(&sequence->data);
    ct_kv_pool_unref(&sequence->pool);
    *sequence = (ct_kv_sequence){0};
}

static int64_t pages_for(int64_t n_positions)
{
    return (n_positions + CT_PAGE_POSITIONS - 1) / CT_PAGE_POSITIONS;
}

ct_status ct_kv_sequence_share(ct_kv_sequence *out, const ct_kv_sequence *source)
{
    ct_kv_sequence_init(out, source->pool);
    int64_t n_pages = pages_for(source->length);
    ct_status status = grow_tables(out, n_pages);
    if (status != CT_OK) {
        ct_kv_sequence_clear(out);
        return status;
    }
    for (int64_t i = 0; i < n_pages; i++) {
        ct_refcount_take(&source->pages[i]->refs);
        out->pages[i] = source->pages[i];
        out->data[i] = source->data[i];
    }
    out->n_pages = n_pages;
    out->length = source->length;
    return CT_OK;
}

int64_t ct_kv_sequence_lacks(const ct_kv_sequence *sequence, int64_t n_new)
{
    int64_t more = pages_for(sequence->length + n_new) - sequence->n_pages;
    return more > 0 ? more : 0;
}

ct_status ct_kv_sequence_prepare(ct_kv_sequence *sequence, int64_t n_positions)
{
    return grow_tables(sequence, pages_for(n_positions));
}

ct_status ct_kv_sequence_attach(ct_kv_sequence *sequence, ct_kv_page *page)
{
    int64_t n_full = sequence->length / CT_PAGE_POSITIONS;
    cut_pages(sequence, n_full); /* pages that were reserved and not written */
    CT_TRY(grow_tables(sequence, n_full + 1));
    sequence->pages[n_full] = ct_kv_page_ref(page);
    sequence->data[n_full] = page->data;
    sequence->n_pages = n_full + 1;
    sequence->length += CT_PAGE_POSITIONS;
    return CT_OK;
}

void ct_kv_sequence_swap(ct_kv_sequence *sequence, int64_t index, ct_kv_page *page)
{
    ct_kv_page_ref(page);
    drop_page(&sequence->pages[index], sequence->pool);
    sequence->pages[index] = page;
    sequence->data[index] = page->data;
}

ct_status ct_kv_sequence_reserve(ct_kv_sequence *sequence, int64_t n_new)
{
    int64_t n_pages = pages_for(sequence->length + n_new);
    CT_TRY(own_last_page(sequence, n_new));
    CT_TRY(grow_tables(sequence, n_pages));
    while (sequence->n_pages < n_pages) {
        ct_kv_page *page;
        CT_TRY(new_page(&page, sequence->pool));
        sequence->pages[sequence->n_pages] = page;
        sequence->data[sequence->n_pages++] = page->data;
    }
    return CT_OK;
}

void ct_kv_sequence_advance(ct_kv_sequence *sequence, int64_t n_new)
{
    int64_t first = sequence->length / CT_PAGE_POSITIONS;
    sequence->length += n_new;
    pthread_mutex_lock(&sequence->pool->lock);
    for (int64_t i = first; i < pages_for(sequence->length); i++) {
        int64_t written = sequence->length - i * CT_PAGE_POSITIONS;
        written = written < CT_PAGE_POSITIONS ? written : CT_PAGE_POSITIONS;
        if (sequence->pages[i]->written < written)
            sequence->pages[i]->written = written;
    }
    pthread_mutex_unlock(&sequence->pool->lock);
}

/* The first `n` positions of a page. Only those: somebody may be writing the others just now. */
static void copy_positions(char *to, const char *from, int64_t n, const ct_kv_pool *pool)
{
    size_t value = ct_dtype_block_bytes(pool->dtype), row = CT_PAGE_POSITIONS * value;
    size_t d = (size_t)pool->head_width, written = (size_t)n * value;
    for (int64_t layer = 0; layer < pool->n_layers; layer++) {
        for (size_t i = 0; i < (size_t)pool->n_kv_heads * d; i++, to += row, from += row)
            memcpy(to, from, written); /* a feature of the keys */
        for (int64_t g = 0; g < pool->n_kv_heads; g++, to += d * row, from += d * row)
            memcpy(to, from, d * written);
    }
}

/* On a device the copy waits for what was written before and is waited for by what will be. */
static ct_status copy_page(ct_kv_page *to, const ct_kv_page *from, int64_t n, ct_kv_pool *pool)
{
    if (!pool->ops->host_memory)
        return pool->ops->copy(to->data, from->data, pool->page_bytes);
    copy_positions(to->data, from->data, n, pool);
    return CT_OK;
}

/* Claims the free rest of a half-written last page, or replaces the page by a copy. */
static ct_status own_last_page(ct_kv_sequence *sequence, int64_t n_new)
{
    int64_t used = sequence->length % CT_PAGE_POSITIONS,
            last = sequence->length / CT_PAGE_POSITIONS;
    if (used == 0)
        return CT_OK;
    ct_kv_page *page = sequence->pages[last], *copy;
    int64_t claimed = used + n_new < CT_PAGE_POSITIONS ? used + n_new : CT_PAGE_POSITIONS;
    pthread_mutex_lock(&sequence->pool->lock);
    bool mine = page->written == used || ct_refcount_get(&page->refs) == 1;
    if (mine)
        page->written = claimed;
    pthread_mutex_unlock(&sequence->pool->lock);
    if (mine)
        return CT_OK;
    CT_TRY(new_page(&copy, sequence->pool));
    ct_status status = copy_page(copy, page, used, sequence->pool);
    if (status != CT_OK) {
        drop_page(&copy, sequence->pool);
        return status;
    }
    copy->written = claimed;
    drop_page(&sequence->pages[last], sequence->pool);
    sequence->pages[last] = copy;
    sequence->data[last] = copy->data;
    return CT_OK;
}

static ct_status grow_tables(ct_kv_sequence *sequence, int64_t n_pages)
{
    if (n_pages <= sequence->capacity)
        return CT_OK;
    int64_t capacity = n_pages > 2 * sequence->capacity ? n_pages : 2 * sequence->capacity;
    ct_kv_page **pages;
    void **data;
    CT_TRY(ct_alloc_zeroed((void **)&pages, (size_t)capacity, sizeof *pages));
    ct_status status = ct_alloc_zeroed((void **)&data, (size_t)capacity, sizeof *data);
    if (status != CT_OK) {
        ct_free(&pages);
        return status;
    }
    for (int64_t i = 0; i < sequence->n_pages; i++) {
        pages[i] = sequence->pages[i];
        data[i] = sequence->data[i];
    }
    ct_free(&sequence->pages);
    ct_free(&sequence->data);
    sequence->pages = pages;
    sequence->data = data;
    sequence->capacity = capacity;
    return CT_OK;
}

/* The tables that a device reads, in one piece: of each sequence's pages, then the pages, for as
 * many places as the longest may have, then the lengths. */
static ct_status stage_view(ct_kv_view *view, ct_kv_sequence *const *sequences, int64_t n_sequences,
                            int64_t max_places, ct_arena *host, ct_arena *device)
{
    const ct_ops *ops = sequences[0]->pool->ops;
    size_t n = (size_t)n_sequences;
    size_t n_pages = (size_t)((max_places + CT_PAGE_POSITIONS - 1) / CT_PAGE_POSITIONS);
    size_t size = sizeof(void *) * n * (1 + n_pages) + sizeof(int64_t) * n;
    void **tables, **on_device;
    CT_TRY(ct_arena_alloc(host, (void **)&tables, size));
    CT_TRY(ct_arena_alloc(device, (void **)&on_device, size));
    memset(tables, 0, size);
    for (size_t i = 0; i < n; i++) {
        size_t own = (size_t)sequences[i]->n_pages;
        size_t first = n + i * n_pages;
        tables[i] = on_device + first;
        if (own > 0)
            memcpy(tables + first, view->pages[i],
                   sizeof(void *) * (own < n_pages ? own : n_pages));
    }
    memcpy(tables + n * (1 + n_pages), view->lengths, sizeof(int64_t) * n);
    view->pages = (void *const *const *)on_device;
    view->lengths = (const int64_t *)(on_device + n * (1 + n_pages));
    return ops->upload(on_device, tables, size);
}

ct_status ct_kv_view_make(ct_kv_view *out, ct_kv_sequence *const *sequences, int64_t n_sequences,
                          int64_t max_places, ct_arena *host, ct_arena *device)
{
    const ct_kv_pool *pool = sequences[0]->pool;
    void *const **pages;
    int64_t *lengths;
    CT_TRY(ct_arena_alloc(host, (void **)&pages, sizeof *pages * (size_t)n_sequences));
    CT_TRY(ct_arena_alloc(host, (void **)&lengths, sizeof *lengths * (size_t)n_sequences));
    for (int64_t i = 0; i < n_sequences; i++) {
        pages[i] = sequences[i]->data;
        lengths[i] = sequences[i]->length;
    }
    *out = (ct_kv_view){.dtype = pool->dtype, .pages = pages, .lengths = lengths};
    if (pool->ops->host_memory)
        return CT_OK;
    return stage_view(out, sequences, n_sequences, max_places, host, device);
}

void ct_kv_view_layer(ct_kv_view *view, const ct_kv_pool *pool, int64_t layer)
{
    view->layer_offset = layer * 2 * pool->n_kv_heads * pool->head_width * CT_PAGE_POSITIONS;
}

/* ---- what users hold ---- */

ct_status ct_kv_cache_new(ct_kv_cache **out, ct_kv_sequence *const *sequences, int64_t n_sequences,
                          ct_tensor *columns)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_kv_cache *cache;
    CT_TRY(ct_alloc_zeroed((void **)&cache, 1, sizeof *cache));
    ct_refcount_init(&cache->refs);
    cache->columns = ct_tensor_ref(columns);
    CT_TRY_TO(done, ct_alloc_zeroed((void **)&cache->sequences, (size_t)n_sequences,
                                    sizeof *cache->sequences));
    for (int64_t i = 0; i < n_sequences; i++, cache->n_sequences++)
        CT_TRY_TO(done, ct_kv_sequence_share(&cache->sequences[i], sequences[i]));
    *out = cache;
    cache = NULL;
done:
    ct_kv_cache_unref(&cache);
    return status;
}

ct_kv_cache *ct_kv_cache_ref(ct_kv_cache *cache)
{
    ct_refcount_take(&cache->refs);
    return cache;
}

void ct_kv_cache_unref(ct_kv_cache **cache)
{
    ct_kv_cache *old = *cache;
    *cache = NULL;
    if (!old || !ct_refcount_drop(&old->refs))
        return;
    for (int64_t i = 0; i < old->n_sequences; i++)
        ct_kv_sequence_clear(&old->sequences[i]);
    ct_free(&old->sequences);
    ct_tensor_unref(&old->columns);
    ct_free(&old);
}

ct_status ct_kv_cache_select(ct_kv_cache **out, const ct_kv_cache *cache, const int64_t *rows,
                             int64_t n)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_tensor *columns = NULL;
    ct_kv_sequence **chosen = NULL;
    int64_t width = cache->columns->shape[1];
    CT_TRY_TO(done, ct_tensor_new(&columns, CT_BOOL, 2, (int64_t[]){n, width}));
    CT_TRY_TO(done, ct_alloc((void **)&chosen, sizeof(ct_kv_sequence *) * (size_t)n));
    for (int64_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= cache->n_sequences)
            CT_TRY_TO(done, ct_fail(CT_INDEX, "sequence %lld is outside a cache of %lld",
                                    (long long)rows[i], (long long)cache->n_sequences));
        chosen[i] = &cache->sequences[rows[i]];
        memcpy((char *)ct_tensor_data(columns) + i * width,
               (char *)ct_tensor_data(cache->columns) + rows[i] * width, (size_t)width);
    }
    CT_TRY_TO(done, ct_kv_cache_new(out, chosen, n, columns));
done:
    ct_free(&chosen);
    ct_tensor_unref(&columns);
    return status;
}

/* One position of one head, between contiguous values and the head's block of a page. */
static void move_position(char *row, char *block, int64_t place, int64_t d, size_t value,
                          bool values, bool store)
{
    int64_t n = values ? 1 : d; /* a feature of the keys has its places side by side */
    size_t bytes = (size_t)(values ? d : 1) * value;
    for (int64_t i = 0; i < n; i++, row += bytes) {
        int64_t first = values ? place * d : i * CT_PAGE_POSITIONS + place;
        char *stored = block + (size_t)first * value;
        memcpy(store ? stored : row, store ? row : stored, bytes);
    }
}

/* Between a contiguous array [n_kv_heads, n_columns, head_width] of one sequence, in the pages'
 * dtype, and the keys or values of a layer in its pages, as far as `columns` hold positions. */
static void move_sequence(const ct_kv_sequence *sequence, const uint8_t *columns, char *array,
                          int64_t width, int64_t layer, bool values, bool store)
{
    const ct_kv_pool *pool = sequence->pool;
    int64_t d = pool->head_width, heads = pool->n_kv_heads, column = 0;
    size_t value = ct_dtype_block_bytes(pool->dtype);
    size_t block = (size_t)(d * CT_PAGE_POSITIONS) * value, size = (size_t)heads * block;
    size_t offset = (size_t)(2 * layer + values) * size;
    for (int64_t p = 0; p < pages_for(sequence->length); p++) {
        char *page = (char *)sequence->data[p] + offset;
        for (int64_t place = 0; column < width && place < CT_PAGE_POSITIONS; column++) {
            for (int64_t g = 0; columns[column] && g < heads; g++)
                move_position(array + (size_t)((g * width + column) * d) * value,
                              page + (size_t)g * block, place, d, value, values, store);
            place += columns[column];
        }
    }
}

/* The position in each column, or -1: [n_sequences, n_columns]. */
static ct_status number_columns(const ct_kv_cache *cache, ct_arena *arena, int64_t **out)
{
    const uint8_t *columns = ct_tensor_data(cache->columns);
    int64_t width = cache->columns->shape[1], next = 0;
    CT_TRY(
        ct_arena_alloc(arena, (void **)out, sizeof **out * (size_t)(cache->n_sequences * width)));
    for (int64_t i = 0; i < cache->n_sequences * width; i++) {
        next = i % width == 0 ? 0 : next;
        (*out)[i] = columns[i] ? next++ : -1;
    }
    return CT_OK;
}

/* The device was entered. */
static ct_status run_move(const ct_kv_cache *cache, ct_kv_array array, int64_t layer, bool values,
                          bool store, ct_arena *host, ct_arena *device)
{
    const ct_kv_pool *pool = cache->sequences[0].pool;
    ct_kv_sequence **sequences;
    int64_t *places;
    ct_kv_view view;
    CT_TRY(ct_arena_alloc(host, (void **)&sequences, sizeof(void *) * (size_t)cache->n_sequences));
    for (int64_t i = 0; i < cache->n_sequences; i++)
        sequences[i] = &cache->sequences[i];
    CT_TRY(ct_kv_view_make(&view, sequences, cache->n_sequences, array.n_columns, host, device));
    ct_kv_view_layer(&view, pool, layer);
    CT_TRY(number_columns(cache, host, &places));
    const ct_staged staged = {(const void **)&array.places, places,
                              sizeof *places * (size_t)(array.n_sequences * array.n_columns)};
    CT_TRY(ct_stage(&staged, 1, pool->ops, host, device));
    return pool->ops->move_pages(&view, &array, values, store);
}

static ct_status move_on_device(const ct_kv_cache *cache, void *data, int64_t layer, bool values,
                                bool store)
{
    const ct_kv_pool *pool = cache->sequences[0].pool;
    ct_kv_array array = {
        data, cache->n_sequences, pool->n_kv_heads, cache->columns->shape[1], pool->head_width,
        NULL};
    ct_arena host = {0}, device = {0};
    CT_TRY(ct_device_memory(pool->device, &device.memory));
    CT_TRY(pool->ops->enter(pool->device.index));
    ct_status status = run_move(cache, array, layer, values, store, &host, &device);
    pool->ops->leave(pool->device.index);
    ct_arena_clear(&host);
    ct_arena_clear(&device);
    return status;
}

/* Between a contiguous array [n_sequences, n_kv_heads, n_columns, head_width] in memory of the
 * pool's device, and pages. */
static ct_status move_layer(const ct_kv_cache *cache, char *array, int64_t layer, bool values,
                            bool store)
{
    if (cache->n_sequences == 0)
        return CT_OK;
    const ct_kv_pool *pool = cache->sequences[0].pool;
    if (!pool->ops->host_memory)
        return move_on_device(cache, array, layer, values, store);
    const uint8_t *columns = ct_tensor_data(cache->columns);
    int64_t width = cache->columns->shape[1], size = pool->n_kv_heads * pool->head_width;
    size_t value = ct_dtype_block_bytes(pool->dtype);
    for (int64_t s = 0; s < cache->n_sequences; s++)
        move_sequence(&cache->sequences[s], columns + s * width,
                      array + (size_t)(s * size * width) * value, width, layer, values, store);
    return CT_OK;
}

ct_status ct_kv_cache_read(ct_tensor **out, const ct_kv_cache *cache, int64_t layer, bool values)
{
    *out = NULL;
    if (cache->n_sequences == 0)
        return ct_fail(CT_VALUE, "the cache holds no sequences");
    const ct_kv_pool *pool = cache->sequences[0].pool;
    if (layer < 0 || layer >= pool->n_layers)
        return ct_fail(CT_INDEX, "layer %lld is outside a cache of %lld layers", (long long)layer,
                       (long long)pool->n_layers);
    CT_TRY(ct_device_tensor(out, pool->device, pool->dtype, 4,
                            (int64_t[]){cache->n_sequences, pool->n_kv_heads,
                                        cache->columns->shape[1], pool->head_width}));
    if (pool->ops->host_memory) /* a device fills the gaps itself */
        memset(ct_tensor_data(*out), 0, ct_tensor_bytes(*out));
    ct_status status = move_layer(cache, ct_tensor_data(*out), layer, values, false);
    if (status != CT_OK)
        ct_tensor_unref(out);
    return status;
}

/* ---- from arrays ---- */

/* The first array says how many sequences and columns there are, all others follow it. */
static ct_status check_array(const ct_kv_pool *pool, const ct_tensor *array, const ct_tensor *first,
                             int64_t layer, const char *name)
{
    int64_t heads = pool->n_kv_heads, d = pool->head_width;
    if (!ct_dtype_is_float(array->dtype))
        return ct_fail(CT_TYPE, "layer %lld: the %s must be float32, float16 or bfloat16, not %s",
                       (long long)layer, name, ct_dtype_name(array->dtype));
    ct_device_id its = array->storage->device;
    if (its.kind != CT_DEVICE_CPU && !ct_same_device(its, pool->device))
        return ct_fail(CT_VALUE, "layer %lld: the %s are on \"cuda:%d\", but the model is not",
                       (long long)layer, name, its.index);
    if (array->n_dims == 4 && array->shape[0] == first->shape[0] && array->shape[1] == heads &&
        array->shape[2] == first->shape[2] && array->shape[3] == d)
        return CT_OK;
    char wanted[128], got[192];
    if (array == first)
        snprintf(wanted, sizeof wanted, "[batch, %lld, columns, %lld]", (long long)heads,
                 (long long)d);
    else
        snprintf(wanted, sizeof wanted, "[%lld, %lld, %lld, %lld]", (long long)first->shape[0],
                 (long long)heads, (long long)first->shape[2], (long long)d);
    ct_shape_text(got, sizeof got, array->n_dims, array->shape);
    bool repeated = array->n_dims == 4 && array->shape[3] == d && array->shape[1] > heads &&
                    array->shape[1] % heads == 0;
    return ct_fail(CT_VALUE, "layer %lld: the %s must have the shape %s, but have %s%s",
                   (long long)layer, name, wanted, got,
                   repeated ? "; a cache holds each key/value head once, not repeated for the "
                              "query heads that share it (D20)"
                            : "");
}

/* *out [n_sequences, n_columns]: the mask, or true everywhere. */
static ct_status copy_mask(ct_tensor **out, const ct_tensor *mask, int64_t n_sequences,
                           int64_t n_columns)
{
    *out = NULL;
    if (mask && mask->dtype != CT_BOOL)
        return ct_fail(CT_VALUE, "the mask of cached columns must be of dtype bool, was: %s",
                       ct_dtype_name(mask->dtype));
    if (mask && (mask->n_dims != 2 || mask->shape[0] != n_sequences || mask->shape[1] != n_columns))
        return ct_fail(CT_VALUE, "the mask of cached columns must have the shape [%lld, %lld]",
                       (long long)n_sequences, (long long)n_columns);
    CT_TRY(ct_tensor_new(out, CT_BOOL, 2, (int64_t[]){n_sequences, n_columns}));
    uint8_t *columns = ct_tensor_data(*out);
    const uint8_t *given = mask ? ct_tensor_data(mask) : NULL;
    for (int64_t i = 0; i < n_sequences * n_columns; i++)
        columns[i] =
            !mask ||
            given[i / n_columns * mask->strides[0] + i % n_columns * mask->strides[1]] != 0;
    return CT_OK;
}

/* Sequences with room for as many positions as columns hold, nothing written yet. */
static ct_status make_sequences(ct_kv_cache *cache, ct_kv_pool *pool, int64_t n_sequences)
{
    int64_t width = cache->columns->shape[1];
    CT_TRY(
        ct_alloc_zeroed((void **)&cache->sequences, (size_t)n_sequences, sizeof *cache->sequences));
    while (cache->n_sequences < n_sequences) {
        const uint8_t *columns =
            (uint8_t *)ct_tensor_data(cache->columns) + cache->n_sequences * width;
        ct_kv_sequence *sequence = &cache->sequences[cache->n_sequences++];
        int64_t length = 0;
        for (int64_t c = 0; c < width; c++)
            length += columns[c];
        ct_kv_sequence_init(sequence, pool);
        CT_TRY(ct_kv_sequence_reserve(sequence, length));
        ct_kv_sequence_advance(sequence, length);
    }
    return CT_OK;
}

/* The array in the pool's dtype and memory, contiguous; converted on the host where it has to be.
 */
static ct_status as_stored(ct_tensor **out, const ct_tensor *array, const ct_kv_pool *pool)
{
    ct_tensor *host, *converted;
    bool fits = array->dtype == pool->dtype && ct_tensor_is_contiguous(array);
    if (fits)
        return ct_tensor_to_device(out, array, pool->device);
    CT_TRY(ct_tensor_to_device(&host, array, (ct_device_id){CT_DEVICE_CPU, 0}));
    ct_status status = ct_tensor_convert(&converted, host, pool->dtype);
    ct_tensor_unref(&host);
    CT_TRY(status);
    status = ct_tensor_to_device(out, converted, pool->device);
    ct_tensor_unref(&converted);
    return status;
}

static ct_status store_array(const ct_kv_cache *cache, const ct_kv_pool *pool,
                             const ct_tensor *array, int64_t layer, bool values)
{
    ct_tensor *stored;
    CT_TRY(as_stored(&stored, array, pool));
    ct_status status = move_layer(cache, ct_tensor_data(stored), layer, values, true);
    ct_tensor_unref(&stored);
    return status;
}

ct_status ct_kv_cache_from_arrays(ct_kv_cache **out, ct_kv_pool *pool, ct_tensor *const *keys,
                                  int64_t n_keys, ct_tensor *const *values, int64_t n_values,
                                  const ct_tensor *mask)
{
    *out = NULL;
    ct_status status = CT_OK;
    ct_kv_cache *cache;
    if (n_keys != pool->n_layers || n_values != pool->n_layers)
        return ct_fail(CT_VALUE,
                       "the model has %lld layers, but keys of %lld and values of %lld were given",
                       (long long)pool->n_layers, (long long)n_keys, (long long)n_values);
    for (int64_t i = 0; i < pool->n_layers; i++) {
        CT_TRY(check_array(pool, keys[i], keys[0], i, "keys"));
        CT_TRY(check_array(pool, values[i], keys[0], i, "values"));
    }
    CT_TRY(ct_alloc_zeroed((void **)&cache, 1, sizeof *cache));
    ct_refcount_init(&cache->refs);
    CT_TRY_TO(done, copy_mask(&cache->columns, mask, keys[0]->shape[0], keys[0]->shape[2]));
    CT_TRY_TO(done, make_sequences(cache, pool, keys[0]->shape[0]));
    for (int64_t i = 0; i < pool->n_layers; i++) {
        CT_TRY_TO(done, store_array(cache, pool, keys[i], i, false));
        CT_TRY_TO(done, store_array(cache, pool, values[i], i, true));
    }
    *out = cache;
    cache = NULL;
done:
    ct_kv_cache_unref(&cache);
    return status;
}
