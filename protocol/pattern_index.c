#include "pattern_bucket.h"
#include <stdlib.h>

static uint64_t hash_of_ref(uintptr_t ref, const void *context)
{
    (void)context;
    return ref_hash(ref);
}

struct pattern_index *pattern_index_new(const struct hash_seed *seed)
{
    struct pattern_index *index = calloc(1, sizeof(*index));

    if (index == NULL)
        return NULL;
    index->seed = *seed;
    hash_index_init(&index->table, hash_of_ref, NULL, 0);
    index->root.kind = PIECE_NONE;
    index->root.salt = hash_mix(seed->a, seed->b);
    return index;
}

static void free_split(struct pattern_index *index, struct pattern_bucket *bucket)
{
    struct split *split = bucket->split;

    if (split == NULL)
        return;
    for (int kind = 0; kind < PIECE_KINDS; kind++) {
        index->bytes -= split->tallies[kind].room * sizeof(struct tally_entry);
        free(split->tallies[kind].entries);
    }
    if (split->window_lengths != NULL)
        index->bytes -= 256;
    free(split->window_lengths);
    free(split);
    index->bytes -= sizeof(*split);
    bucket->split = NULL;
}

static void free_bucket(struct pattern_index *index, struct pattern_bucket *bucket)
{
    free_split(index, bucket);
    index->bytes -= bucket->room * sizeof(*bucket->members);
    free(bucket->members);
    if (bucket != &index->root) {
        free(bucket);
        index->bytes -= sizeof(*bucket);
    }
}

static void free_ref(uintptr_t ref, void *context)
{
    if (!ref_is_pattern(ref))
        free_bucket(context, ref_bucket(ref));
}

void pattern_index_free(struct pattern_index *index)
{
    if (index == NULL)
        return;
    hash_index_each(&index->table, free_ref, index);
    free_bucket(index, &index->root);
    hash_index_release(&index->table);
    free(index);
}

/* One piece of a pattern as a key under a bucket, and what is filed there already. */
struct choice {
    uint64_t hash, window;
    uint64_t mark; /* of a prefix or suffix */
    uintptr_t ref; /* 0: nothing yet */
    size_t length; /* bytes of the piece */
    uint16_t piece;
    uint8_t kind;
};

static uintptr_t find(const struct pattern_index *index, uint64_t hash)
{
    struct hash_cursor cursor;
    uintptr_t ref = hash_index_first(&index->table, hash, &cursor);

    while (ref != 0 && ref_hash(ref) != hash)
        ref = hash_index_next(&cursor);
    return ref;
}

/* How long the list is that the pattern would join. A bucket that is split counts as very long. */
static size_t list_length(uintptr_t ref)
{
    if (ref == 0)
        return 0;
    if (ref_is_pattern(ref))
        return 1;
    return ref_bucket(ref)->split != NULL ? SIZE_MAX : ref_bucket(ref)->count;
}

static bool is_better(const struct choice *a, const struct choice *b)
{
    size_t length_a = list_length(a->ref), length_b = list_length(b->ref);

    return length_a < length_b || (length_a == length_b && a->length > b->length);
}

static struct choice end_choice(const struct pattern_index *index,
                                const struct pattern_bucket *bucket, enum piece_kind kind)
{
    const struct pieces *pieces = &index->pieces;
    const struct run *run = kind == PIECE_PREFIX ? &pieces->prefix : &pieces->suffix;
    const uint8_t *start = pieces->bytes + run->start;
    struct piece_hasher hasher = piece_hasher_begin(bucket->salt, kind);
    struct choice choice = {.kind = (uint8_t)kind, .piece = run->length, .length = run->length};

    choice.hash = kind == PIECE_PREFIX
                      ? prefix_hash(&hasher, &index->seed, start, run->length)
                      : suffix_hash(&hasher, &index->seed, start + run->length, run->length);
    choice.mark = piece_mark(start[0], start[run->length - 1]);
    choice.ref = find(index, choice.hash);
    return choice;
}

/* Is the window one that the way down to the bucket has already used? */
static bool is_used(const struct pattern_bucket *bucket, uint64_t window, size_t length)
{
    for (; bucket != NULL && bucket->kind == PIECE_WINDOW; bucket = bucket->parent)
        if (bucket->window == window && (bucket->piece & 7u) == length - 1)
            return true;
    return false;
}

