#include "hash_index.h"
#include <stdlib.h>

enum {
    BUCKETS_SMALLEST = 8,
    BUCKET_REFS = 7,
    GROW_TENTHS = 35,  /* a bucket is added when there are more than 3.5 references for each */
    SHRINK_TENTHS = 12 /* and one is taken away when there are fewer than 1.2 */
};

static const size_t segment_bytes = HASH_SEGMENT_BUCKETS * sizeof(struct hash_bucket);

void hash_index_init(struct hash_index *index, hash_of_fn hash_of, const void *context,
                     size_t hashed_at)
{
    *index = (struct hash_index){.hash_of = hash_of, .context = context, .hashed_at = hashed_at};
}

static struct hash_bucket *bucket_at(const struct hash_index *index, size_t at)
{
    return &index->segments[at / HASH_SEGMENT_BUCKETS][at % HASH_SEGMENT_BUCKETS];
}

static bool has_more(const struct hash_bucket *bucket)
{
    return bucket->tags[7] != 0;
}

static struct hash_bucket *further(const struct hash_bucket *bucket)
{
    return has_more(bucket) ? (struct hash_bucket *)bucket->refs[6] : NULL;
}

/* References that fit into this one bucket. */
static int room_of(const struct hash_bucket *bucket)
{
    return has_more(bucket) ? BUCKET_REFS - 1 : BUCKET_REFS;
}

static void free_further(struct hash_index *index, struct hash_bucket *bucket)
{
    while (bucket != NULL) {
        struct hash_bucket *next = further(bucket);
        free(bucket);
        index->bytes -= sizeof(*bucket);
        bucket = next;
    }
}

void hash_index_release(struct hash_index *index)
{
    for (size_t i = 0; i < index->buckets; i++)
        free_further(index, further(bucket_at(index, i)));
    for (size_t i = 0; i * HASH_SEGMENT_BUCKETS < index->buckets; i++)
        free(index->segments[i]);
    free(index->segments);
    hash_index_init(index, index->hash_of, index->context, index->hashed_at);
}

/* Makes sure that the segment which holds bucket number `at` exists. */
static bool provide_segment(struct hash_index *index, size_t at)
{
    size_t segment = at / HASH_SEGMENT_BUCKETS;

    if (at % HASH_SEGMENT_BUCKETS != 0)
        return true;
    if (segment >= index->segment_room) {
        size_t room = index->segment_room == 0 ? 4 : 2 * index->segment_room;
        struct hash_bucket **segments = realloc(index->segments, room * sizeof(*segments));
        if (segments == NULL)
            return false;
        index->bytes += (room - index->segment_room) * sizeof(*segments);
        index->segments = segments;
        index->segment_room = room;
    }
    index->segments[segment] = aligned_alloc(sizeof(struct hash_bucket), segment_bytes);
    if (index->segments[segment] == NULL)
        return false;
    memset(index->segments[segment], 0, segment_bytes);
    index->bytes += segment_bytes;
    return true;
}

/* Frees the segment that begins with bucket number `at`, now unused, if one does. */
static void drop_segment(struct hash_index *index, size_t at)
{
    if (at % HASH_SEGMENT_BUCKETS != 0)
        return;
    free(index->segments[at / HASH_SEGMENT_BUCKETS]);
    index->bytes -= segment_bytes;
}

static bool put_into(struct hash_bucket *bucket, uint64_t hash, uintptr_t ref)
{
    for (int i = 0; i < room_of(bucket); i++) {
        if (bucket->tags[i] == 0) {
            bucket->tags[i] = (uint8_t)hash_tag(hash);
            bucket->refs[i] = ref;
            return true;
        }
    }
    return false;
}

/* Files a reference in a bucket or behind it. */
static bool file(struct hash_index *index, struct hash_bucket *bucket, uint64_t hash, uintptr_t ref)
{
    struct hash_bucket *more;

    for (;;) {
        if (put_into(bucket, hash, ref))
            return true;
        if (!has_more(bucket))
            break;
        bucket = further(bucket);
    }
    more = aligned_alloc(sizeof(*more), sizeof(*more));
    if (more == NULL)
        return false;
    memset(more, 0, sizeof(*more));
    index->bytes += sizeof(*more);
    more->tags[0] = bucket->tags[6];
    more->refs[0] = bucket->refs[6];
    more->tags[1] = (uint8_t)hash_tag(hash);
    more->refs[1] = ref;
    bucket->tags[6] = 0;
    bucket->tags[7] = 1;
    bucket->refs[6] = (uintptr_t)more;
    return true;
}

/* Drops further buckets that have become empty, and brings a last reference back home. */
static void tidy(struct hash_index *index, struct hash_bucket *bucket)
{
    while (has_more(bucket)) {
        struct hash_bucket *more = further(bucket);
        int found = -1, count = 0;

        for (int i = 0; i < room_of(more); i++)
            if (more->tags[i] != 0) {
                found = i;
                count++;
            }
        if (!has_more(more) && count <= 1) {
            bucket->tags[7] = 0;
            bucket->tags[6] = count == 1 ? more->tags[found] : 0;
            bucket->refs[6] = count == 1 ? more->refs[found] : 0;
            free(more);
            index->bytes -= sizeof(*more);
            return;
        }
        if (count == 0) {
            bucket->refs[6] = more->refs[6];
            free(more);
            index->bytes -= sizeof(*more);
        } else {
            bucket = more;
        }
    }
}

