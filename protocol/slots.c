#include "slots.h"
#include <stdbool.h>
#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)   ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

struct slot_block {
    uint64_t free;                /* a bit for each slot */
    LIST_ENTRY(slot_block) entry; /* in slots.open */
};

static const uint64_t all_free = ~(uint64_t)0;

_Static_assert(sizeof(struct slot_block) <= CACHE_LINE, "the slots begin a line behind it");
_Static_assert(SLOTS_IN_BLOCK == 64, "a bit for each");

void slots_init(struct slots *slots, unsigned lines)
{
    *slots = (struct slots){.slot_size = (size_t)lines * CACHE_LINE};
}

static size_t block_size(const struct slots *slots)
{
    return CACHE_LINE + SLOTS_IN_BLOCK * slots->slot_size;
}

static uint8_t *slot_at(const struct slots *slots, struct slot_block *block, uint8_t number)
{
    return (uint8_t *)block + CACHE_LINE + number * slots->slot_size;
}

static bool add_block(struct slots *slots)
{
    struct slot_block *block = aligned_alloc(CACHE_LINE, block_size(slots));

    if (block == NULL)
        return false;
    ASAN_POISON_MEMORY_REGION(slot_at(slots, block, 0), SLOTS_IN_BLOCK * slots->slot_size);
    block->free = all_free;
    LIST_INSERT_HEAD(&slots->open, block, entry);
    slots->bytes += block_size(slots);
    return true;
}

void *slots_take(struct slots *slots, uint8_t *number)
{
    struct slot_block *block;
    uint8_t *slot;

    if (LIST_EMPTY(&slots->open) && !add_block(slots))
        return NULL;
    block = LIST_FIRST(&slots->open);
    *number = (uint8_t)__builtin_ctzll(block->free);
    block->free &= block->free - 1;
    if (block->free == 0)
        LIST_REMOVE(block, entry);
    slot = slot_at(slots, block, *number);
    ASAN_UNPOISON_MEMORY_REGION(slot, slots->slot_size);
    return slot;
}

void slots_give(struct slots *slots, void *slot, uint8_t number)
{
    uint8_t *first = (uint8_t *)slot - number * slots->slot_size;
    struct slot_block *block = (struct slot_block *)(void *)(first - CACHE_LINE);

    ASAN_POISON_MEMORY_REGION(slot, slots->slot_size);
    if (block->free == 0)
        LIST_INSERT_HEAD(&slots->open, block, entry);
    block->free |= (uint64_t)1 << number;
    if (block->free != all_free)
        return;
    LIST_REMOVE(block, entry);
    free(block);
    slots->bytes -= block_size(slots);
}