/* The windows to choose from: a short run as it is, a long one at up to this many places. */
enum { WINDOWS_PER_RUN = 8, WINDOWS_TRIED = 16 };

static bool try_window(const struct pattern_index *index, const struct pattern_bucket *bucket,
                       size_t at, size_t length, struct choice *best)
{
    const uint8_t *bytes = index->pieces.bytes + at;
    struct choice choice = {.kind = PIECE_WINDOW, .length = length};

    choice.window = window_cut(window_load(bytes, sizeof(index->pieces.bytes) - at, 0), length);
    if (is_used(bucket, choice.window, length))
        return false;
    choice.piece = window_id(bytes[0], length);
    choice.hash = window_hash(bucket->salt, &index->seed, choice.window, length);
    choice.ref = find(index, choice.hash);
    if (best->length == 0 || is_better(&choice, best))
        *best = choice;
    return true;
}

/* One byte alone only for a pattern that has no more, and only once on the way down. */
static bool has_window(const struct pattern_index *index, const struct pattern_bucket *bucket)
{
    return bucket->levels < WINDOW_LEVELS && index->pieces.longest > (bucket->levels > 0);
}

static bool choose_window(const struct pattern_index *index, const struct pattern_bucket *bucket,
                          struct choice *choice)
{
    const struct pieces *pieces = &index->pieces;
    size_t shortest = pieces->longest > 1 ? 2 : 1, tried = 0;

    choice->length = 0;
    if (!has_window(index, bucket))
        return false;
    for (size_t i = 0; i < pieces->run_count && tried < WINDOWS_TRIED; i++) {
        const struct run *run = &pieces->runs[i];
        size_t length = run->length < WINDOW_MAX ? run->length : WINDOW_MAX;
        size_t places = run->length - length + 1;
        size_t used = places < WINDOWS_PER_RUN ? places : WINDOWS_PER_RUN;
        for (size_t n = 0; n < used && length >= shortest; n++) {
            size_t at = used == 1 ? 0 : n * (places - 1) / (used - 1);
            tried += try_window(index, bucket, run->start + at, length, choice);
        }
    }
    return choice->length > 0;
}

static bool has_end(const struct pattern_index *index, const struct pattern_bucket *bucket,
                    enum piece_kind kind)
{
    const struct pieces *pieces = &index->pieces;

    return (bucket->used & 1u << kind) == 0 &&
           (kind == PIECE_PREFIX ? pieces->prefix.length : pieces->suffix.length) > 0;
}

/* Under which piece of index->pieces a pattern is filed in a split bucket; false: under none. */
static bool choose(const struct pattern_index *index, const struct pattern_bucket *bucket,
                   struct choice *choice)
{
    bool prefix = has_end(index, bucket, PIECE_PREFIX),
         suffix = has_end(index, bucket, PIECE_SUFFIX);

    if (!prefix && !suffix)
        return choose_window(index, bucket, choice);
    *choice = end_choice(index, bucket, prefix ? PIECE_PREFIX : PIECE_SUFFIX);
    if (prefix && suffix) {
        struct choice other = end_choice(index, bucket, PIECE_SUFFIX);
        if (is_better(&other, choice))
            *choice = other;
    }
    return true;
}

static bool append(struct pattern_index *index, struct pattern_bucket *bucket,
                   struct pattern *pattern)
{
    if (bucket->count == bucket->room) {
        uint32_t room = bucket->room == 0 ? 2 : 2 * bucket->room;
        struct pattern **members = realloc(bucket->members, room * sizeof(*members));
        if (members == NULL)
            return false;
        index->bytes += (room - bucket->room) * sizeof(*members);
        bucket->members = members;
        bucket->room = room;
    }
    pattern->kind = PIECE_NONE;
    pattern->parent = bucket;
    pattern->slot = bucket->count;
    bucket->members[bucket->count++] = pattern;
    return true;
}

/* The pattern stands alone under that piece of the split bucket. */
static bool file_alone(struct pattern_index *index, struct pattern_bucket *bucket,
                       struct pattern *pattern, const struct choice *choice)
{
    struct split *split = bucket->split;

