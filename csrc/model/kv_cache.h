/* The keys and values of sequences that go on: pages from one pool, a page table per sequence.
 *
 * A page holds CT_PAGE_POSITIONS positions of one sequence for all layers and counts its users.
 * Sequences share pages (a snapshot, a common prefix): a page also knows how many of its positions
 * are written, so a sequence whose length is just that may append in place, and one that has been
 * overtaken copies its last page first. Nothing is ever moved otherwise. */
#ifndef CT_MODEL_KV_CACHE_H
#define CT_MODEL_KV_CACHE_H

#include <stdint.h>

#include "core/arena.h"
#include "core/status.h"
#include "model/spec.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

typedef struct ct_kv_pool ct_kv_pool; /* refcounted, safe for several threads */
typedef struct ct_kv_page ct_kv_page;

/* The pages of all sequences of models with this geometry, in memory of the device. */
CT_MUST_CHECK ct_status ct_kv_pool_new(ct_kv_pool **out, ct_device_id device, int64_t n_layers,
                                       int64_t n_kv_heads, int64_t head_width, ct_dtype dtype);
ct_kv_pool *ct_kv_pool_ref(ct_kv_pool *pool);
void ct_kv_pool_unref(ct_kv_pool **pool);
size_t ct_kv_pool_page_bytes(const ct_kv_pool *pool);

/* A page that is full never changes again; whoever has a reference may read it. */
ct_kv_page *ct_kv_page_ref(ct_kv_page *page);
void ct_kv_page_unref(ct_kv_page **page, ct_kv_pool *pool);

typedef struct ct_kv_sequence {
    ct_kv_pool *pool; /* owned */
    int64_t length;   /* positions written */
    int64_t n_pages, capacity;
    ct_kv_page **pages; /* owned references */
    void **data;        /* [n_pages] the pages' memory, as ct_kv_view wants it */
} ct_kv_sequence;

void ct_kv_sequence_init(ct_kv_sequence *sequence, ct_kv_pool *pool);
void ct_kv_sequence_clear(ct_kv_sequence *sequence);
/* *out (uninitialised) shares source's pages. */
CT_MUST_CHECK ct_status ct_kv_sequence_share(ct_kv_sequence *out, const ct_kv_sequence *source);
/* Makes room for `n_new` positions behind length, in pages that are this sequence's to write. */
CT_MUST_CHECK ct_status ct_kv_sequence_reserve(ct_kv_sequence *sequence, int64_t n_new);
/* The pages that it takes from the pool for that. */
int64_t ct_kv_sequence_lacks(const ct_kv_sequence *sequence, int64_t n_new);
/* Room in the tables: a sequence of so many positions then needs no memory but for its pages. */
CT_MUST_CHECK ct_status ct_kv_sequence_prepare(ct_kv_sequence *sequence, int64_t n_positions);
/* Puts a full page of the same pool behind the sequence, which must end with a full one. */
CT_MUST_CHECK ct_status ct_kv_sequence_attach(ct_kv_sequence *sequence, ct_kv_page *page);
/* Page `index`, which is full, becomes `page`, which holds the same positions. */
void ct_kv_sequence_swap(ct_kv_sequence *sequence, int64_t index, ct_kv_page *page);
/* Gives the pages back: the sequence is empty again, with the room of its tables. */
void ct_kv_sequence_reset(ct_kv_sequence *sequence);
/* They were written. */
void ct_kv_sequence_advance(ct_kv_sequence *sequence, int64_t n_new);

/* The view of layer 0 over n sequences, of max_places at most, for operations of their device;
 * ct_kv_view_layer makes it that of another. Its tables are from the arenas: the host's, and the
 * device's where that needs them. */
CT_MUST_CHECK ct_status ct_kv_view_make(ct_kv_view *out, ct_kv_sequence *const *sequences,
                                        int64_t n_sequences, int64_t max_places, ct_arena *host,
                                        ct_arena *device);
void ct_kv_view_layer(ct_kv_view *view, const ct_kv_pool *pool, int64_t layer);

/* What users hold: a snapshot of a batch of sequences, with the columns of the padded batch in
 * which their positions stood. Does not change once made. */
typedef struct ct_kv_cache {
    ct_refcount refs;
    int64_t n_sequences;
    ct_kv_sequence *sequences; /* [n_sequences] */
    ct_tensor *columns;        /* bool [n_sequences, n_columns] 1: a cached position stands here */
} ct_kv_cache;

/* Shares the sequences' pages and takes a reference to columns. */
CT_MUST_CHECK ct_status ct_kv_cache_new(ct_kv_cache **out, ct_kv_sequence *const *sequences,
                                        int64_t n_sequences, ct_tensor *columns);
ct_kv_cache *ct_kv_cache_ref(ct_kv_cache *cache);
void ct_kv_cache_unref(ct_kv_cache **cache);
/* The sequences rows[0..n) of cache. */
CT_MUST_CHECK ct_status ct_kv_cache_select(ct_kv_cache **out, const ct_kv_cache *cache,
                                           const int64_t *rows, int64_t n);
/* [n_sequences, n_kv_heads, n_columns, head_width] in the cache's dtype and its device's memory,
 * zeros where no position stands: the keys (values = false) or values of a layer. */
CT_MUST_CHECK ct_status ct_kv_cache_read(ct_tensor **out, const ct_kv_cache *cache, int64_t layer,
                                         bool values);
/* The other way round: pages of `pool` from arrays of these shapes, one of keys and one of values
 * for each of the pool's layers, floats of any type and stride, rounded to the pool's dtype; of the
 * host or the pool's device. mask (of the host):
 * bool [n_sequences, n_columns], false where a column holds no position, or NULL: all do. CT_VALUE
 * and CT_TYPE name the layer and the shapes. */
CT_MUST_CHECK ct_status ct_kv_cache_from_arrays(ct_kv_cache **out, ct_kv_pool *pool,
                                                ct_tensor *const *keys, int64_t n_keys,
                                                ct_tensor *const *values, int64_t n_values,
                                                const ct_tensor *mask);

#endif
