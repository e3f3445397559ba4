#include "audience_cache.h"
#include "hash.h"
#include <stdlib.h>
#include <sys/mman.h>

enum {
    SETS_LEAST = 64, /* a page */
    NUMBERS_LEAST = 16,
    NUMBERS_MOST = 1 << 16,
    CHANNELS_A_SET = 4,          /* on average, when it does not grow any more */
    SETS_A_CHANNEL_MOST = 2,     /* else it is given back */
    GIVEN_BACK_AT_ONCE = 1 << 20 /* bytes: some 60 us; 16 MiB take a millisecond */
};

static uint64_t hash_of_contexts(void *const *contexts, size_t count)
{
    uint64_t hash = count;

    for (size_t i = 0; i < count; i++)
        hash = hash_mix(hash, (uintptr_t)contexts[i]);
    return hash;
}

static uint64_t hash_of_audience(uintptr_t ref, const void *context)
{
    const struct audience *audience = (const struct audience *)ref;

    (void)context;
    return hash_of_contexts(audience->contexts, audience->count);
}

void audience_cache_init(struct audience_cache *cache)
{
    *cache = (struct audience_cache){0};
    hash_index_init(&cache->audiences, hash_of_audience, NULL, 0);
}

static size_t sets_bytes(const struct audience_cache *cache)
{
    return cache->count * sizeof(struct audience_set);
}

static size_t audience_bytes(size_t count)
{
    return sizeof(struct audience) + count * sizeof(void *);
}

/* Of the sets that were replaced, so many bytes from their end. */
static void give_back(struct audience_cache *cache, size_t bytes)
{
    if (bytes > cache->replaced_bytes)
        bytes = cache->replaced_bytes;
    if (bytes == 0)
        return;
    cache->replaced_bytes -= bytes;
    cache->bytes -= bytes;
    munmap((uint8_t *)cache->replaced + cache->replaced_bytes, bytes);
}

/* Of that many sets instead of those that there are, with nothing in them; false, and nothing
 * changed, when memory is out. Pages that nobody has touched take neither memory nor time. */