    if (choice->kind == PIECE_WINDOW && split->window_lengths == NULL) {
        split->window_lengths = calloc(1, 256);
        if (split->window_lengths == NULL)
            return false;
        index->bytes += 256;
    }
    if (!tally_add(&split->tallies[choice->kind], choice->piece, choice->mark, &index->bytes))
        return false;
    pattern->hash = choice->hash; /* the table asks for it when it grows */
    if (!hash_index_insert(&index->table, choice->hash, pattern_ref(pattern))) {
        tally_remove(&split->tallies[choice->kind], choice->piece, &index->bytes);
        return false;
    }
    if (choice->kind == PIECE_WINDOW)
        split->window_lengths[choice->piece >> 3] |= (uint8_t)(1u << (choice->piece & 7));
    split->children++;
    pattern->parent = bucket;
    pattern->kind = choice->kind;
    pattern->piece = choice->piece;
    return true;
}

/* A bucket in the place of the one pattern that stood there, with that pattern in it. */
static struct pattern_bucket *
make_bucket(struct pattern_index *index, struct pattern_bucket *parent, const struct choice *choice)
{
    struct pattern *alone = ref_pattern(choice->ref);
    struct pattern_bucket *bucket = calloc(1, sizeof(*bucket));

    if (bucket == NULL)
        return NULL;
    index->bytes += sizeof(*bucket);
    bucket->hash = choice->hash;
    bucket->salt = hash_mix(index->seed.b + ++index->salts, choice->hash);
    bucket->parent = parent;
    bucket->window = choice->window;
    bucket->piece = choice->piece;
    bucket->kind = choice->kind;
    bucket->used = parent->used;
    bucket->levels = parent->levels;
    if (choice->kind == PIECE_WINDOW)
        bucket->levels++;
    else
        bucket->used |= (uint8_t)(1u << choice->kind);
    if (!append(index, bucket, alone)) {
        free_bucket(index, bucket);
        return NULL;
    }
    hash_index_replace(&index->table, choice->hash, choice->ref, (uintptr_t)bucket);
    return bucket;
}

/* The bucket goes, the one pattern left in its list stands alone again. */
static void unmake_bucket(struct pattern_index *index, struct pattern_bucket *bucket)
{
    struct pattern *alone = bucket->members[0];

    alone->hash = bucket->hash;
    alone->parent = bucket->parent;
    alone->kind = bucket->kind;
    alone->piece = bucket->piece;
    hash_index_replace(&index->table, bucket->hash, (uintptr_t)bucket, pattern_ref(alone));
    free_bucket(index, bucket);
}

static enum status file(struct pattern_index *index, struct pattern_bucket *bucket,
                        struct pattern *pattern, bool allow_weak);

/* Files all members again, one level down. Those that cannot be, for want of a piece or of memory,
 * stay where they are. */
static void split(struct pattern_index *index, struct pattern_bucket *bucket)
{
    uint32_t count = bucket->count;

    bucket->split = calloc(1, sizeof(*bucket->split));
    if (bucket->split == NULL)
        return;
    index->bytes += sizeof(*bucket->split);
    bucket->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct pattern *member = bucket->members[i];
        pieces_parse(&index->pieces, member->text, member->key.length);
        if (file(index, bucket, member, true) != STATUS_OK)
            append(index, bucket, member); /* there is room: it was here before */
    }
}

/* Splits a list that would get too long, when the pattern of index->pieces has a piece left. */
static bool split_for(struct pattern_index *index, struct pattern_bucket *bucket,
                      const struct pattern *pattern)
{
    struct choice ignored;

    if (bucket->split != NULL || bucket->count < LIST_MAX || !choose(index, bucket, &ignored))
        return false;
    split(index, bucket);
    pieces_parse(&index->pieces, pattern->text, pattern->key.length);
    return bucket->split != NULL;
}

/* As the second under a piece: the bucket that both join. */
static enum status file_beside(struct pattern_index *index, struct pattern_bucket *bucket,
                               struct pattern *pattern, const struct choice *choice)
{
    struct pattern_bucket *made = make_bucket(index, bucket, choice);

    if (made == NULL)
        return STATUS_NO_MEMORY;
    if (append(index, made, pattern))
        return STATUS_OK;
    unmake_bucket(index, made);
    return STATUS_NO_MEMORY;
}

/* Files the pattern, whose pieces are in index->pieces, in or below the bucket. */
static enum status file(struct pattern_index *index, struct pattern_bucket *bucket,
                        struct pattern *pattern, bool allow_weak)
{
    struct choice choice;

