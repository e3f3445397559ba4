#ifndef PROTOCOL_BUFFER_H
#define PROTOCOL_BUFFER_H

/*
 * A byte queue with a hard cap: bytes are appended at the end and consumed at the start. It belongs
 * to whoever holds the struct and is used by one thread at a time. It owns no memory until the
 * first append and gives it back with buffer_release, so an idle connection can own none.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *bytes;  /* NULL while nothing is owned */
    size_t start;    /* first byte not consumed */
    size_t end;      /* one past the last byte */
    size_t capacity; /* bytes allocated */
    size_t limit;    /* buffer_length never exceeds this (capacity may, by half of itself) */
};

/* Makes *b an empty buffer that may hold up to limit bytes. Allocates nothing, cannot fail. */
void buffer_init(struct buffer *b, size_t limit);

/* Gives all memory back; *b is then as after buffer_init with the same limit. */
void buffer_release(struct buffer *b);

/* Number of bytes waiting. */
static inline size_t buffer_length(const struct buffer *b)
{
    return b->end - b->start;
}

/* The bytes waiting; valid until the next call that is given b. May be NULL when the length is 0.
 */
static inline uint8_t *buffer_bytes(const struct buffer *b)
{
    return b->bytes != NULL ? b->bytes + b->start : NULL;
}

/*
 * Room for size more bytes behind the end: returns where to write them (commit them with
 * buffer_commit), or NULL when the limit would be passed or memory is out; *b is then unchanged.
 * Moves or reallocates the bytes: earlier pointers into the buffer become invalid.
 */
uint8_t *buffer_reserve(struct buffer *b, size_t size);

/* The first size bytes of what buffer_reserve gave are now part of the buffer. */
void buffer_commit(struct buffer *b, size_t size);

/* Appends a copy of data; false (and *b unchanged) past the limit or out of memory. */
bool buffer_append(struct buffer *b, const void *data, size_t size);

/* Drops size bytes (at most buffer_length) from the start. Memory is kept. */
void buffer_consume(struct buffer *b, size_t size);

#endif
