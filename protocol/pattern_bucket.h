#ifndef PROTOCOL_PATTERN_BUCKET_H
#define PROTOCOL_PATTERN_BUCKET_H

/*
 * The insides of the pattern index, shared by pattern_index.c, pattern_lookup.c, pattern_pieces.c.
 *
 * The index is a tree of buckets. A bucket is a list of patterns; when the list gets long the
 * bucket is *split*: its patterns are filed again, each under one more of its literal pieces. What
 * is filed under a piece (one pattern, or a bucket when there are several) lies in one hash table
 * for the whole tree, whose keys are made from the piece and the bucket that was split.
 */
#include "glob.h"
#include "hash_index.h"
#include "pattern_index.h"

enum piece_kind {
    PIECE_PREFIX, /* all literal bytes before the first element that is none */
    PIECE_SUFFIX, /* all literal bytes behind the last such element */
    PIECE_WINDOW, /* 1 to 8 literal bytes in between */
    PIECE_KINDS,
    PIECE_NONE = PIECE_KINDS /* in the parent's list */
};

enum pattern_shape {
    SHAPE_EXACT,   /* no star, and every byte stands for itself */
    SHAPE_FIXED,   /* no star, but a ?, a class or a backslash */
    SHAPE_STAR,    /* one star (or several side by side) among bytes that stand for themselves */
    SHAPE_STARS,   /* several */
    SHAPE_GENERAL, /* a star and a ?, a class or a backslash */
};

enum {
    LIST_MAX = 8,   /* longer: split, while a piece is left to the newest member */
    LIST_WEAK = 64, /* who joins a longer list is weak */
    WINDOW_MAX = 8,
    WINDOW_LEVELS = 3 /* so many windows on the way down at the most */
};

/* Which lengths (or windows: first byte and length) are in use under a split bucket, and how often.
 * Sorted by id. */
struct tally {
    struct tally_entry {
        uint64_t marks; /* of all pieces of that length since there are any: see piece_mark */
        uint32_t count;
        uint16_t id;
    } * entries;
    uint16_t used, room;
};

/* A window's id: its first byte and its length. */
static inline uint16_t window_id(uint8_t first, size_t length)
{
    return (uint16_t)((size_t)first << 3 | (length - 1));
}

/* One of 64 bits for how a prefix or suffix begins and ends. Most lengths that are in use need not
 * be asked for: in user:12:new only one place is the end of user:<n>: for any n. */
static inline uint64_t piece_mark(uint8_t first, uint8_t last)
{
    return (uint64_t)1 << ((first * 37u + last * 11u) & 63);
}

struct split {
    struct tally tallies[PIECE_KINDS];
    uint8_t *window_lengths; /* of 256: for each first byte the lengths in use, bit 0 for 1 byte */
    size_t children;
};

struct pattern_bucket {
    uint64_t hash; /* its key in the table; 0 for the root */
    uint64_t salt; /* for the keys below it */
    struct pattern_bucket *parent;
    struct pattern **members; /* the list; of a split bucket those that have no piece left */
    struct split *split;      /* NULL: not split */
    uint64_t window;          /* PIECE_WINDOW: its bytes */
    uint32_t count, room;     /* of members */
    uint16_t piece;           /* what it is filed under: a length or a window's id */
    uint8_t kind;
    uint8_t used;   /* bits of PIECE_PREFIX and PIECE_SUFFIX that are used on the way down */
    uint8_t levels; /* windows on the way down */
};

struct run { /* of literal bytes between two elements that are none */
    uint16_t start, length;
};

/* A pattern taken apart. */
struct pieces {
    uint8_t bytes[CHANNEL_LENGTH_MAX];           /* literal bytes, without backslashes, all runs */
    struct run runs[CHANNEL_LENGTH_MAX / 2 + 1]; /* inner ones only */
    size_t run_count;
    struct run prefix, suffix; /* length 0: none */
    size_t longest;            /* inner run */
    uint16_t least;            /* elements that are no star */
    uint8_t shape;
};

