/* Beginnings of sequences whose keys and values are there already: a tree of full pages, each under
 * the page before it, found by the ids that it holds. Only equal ids behind equal pages count.
 *
 * A node may stand for a page that one sequence is still computing, so that others wait for it
 * instead of computing it as well. Pages that no running sequence has are idle; they stay for later
 * sequences, the ones that were used last, up to a number. */
#ifndef CT_GENERATION_PREFIXES_H
#define CT_GENERATION_PREFIXES_H

#include "model/kv_cache.h"

typedef struct ct_prefix ct_prefix; /* a node; NULL: the empty beginning */

typedef struct ct_prefixes {
    ct_kv_pool *pool; /* owned */
    ct_prefix **buckets;
    int64_t n_buckets, n_nodes;
    ct_prefix *spares;          /* nodes for reuse */
    ct_prefix *oldest, *newest; /* idle ones; a node's descendants are older than it */
    int64_t n_pages;            /* of computed nodes, idle ones included */
    int64_t n_idle, max_idle;
} ct_prefixes;

void ct_prefixes_init(ct_prefixes *prefixes, ct_kv_pool *pool, int64_t max_idle);
void ct_prefixes_clear(ct_prefixes *prefixes);

/* The node behind `parent` for these CT_PAGE_POSITIONS ids, or NULL. */
ct_prefix *ct_prefixes_find(const ct_prefixes *prefixes, const ct_prefix *parent,
                            const int32_t *ids);
/* A new one, for a page that `maker` is going to compute, and used by it. NULL: no memory. */
ct_prefix *ct_prefixes_add(ct_prefixes *prefixes, ct_prefix *parent, const int32_t *ids,
                           const void *maker);
/* One more sequence, which has the parent already, has this one, too. */
void ct_prefixes_use(ct_prefixes *prefixes, ct_prefix *node);
/* A sequence gives up `node` and all before it. */
void ct_prefixes_release(ct_prefixes *prefixes, ct_prefix *node);

/* The maker has computed the page (a reference is taken). */
void ct_prefixes_set_page(ct_prefixes *prefixes, ct_prefix *node, ct_kv_page *page);
ct_kv_page *ct_prefix_page(const ct_prefix *node); /* NULL: being computed */
const void *ct_prefix_maker(const ct_prefix *node);
ct_prefix *ct_prefix_parent(const ct_prefix *node);

/* Gives up the idle page that was used longest ago; false when there is none. */
bool ct_prefixes_evict(ct_prefixes *prefixes);

#endif
