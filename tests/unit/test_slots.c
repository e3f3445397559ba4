#include "slots.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 1000 };

struct taken {
    uint8_t *slot;
    uint8_t number;
};

static struct taken take(struct slots *slots, uint8_t fill)
{
    struct taken t;

    t.slot = slots_take(slots, &t.number);
    cr_assert_not_null(t.slot);
    cr_assert_eq((uintptr_t)t.slot % CACHE_LINE, 0, "begins a cache line");
    cr_assert_lt(t.number, SLOTS_IN_BLOCK);
    memset(t.slot, fill, slots->slot_size);
    return t;
}

/* Nobody else wrote to it. */
static void give(struct slots *slots, const struct taken *t, uint8_t fill)
{
    for (size_t i = 0; i < slots->slot_size; i++)
        cr_assert_eq(t->slot[i], fill);
    slots_give(slots, t->slot, t->number);
}

static void fill_and_empty_in_any_order(unsigned lines)
{
    static struct taken taken[COUNT];
    struct slots slots;
    unsigned random = 3;
    size_t full;

    slots_init(&slots, lines);
    cr_assert_eq(slots.bytes, 0);
    for (unsigned i = 0; i < COUNT; i++)
        taken[i] = take(&slots, (uint8_t)i);
    full = slots.bytes;
    cr_assert_leq(full, COUNT * slots.slot_size * 11 / 10);
    for (unsigned round = 0; round < 20 * COUNT; round++) { /* one out, one in: the same memory */
        unsigned i = (unsigned)rand_r(&random) % COUNT;
        give(&slots, &taken[i], (uint8_t)i);
        taken[i] = take(&slots, (uint8_t)i);
    }
    cr_assert_eq(slots.bytes, full);
    for (unsigned i = 0; i < COUNT; i++) { /* 7 and COUNT have no common divisor */
        unsigned at = i * 7 % COUNT;
        give(&slots, &taken[at], (uint8_t)at);
    }
    cr_assert_eq(slots.bytes, 0, "with the last slot of a block the block goes");
    cr_assert(LIST_EMPTY(&slots.open));
}

Test(slots, of_two_and_of_four_lines)
{
    fill_and_empty_in_any_order(2);
    fill_and_empty_in_any_order(4);
}

Test(slots, a_block_is_freed_as_soon_as_none_of_its_slots_is_in_use)
{
    static struct taken taken[SLOTS_IN_BLOCK + 1];
    struct slots slots;
    size_t one;

    slots_init(&slots, 2);
    taken[0] = take(&slots, 1);
    one = slots.bytes;
    for (unsigned i = 1; i <= SLOTS_IN_BLOCK; i++)
        taken[i] = take(&slots, 1);
    cr_assert_eq(slots.bytes, 2 * one);
    for (unsigned i = 0; i < SLOTS_IN_BLOCK; i++)
        give(&slots, &taken[i], 1);
    cr_assert_eq(slots.bytes, one);
    give(&slots, &taken[SLOTS_IN_BLOCK], 1);
    cr_assert_eq(slots.bytes, 0);
}
