#ifndef PROTOCOL_PATTERN_INDEX_H
#define PROTOCOL_PATTERN_INDEX_H

/*
 * The patterns of a subscription table, filed so that a look-up looks at few of them. Internal to
 * subscriptions.c and its tests: nobody else includes this. How it works: docs/patterns.md.
 *
 * One thread at a time; look-ups write nothing but the counters. All work is done at once and is
 * small: an insert files at most a few dozen patterns anew, the hash table grows by one cache line.
 */
#include "hash.h"
#include "status.h"
#include "subscriptions.h"

struct pattern_bucket;
struct pattern_index;

/* Allocated and freed by the table, filed here. What a look-up reads stands together, from the end
 * of key.own on. */
struct pattern {
    struct pattern_bucket *parent; /* where it is filed */
    uint32_t slot;                 /* its place in the parent's list */
    uint16_t piece;                /* what it is filed under when it stands alone */
    uint8_t kind;                  /* enum piece_kind */
    bool weak;                     /* costs every look-up of its kind, counted for the quota */
    struct subscription_key key;
    uint64_t hash;           /* its key when it stands alone */
    uint16_t prefix, suffix; /* lengths of the text before the first and behind the last star */
    uint16_t least;          /* bytes of the shortest channel that matches */
    uint8_t shape;           /* enum pattern_shape */
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

void pattern_index_stats(const struct pattern_index *index, struct pattern_index_stats *stats);

#endif
