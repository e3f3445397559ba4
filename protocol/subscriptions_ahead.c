#include "subscriptions_internal.h"

/* Of fewer channels many look-ups cost no less together than one by one. */
enum { AHEAD_FROM = 16 };

/* Where the channels stand whose audience is not known: first all places, then all keys. */
static void look_for_keys(const struct subscriptions *table, struct subscriptions_ahead *ahead,
                          const uint8_t *unknown, size_t count)
{
    struct hash_cursor cursor;

    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(hash_index_place(&table->channels, ahead[unknown[i]].hash));
    for (size_t i = 0; i < count; i++) { /* by now the first places have come */
        struct subscriptions_ahead *one = &ahead[unknown[i]];
        one->likely =
            (struct subscription_key *)hash_index_first(&table->channels, one->hash, &cursor);
        if (one->likely != NULL)
            __builtin_prefetch((const char *)one->likely + KEY_MATCH_AT);
    }
}

void subscriptions_look_ahead(struct subscriptions *table, struct subscriptions_ahead *ahead,
                              size_t count)
{
    uint8_t unknown[SUBSCRIPTIONS_AHEAD];
    size_t unknown_count = 0;
    bool looks = table->channels.entries >= AHEAD_FROM, knows = table->busy.count > 0;

    audience_cache_begin(&table->busy, count, table->channels.entries);
    for (size_t i = 0; i < count; i++) {
        ahead[i].audience = NULL;
        ahead[i].likely = NULL;
        ahead[i].is_looked_up = looks;
    }
    if (!looks)
        return;
    for (size_t i = 0; i < count; i++) {
        ahead[i].hash = hash_bytes(&table->seed, ahead[i].channel, ahead[i].length);
        if (knows)
            __builtin_prefetch(audience_cache_set(&table->busy, ahead[i].hash));
    }
    for (size_t i = 0; i < count; i++) {
        if (knows)
            ahead[i].audience = audience_cache_find(&table->busy, ahead[i].hash);
        unknown[unknown_count] = (uint8_t)i;
        unknown_count += ahead[i].audience == NULL;
    }
    look_for_keys(table, ahead, unknown, unknown_count);
}

/* The key of a channel whose audience is not known. */
static struct subscription_key *key_ahead(struct subscriptions *table,
                                          const struct subscriptions_ahead *ahead)
{
    struct subscription_key *key = ahead->likely;

    if (key == NULL || subscriptions_is_named(key, ahead->channel, ahead->length))
        return key;
    return subscriptions_find_key(&table->channels, ahead->hash, ahead->channel, ahead->length);
}

/* Whether another channel has the same hash, all of it. */
static bool has_twin(const struct subscriptions *table, const struct subscription_key *key,
                     uint64_t hash)
{
    struct hash_cursor cursor;
    uintptr_t ref = hash_index_first(&table->channels, hash, &cursor);

    for (; ref != 0; ref = hash_index_next(&cursor))
        if (ref != (uintptr_t)key && subscriptions_hash_of_key(ref, &table->seed) == hash)
            return true;
    return false;
}

static void remember_audience(struct subscriptions *table, const struct subscription_key *key,
                              uint64_t hash)
{
    void *contexts[AUDIENCE_MAX];
    size_t count = 0;

    if (key->count > AUDIENCE_MAX || has_twin(table, key, hash))
        return;
    for (const struct subscription *s = key->subscriptions; s != NULL; s = s->next)
        contexts[count++] = s->context;
    audience_cache_put(&table->busy, hash, contexts, count);
}

struct match_contexts {
    subscriptions_context_fn callback;
    void *context;
};

static void on_key(struct subscription_key *key, void *context)
{
    const struct match_contexts *match = context;

    for (const struct subscription *s = key->subscriptions; s != NULL; s = s->next)
        match->callback(s->context, match->context);
}

static void match_channel(struct subscriptions *table, const struct subscriptions_ahead *ahead,
                          struct match_contexts *match)
{
    struct subscription_key *key;

    if (ahead->audience != NULL) {
        for (size_t i = 0; i < ahead->audience->count; i++)
            match->callback(ahead->audience->contexts[i], match->context);
        return;
    }
    key = ahead->is_looked_up ? key_ahead(table, ahead)
                              : subscriptions_key(table, ahead->channel, ahead->length, false);
    if (key == NULL)
        return;
    on_key(key, match);
    if (ahead->is_looked_up)
        remember_audience(table, key, ahead->hash);
}

void subscriptions_match_ahead(struct subscriptions *table, const struct subscriptions_ahead *ahead,
                               subscriptions_context_fn callback, void *context)
{
    struct match_contexts match = {callback, context};

    table->lookups++;
    table->matching++;
    match_channel(table, ahead, &match);
    if (table->patterns.entries > 0)
        subscriptions_match_patterns(table, ahead->channel, ahead->length, on_key, &match);
    table->matching--;
}
