#include "glob.h"
#include "subscriptions_internal.h"
#include <assert.h>
#include <stdlib.h>

/* A key's own subscription is in use when it has a subscriber. */
static void free_subscription(struct subscription *s)
{
    if (s == &s->key->own)
        s->subscriber = NULL;
    else
        free(s);
}

uint64_t subscriptions_hash_of_key(uintptr_t ref, const void *context)
{
    const struct subscription_key *key = (const struct subscription_key *)ref;

    return hash_bytes(context, key_text(key), key->length);
}

struct subscriptions *subscriptions_new(const uint8_t seed[16])
{
    struct subscriptions *table = calloc(1, sizeof(*table));

    if (table == NULL)
        return NULL;
    table->seed = (struct hash_seed){get_u64le(seed), get_u64le(seed + 8)};
    table->index = pattern_index_new(&table->seed);
    if (table->index == NULL) {
        free(table);
        return NULL;
    }
    hash_index_init(&table->channels, subscriptions_hash_of_key, &table->seed, KEY_MATCH_AT);
    hash_index_init(&table->patterns, subscriptions_hash_of_key, &table->seed, KEY_MATCH_AT);
    key_memory_init(&table->memory);
    audience_cache_init(&table->busy);
    table->weak_all = 4096;
    table->weak_each = 64;
    return table;
}

static void drop_key(uintptr_t ref, void *context)
{
    struct subscription_key *key = (struct subscription_key *)ref;

    while (key->subscriptions != NULL) {
        struct subscription *next = key->subscriptions->next;
        free_subscription(key->subscriptions);
        key->subscriptions = next;
    }
    key_free(context, key);
}

void subscriptions_free(struct subscriptions *table)
{
    if (table == NULL)
        return;
    hash_index_each(&table->channels, drop_key, &table->memory);
    hash_index_each(&table->patterns, drop_key, &table->memory);
    hash_index_release(&table->channels);
    hash_index_release(&table->patterns);
    pattern_index_free(table->index);
    audience_cache_release(&table->busy);
    free(table);
}

struct subscription_key *subscriptions_key(struct subscriptions *table, const void *name,
                                           size_t length, bool is_pattern)
{
    return subscriptions_find_key(is_pattern ? &table->patterns : &table->channels,
                                  hash_bytes(&table->seed, name, length), name, length);
}

/* Walks the shorter of the two lists on which the subscription would be. */
static struct subscription *find_of(const struct subscription_key *key,
                                    const struct subscriber *subscriber)
{
    struct subscription *s;

    if (key->count < subscriber->count) {
        for (s = key->subscriptions; s != NULL && s->subscriber != subscriber; s = s->next)
            ;
    } else {
        for (s = subscriber->first; s != NULL && s->key != key; s = s->next_own)
            ;
    }
    return s;
}

struct subscription *subscriptions_find(struct subscriptions *table, const void *name,
                                        size_t length, bool is_pattern,
                                        const struct subscriber *subscriber)
{
    struct subscription_key *key = subscriptions_key(table, name, length, is_pattern);

    return key == NULL ? NULL : find_of(key, subscriber);
}

static bool is_weak(const struct subscription_key *key)
{
    return key->is_pattern && key_pattern(key)->weak;
}

/* Makes a key and files it. */
static enum status add_key(struct subscriptions *table, const void *name, size_t length,
                           bool is_pattern, bool allow_weak, struct subscription_key **result)
{
    struct hash_index *keys = is_pattern ? &table->patterns : &table->channels;
    struct subscription_key *key = key_new(&table->memory, name, length, is_pattern);
    uint64_t hash = hash_bytes(&table->seed, name, length);
    enum status status;

    if (key == NULL)
        return STATUS_NO_MEMORY;
    if (!hash_index_insert(keys, hash, (uintptr_t)key)) {
        key_free(&table->memory, key);
        return STATUS_NO_MEMORY;
    }
    if (is_pattern) {
        status = pattern_index_insert(table->index, key_pattern(key), allow_weak);
        if (status != STATUS_OK) {
            hash_index_remove(keys, hash, (uintptr_t)key);
            key_free(&table->memory, key);
            return status;
        }
    }
    *result = key;
    return STATUS_OK;
}

static void remove_key(struct subscriptions *table, struct subscription_key *key)
{
    if (key->is_pattern)
        pattern_index_remove(table->index, key_pattern(key));
    hash_index_remove(key->is_pattern ? &table->patterns : &table->channels,
                      hash_bytes(&table->seed, key->name, key->length), (uintptr_t)key);
    key_free(&table->memory, key);
}

/* Who receives a channel's messages has changed or is about to. */
static void forget_audience(struct subscriptions *table, const struct subscription_key *key)
{
    if (!key->is_pattern && table->busy.count > 0)
        audience_cache_forget(&table->busy, hash_bytes(&table->seed, key_text(key), key->length));
}

static void link_in(struct subscription *s, struct subscription_key *key,
                    struct subscriber *subscriber)
{
    s->key = key;
    s->previous = NULL;
    s->next = key->subscriptions;
    if (s->next != NULL)
        s->next->previous = s;
    key->subscriptions = s;
    key->count++;

    s->subscriber = subscriber;
    s->previous_own = NULL;
    s->next_own = subscriber->first;
    if (s->next_own != NULL)
        s->next_own->previous_own = s;
    subscriber->first = s;
    subscriber->count++;
    subscriber->weak += is_weak(key);
}