    do {
        while (bucket->split != NULL && choose(index, bucket, &choice)) {
            if (choice.ref == 0) {
                if (file_alone(index, bucket, pattern, &choice))
                    return STATUS_OK;
                if (bucket->split->children == 0)
                    free_split(index, bucket);
                return STATUS_NO_MEMORY;
            }
            if (ref_is_pattern(choice.ref))
                return file_beside(index, bucket, pattern, &choice);
            bucket = ref_bucket(choice.ref);
        }
    } while (split_for(index, bucket, pattern));
    if (bucket->count >= LIST_WEAK && !allow_weak)
        return STATUS_WEAK_PATTERN;
    if (!append(index, bucket, pattern))
        return STATUS_NO_MEMORY;
    pattern->weak |= bucket->count > LIST_WEAK;
    return STATUS_OK;
}

enum status pattern_index_insert(struct pattern_index *index, struct pattern *pattern,
                                 bool allow_weak)
{
    const struct pieces *pieces = &index->pieces;
    enum status status;

    pieces_parse(&index->pieces, pattern->text, pattern->key.length);
    pattern->shape = pieces->shape;
    pattern->prefix = pieces->prefix.length;
    pattern->suffix = pieces->suffix.length;
    pattern->least = pieces->least;
    pattern->weak = pieces->prefix.length == 0 && pieces->suffix.length == 0 && pieces->longest < 2;
    if (pattern->weak && !allow_weak)
        return STATUS_WEAK_PATTERN;
    status = file(index, &index->root, pattern, allow_weak);
    if (status != STATUS_OK)
        return status;
    index->count++;
    index->weak += pattern->weak;
    return STATUS_OK;
}

/* One key fewer under a split bucket. */
static void forget_child(struct pattern_index *index, struct pattern_bucket *bucket, uint8_t kind,
                         uint16_t piece)
{
    struct split *split = bucket->split;

    if (tally_remove(&split->tallies[kind], piece, &index->bytes) && kind == PIECE_WINDOW)
        split->window_lengths[piece >> 3] &= (uint8_t) ~(1u << (piece & 7));
    if (--split->children == 0)
        free_split(index, bucket);
}

/* Gives up buckets that have become empty, upwards, and one whose list has one member left. */
static void prune(struct pattern_index *index, struct pattern_bucket *bucket)
{
    while (bucket != &index->root && bucket->split == NULL && bucket->count == 0) {
        struct pattern_bucket *parent = bucket->parent;
        hash_index_remove(&index->table, bucket->hash, (uintptr_t)bucket);
        forget_child(index, parent, bucket->kind, bucket->piece);
        free_bucket(index, bucket);
        bucket = parent;
    }
    if (bucket != &index->root && bucket->split == NULL && bucket->count == 1)
        unmake_bucket(index, bucket);
}

static void remove_from_list(struct pattern_index *index, struct pattern_bucket *bucket,
                             uint32_t slot)
{
    struct pattern *last = bucket->members[--bucket->count];

    bucket->members[slot] = last;
    last->slot = slot;
    if (bucket->count < bucket->room / 4) {
        uint32_t room = bucket->room / 2;
        struct pattern **members = realloc(bucket->members, room * sizeof(*members));
        if (members == NULL)
            return;
        index->bytes -= (bucket->room - room) * sizeof(*members);
        bucket->members = members;
        bucket->room = room;
    }
}

void pattern_index_remove(struct pattern_index *index, struct pattern *pattern)
{
    struct pattern_bucket *bucket = pattern->parent;

    index->count--;
    index->weak -= pattern->weak;
    if (pattern->kind == PIECE_NONE) {
        remove_from_list(index, bucket, pattern->slot);
    } else {
        hash_index_remove(&index->table, pattern->hash, pattern_ref(pattern));
        forget_child(index, bucket, pattern->kind, pattern->piece);
    }
    prune(index, bucket);
}

void pattern_index_stats(const struct pattern_index *index, struct pattern_index_stats *stats)
{
    *stats = (struct pattern_index_stats){
        .patterns = index->count,
        .weak = index->weak,
        .bytes = sizeof(*index) + index->bytes + index->table.bytes,
        .candidates = index->candidates,
    };
}
