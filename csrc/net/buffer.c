/* Doubles when it is full. */
#include "net/buffer.h"

#include <string.h>

#include "core/memory.h"

#define FIRST_CAPACITY 1024

ct_status ct_buffer_append(ct_buffer *buffer, const void *data, size_t size, bool *all)
{
    size_t room = buffer->limit - buffer->size;
    *all = size <= room;
    size_t taken = *all ? size : room;
    size_t needed = buffer->size + taken;
    if (needed > buffer->capacity) {
        size_t capacity = buffer->capacity ? buffer->capacity : FIRST_CAPACITY;
        while (capacity < needed)
            capacity *= 2;
        void *grown;
        CT_TRY(ct_alloc(&grown, capacity));
        if (buffer->size)
            memcpy(grown, buffer->data, buffer->size);
        ct_free(&buffer->data);
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    if (taken)
        memcpy(buffer->data + buffer->size, data, taken);
    buffer->size = needed;
    return CT_OK;
}

void ct_buffer_clear(ct_buffer *buffer)
{
    ct_free(&buffer->data);
    buffer->size = buffer->capacity = 0;
}
