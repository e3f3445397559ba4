#include "audience_cache.h"
#include <criterion/criterion.h>
#include <stdlib.h>

static int people[64]; /* their addresses are contexts */

static void put(struct audience_cache *cache, uint64_t hash, size_t who)
{
    void *contexts[] = {&people[who]};

    audience_cache_put(cache, hash, contexts, 1);
}

/* The one context of the audience found, or NULL. */
static void *found(const struct audience_cache *cache, uint64_t hash)
{
    const struct audience *audience = cache->count > 0 ? audience_cache_find(cache, hash) : NULL;

    if (audience == NULL)
        return NULL;
    cr_assert_eq(audience->count, 1);
    return audience->contexts[0];
}

Test(audience_cache, what_was_put_is_found_until_it_is_forgotten)
{
    struct audience_cache cache;
    void *both[] = {&people[1], &people[2]};
    const struct audience *audience;

    audience_cache_init(&cache);
    audience_cache_forget(&cache, 1);
    audience_cache_begin(&cache, 1, 100);
    put(&cache, 0x100000001, 1);
    audience_cache_put(&cache, 0x200000001, both, 2);
    audience_cache_put(&cache, 0x300000001, NULL, 0);
    cr_assert_eq(found(&cache, 0x100000001), &people[1]);
    audience = audience_cache_find(&cache, 0x200000001);
    cr_assert_eq(audience->count, 2);
    cr_assert(audience->contexts[0] == both[0] && audience->contexts[1] == both[1]);
    cr_assert_eq(audience_cache_find(&cache, 0x300000001)->count, 0);

    audience_cache_forget(&cache, 0x100000001);
    cr_assert_null(audience_cache_find(&cache, 0x100000001));
    cr_assert_not_null(audience_cache_find(&cache, 0x200000001));
    audience_cache_release(&cache);
}

Test(audience_cache, who_came_first_makes_no_other_audience)
{
    struct audience_cache cache;
    void *members[] = {&people[3], &people[1], &people[4], &people[2]};

    audience_cache_init(&cache);
    audience_cache_begin(&cache, 1, 100);
    for (uint64_t i = 0; i < 24; i++) { /* all orders, and some twice */
        void *last = members[3];
        memmove(&members[1], &members[0], 3 * sizeof(*members));
        members[0] = last;
        if (i % 4 == 3) {
            members[0] = members[i % 3 + 1];
            members[i % 3 + 1] = last;
        }
        audience_cache_put(&cache, i, members, 4);
    }
    cr_assert_eq(cache.numbers_used, 1);
    cr_assert_eq(audience_cache_find(&cache, 0)->contexts[3], &people[4]);
    audience_cache_release(&cache);
}

/* Bits that a set's place needs, the number's, those above, and those of the other half. */
Test(audience_cache, a_hash_that_differs_in_one_bit_is_another)
{
    const uint64_t hash = 0x0123456789abcdef;
    struct audience_cache cache;

    audience_cache_init(&cache);
    audience_cache_begin(&cache, 1, 100);
    put(&cache, hash, 1);
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t other = hash ^ (uint64_t)1 << bit;
        cr_assert_null(audience_cache_find(&cache, other), "bit %u", bit);
        audience_cache_forget(&cache, other);
        cr_assert_eq(found(&cache, hash), &people[1], "bit %u", bit);
    }
    audience_cache_release(&cache);
}

/* Two in one set whose low halves together look like a third. */
Test(audience_cache, words_with_the_same_high_half_do_not_mix)
{
    const uint64_t a = 0x5555555500001000, b = 0x5555555500002000, third = a | b;
    struct audience_cache cache;

    audience_cache_init(&cache);
    audience_cache_begin(&cache, 1, 100);
    put(&cache, a, 1);
    put(&cache, b, 2);
    cr_assert_null(audience_cache_find(&cache, third));
    cr_assert_null(audience_cache_find(&cache, a), "the later one stands in its place");
    cr_assert_eq(found(&cache, b), &people[2]);
    put(&cache, third, 3);
    cr_assert_eq(found(&cache, third), &people[3]);
    audience_cache_release(&cache);
}

/* The address sanitizer sees whether one was freed. */
Test(audience_cache, an_audience_found_stays_until_the_next_look_ups)
{
    struct audience_cache cache;
    const struct audience *audience;

    audience_cache_init(&cache);
    audience_cache_begin(&cache, 1, 100);
    put(&cache, 7, 1);
    audience = audience_cache_find(&cache, 7);
    audience_cache_forget(&cache, 7);
    cr_assert_eq(audience->contexts[0], &people[1]);
    put(&cache, 8, 1);
    cr_assert_eq(audience_cache_find(&cache, 8), audience, "used again before it was freed");
    audience_cache_begin(&cache, 1, 100);
    cr_assert_eq(found(&cache, 8), &people[1]);
    audience_cache_forget(&cache, 8);
    audience_cache_begin(&cache, 1, 100);
    put(&cache, 9, 2);
    cr_assert_eq(cache.numbers_used, 1, "a number that was given back is given out again");
    audience_cache_release(&cache);
}

Test(audience_cache, larger_audiences_than_the_most_are_not_kept)
{
    struct audience_cache cache;
    void *contexts[AUDIENCE_MAX + 1];

    for (size_t i = 0; i < AUDIENCE_MAX + 1; i++)
        contexts[i] = &people[i % 64];
    audience_cache_init(&cache);
    audience_cache_begin(&cache, 1, 100);
    audience_cache_put(&cache, 1, contexts, AUDIENCE_MAX);
    audience_cache_put(&cache, 2, contexts, AUDIENCE_MAX + 1);
    cr_assert_not_null(audience_cache_find(&cache, 1));
    cr_assert_null(audience_cache_find(&cache, 2));
    audience_cache_release(&cache);
}

