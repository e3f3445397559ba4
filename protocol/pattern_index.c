#include "pattern_index.h"
#include "glob.h"
#include <stdlib.h>

struct pattern_index {
    struct pattern **list;
    size_t count, room, weak;
    uint64_t candidates;
};

struct pattern_index *pattern_index_new(const struct hash_seed *seed)
{
    (void)seed;
    return calloc(1, sizeof(struct pattern_index));
}

void pattern_index_free(struct pattern_index *index)
{
    if (index == NULL)
        return;
    free(index->list);
    free(index);
}

/* No byte of it is certain to be in a channel that matches. */
static bool is_weak(const struct pattern *pattern)
{
    for (size_t i = 0; i < pattern->key.length; i++)
        if (pattern->text[i] != '*' && pattern->text[i] != '?')
            return false;
    return true;
}

enum status pattern_index_insert(struct pattern_index *index, struct pattern *pattern,
                                 bool allow_weak)
{
    pattern->weak = is_weak(pattern);
    if (pattern->weak && !allow_weak)
        return STATUS_WEAK_PATTERN;
    if (index->count == index->room) {
        size_t room = index->room == 0 ? 8 : 2 * index->room;
        struct pattern **list = realloc(index->list, room * sizeof(*list));
        if (list == NULL)
            return STATUS_NO_MEMORY;
        index->list = list;
        index->room = room;
    }
    pattern->slot = (uint32_t)index->count;
    index->list[index->count++] = pattern;
    index->weak += pattern->weak;
    return STATUS_OK;
}

void pattern_index_remove(struct pattern_index *index, struct pattern *pattern)
{
    struct pattern *last = index->list[--index->count];

    index->list[pattern->slot] = last;
    last->slot = pattern->slot;
    index->weak -= pattern->weak;
    if (index->room > 8 && index->count < index->room / 4) {
        struct pattern **list = realloc(index->list, index->room / 2 * sizeof(*list));
        if (list != NULL) {
            index->list = list;
            index->room /= 2;
        }
    }
}

void pattern_index_match(struct pattern_index *index, const uint8_t *channel, size_t length,
                         pattern_fn callback, void *context)
{
    index->candidates += index->count;
    for (size_t i = 0; i < index->count; i++) {
        struct pattern *pattern = index->list[i];
        if (glob_match(pattern->text, pattern->key.length, channel, length))
            callback(pattern, context);
    }
}

bool pattern_index_step(struct pattern_index *index, unsigned n)
{
    (void)index;
    (void)n;
    return false;
}

void pattern_index_stats(const struct pattern_index *index, struct pattern_index_stats *stats)
{
    *stats = (struct pattern_index_stats){
        .patterns = index->count,
        .weak = index->weak,
        .bytes = sizeof(*index) + index->room * sizeof(*index->list),
        .candidates = index->candidates,
    };
}
