#ifndef PROTOCOL_SUBSCRIPTION_KEYS_H
#define PROTOCOL_SUBSCRIPTION_KEYS_H

/*
 * The memory of a subscription table's keys, for subscriptions.c alone. A channel's key begins at a
 * cache line, so that what a match reads of it, and a name of up to 32 bytes, is the one behind:
 * with a million channels each line is one from memory. A pattern's key is part of struct pattern.
 *
 * One thread at a time.
 */
#include "pattern_index.h"
#include "slots.h"

struct channel {
    struct subscription_key key;
    uint8_t text[];
};

enum {
    KEY_MATCH_AT = offsetof(struct channel, key.own.context), /* a match reads from there on */
    CHANNEL_LINES_LEAST = 2,
    CHANNEL_LINES_MOST = 4 /* that lie in slots: names of up to 160 bytes */
};

struct key_memory {
    struct slots channels[CHANNEL_LINES_MOST + 1]; /* by their cache lines */
    size_t bytes;                                  /* of patterns and of longer channels */
};

/* What malloc takes for size bytes on common systems; for the statistics. */
static inline size_t key_allocated(size_t size)
{
    return (size + 8 + 15) & ~(size_t)15;
}

static inline struct pattern *key_pattern(const struct subscription_key *key)
{
    return (struct pattern *)((char *)key - offsetof(struct pattern, key));
}

/* As key->name, without a look at the line in which that is. */
static inline const uint8_t *key_text(const struct subscription_key *key)
{
    return key->is_pattern ? key_pattern(key)->text : ((const struct channel *)key)->text;
}

/* Allocates nothing yet; cannot fail. */
void key_memory_init(struct key_memory *memory);

/* Bytes allocated. */
size_t key_memory_bytes(const struct key_memory *memory);

/* A key without subscriptions, with a copy of the name, filed nowhere; NULL when memory is out. */
struct subscription_key *key_new(struct key_memory *memory, const void *name, size_t length,
                                 bool is_pattern);

/* Frees a key. When all have been, nothing is left to be freed. */
void key_free(struct key_memory *memory, struct subscription_key *key);

#endif
