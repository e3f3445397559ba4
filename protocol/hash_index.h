#ifndef PROTOCOL_HASH_INDEX_H
#define PROTOCOL_HASH_INDEX_H

/*
 * A set of references filed under 64-bit hashes; what a reference points to, and whether it is the
 * one that is looked for, is the caller's business. Several references may have the same hash.
 *
 * Linear hashing: the table grows and shrinks by one bucket of one cache line at a time, so that no
 * single call does more than a little work, and nothing is ever moved as a whole. A bucket has 7
 * tags of 7 bits beside its 7 references; a look-up touches one cache line and then, of references
 * whose tag agrees (a wrong one agrees once in 128), the thing itself.
 *
 * One thread at a time; look-ups do not write.
 */
#include "bytes.h"

struct hash_bucket {
    uint8_t tags[8]; /* 0: free. The last is not a tag: 1 when refs[6] points to a further bucket */
    uintptr_t refs[7]; /* never 0 in use */
};

enum { HASH_SEGMENT_BUCKETS = 256 };

/* The hash under which ref was inserted; needed when a bucket is split. */
typedef uint64_t (*hash_of_fn)(uintptr_t ref, const void *context);

struct hash_index {
    struct hash_bucket **segments; /* of HASH_SEGMENT_BUCKETS each */
    size_t buckets;                /* in use, without the further ones */
    size_t low;                    /* the power of two: low <= buckets < 2 * low */
    size_t entries;
    size_t segment_room; /* of the array of segments */
    size_t bytes;        /* allocated */
    hash_of_fn hash_of;
    const void *context;
    size_t hashed_at;
};

/* An empty index that allocates nothing yet; cannot fail. hashed_at: what hash_of reads lies so
 * many bytes behind a reference. */
void hash_index_init(struct hash_index *index, hash_of_fn hash_of, const void *context,
                     size_t hashed_at);

/* Frees what the index has allocated, not what the references point to. */
void hash_index_release(struct hash_index *index);

/* Adds a reference; false (and nothing changed) when memory is out. */
bool hash_index_insert(struct hash_index *index, uint64_t hash, uintptr_t ref);

/* Takes a reference out; it must be there. */
void hash_index_remove(struct hash_index *index, uint64_t hash, uintptr_t ref);

/* Puts another reference in the place of one that is there, under the same hash. Cannot fail. */
void hash_index_replace(struct hash_index *index, uint64_t hash, uintptr_t old, uintptr_t new_ref);

/* Calls back for every reference, in no order; the index must not be changed meanwhile. */
typedef void (*hash_index_fn)(uintptr_t ref, void *context);
void hash_index_each(const struct hash_index *index, hash_index_fn callback, void *context);

/* A walk over the references that may have a hash. */
struct hash_cursor {
    const struct hash_bucket *bucket;
    uint64_t tags;      /* the tag that is looked for, in each byte */
    uint64_t remaining; /* 0x80 in the byte of each candidate not yet seen */
};

static inline uint64_t hash_tag(uint64_t hash)
{
    return hash >> 57 | 0x80;
}

static inline struct hash_bucket *hash_index_bucket(const struct hash_index *index, uint64_t hash)
{
    size_t at = hash & (2 * index->low - 1);

    if (at >= index->buckets)
        at -= index->low;
    return &index->segments[at / HASH_SEGMENT_BUCKETS][at % HASH_SEGMENT_BUCKETS];
}

/* Exactly the bytes of the bucket's tags that are equal to the tag: 0x80 in each, 0 in the others.
 */
static inline uint64_t hash_bucket_candidates(const struct hash_bucket *bucket, uint64_t tags)
{
    const uint64_t sevens = 0x7f7f7f7f7f7f7f7fu;
    uint64_t x = get_u64le(bucket->tags) ^ tags;

    return ~(((x & sevens) + sevens) | x | sevens) & 0x0080808080808080u;
}

/* What a look-up of that hash reads first, to be prefetched; NULL in an empty index. (The caller
 * does that: a function that only prefetches is dropped by gcc 12 as one without effect.) */
static inline const void *hash_index_place(const struct hash_index *index, uint64_t hash)
{
    return index->entries > 0 ? hash_index_bucket(index, hash) : NULL;
}

/* The next reference that may have the hash, 0 when there is none. */
static inline uintptr_t hash_index_next(struct hash_cursor *cursor)
{
    while (cursor->remaining == 0) {
        if (cursor->bucket->tags[7] == 0)
            return 0;
        cursor->bucket = (const struct hash_bucket *)cursor->bucket->refs[6];
        cursor->remaining = hash_bucket_candidates(cursor->bucket, cursor->tags);
    }
    uintptr_t ref = cursor->bucket->refs[__builtin_ctzll(cursor->remaining) / 8];
    cursor->remaining &= cursor->remaining - 1;
    return ref;
}

static inline uintptr_t hash_index_first(const struct hash_index *index, uint64_t hash,
                                         struct hash_cursor *cursor)
{
    if (index->entries == 0)
        return 0;
    cursor->bucket = hash_index_bucket(index, hash);
    cursor->tags = hash_tag(hash) * 0x0101010101010101u;
    cursor->remaining = hash_bucket_candidates(cursor->bucket, cursor->tags);
    return hash_index_next(cursor);
}

#endif
