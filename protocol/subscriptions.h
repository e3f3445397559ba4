#ifndef PROTOCOL_SUBSCRIPTIONS_H
#define PROTOCOL_SUBSCRIPTIONS_H

/*
 * The subscription table: who wants which exact channels and which patterns. The broker's
 * subscribers are sessions, the adapter's are clients and blocks; both use this table.
 *
 * Three nouns. A *key* is one channel or one pattern that at least one subscriber wants. A
 * *subscriber* is embedded in the owner's struct. A *subscription* ties one subscriber to one key,
 * at most one for each pair. Exact channels lie in a hash table, patterns in an index
 * (pattern_index.h) whose look-up cost depends on the channel's length and the number of matches,
 * not on how many patterns exist.
 *
 * Nothing is postponed: both tables grow with each insert, by a little.
 *
 * One thread at a time. The table must not be changed from within a match callback: a change is
 * then refused with STATUS_FULL in subscribe and ignored with an assertion elsewhere; owners note
 * the change and make it afterwards.
 */
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct subscriptions;

struct subscriber { /* zeroed by subscriber_init; its owner is found with container_of */
    struct subscription *first;
    uint32_t count;
    uint32_t weak; /* weak patterns among them, for the quota */
};

struct subscription {
    struct subscription *previous; /* of the same key */
    struct subscription *next_own; /* of the same subscriber */
    struct subscription *previous_own;
    struct subscription_key *key;
    struct subscriber *subscriber; /* NULL: the key's own one, not in use */
    void *context;                 /* the owner's, as given to subscribe */
    struct subscription *next;     /* of the same key */
};

/* What a match reads is at the end, and the name behind it: of a channel it begins a cache line, in
 * which a name of up to 32 bytes ends. */
struct subscription_key {
    const uint8_t *name;     /* owned by the table, lives as long as the key */
    uint64_t serial;         /* these two belong to the table's owner (adapter/ext/hub.c): */
    uint64_t label;          /* the table sets them to 0 when the key appears */
    struct subscription own; /* the key's first: most have one */
    struct subscription *subscriptions; /* never empty */
    uint32_t count;                     /* of subscriptions */
    uint16_t length;
    bool is_pattern;
    uint8_t slot; /* the table's */
};

struct subscriptions_stats {
    size_t channels, patterns, weak_patterns, subscriptions;
    size_t bytes;        /* allocated */
    uint64_t lookups;    /* since the start */
    uint64_t candidates; /* patterns verified in them */
};

/* A new empty table, or NULL when memory is out. seed: secret random bytes for the hash functions.
 */
struct subscriptions *subscriptions_new(const uint8_t seed[16]);

/* Frees the table and what is left in it. Subscribers must not be used with it afterwards. */
void subscriptions_free(struct subscriptions *table);

static inline void subscriber_init(struct subscriber *s)
{
    *s = (struct subscriber){0};
}

/*
 * Subscribes; the name is copied. *result is the subscription, the existing one if there was one
 * (its context is left alone). STATUS_OK, STATUS_CHANNEL_LENGTH, STATUS_PATTERN,
 * STATUS_WEAK_PATTERN (quota), STATUS_FULL (from a match callback), STATUS_NO_MEMORY. *created:
 * there was none before.
 * (*result)->key->count == 1 tells the first subscriber of a key.
 */
enum status subscriptions_subscribe(struct subscriptions *table, const void *name, size_t length,
                                    bool is_pattern, struct subscriber *subscriber, void *context,
                                    struct subscription **result, bool *created);

/* The key of that name, or NULL. */
struct subscription_key *subscriptions_key(struct subscriptions *table, const void *name,
                                           size_t length, bool is_pattern);

/* The subscription of that subscriber, or NULL. */
struct subscription *subscriptions_find(struct subscriptions *table, const void *name,
                                        size_t length, bool is_pattern,
                                        const struct subscriber *subscriber);

/* Removes one subscription, and its key with the last (key->count is 1 before the call then). */
void subscriptions_remove(struct subscriptions *table, struct subscription *subscription);

/* Calls back once for each pair of (key that matches the channel, subscriber of it). */
typedef void (*subscriptions_match_fn)(struct subscription *subscription, void *context);
void subscriptions_match(struct subscriptions *table, const void *channel, size_t length,
                         subscriptions_match_fn callback, void *context);

/* A channel that is about to be looked up; the others are the table's. */
struct subscriptions_ahead {
    const void *channel;
    size_t length;
    uint64_t hash;
    const struct audience *audience; /* when it is known, then the rest is not */
    struct subscription_key *likely; /* the first key with the same tag, or NULL */
    bool is_looked_up;
};

/*
 * Begins to look up as many as SUBSCRIPTIONS_AHEAD channels, all at once: with a million channels a
 * look-up alone waits twice for memory. To be followed by subscriptions_match_ahead for each,
 * before the table is changed. Costs next to nothing while the table is small.
 *
 * Whom a busy channel goes to is kept in a cache (audience_cache.h), under the channel's hash: of
 * two channels whose 64 bits agree, one may be taken for the other if nobody has subscribed to it,
 * so that who receives messages compares names, too. A channel that is subscribed to is never
 * taken for another. In a table that is looked up so, a subscription's context is not to be
 * changed.
 */
enum { SUBSCRIPTIONS_AHEAD = 32 };
void subscriptions_look_ahead(struct subscriptions *table, struct subscriptions_ahead *ahead,
                              size_t count);

/* Calls back with the context of each subscription that subscriptions_match would call back for. */
typedef void (*subscriptions_context_fn)(void *subscription_context, void *context);
void subscriptions_match_ahead(struct subscriptions *table, const struct subscriptions_ahead *ahead,
                               subscriptions_context_fn callback, void *context);

/* As subscriptions_match, once for each key. */
typedef void (*subscriptions_key_fn)(struct subscription_key *key, void *context);
void subscriptions_match_keys(struct subscriptions *table, const void *channel, size_t length,
                              subscriptions_key_fn callback, void *context);

/* Calls back for every key there is, exact ones first, in no other order. */
void subscriptions_each_key(struct subscriptions *table, subscriptions_key_fn callback,
                            void *context);

void subscriptions_stats(const struct subscriptions *table, struct subscriptions_stats *stats);

/* Weak patterns allowed in all and for each subscriber (defaults 4,096 and 64). */
void subscriptions_set_quota(struct subscriptions *table, uint32_t all, uint32_t each);

#endif
