#include "buffer.h"
#include "bytes.h"
#include <stdlib.h>
#include <string.h>

enum { BUFFER_SMALLEST = 256 };

void buffer_init(struct buffer *b, size_t limit)
{
    *b = (struct buffer){.limit = limit};
}

void buffer_release(struct buffer *b)
{
    free(b->bytes);
    buffer_init(b, b->limit);
}

/* Moves what waits to the front, into new memory of that capacity if it is larger. */
static bool buffer_move(struct buffer *b, size_t capacity)
{
    size_t length = buffer_length(b);

    if (capacity > b->capacity) {
        uint8_t *bytes = malloc(capacity);
        if (bytes == NULL)
            return false;
        if (length > 0)
            memcpy(bytes, buffer_bytes(b), length);
        free(b->bytes);
        b->bytes = bytes;
        b->capacity = capacity;
    } else {
        memmove(b->bytes, buffer_bytes(b), length);
    }
    b->start = 0;
    b->end = length;
    return true;
}

uint8_t *buffer_reserve(struct buffer *b, size_t size)
{
    size_t length = buffer_length(b), wanted, capacity;

    if (!size_add(length, size, &wanted) || wanted > b->limit)
        return NULL;
    if (b->bytes != NULL && b->capacity - b->end >= size)
        return b->bytes + b->end;

    /* Moving within the same memory only when at least as much was consumed as is moved keeps the
     * cost per byte constant, also for a queue that stays nearly full. */
    capacity = b->capacity;
    if (b->bytes == NULL || wanted > capacity || b->start < length) {
        capacity = capacity < BUFFER_SMALLEST ? BUFFER_SMALLEST : capacity;
        while (capacity < wanted || (b->start < length && capacity < 2 * length))
            capacity = capacity > SIZE_MAX / 4 ? wanted : capacity * 2;
        if (capacity / 2 > b->limit)
            capacity = wanted > 2 * b->limit ? wanted : 2 * b->limit;
        if (capacity < wanted)
            capacity = wanted;
    }
    if (!buffer_move(b, capacity))
        return NULL;
    return b->bytes + b->end;
}

void buffer_commit(struct buffer *b, size_t size)
{
    b->end += size;
}

bool buffer_append(struct buffer *b, const void *data, size_t size)
{
    uint8_t *to = buffer_reserve(b, size);

    if (to == NULL)
        return false;
    if (size > 0)
        memcpy(to, data, size);
    buffer_commit(b, size);
    return true;
}

void buffer_consume(struct buffer *b, size_t size)
{
    b->start += size;
    if (b->start == b->end)
        b->start = b->end = 0;
}
