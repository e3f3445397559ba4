#ifndef PROTOCOL_PATTERN_INDEX_H
#define PROTOCOL_PATTERN_INDEX_H

/*
 * The patterns of a subscription table, filed so that a look-up looks at few of them. Internal to
 * subscriptions.c and its tests: nobody else includes this. One thread at a time; look-ups write
 * nothing but the counters.
 */
#include "hash.h"
#include "status.h"
#include "subscriptions.h"

struct pattern_index;

struct pattern { /* allocated and freed by the table, filed here */
    struct subscription_key key;
    bool weak;     /* set at insert: costs every look-up of its kind, counted for the quota */
    uint32_t slot; /* the index's: where it stands */
    uint8_t text[];
};

struct pattern_index_stats {
    size_t patterns, weak;
    size_t bytes; /* allocated by the index, without the patterns themselves */
    uint64_t candidates;
};

/* NULL when memory is out. */
struct pattern_index *pattern_index_new(const struct hash_seed *seed);

/* Frees the index, not the patterns. */
void pattern_index_free(struct pattern_index *index);

/* Files a pattern whose text has passed glob_check. STATUS_OK, STATUS_WEAK_PATTERN (it would be
 * weak and allow_weak is false) or STATUS_NO_MEMORY. */
enum status pattern_index_insert(struct pattern_index *index, struct pattern *pattern,
                                 bool allow_weak);

/* Takes out a pattern that is filed. Cannot fail. */
void pattern_index_remove(struct pattern_index *index, struct pattern *pattern);

/* Calls back exactly once for each pattern that matches. The callback must not change the index. */
typedef void (*pattern_fn)(struct pattern *pattern, void *context);
void pattern_index_match(struct pattern_index *index, const uint8_t *channel, size_t length,
                         pattern_fn callback, void *context);

/* Up to n units of postponed work; true while some is left. */
bool pattern_index_step(struct pattern_index *index, unsigned n);

void pattern_index_stats(const struct pattern_index *index, struct pattern_index_stats *stats);

#endif
