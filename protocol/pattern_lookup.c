#include "pattern_bucket.h"

/*
 * A look-up works in rounds, to have many cache misses under way at once: it collects keys to ask
 * for and begins to load their hash buckets, then collects what is filed there and begins to load
 * that, and only then looks at it.
 */
enum { ROUND = 32, SEEN_MAX = 32, SHORT_SEARCH = 32 };

struct lookup {
    struct pattern_index *index;
    const uint8_t *channel;
    size_t length;
    pattern_fn callback;
    void *context;
    uint64_t candidates;
};

struct probe {
    uint64_t hash;
    uint16_t at, length; /* of a window in the channel; length 0 for a prefix or suffix */
};

struct round { /* of one bucket */
    struct lookup *lookup;
    unsigned count, seen_count;
    struct probe probes[ROUND];
    uintptr_t seen[SEEN_MAX]; /* what was found under windows, which may occur twice */
};

/* memmem, which has a high price for its start, when there is little to search in. */
static const uint8_t *find_text(const uint8_t *at, const uint8_t *end, const uint8_t *text,
                                size_t length)
{
    if ((size_t)(end - at) > SHORT_SEARCH)
        return memmem(at, (size_t)(end - at), text, length);
    for (; (size_t)(end - at) >= length; at++)
        if (*at == *text && memcmp(at, text, length) == 0)
            return at;
    return NULL;
}

/* Text between stars, only bytes that stand for themselves. */
static bool middle_matches(const uint8_t *text, const uint8_t *text_end, const uint8_t *at,
                           const uint8_t *end)
{
    while (text < text_end) {
        const uint8_t *star = text;
        size_t length;
        while (star < text_end && *star != '*')
            star++;
        length = (size_t)(star - text);
        if (length > 0) {
            at = find_text(at, end, text, length);
            if (at == NULL)
                return false;
            at += length;
        }
        text = star + 1;
    }
    return true;
}

static bool pattern_matches(const struct pattern *p, const uint8_t *channel, size_t length)
{
    if (length < p->least || (length > p->least && p->shape <= SHAPE_FIXED))
        return false;
    if (p->shape == SHAPE_GENERAL || p->shape == SHAPE_FIXED)
        return glob_match(p->text, p->key.length, channel, length);
    if (p->shape == SHAPE_EXACT)
        return memcmp(p->text, channel, length) == 0;
    if (memcmp(p->text, channel, p->prefix) != 0 ||
        memcmp(p->text + p->key.length - p->suffix, channel + length - p->suffix, p->suffix) != 0)
        return false;
    return p->shape == SHAPE_STAR ||
           middle_matches(p->text + p->prefix, p->text + p->key.length - p->suffix,
                          channel + p->prefix, channel + length - p->suffix);
}

static inline void verify(struct lookup *l, struct pattern *pattern)
{
    l->candidates++;
    if (pattern_matches(pattern, l->channel, l->length))
        l->callback(pattern, l->context);
}

static void visit(struct lookup *l, const struct pattern_bucket *bucket);

/* Was this found before, under the same window further left? */
static bool is_repeated(struct round *round, const struct probe *probe, uintptr_t ref)
{
    const struct lookup *l = round->lookup;

    for (unsigned i = 0; i < round->seen_count; i++)
        if (round->seen[i] == ref)
            return true;
    if (round->seen_count < SEEN_MAX) {
        round->seen[round->seen_count++] = ref;
        return false;
    }
    return memmem(l->channel, (size_t)probe->at + probe->length - 1, l->channel + probe->at,
                  probe->length) != NULL;
}

static void look_at(struct round *round, const struct probe *probe, uintptr_t ref)
{
    if (ref_hash(ref) != probe->hash || (probe->length > 0 && is_repeated(round, probe, ref)))
        return;
    if (ref_is_pattern(ref))
        verify(round->lookup, ref_pattern(ref));
    else
        visit(round->lookup, ref_bucket(ref));
}