/* Files every reference of a chain of buckets in another, which has room for them all. */
static void move_back(struct hash_index *index, struct hash_bucket *from, struct hash_bucket *to)
{
    for (struct hash_bucket *bucket = from; bucket != NULL; bucket = further(bucket))
        for (int i = 0; i < room_of(bucket); i++)
            if (bucket->tags[i] != 0) /* the tag is all of a hash that filing needs */
                file(index, to, (uint64_t)bucket->tags[i] << 57, bucket->refs[i]);
    free_further(index, further(from));
    memset(from, 0, sizeof(*from));
}

/* Moves to the new bucket what belongs there; false, and nothing moved, when memory is out. */
static bool split(struct hash_index *index, struct hash_bucket *from, struct hash_bucket *to)
{
    for (struct hash_bucket *bucket = from; bucket != NULL; bucket = further(bucket))
        for (int i = 0; i < room_of(bucket); i++) {
            uint64_t hash;
            if (bucket->tags[i] == 0)
                continue;
            hash = index->hash_of(bucket->refs[i], index->context);
            if ((hash & index->low) == 0)
                continue;
            if (!file(index, to, hash, bucket->refs[i])) {
                move_back(index, to, from);
                return false;
            }
            bucket->tags[i] = 0;
            bucket->refs[i] = 0;
        }
    return true;
}

/* Adds one bucket, which takes its share from the one that answered for it so far. Out of memory
 * only makes the buckets fuller. */
static void grow(struct hash_index *index)
{
    size_t at = index->buckets;
    struct hash_bucket *from = bucket_at(index, at - index->low);

    if (!provide_segment(index, at))
        return;
    /* Loading all the things whose hashes will be asked for, at once. */
    for (int i = 0; i < room_of(from); i++)
        if (from->tags[i] != 0)
            __builtin_prefetch((const void *)((from->refs[i] & ~(uintptr_t)7) + index->hashed_at));
    if (!split(index, from, bucket_at(index, at))) {
        drop_segment(index, at);
        return;
    }
    index->buckets++;
    if (index->buckets == 2 * index->low)
        index->low *= 2;
    tidy(index, from);
}

static int used_of(const struct hash_bucket *bucket)
{
    int used = 0;

    for (int i = 0; i < room_of(bucket); i++)
        used += bucket->tags[i] != 0;
    return used;
}

/* Takes the last bucket away; what it holds goes back to the one that it was split from. Put off
 * when they do not fit into one, so that taking things out never needs memory. */
static void shrink(struct hash_index *index)
{
    size_t at = index->buckets - 1;
    size_t low = at < index->low ? index->low / 2 : index->low;
    struct hash_bucket *from = bucket_at(index, at), *to = bucket_at(index, at - low);

    if (has_more(from) || has_more(to) || used_of(from) + used_of(to) > BUCKET_REFS)
        return;
    move_back(index, from, to);
    index->low = low;
    index->buckets = at;
    drop_segment(index, at);
}

bool hash_index_insert(struct hash_index *index, uint64_t hash, uintptr_t ref)
{
    if (index->buckets == 0) {
        if (!provide_segment(index, 0))
            return false;
        index->buckets = index->low = BUCKETS_SMALLEST;
    }
    if (!file(index, hash_index_bucket(index, hash), hash, ref))
        return false;
    index->entries++;
    if (index->entries * 10 > index->buckets * GROW_TENTHS)
        grow(index);
    return true;
}

/* Where the reference stands. */
static uintptr_t *place_of(const struct hash_index *index, uint64_t hash, uintptr_t ref,
                           struct hash_bucket **in)
{
    struct hash_bucket *bucket = hash_index_bucket(index, hash);

    for (; bucket != NULL; bucket = further(bucket))
        for (int i = 0; i < room_of(bucket); i++)
            if (bucket->tags[i] != 0 && bucket->refs[i] == ref) {
                *in = bucket;
                return &bucket->refs[i];
            }
    abort(); /* the caller's bookkeeping is broken: going on would corrupt memory */
}

void hash_index_remove(struct hash_index *index, uint64_t hash, uintptr_t ref)
{
    struct hash_bucket *bucket;
    uintptr_t *place = place_of(index, hash, ref, &bucket);

    bucket->tags[place - bucket->refs] = 0;
    *place = 0;
    tidy(index, hash_index_bucket(index, hash));
    index->entries--;
    for (int i = 0; i < 2; i++) /* two, to make up for those put off */
        if (index->buckets > BUCKETS_SMALLEST &&
            index->entries * 10 < index->buckets * SHRINK_TENTHS)
            shrink(index);
}

void hash_index_replace(struct hash_index *index, uint64_t hash, uintptr_t old, uintptr_t new_ref)
{
    struct hash_bucket *bucket;

    *place_of(index, hash, old, &bucket) = new_ref;
}

void hash_index_each(const struct hash_index *index, hash_index_fn callback, void *context)
{
    for (size_t at = 0; at < index->buckets; at++) {
        struct hash_bucket *bucket = bucket_at(index, at);
        for (; bucket != NULL; bucket = further(bucket))
            for (int i = 0; i < room_of(bucket); i++)
                if (bucket->tags[i] != 0)
                    callback(bucket->refs[i], context);
    }
}