static void link_out(struct subscription *s)
{
    struct subscription_key *key = s->key;
    struct subscriber *subscriber = s->subscriber;

    if (s->next != NULL)
        s->next->previous = s->previous;
    if (s->previous != NULL)
        s->previous->next = s->next;
    else
        key->subscriptions = s->next;
    key->count--;

    if (s->next_own != NULL)
        s->next_own->previous_own = s->previous_own;
    if (s->previous_own != NULL)
        s->previous_own->next_own = s->next_own;
    else
        subscriber->first = s->next_own;
    subscriber->count--;
    subscriber->weak -= is_weak(key);
}

/* Finds the key or makes it; *result is NULL when the subscriber may not have it. */
static enum status provide_key(struct subscriptions *table, const void *name, size_t length,
                               bool is_pattern, const struct subscriber *subscriber,
                               struct subscription_key **result)
{
    struct pattern_index_stats stats;
    bool own_quota = subscriber->weak < table->weak_each;
    enum status status;

    *result = subscriptions_key(table, name, length, is_pattern);
    if (*result != NULL)
        return STATUS_OK;
    if (length > CHANNEL_LENGTH_MAX)
        return STATUS_CHANNEL_LENGTH;
    if (!is_pattern)
        return add_key(table, name, length, false, true, result);
    status = glob_check(name, length);
    if (status != STATUS_OK)
        return status;
    pattern_index_stats(table->index, &stats);
    return add_key(table, name, length, true, own_quota && stats.weak < table->weak_all, result);
}

enum status subscriptions_subscribe(struct subscriptions *table, const void *name, size_t length,
                                    bool is_pattern, struct subscriber *subscriber, void *context,
                                    struct subscription **result, bool *created)
{
    struct subscription_key *key;
    struct subscription *s;
    enum status status;

    *result = NULL;
    *created = false;
    if (table->matching > 0)
        return STATUS_FULL;
    status = provide_key(table, name, length, is_pattern, subscriber, &key);
    if (status != STATUS_OK)
        return status;
    if (key->count > 0) {
        *result = find_of(key, subscriber);
        if (*result != NULL)
            return STATUS_OK;
        if (is_weak(key) && subscriber->weak >= table->weak_each)
            return STATUS_WEAK_PATTERN;
    }
    s = &key->own;
    if (s->subscriber != NULL) {
        s = malloc(sizeof(*s));
        if (s == NULL)
            return STATUS_NO_MEMORY;
        table->bytes += key_allocated(sizeof(*s));
    }
    s->context = context;
    link_in(s, key, subscriber);
    forget_audience(table, key);
    table->subscriptions++;
    *result = s;
    *created = true;
    return STATUS_OK;
}

void subscriptions_remove(struct subscriptions *table, struct subscription *subscription)
{
    struct subscription_key *key = subscription->key;

    assert(table->matching == 0);
    if (table->matching > 0)
        return;
    link_out(subscription);
    forget_audience(table, key);
    if (subscription != &key->own)
        table->bytes -= key_allocated(sizeof(*subscription));
    free_subscription(subscription);
    table->subscriptions--;
    if (key->count == 0)
        remove_key(table, key);
}

struct match_keys {
    subscriptions_key_fn callback;
    void *context;
};

static void on_pattern_key(struct pattern *pattern, void *context)
{
    const struct match_keys *match = context;

    match->callback(&pattern->key, match->context);
}

void subscriptions_match_patterns(struct subscriptions *table, const void *channel, size_t length,
                                  subscriptions_key_fn callback, void *context)
{
    pattern_index_match(table->index, channel, length, on_pattern_key,
                        &(struct match_keys){callback, context});
}

void subscriptions_match_keys(struct subscriptions *table, const void *channel, size_t length,
                              subscriptions_key_fn callback, void *context)
{
    struct subscription_key *key = subscriptions_key(table, channel, length, false);

    table->lookups++;
    table->matching++;
    if (key != NULL)
        callback(key, context);
    if (table->patterns.entries > 0)
        subscriptions_match_patterns(table, channel, length, callback, context);
    table->matching--;
}

struct match_subscriptions {
    subscriptions_match_fn callback;
    void *context;
};

static void on_key(struct subscription_key *key, void *context)
{
    const struct match_subscriptions *match = context;

    for (struct subscription *s = key->subscriptions; s != NULL; s = s->next)
        match->callback(s, match->context);
}

void subscriptions_match(struct subscriptions *table, const void *channel, size_t length,
                         subscriptions_match_fn callback, void *context)
{
    subscriptions_match_keys(table, channel, length, on_key,
                             &(struct match_subscriptions){callback, context});
}

static void each_key(uintptr_t ref, void *context)
{
    const struct match_keys *each = context;

    each->callback((struct subscription_key *)ref, each->context);
}

void subscriptions_each_key(struct subscriptions *table, subscriptions_key_fn callback,
                            void *context)
{
    struct match_keys each = {callback, context};

    table->matching++;
    hash_index_each(&table->channels, each_key, &each);
    hash_index_each(&table->patterns, each_key, &each);
    table->matching--;
}

void subscriptions_stats(const struct subscriptions *table, struct subscriptions_stats *stats)
{
    struct pattern_index_stats patterns;

    pattern_index_stats(table->index, &patterns);
    *stats = (struct subscriptions_stats){
        .channels = table->channels.entries,
        .patterns = table->patterns.entries,
        .weak_patterns = patterns.weak,
        .subscriptions = table->subscriptions,
        .bytes = sizeof(*table) + table->bytes + table->channels.bytes + table->patterns.bytes +
                 patterns.bytes + key_memory_bytes(&table->memory) +
                 audience_cache_bytes(&table->busy),
        .lookups = table->lookups,
        .candidates = patterns.candidates,
    };
}

void subscriptions_set_quota(struct subscriptions *table, uint32_t all, uint32_t each)
{
    table->weak_all = all;
    table->weak_each = each;
}
