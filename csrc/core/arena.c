/* Blocks in a list, the newest in use. Under AddressSanitizer what is not handed out is poisoned,
 * and a gap behind each piece as well, so that an overrun of an activation is found. */
#include "core/arena.h"

#include <stdint.h>

#include "core/memory.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(pointer, size) ASAN_POISON_MEMORY_REGION(pointer, size)
#define UNPOISON(pointer, size) ASAN_UNPOISON_MEMORY_REGION(pointer, size)
#define GAP CT_ALIGNMENT
#else
#define POISON(pointer, size) ((void)(pointer), (void)(size))
#define UNPOISON(pointer, size) ((void)(pointer), (void)(size))
#define GAP 0
#endif

#define MIN_BLOCK ((size_t)64 * 1024)

struct ct_arena_block {
    ct_arena_block *next;
    size_t size, used; /* of data */
    unsigned char *data;
    const ct_memory *memory;
};

#define HEADER ((sizeof(ct_arena_block) + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT)

static ct_status push_block(ct_arena *arena, size_t size);
static void free_block(ct_arena_block *block);

ct_status ct_arena_alloc(ct_arena *arena, void **out, size_t size)
{
    *out = NULL;
    if (size > SIZE_MAX / 2)
        return ct_fail(CT_MEMORY, "out of memory: cannot allocate %zu bytes", size);
    size_t rounded = (size + CT_ALIGNMENT - 1) / CT_ALIGNMENT * CT_ALIGNMENT + GAP;
    ct_arena_block *block = arena->blocks;
    if (!block || block->size - block->used < rounded) {
        size_t grown = block ? 2 * block->size : MIN_BLOCK;
        CT_TRY(push_block(arena, rounded > grown ? rounded : grown));
        block = arena->blocks;
    }
    *out = block->data + block->used;
    if (!block->memory)
        UNPOISON(*out, size);
    block->used += rounded;
    arena->used += rounded;
    return CT_OK;
}

void ct_arena_reset(ct_arena *arena)
{
    ct_arena_block *block = arena->blocks;
    size_t used = arena->used;
    arena->used = 0;
    if (!block)
        return;
    if (block->next) {
        ct_arena joined = {.memory = arena->memory};
        if (push_block(&joined, used) == CT_OK) {
            ct_arena_clear(arena);
            *arena = joined;
            return;
        }
        while (block->next) { /* the newest is the largest */
            ct_arena_block *old = block->next;
            block->next = old->next;
            free_block(old);
        }
    }
    block->used = 0;
    if (!block->memory)
        POISON(block->data, block->size);
}

ct_arena_place ct_arena_next(const ct_arena *arena)
{
    const ct_arena_block *block = arena->blocks;
    if (!block)
        return (ct_arena_place){0};
    return (ct_arena_place){block->data + block->used, block->size - block->used};
}

bool ct_arena_is_whole(const ct_arena *arena)
{
    return !arena->blocks || !arena->blocks->next;
}

void ct_arena_clear(ct_arena *arena)
{
    while (arena->blocks) {
        ct_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free_block(block);
    }
    arena->used = 0;
}

/* On the heap a block begins with its own description; a device's memory cannot hold that. */
static ct_status push_block(ct_arena *arena, size_t size)
{
    ct_arena_block *block;
    const ct_memory *memory = arena->memory;
    CT_TRY(ct_alloc((void **)&block, memory ? sizeof *block : HEADER + size));
    *block = (ct_arena_block){
        .next = arena->blocks, .size = size, .data = (unsigned char *)block + HEADER};
    if (memory) {
        ct_status status = memory->alloc(memory->index, (void **)&block->data, size);
        if (status != CT_OK) {
            ct_free(&block);
            return status;
        }
        block->memory = memory;
    } else {
        POISON(block->data, size);
    }
    arena->blocks = block;
    return CT_OK;
}

static void free_block(ct_arena_block *block)
{
    if (block->memory)
        block->memory->free(block->memory->index, block->data, block->size);
    else
        UNPOISON(block->data, block->size);
    ct_free(&block);
}