/* A small cache has few bits for numbers. */
Test(audience_cache, more_audiences_than_numbers_are_not_kept)
{
    struct audience_cache cache;
    size_t kept = 0;

    audience_cache_init(&cache);
    audience_cache_begin(&cache, 1, 100);
    for (uint64_t i = 0; i < 100; i++) {
        void *contexts[] = {(void *)(uintptr_t)(i + 1)};
        audience_cache_put(&cache, i | i << 32, contexts, 1);
        void *is = found(&cache, i | i << 32);
        cr_assert(is == NULL || is == contexts[0]);
        kept += is != NULL;
    }
    cr_assert_eq(kept, cache.count - 1);
    audience_cache_release(&cache);
}

static uint64_t random_hash(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1d;
}

static size_t largest; /* sets that a cache had meanwhile */

/* So many channels in turn, as many as times; how many look-ups found nothing. */
static size_t publish_to(struct audience_cache *cache, size_t busy, size_t times, size_t channels)
{
    size_t unknown = 0;

    for (size_t n = 0; n < times; n++) {
        uint64_t state = 1 + n % busy, hash = random_hash(&state);
        audience_cache_begin(cache, 1, channels);
        if (found(cache, hash) == &people[n % busy % 64])
            continue;
        unknown++;
        largest = cache->count > largest ? cache->count : largest;
        put(cache, hash, n % busy % 64);
    }
    return unknown;
}

Test(audience_cache, it_becomes_as_large_as_what_is_busy)
{
    struct audience_cache cache;

    audience_cache_init(&cache);
    publish_to(&cache, 20000, 2000000, 1000000);
    cr_assert_geq(cache.count * AUDIENCE_SET_WORDS, 20000);
    cr_assert_leq(cache.count * AUDIENCE_SET_WORDS, 160000);
    cr_assert_lt(publish_to(&cache, 20000, 20000, 1000000), 400);
    audience_cache_release(&cache);
    cr_assert_eq(audience_cache_bytes(&cache), 0);
}

Test(audience_cache, what_it_grew_out_of_is_given_back_bit_by_bit)
{
    struct audience_cache cache;
    uint64_t state = 1;
    size_t left;

    audience_cache_init(&cache);
    while (cache.count < 65536) { /* each of another channel: they push one another out */
        audience_cache_begin(&cache, 1, 1000000);
        put(&cache, random_hash(&state), 1);
    }
    cr_assert_eq(cache.replaced_bytes, 2 << 20);
    while ((left = cache.replaced_bytes) > 0) {
        audience_cache_begin(&cache, 1, 1000000);
        cr_assert_eq(left - cache.replaced_bytes, 1 << 20);
    }
    cr_assert_eq(cache.sets[65535].low[7], 0, "the new ones are still there");
    audience_cache_release(&cache);
    cr_assert_eq(audience_cache_bytes(&cache), 0);
}

/* However many names are published to: those nobody wants are not in it. */
Test(audience_cache, it_does_not_become_larger_than_the_channels_need)
{
    struct audience_cache cache;

    audience_cache_init(&cache);
    publish_to(&cache, 20000, 2000000, 1000);
    cr_assert_eq(largest, 256);
    audience_cache_release(&cache);
}

Test(audience_cache, it_is_given_back_when_most_channels_have_gone)
{
    struct audience_cache cache;

    audience_cache_init(&cache);
    publish_to(&cache, 20000, 2000000, 1000000);
    audience_cache_begin(&cache, 1, 100);
    cr_assert_eq(audience_cache_bytes(&cache), 0);
    put(&cache, 5, 1);
    cr_assert_eq(found(&cache, 5), &people[1]);
    audience_cache_release(&cache);
}

/* Hashes of few different bits, so that sets, high halves and whole words coincide; the model is an
 * array. What is found is what the model has; what the model does not have is not found. */
Test(audience_cache, nothing_else_is_ever_found)
{
    enum { HASHES = 4096, STEPS = 400000 };
    static uint64_t hashes[HASHES];
    static void *wanted[HASHES];
    uint64_t state = 20261128;
    size_t hits = 0;
    struct audience_cache cache;

    audience_cache_init(&cache);
    for (size_t i = 0; i < HASHES; i++) /* 12 bits, here and there */
        hashes[i] = (i & 3) | (i >> 2 & 7) << 6 | (i >> 5 & 7) << 29 | (i >> 8 & 15) << 60;
    for (size_t step = 0; step < STEPS; step++) {
        size_t i = random_hash(&state) % HASHES, who = random_hash(&state) % 64;
        audience_cache_begin(&cache, 1, HASHES);
        void *is = found(&cache, hashes[i]);
        cr_assert(is == NULL || is == wanted[i], "step %zu", step);
        hits += is != NULL;
        if (random_hash(&state) % 4 == 0) { /* subscribed or unsubscribed */
            audience_cache_forget(&cache, hashes[i]);
            wanted[i] = random_hash(&state) % 2 == 0 ? &people[who] : NULL;
        } else if (is == NULL && wanted[i] != NULL) {
            audience_cache_put(&cache, hashes[i], &wanted[i], 1);
        }
    }
    cr_assert_gt(hits, STEPS / 100);
    audience_cache_release(&cache);
}
