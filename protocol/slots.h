#ifndef PROTOCOL_SLOTS_H
#define PROTOCOL_SLOTS_H

/*
 * Memory in slots of one size that begin at the start of a cache line, for things of which there
 * may be a million and of which a reader wants one line: malloc's begin anywhere, and most of them
 * lie across two. SLOTS_IN_BLOCK of them are allocated together and freed together, as soon as none
 * is in use; a block of which some are stays.
 *
 * One thread at a time. Under the address sanitizer a slot that was given back is guarded as freed
 * memory is.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum { CACHE_LINE = 64, SLOTS_IN_BLOCK = 64 };

struct slot_block;

struct slots {
    LIST_HEAD(, slot_block) open; /* those with a free slot */
    size_t slot_size;             /* bytes */
    size_t bytes;                 /* allocated */
};

/* Allocates nothing yet; cannot fail. lines: cache lines of a slot. */
void slots_init(struct slots *slots, unsigned lines);

/* A slot, with anything in it; *number is to be kept for slots_give. NULL when memory is out. */
void *slots_take(struct slots *slots, uint8_t *number);

/* Gives a slot back. When all have been, nothing is left to be freed. */
void slots_give(struct slots *slots, void *slot, uint8_t number);

#endif