struct pattern_index {
    struct hash_seed seed;
    struct hash_index table; /* of struct pattern (bit 0 set) and struct pattern_bucket */
    struct pattern_bucket root;
    size_t count, weak;
    size_t bytes;   /* of buckets, lists and tallies */
    uint64_t salts; /* drawn so far */
    uint64_t candidates;
    struct pieces pieces; /* of the pattern that is being filed */
};

static inline bool ref_is_pattern(uintptr_t ref)
{
    return (ref & 1) != 0;
}

/* A reference to a pattern is one to its hash, because that is what is read first. */
static inline struct pattern *ref_pattern(uintptr_t ref)
{
    return (struct pattern *)(ref - 1 - offsetof(struct pattern, hash));
}

static inline uintptr_t pattern_ref(const struct pattern *pattern)
{
    return (uintptr_t)&pattern->hash | 1;
}

static inline struct pattern_bucket *ref_bucket(uintptr_t ref)
{
    return (struct pattern_bucket *)ref;
}

static inline uint64_t ref_hash(uintptr_t ref)
{
    return *(const uint64_t *)(ref & ~(uintptr_t)1); /* a bucket's hash is its first member */
}

/* Takes a pattern apart. */
void pieces_parse(struct pieces *pieces, const uint8_t *text, size_t length);

/* Adds one use of an id; false when memory is out. mark: the piece's, 0 for windows. */
bool tally_add(struct tally *tally, uint16_t id, uint64_t mark, size_t *bytes);

/* Takes one use away; true when it was the last. */
bool tally_remove(struct tally *tally, uint16_t id, size_t *bytes);

/*
 * Hashes of pieces: the key under a bucket with that salt. Prefixes are hashed from the start and
 * suffixes from the end in blocks of 16, so that growing lengths of one channel share the work:
 * done and state go on from the shorter to the longer.
 */
struct piece_hasher {
    uint64_t state;
    size_t done;
};

static inline uint64_t piece_finish(const struct piece_hasher *h, const struct hash_seed *seed,
                                    const uint8_t *rest, size_t length)
{
    size_t left = length - h->done;
    uint64_t low, high = 0;

    if (left > 8) {
        low = get_u64le(rest);
        high = get_u64le(rest + left - 8);
    } else {
        low = hash_small(rest, left);
    }
    return hash_fold(hash_fold(low ^ seed->b, high ^ h->state), length ^ seed->a);
}

static inline struct piece_hasher piece_hasher_begin(uint64_t salt, enum piece_kind kind)
{
    return (struct piece_hasher){salt + (uint64_t)kind * 0x9e3779b97f4a7c15u, 0};
}

static inline uint64_t prefix_hash(struct piece_hasher *h, const struct hash_seed *seed,
                                   const uint8_t *start, size_t length)
{
    for (; length - h->done > 16; h->done += 16)
        h->state = hash_fold(get_u64le(start + h->done) ^ seed->b,
                             get_u64le(start + h->done + 8) ^ h->state);
    return piece_finish(h, seed, start + h->done, length);
}

static inline uint64_t suffix_hash(struct piece_hasher *h, const struct hash_seed *seed,
                                   const uint8_t *end, size_t length)
{
    for (; length - h->done > 16; h->done += 16)
        h->state = hash_fold(get_u64le(end - h->done - 16) ^ seed->b,
                             get_u64le(end - h->done - 8) ^ h->state);
    return piece_finish(h, seed, end - length, length);
}

static inline uint64_t window_hash(uint64_t salt, const struct hash_seed *seed, uint64_t window,
                                   size_t length)
{
    return hash_fold(window ^ seed->b, (salt ^ seed->a) + length);
}

/* Up to 8 bytes at `at` as a number, as many as there are. */
static inline uint64_t window_load(const uint8_t *bytes, size_t length, size_t at)
{
    uint64_t window = 0;

    if (at + 8 <= length)
        return get_u64le(bytes + at);
    if (length >= 8)
        return get_u64le(bytes + length - 8) >> (8 * (at + 8 - length));
    for (size_t i = length; i > at; i--)
        window = window << 8 | bytes[i - 1];
    return window;
}

static inline uint64_t window_cut(uint64_t window, size_t length)
{
    return window & (~(uint64_t)0 >> (64 - 8 * length));
}

#endif