static void finish_round(struct round *round)
{
    struct {
        uintptr_t ref;
        const struct probe *probe;
    } found[ROUND];
    unsigned count = 0;

    for (unsigned i = 0; i < round->count; i++) {
        const struct probe *probe = &round->probes[i];
        struct hash_cursor cursor;
        uintptr_t ref = hash_index_first(&round->lookup->index->table, probe->hash, &cursor);
        for (; ref != 0; ref = hash_index_next(&cursor)) {
            if (count == ROUND) { /* only when a tag agrees by chance */
                look_at(round, probe, ref);
                continue;
            }
            __builtin_prefetch((const char *)ref - 24);
            __builtin_prefetch((const char *)ref + 40);
            found[count].ref = ref;
            found[count++].probe = probe;
        }
    }
    for (unsigned i = 0; i < count; i++)
        look_at(round, found[i].probe, found[i].ref);
    round->count = 0;
}

static inline void ask(struct round *round, uint64_t hash, size_t at, size_t length)
{
    if (round->count == ROUND)
        finish_round(round);
    __builtin_prefetch(hash_index_place(&round->lookup->index->table, hash));
    round->probes[round->count++] = (struct probe){hash, (uint16_t)at, (uint16_t)length};
}

/* Is there a piece of that length which begins and ends as the channel would have it? */
static inline bool may_have(const struct tally_entry *entry, const uint8_t *piece)
{
    return (entry->marks & piece_mark(piece[0], piece[entry->id - 1])) != 0;
}

static void ask_ends(struct round *round, const struct pattern_bucket *bucket)
{
    const struct lookup *l = round->lookup;
    const struct hash_seed *seed = &l->index->seed;
    const struct tally *prefixes = &bucket->split->tallies[PIECE_PREFIX];
    const struct tally *suffixes = &bucket->split->tallies[PIECE_SUFFIX];
    const uint8_t *end = l->channel + l->length;
    struct piece_hasher hasher = piece_hasher_begin(bucket->salt, PIECE_PREFIX);

    for (unsigned i = 0; i < prefixes->used && prefixes->entries[i].id <= l->length; i++)
        if (may_have(&prefixes->entries[i], l->channel))
            ask(round, prefix_hash(&hasher, seed, l->channel, prefixes->entries[i].id), 0, 0);
    hasher = piece_hasher_begin(bucket->salt, PIECE_SUFFIX);
    for (unsigned i = 0; i < suffixes->used && suffixes->entries[i].id <= l->length; i++)
        if (may_have(&suffixes->entries[i], end - suffixes->entries[i].id))
            ask(round, suffix_hash(&hasher, seed, end, suffixes->entries[i].id), 0, 0);
}

static void ask_windows(struct round *round, const struct pattern_bucket *bucket)
{
    const struct lookup *l = round->lookup;
    const uint8_t *lengths = bucket->split->window_lengths;

    for (size_t at = 0; at < l->length; at++) {
        unsigned mask = lengths[l->channel[at]];
        uint64_t window;
        if (mask == 0)
            continue;
        window = window_load(l->channel, l->length, at);
        for (; mask != 0; mask &= mask - 1) {
            size_t length = (size_t)__builtin_ctz(mask) + 1;
            if (at + length > l->length)
                break;
            ask(round,
                window_hash(bucket->salt, &l->index->seed, window_cut(window, length), length), at,
                length);
        }
    }
}

static void visit(struct lookup *l, const struct pattern_bucket *bucket)
{
    struct round round;

    for (uint32_t i = 0; i < bucket->count; i++)
        __builtin_prefetch(bucket->members[i]->text);
    for (uint32_t i = 0; i < bucket->count; i++)
        verify(l, bucket->members[i]);
    if (bucket->split == NULL)
        return;
    round.lookup = l;
    round.count = round.seen_count = 0;
    ask_ends(&round, bucket);
    if (bucket->split->tallies[PIECE_WINDOW].used > 0)
        ask_windows(&round, bucket);
    finish_round(&round);
}

void pattern_index_match(struct pattern_index *index, const uint8_t *channel, size_t length,
                         pattern_fn callback, void *context)
{
    struct lookup l = {index, channel, length, callback, context, 0};

    visit(&l, &index->root);
    index->candidates += l.candidates;
}
