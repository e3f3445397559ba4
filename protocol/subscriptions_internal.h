#ifndef PROTOCOL_SUBSCRIPTIONS_INTERNAL_H
#define PROTOCOL_SUBSCRIPTIONS_INTERNAL_H

/*
 * The subscription table's struct: subscriptions.c (who wants what), subscriptions_ahead.c (many
 * look-ups at once). One thread at a time.
 */
#include "audience_cache.h"
#include "hash.h"
#include "hash_index.h"
#include "subscription_keys.h"
#include "subscriptions.h"

struct subscriptions {
    struct hash_seed seed;
    struct hash_index channels; /* struct channel by name */
    struct hash_index patterns; /* struct pattern by text: to find one, not to match */
    struct pattern_index *index;
    struct key_memory memory;
    struct audience_cache busy; /* of channels that were looked up ahead */
    unsigned matching;          /* look-ups under way: nothing may be changed */
    uint32_t weak_all, weak_each;
    size_t subscriptions;
    size_t bytes; /* of subscriptions, without those in their keys */
    uint64_t lookups;
};

/* Of a key in one of the two hash tables; context: the seed. */
uint64_t subscriptions_hash_of_key(uintptr_t ref, const void *context);

static inline bool subscriptions_is_named(const struct subscription_key *key, const void *name,
                                          size_t length)
{
    return key->length == length && memcmp(key_text(key), name, length) == 0;
}

/* The key of that name, or NULL. */
static inline struct subscription_key *subscriptions_find_key(const struct hash_index *keys,
                                                              uint64_t hash, const void *name,
                                                              size_t length)
{
    struct hash_cursor cursor;
    uintptr_t ref = hash_index_first(keys, hash, &cursor);

    for (; ref != 0; ref = hash_index_next(&cursor)) {
        struct subscription_key *key = (struct subscription_key *)ref;
        if (subscriptions_is_named(key, name, length))
            return key;
    }
    return NULL;
}

/* Calls back for each pattern that matches. */
void subscriptions_match_patterns(struct subscriptions *table, const void *channel, size_t length,
                                  subscriptions_key_fn callback, void *context);

#endif
