#ifndef PROTOCOL_AUDIENCE_CACHE_H
#define PROTOCOL_AUDIENCE_CACHE_H

/*
 * Who gets the messages of the channels that are busy now: a cache in front of a subscription
 * table, so that a look-up among a million channels reads one line of a table that is as large as
 * what is published to, and not two of one as large as all that is subscribed to.
 *
 * An *audience* is a list of contexts. Channels with the same list share one, and most do: there
 * are a million channels, but hardly a hundred processes. A channel has one word: of its hash all
 * bits but those that say in which set it stands, and in their stead its audience's number. So a
 * word is found only under all 64 bits of the hash under which it was put there.
 *
 * Nothing depends on what is in the cache; memory that is out only leaves it smaller. It begins
 * small and is replaced by one of twice the size, empty at first, when many words are pushed out by
 * others. One thread at a time.
 */
#include "hash_index.h"

struct audience {
    uint32_t number;
    uint32_t words; /* that have the number */
    uint32_t count; /* of contexts */
    bool is_listed; /* among the unused */
    struct audience *next_unused;
    void *contexts[];
};

enum { AUDIENCE_SET_WORDS = 8, AUDIENCE_MAX = 64 /* contexts of one that is kept */ };

/* One cache line: words in two halves. No two words of a set have the same high half. */
struct audience_set {
    uint32_t high[AUDIENCE_SET_WORDS];
    uint32_t low[AUDIENCE_SET_WORDS]; /* 0: free; the number in it is never 0 */
};

union audience_slot {
    struct audience *audience;
    uintptr_t next_free; /* a number */
};

struct audience_cache {
    struct audience_set *sets;
    size_t count;                      /* of sets, a power of two, or 0 */
    struct audience_set *replaced;     /* the former ones, which are given back bit by bit */
    size_t replaced_bytes;             /* that are left of them */
    union audience_slot *numbers;      /* from 1 on */
    size_t numbers_room, numbers_used; /* with those given back */
    size_t number_free;                /* the latest given back, or 0 */
    struct hash_index audiences;       /* by their contexts */
    struct audience *unused;           /* those that have come to have no words */
    size_t channels;                   /* there are in all */
    size_t looked_up, pushed_out;      /* since the size was last thought about */
    unsigned victims;                  /* chosen */
    size_t bytes;                      /* allocated, without that of `audiences` */
};

/* Allocates nothing yet; cannot fail. */
void audience_cache_init(struct audience_cache *cache);

void audience_cache_release(struct audience_cache *cache);

/* To be called before so many channels are looked up: audiences found until the next call stay
 * valid, whatever is put into the cache. channels: how many there are in all, which limits the
 * size; a cache that is much too large for them is given back. */
void audience_cache_begin(struct audience_cache *cache, size_t lookups, size_t channels);

/* Puts the audience of a channel into the cache, in place of one that is there for the hash. The
 * order of the contexts does not matter and is not kept. */
void audience_cache_put(struct audience_cache *cache, uint64_t hash, void *const *contexts,
                        size_t count);

/* What is known of that hash is no longer so. */
void audience_cache_forget(struct audience_cache *cache, uint64_t hash);

/* Bytes allocated. */
size_t audience_cache_bytes(const struct audience_cache *cache);

/* The line that a look-up reads, to be prefetched. Not of an empty cache. */
static inline struct audience_set *audience_cache_set(const struct audience_cache *cache,
                                                      uint64_t hash)
{
    return &cache->sets[hash & (cache->count - 1)];
}

/* Of four words: the low half of the one whose high half is that, in either half of the result, or
 * 0. Without branches, by vectors of a size that each processor of 64 bits has. */
static inline uint64_t audience_agreeing(const struct audience_set *set, int first, uint32_t high)
{
    typedef uint32_t lanes __attribute__((vector_size(16)));
    typedef uint64_t halves __attribute__((vector_size(16)));
    lanes highs, lows;

    memcpy(&highs, &set->high[first], sizeof(highs));
    memcpy(&lows, &set->low[first], sizeof(lows));
    halves both = (halves)((lanes)(highs == high) & lows);
    return both[0] | both[1];
}

/* The audience put there for that hash, or NULL. Not of an empty cache. */
static inline const struct audience *audience_cache_find(const struct audience_cache *cache,
                                                         uint64_t hash)
{
    const struct audience_set *set = audience_cache_set(cache, hash);
    uint32_t mask = (uint32_t)cache->count - 1, high = (uint32_t)(hash >> 32);
    uint64_t agreeing = audience_agreeing(set, 0, high) | audience_agreeing(set, 4, high);
    uint32_t low = (uint32_t)agreeing | (uint32_t)(agreeing >> 32);

    if (low == 0 || (low ^ (uint32_t)hash) > mask)
        return NULL;
    return cache->numbers[low & mask].audience;
}

#endif