static bool replace_sets(struct audience_cache *cache, size_t count)
{
    void *sets = NULL;

    if (count > 0) {
        sets = mmap(NULL, count * sizeof(struct audience_set), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (sets == MAP_FAILED)
            return false;
    }
    give_back(cache, cache->replaced_bytes); /* if that is not done yet */
    cache->replaced = cache->sets;
    cache->replaced_bytes = sets_bytes(cache);
    cache->sets = sets;
    cache->count = count;
    cache->bytes += sets_bytes(cache);
    return true;
}

/* ---- audiences ---- */

static bool provide_number(struct audience_cache *cache)
{
    size_t room = cache->numbers_room == 0 ? NUMBERS_LEAST : 2 * cache->numbers_room;
    union audience_slot *numbers;

    if (cache->number_free != 0)
        return true;
    if (cache->numbers_used + 1 >= cache->count || cache->numbers_used + 1 >= NUMBERS_MOST)
        return false;
    if (cache->numbers_used + 1 < cache->numbers_room)
        return true;
    numbers = realloc(cache->numbers, room * sizeof(*numbers));
    if (numbers == NULL)
        return false;
    cache->bytes += (room - cache->numbers_room) * sizeof(*numbers);
    cache->numbers = numbers;
    cache->numbers_room = room;
    return true;
}

static uint32_t take_number(struct audience_cache *cache)
{
    size_t number = cache->number_free;

    if (number == 0)
        return (uint32_t)++cache->numbers_used;
    cache->number_free = cache->numbers[number].next_free;
    return (uint32_t)number;
}

static struct audience *new_audience(struct audience_cache *cache, void *const *contexts,
                                     size_t count)
{
    struct audience *audience;

    if (!provide_number(cache))
        return NULL;
    audience = malloc(audience_bytes(count));
    if (audience == NULL)
        return NULL;
    *audience = (struct audience){.count = (uint32_t)count};
    for (size_t i = 0; i < count; i++)
        audience->contexts[i] = contexts[i];
    if (!hash_index_insert(&cache->audiences, hash_of_contexts(contexts, count),
                           (uintptr_t)audience)) {
        free(audience);
        return NULL;
    }
    audience->number = take_number(cache);
    cache->numbers[audience->number].audience = audience;
    cache->bytes += audience_bytes(count);
    return audience;
}

static bool is_of(const struct audience *audience, void *const *contexts, size_t count)
{
    return audience->count == count &&
           memcmp(audience->contexts, contexts, count * sizeof(*contexts)) == 0;
}

/* The audience of those contexts, if need be a new one; NULL: it cannot be kept. */
static struct audience *provide_audience(struct audience_cache *cache, void *const *contexts,
                                         size_t count)
{
    struct hash_cursor cursor;
    uintptr_t ref = hash_index_first(&cache->audiences, hash_of_contexts(contexts, count), &cursor);

    for (; ref != 0; ref = hash_index_next(&cursor))
        if (is_of((struct audience *)ref, contexts, count))
            return (struct audience *)ref;
    return new_audience(cache, contexts, count);
}

static void free_audience(struct audience_cache *cache, struct audience *audience)
{
    hash_index_remove(&cache->audiences, hash_of_contexts(audience->contexts, audience->count),
                      (uintptr_t)audience);
    cache->numbers[audience->number].next_free = cache->number_free;
    cache->number_free = audience->number;
    cache->bytes -= audience_bytes(audience->count);
    free(audience);
}

/* Not freed at once: it may have been found and not be used yet. */
static void leave(struct audience_cache *cache, struct audience *audience)
{
    audience->words--;
    if (audience->words > 0 || audience->is_listed)
        return;
    audience->is_listed = true;
    audience->next_unused = cache->unused;
    cache->unused = audience;
}

static void free_unused(struct audience_cache *cache)
{
    while (cache->unused != NULL) {
        struct audience *audience = cache->unused;
        cache->unused = audience->next_unused;
        audience->is_listed = false;
        if (audience->words == 0)
            free_audience(cache, audience);
    }
}

/* ---- the table ---- */

static void forget_words(uintptr_t ref, void *context)
{
    struct audience *audience = (struct audience *)ref;

    if (audience->words > 0) {
        audience->words = 1;
        leave(context, audience);
    }
}

/* Numbers given out stay in use for a while, so that a cache in use only grows. */
static void resize(struct audience_cache *cache, size_t count)
{
    if (replace_sets(cache, count))
        hash_index_each(&cache->audiences, forget_words, cache);
}

void audience_cache_release(struct audience_cache *cache)
{
    resize(cache, 0);
    give_back(cache, cache->replaced_bytes);
    free_unused(cache);
    hash_index_release(&cache->audiences);
    free(cache->numbers);
    audience_cache_init(cache);
}

void audience_cache_begin(struct audience_cache *cache, size_t lookups, size_t channels)
{
    cache->looked_up += lookups;
    cache->channels = channels;
    if (cache->unused != NULL)
        free_unused(cache);
    if (cache->replaced_bytes > 0)
        give_back(cache, GIVEN_BACK_AT_ONCE);
    if (cache->count > SETS_LEAST && cache->count > SETS_A_CHANNEL_MOST * channels)
        audience_cache_release(cache);
}

/* Twice the size when, of as many look-ups as there are words, one in 128 pushed one out. */
static void consider_size(struct audience_cache *cache)
{
    bool is_narrow = cache->pushed_out > cache->looked_up / 128;

    if (cache->count == 0)
        resize(cache, SETS_LEAST);
    if (cache->looked_up < cache->count * AUDIENCE_SET_WORDS)
        return;
    cache->looked_up = cache->pushed_out = 0;
    if (is_narrow && cache->count * CHANNELS_A_SET < cache->channels)
        resize(cache, 2 * cache->count);
}

/* Where a word goes: in place of one with the same high half, of which there is one at most, else
 * where none is, else in that of any other. */
static unsigned place_for(struct audience_cache *cache, const struct audience_set *set,
                          uint32_t high)
{
    unsigned place = AUDIENCE_SET_WORDS;

    for (unsigned i = 0; i < AUDIENCE_SET_WORDS; i++) {
        if (set->low[i] != 0 && set->high[i] == high)
            return i;
        if (set->low[i] == 0)
            place = i;
    }
    return place < AUDIENCE_SET_WORDS ? place : cache->victims++ % AUDIENCE_SET_WORDS;
}

/* Frees one word of a set, if it is in use; whether it was. */
static bool take_out(struct audience_cache *cache, struct audience_set *set, unsigned i)
{
    uint32_t number = set->low[i] & ((uint32_t)cache->count - 1);

    if (number == 0)
        return false;
    leave(cache, cache->numbers[number].audience);
    set->low[i] = 0;
    return true;
}

/* Who came first is not of interest, and would make many lists of one. */
static void sort(void **sorted, void *const *contexts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && (uintptr_t)sorted[at - 1] > (uintptr_t)contexts[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = contexts[i];
    }
}

void audience_cache_put(struct audience_cache *cache, uint64_t hash, void *const *contexts,
                        size_t count)
{
    void *sorted[AUDIENCE_MAX];
    struct audience *audience;

    consider_size(cache);
    if (cache->count == 0 || count > AUDIENCE_MAX)
        return;
    sort(sorted, contexts, count);
    audience = provide_audience(cache, sorted, count);
    if (audience == NULL)
        return;
    struct audience_set *set = audience_cache_set(cache, hash);
    unsigned i = place_for(cache, set, (uint32_t)(hash >> 32));
    audience->words++;
    cache->pushed_out += take_out(cache, set, i);
    set->high[i] = (uint32_t)(hash >> 32);
    set->low[i] = ((uint32_t)hash & ~((uint32_t)cache->count - 1)) | audience->number;
}

void audience_cache_forget(struct audience_cache *cache, uint64_t hash)
{
    uint32_t mask = (uint32_t)cache->count - 1;

    if (cache->count == 0)
        return;
    struct audience_set *set = audience_cache_set(cache, hash);
    for (unsigned i = 0; i < AUDIENCE_SET_WORDS; i++)
        if (set->high[i] == (uint32_t)(hash >> 32) && (set->low[i] ^ (uint32_t)hash) <= mask)
            take_out(cache, set, i);
}

size_t audience_cache_bytes(const struct audience_cache *cache)
{
    return cache->bytes + cache->audiences.bytes;
}
