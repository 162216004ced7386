/* A hash table of nodes by parent and ids, and a list of the idle ones. Every sequence that has a
 * node has its parents, so users of a node are users of those before it: a list in the order in
 * which nodes became idle, the deepest first, has children before their parents. */
#include "generation/prefixes.h"

#include <string.h>

#include "core/memory.h"

#define FIRST_BUCKETS 64

struct ct_prefix {
    ct_prefix *next; /* in the bucket, or among the spares */
    ct_prefix *parent, *older, *newer;
    ct_kv_page *page;  /* owned; NULL while it is being computed */
    const void *maker; /* who does */
    uint64_t hash;
    int64_t n_users;
    int32_t ids[CT_PAGE_POSITIONS];
};

static void unlink_idle(ct_prefixes *prefixes, ct_prefix *node);
static void drop_node(ct_prefixes *prefixes, ct_prefix *node);

void ct_prefixes_init(ct_prefixes *prefixes, ct_kv_pool *pool, int64_t max_idle)
{
    *prefixes = (ct_prefixes){.pool = ct_kv_pool_ref(pool), .max_idle = max_idle};
}

void ct_prefixes_clear(ct_prefixes *prefixes)
{
    for (int64_t i = 0; i < prefixes->n_buckets; i++) {
        while (prefixes->buckets[i])
            drop_node(prefixes, prefixes->buckets[i]);
    }
    while (prefixes->spares) {
        ct_prefix *old = prefixes->spares;
        prefixes->spares = old->next;
        ct_free(&old);
    }
    ct_free(&prefixes->buckets);
    ct_kv_pool_unref(&prefixes->pool);
    *prefixes = (ct_prefixes){0};
}

/* FNV-1a over ids and the parent's hash; equality is what decides. */
static uint64_t hash_of(const ct_prefix *parent, const int32_t *ids)
{
    uint64_t hash = parent ? parent->hash : 14695981039346656037u;
    for (int i = 0; i < CT_PAGE_POSITIONS; i++)
        hash = (hash ^ (uint32_t)ids[i]) * 1099511628211u;
    return hash;
}

static ct_prefix **bucket_of(const ct_prefixes *prefixes, uint64_t hash)
{
    return &prefixes->buckets[(hash ^ hash >> 32) & (uint64_t)(prefixes->n_buckets - 1)];
}

ct_prefix *ct_prefixes_find(const ct_prefixes *prefixes, const ct_prefix *parent,
                            const int32_t *ids)
{
    if (prefixes->n_buckets == 0)
        return NULL;
    uint64_t hash = hash_of(parent, ids);
    ct_prefix *node = *bucket_of(prefixes, hash);
    while (node && (node->hash != hash || node->parent != parent ||
                    memcmp(node->ids, ids, sizeof node->ids) != 0))
        node = node->next;
    return node;
}

static ct_status grow_table(ct_prefixes *prefixes)
{
    ct_prefixes grown = *prefixes;
    grown.n_buckets = prefixes->n_buckets ? 2 * prefixes->n_buckets : FIRST_BUCKETS;
    CT_TRY(ct_alloc_zeroed((void **)&grown.buckets, (size_t)grown.n_buckets, sizeof(ct_prefix *)));
    for (int64_t i = 0; i < prefixes->n_buckets; i++) {
        ct_prefix *next;
        for (ct_prefix *node = prefixes->buckets[i]; node; node = next) {
            ct_prefix **bucket = bucket_of(&grown, node->hash);
            next = node->next;
            node->next = *bucket;
            *bucket = node;
        }
    }
    ct_free(&prefixes->buckets);
    *prefixes = grown;
    return CT_OK;
}

ct_prefix *ct_prefixes_add(ct_prefixes *prefixes, ct_prefix *parent, const int32_t *ids,
                           const void *maker)
{
    ct_prefix *node = prefixes->spares;
    if (prefixes->n_nodes >= prefixes->n_buckets && grow_table(prefixes) != CT_OK)
        return NULL;
    if (node)
        prefixes->spares = node->next;
    else if (ct_alloc((void **)&node, sizeof *node) != CT_OK)
        return NULL;
    *node =
        (ct_prefix){.parent = parent, .maker = maker, .hash = hash_of(parent, ids), .n_users = 1};
    memcpy(node->ids, ids, sizeof node->ids);
    ct_prefix **bucket = bucket_of(prefixes, node->hash);
    node->next = *bucket;
    *bucket = node;
    prefixes->n_nodes++;
    return node;
}

void ct_prefixes_use(ct_prefixes *prefixes, ct_prefix *node)
{
    if (node->n_users++ == 0)
        unlink_idle(prefixes, node);
}

void ct_prefixes_release(ct_prefixes *prefixes, ct_prefix *node)
{
    for (ct_prefix *parent; node; node = parent) {
        parent = node->parent;
        if (--node->n_users > 0)
            continue;
        if (!node->page) { /* will not be computed any more */
            drop_node(prefixes, node);
            continue;
        }
        node->older = prefixes->newest;
        node->newer = NULL;
        *(node->older ? &node->older->newer : &prefixes->oldest) = node;
        prefixes->newest = node;
        prefixes->n_idle++;
    }
    while (prefixes->n_idle > prefixes->max_idle)
        ct_prefixes_evict(prefixes);
}

void ct_prefixes_set_page(ct_prefixes *prefixes, ct_prefix *node, ct_kv_page *page)
{
    node->page = ct_kv_page_ref(page);
    node->maker = NULL;
    prefixes->n_pages++;
}

ct_kv_page *ct_prefix_page(const ct_prefix *node)
{
    return node->page;
}

const void *ct_prefix_maker(const ct_prefix *node)
{
    return node->maker;
}

ct_prefix *ct_prefix_parent(const ct_prefix *node)
{
    return node->parent;
}

bool ct_prefixes_evict(ct_prefixes *prefixes)
{
    ct_prefix *node = prefixes->oldest;
    if (!node)
        return false;
    unlink_idle(prefixes, node);
    drop_node(prefixes, node);
    return true;
}

static void unlink_idle(ct_prefixes *prefixes, ct_prefix *node)
{
    *(node->older ? &node->older->newer : &prefixes->oldest) = node->newer;
    *(node->newer ? &node->newer->older : &prefixes->newest) = node->older;
    prefixes->n_idle--;
}

/* Out of the table, to the spares. */
static void drop_node(ct_prefixes *prefixes, ct_prefix *node)
{
    ct_prefix **place = bucket_of(prefixes, node->hash);
    while (*place != node)
        place = &(*place)->next;
    *place = node->next;
    prefixes->n_nodes--;
    prefixes->n_pages -= node->page != NULL;
    ct_kv_page_unref(&node->page, prefixes->pool);
    node->next = prefixes->spares;
    prefixes->spares = node;
}
