#include "subscription_keys.h"
#include <stdlib.h>
#include <string.h>

_Static_assert((int)KEY_MATCH_AT == (int)CACHE_LINE, "a match reads one line");

void key_memory_init(struct key_memory *memory)
{
    *memory = (struct key_memory){0};
    for (unsigned lines = CHANNEL_LINES_LEAST; lines <= CHANNEL_LINES_MOST; lines++)
        slots_init(&memory->channels[lines], lines);
}

size_t key_memory_bytes(const struct key_memory *memory)
{
    size_t bytes = memory->bytes;

    for (unsigned lines = CHANNEL_LINES_LEAST; lines <= CHANNEL_LINES_MOST; lines++)
        bytes += memory->channels[lines].bytes;
    return bytes;
}

static unsigned lines_of(size_t length)
{
    return (unsigned)((offsetof(struct channel, text) + length + CACHE_LINE - 1) / CACHE_LINE);
}

static size_t pattern_size(size_t length)
{
    return offsetof(struct pattern, text) + length;
}

/* Zeroed but for its text. */
static struct subscription_key *new_channel(struct key_memory *memory, size_t length)
{
    unsigned lines = lines_of(length);
    struct channel *channel;
    uint8_t slot = 0;

    if (lines <= CHANNEL_LINES_MOST) {
        channel = slots_take(&memory->channels[lines], &slot);
    } else {
        channel = aligned_alloc(CACHE_LINE, (size_t)lines * CACHE_LINE);
        memory->bytes += channel == NULL ? 0 : key_allocated((size_t)lines * CACHE_LINE);
    }
    if (channel == NULL)
        return NULL;
    channel->key = (struct subscription_key){.name = channel->text, .slot = slot};
    return &channel->key;
}

static struct subscription_key *new_pattern(struct key_memory *memory, size_t length)
{
    struct pattern *pattern = malloc(pattern_size(length));

    if (pattern == NULL)
        return NULL;
    memory->bytes += key_allocated(pattern_size(length));
    memset(pattern, 0, pattern_size(0)); /* not the padding behind: there is the text */
    pattern->key.name = pattern->text;
    pattern->key.is_pattern = true;
    return &pattern->key;
}

struct subscription_key *key_new(struct key_memory *memory, const void *name, size_t length,
                                 bool is_pattern)
{
    struct subscription_key *key =
        is_pattern ? new_pattern(memory, length) : new_channel(memory, length);

    if (key == NULL)
        return NULL;
    key->length = (uint16_t)length;
    if (length > 0)
        memcpy((uint8_t *)(uintptr_t)key->name, name, length);
    return key;
}

void key_free(struct key_memory *memory, struct subscription_key *key)
{
    unsigned lines = lines_of(key->length);

    if (key->is_pattern) {
        memory->bytes -= key_allocated(pattern_size(key->length));
        free(key_pattern(key));
    } else if (lines <= CHANNEL_LINES_MOST) {
        slots_give(&memory->channels[lines], key, key->slot);
    } else {
        memory->bytes -= key_allocated((size_t)lines * CACHE_LINE);
        free(key);
    }
}
