#include "audience_cache.h"
#include "no_memory.h"
#include <criterion/criterion.h>

enum { CHANNELS = 60 };

static uint64_t hash_of(uint64_t i)
{
    return i | i << 32;
}

/* Each channel with an audience of its own, twice; how many are known then. */
static int put_and_find(struct audience_cache *cache)
{
    int known = 0;

    audience_cache_begin(cache, CHANNELS, CHANNELS);
    for (uintptr_t i = 0; i < 2 * CHANNELS; i++) {
        void *contexts[] = {(void *)(i % CHANNELS + 1)};
        audience_cache_forget(cache, hash_of(i % CHANNELS));
        audience_cache_put(cache, hash_of(i % CHANNELS), contexts, 1);
    }
    for (uintptr_t i = 0; i < CHANNELS; i++) {
        const struct audience *audience = audience_cache_find(cache, hash_of(i));
        cr_assert(audience == NULL || audience->contexts[0] == (void *)(i + 1));
        known += audience != NULL;
    }
    return known;
}

static void with_failures(bool stays)
{
    for (long after = 0, happened = 1; happened; after++) {
        struct audience_cache cache;
        audience_cache_init(&cache);
        no_memory_begin(after, stays);
        int known = put_and_find(&cache);
        happened = no_memory_end();
        cr_assert(happened || known == CHANNELS);
        cr_assert_eq(put_and_find(&cache), CHANNELS, "after %ld", after);
        audience_cache_release(&cache);
        cr_assert_eq(audience_cache_bytes(&cache), 0);
    }
}

Test(audience_no_memory, one_allocation_fails)
{
    with_failures(false);
}

Test(audience_no_memory, all_fail_from_one_on)
{
    with_failures(true);
}
