/* The activations of one call: memory that is handed out in order and given back all at once.
 *
 * The first call with a shape may take several blocks; ct_arena_reset joins them to one block of
 * their summed size, so that the next call of the same shape allocates nothing. */
#ifndef CT_CORE_ARENA_H
#define CT_CORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct ct_arena_block ct_arena_block;

/* Whose memory it is: the heap's, or a device's. */
typedef struct ct_memory {
    ct_status (*alloc)(int index, void **out, size_t size);
    void (*free)(int index, void *memory, size_t size);
    int index; /* of the device */
} ct_memory;

typedef struct ct_arena {
    ct_arena_block *blocks;  /* newest first */
    size_t used;             /* bytes handed out since the last reset */
    const ct_memory *memory; /* NULL: the heap */
} ct_arena;                  /* zero-initialised: empty, of the heap */

/* *out gets `size` bytes aligned to CT_ALIGNMENT, valid until the next reset or clear. */
CT_MUST_CHECK ct_status ct_arena_alloc(ct_arena *arena, void **out, size_t size);

/* Takes everything back and keeps the memory. Cannot fail: when joining the blocks finds no memory,
 * the largest is kept. */
void ct_arena_reset(ct_arena *arena);

/* Where the next pieces come from, and how much there is before another block is needed: from equal
 * places the same requests get the same addresses, until then. */
typedef struct ct_arena_place {
    const void *data;
    size_t size;
} ct_arena_place;
ct_arena_place ct_arena_next(const ct_arena *arena);
/* Whether all that was handed out since the last reset lies in one block. */
bool ct_arena_is_whole(const ct_arena *arena);

/* Gives the memory back. */
void ct_arena_clear(ct_arena *arena);

#endif
