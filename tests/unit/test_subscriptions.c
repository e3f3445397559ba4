#include "audience_cache.h"
#include "glob.h"
#include "subscriptions_fixture.h"
#include <stdio.h>
#include <stdlib.h>

static enum status try_subscribe(struct subscriptions *table, const char *name, bool is_pattern,
                                 struct subscriber *subscriber)
{
    struct subscription *result;
    bool created;

    return subscriptions_subscribe(table, name, strlen(name), is_pattern, subscriber, NULL, &result,
                                   &created);
}

static void count_call(struct subscription *s, void *context)
{
    (void)s;
    ++*(unsigned *)context;
}

static unsigned match_count(struct subscriptions *table, const char *channel)
{
    unsigned count = 0;

    subscriptions_match(table, channel, strlen(channel), count_call, &count);
    return count;
}

static void count_key(struct subscription_key *key, void *context)
{
    (void)key;
    ++*(unsigned *)context;
}

static unsigned key_count(struct subscriptions *table, const char *channel)
{
    unsigned count = 0;

    subscriptions_match_keys(table, channel, strlen(channel), count_key, &count);
    return count;
}

Test(subscriptions, exact_and_pattern_of_one_name_are_two_keys)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a;

    subscriber_init(&a);
    struct subscription *exact = subscribe(table, "a*", false, &a, "exact");
    struct subscription *pattern = subscribe(table, "a*", true, &a, "pattern");
    cr_assert_neq(exact->key, pattern->key);
    cr_assert_eq(match_count(table, "a*"), 2, "each subscription is served by itself");
    cr_assert_eq(match_count(table, "ab"), 1);
    cr_assert_eq(match_count(table, "b"), 0);
    cr_assert_eq(a.count, 2);
    subscriptions_remove(table, pattern);
    cr_assert_eq(match_count(table, "a*"), 1);
    cr_assert_null(subscriptions_key(table, "a*", 2, true));
    cr_assert_eq(subscriptions_key(table, "a*", 2, false), exact->key);
    subscriptions_free(table);
}

Test(subscriptions, first_and_last_subscriber_of_a_key_can_be_told)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a, b;

    subscriber_init(&a);
    subscriber_init(&b);
    struct subscription *first = subscribe(table, "c", false, &a, NULL);
    cr_assert_eq(first->key->count, 1);
    cr_assert_eq(first->key->label, 0);
    cr_assert_eq(first->key->serial, 0);
    first->key->label = 7;
    struct subscription *second = subscribe(table, "c", false, &b, NULL);
    cr_assert_eq(second->key->count, 2);
    cr_assert_eq(second->key->label, 7);
    subscriptions_remove(table, first);
    cr_assert_eq(second->key->count, 1);
    subscriptions_remove(table, second);
    cr_assert_null(subscriptions_key(table, "c", 1, false));
    struct subscription *again = subscribe(table, "c", false, &a, NULL);
    cr_assert_eq(again->key->label, 0, "a key that appears anew has no label");
    subscriptions_free(table);
}

Test(subscriptions, the_same_again_is_the_same_subscription)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscription *again;
    struct subscriber a;
    bool created;
    int one, two;

    subscriber_init(&a);
    struct subscription *s = subscribe(table, "c", false, &a, &one);
    cr_assert_eq(subscriptions_subscribe(table, "c", 1, false, &a, &two, &again, &created),
                 STATUS_OK);
    cr_assert_not(created);
    cr_assert_eq(again, s);
    cr_assert_eq(s->context, &one, "its context is left alone");
    cr_assert_eq(a.count, 1);
    cr_assert_eq(subscriptions_find(table, "c", 1, false, &a), s);
    cr_assert_null(subscriptions_find(table, "c", 1, true, &a));
    cr_assert_null(subscriptions_find(table, "d", 1, false, &a));
    subscriptions_free(table);
}

Test(subscriptions, match_is_once_per_subscription_and_match_keys_once_per_key)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a, b, c;

    subscriber_init(&a);
    subscriber_init(&b);
    subscriber_init(&c);
    subscribe(table, "room:1", false, &a, NULL);
    subscribe(table, "room:1", false, &b, NULL);
    subscribe(table, "room:*", true, &b, NULL);
    subscribe(table, "room:*", true, &c, NULL);
    subscribe(table, "*", true, &c, NULL);
    cr_assert_eq(match_count(table, "room:1"), 5);
    cr_assert_eq(key_count(table, "room:1"), 3);
    cr_assert_eq(match_count(table, "room:2"), 3);
    cr_assert_eq(key_count(table, "x"), 1);
    subscriptions_free(table);
}

Test(subscriptions, names_are_copied_and_have_any_bytes)
{
    struct subscriptions *table = subscriptions_new(seed);
    char name[] = "a\0b";
    struct subscription *s;
    struct subscriber a;
    bool created;

    subscriber_init(&a);
    cr_assert_eq(subscriptions_subscribe(table, name, 3, false, &a, NULL, &s, &created), STATUS_OK);
    memset(name, 'x', 3);
    cr_assert_eq(s->key->length, 3);
    cr_assert_eq(memcmp(s->key->name, "a\0b", 3), 0);
    cr_assert_not_null(subscriptions_key(table, "a\0b", 3, false));
    cr_assert_null(subscriptions_key(table, "a\0c", 3, false));
    cr_assert_null(subscriptions_key(table, "a", 1, false));
    cr_assert_eq(subscriptions_subscribe(table, "", 0, false, &a, NULL, &s, &created), STATUS_OK);
    cr_assert_eq(match_count(table, ""), 1);
    subscriptions_free(table);
}

Test(subscriptions, what_cannot_be_is_refused)
{
    static char name[4097];
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a;

    subscriber_init(&a);
    memset(name, 'a', 4096);
    cr_assert_eq(try_subscribe(table, name, false, &a), STATUS_OK);
    cr_assert_eq(try_subscribe(table, name, true, &a), STATUS_OK);
    struct subscription *result;
    bool created;
    for (int is_pattern = 0; is_pattern < 2; is_pattern++)
        cr_assert_eq(
            subscriptions_subscribe(table, name, 4097, is_pattern, &a, NULL, &result, &created),
            STATUS_CHANNEL_LENGTH);
    cr_assert_eq(try_subscribe(table, "a[", true, &a), STATUS_PATTERN);
    cr_assert_eq(try_subscribe(table, "a[]", true, &a), STATUS_PATTERN);
    cr_assert_eq(try_subscribe(table, "a[", false, &a), STATUS_OK, "a channel is not a pattern");
    cr_assert_eq(a.count, 3);
    subscriptions_free(table);
}

Test(subscriptions, weak_patterns_have_a_quota_for_each_and_for_all)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriptions_stats stats;
    struct subscriber a, b;

    subscriber_init(&a);
    subscriber_init(&b);
    subscriptions_set_quota(table, 3, 2);
    struct subscription *weak = subscribe(table, "?", true, &a, NULL);
    subscribe(table, "??", true, &a, NULL);
    cr_assert_eq(try_subscribe(table, "???", true, &a), STATUS_WEAK_PATTERN, "two for each");
    subscribe(table, "a*", true, &a, NULL);
    subscribe(table, "???", true, &b, NULL);
    cr_assert_eq(try_subscribe(table, "????", true, &b), STATUS_WEAK_PATTERN, "three in all");
    cr_assert_eq(try_subscribe(table, "?", true, &b), STATUS_OK, "one that is there costs nothing");
    cr_assert_eq(try_subscribe(table, "??", true, &b), STATUS_WEAK_PATTERN, "but counts for each");
    cr_assert_eq(b.count, 2);
    subscriptions_stats(table, &stats);
    cr_assert_eq(stats.weak_patterns, 3);
    cr_assert_eq(stats.patterns, 4);
    subscriptions_remove(table, weak);
    cr_assert_eq(a.weak, 1);
    subscriptions_remove(table, subscriptions_find(table, "?", 1, true, &b));
    cr_assert_eq(try_subscribe(table, "????", true, &a), STATUS_OK, "there is room again");
    subscriptions_free(table);
}

static void subscribe_within(struct subscription *s, void *context)
{
    struct subscriptions *table = context;

    cr_assert_eq(try_subscribe(table, "new", false, s->subscriber), STATUS_FULL);
    cr_assert_eq(match_count(table, "other"), 1, "a look-up within is fine");
    cr_assert_eq(try_subscribe(table, "new", true, s->subscriber), STATUS_FULL);
}

Test(subscriptions, a_change_from_a_match_callback_is_refused)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a;

    subscriber_init(&a);
    subscribe(table, "c", false, &a, NULL);
    subscribe(table, "other", false, &a, NULL);
    subscriptions_match(table, "c", 1, subscribe_within, table);
    cr_assert_eq(try_subscribe(table, "new", false, &a), STATUS_OK);
    subscriptions_free(table);
}

static void note_order(struct subscription_key *key, void *context)
{
    bool *patterns_began = context;

    cr_assert(key->is_pattern || !*patterns_began, "exact ones first");
    *patterns_began = key->is_pattern;
    key->serial++;
}

Test(subscriptions, each_key_is_visited_once_exact_ones_first)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a;
    bool patterns_began = false;
    char name[32];

    subscriber_init(&a);
    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "user:%d:*", i);
        subscribe(table, name, i % 3 == 0, &a, NULL);
    }
    subscriptions_each_key(table, note_order, &patterns_began);
    for (struct subscription *s = a.first; s != NULL; s = s->next_own)
        cr_assert_eq(s->key->serial, 1);
    subscriptions_free(table);
}

Test(subscriptions, memory_comes_back_after_many_channels)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriptions_stats before, full, after;
    struct subscriber a;
    char name[32];

    subscriber_init(&a);
    subscriptions_stats(table, &before);
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof(name), "channel:%d", i);
        subscribe(table, name, i % 2, &a, NULL);
    }
    subscriptions_stats(table, &full);
    cr_assert_eq(full.channels + full.patterns, 100000);
    cr_assert_eq(full.subscriptions, 100000);
    cr_assert_gt(full.bytes, 100000 * 100);
    while (a.first != NULL)
        subscriptions_remove(table, a.first);
    subscriptions_stats(table, &after);
    cr_assert_eq(after.subscriptions, 0);
    cr_assert_eq(a.count, 0);
    cr_assert_lt(after.bytes, before.bytes + 65536, "%zu bytes left", after.bytes);
    subscriptions_free(table);
}

/* Around what fits into one cache line, two, three, and of no bytes at all. */
static void subscribe_to_all_lengths(bool is_pattern)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriptions_stats before, after;
    struct subscriber a;
    char name[CHANNEL_LENGTH_MAX + 1];

    subscriber_init(&a);
    subscriptions_stats(table, &before);
    memset(name, 'x', sizeof(name));
    for (unsigned length = 0; length <= CHANNEL_LENGTH_MAX; length += length < 400 ? 1 : 616) {
        name[length] = '\0';
        const struct subscription *s = subscribe(table, name, is_pattern, &a, NULL);
        cr_assert_eq(s->key->length, length);
        cr_assert_eq(memcmp(s->key->name, name, length), 0);
        cr_assert_eq(s, &s->key->own, "the first of a key needs no memory of its own");
        cr_assert_eq(match_count(table, name), 1);
        name[length] = 'x';
    }
    while (a.first != NULL)
        subscriptions_remove(table, a.first);
    subscriptions_stats(table, &after);
    cr_assert_lt(after.bytes, before.bytes + 65536, "%zu bytes left", after.bytes);
    subscriptions_free(table);
}

Test(subscriptions, channels_and_patterns_of_all_lengths)
{
    subscribe_to_all_lengths(false);
    subscribe_to_all_lengths(true);
}

/* The model: an array of all subscriptions, matched one by one. */
enum { SUBSCRIBERS = 12, NAMES = 400 };
static struct subscriber subscribers[SUBSCRIBERS];
static struct {
    char text[24];
    bool is_pattern;
} names[NAMES];
static bool wanted[NAMES][SUBSCRIBERS];
static unsigned seen[NAMES][SUBSCRIBERS], seen_ahead[NAMES];
static size_t known; /* audiences of several, looked up ahead */

static void note_match(struct subscription *s, void *context)
{
    (void)context;
    cr_assert_eq(s->key->length, strlen(names[(size_t)s->context].text));
    seen[(size_t)s->context][s->subscriber - subscribers]++;
}

static void random_names(unsigned *random)
{
    static const char *forms[] = {"u:%d", "u:%d:*",      "*:%d",   "*%d*", "u:*:%d",
                                  "?:%d", "[a-v]:%d:?*", "a*%d*b", "*",    "u:%d?"};

    for (size_t i = 0; i < NAMES;) {
        size_t same = 0;
        snprintf(names[i].text, sizeof(names[i].text), forms[(size_t)rand_r(random) % 10],
                 rand_r(random) % 60);
        names[i].is_pattern = rand_r(random) % 4 != 0;
        while (same < i && (strcmp(names[i].text, names[same].text) != 0 ||
                            names[i].is_pattern != names[same].is_pattern))
            same++;
        i += same == i; /* else drawn again */
    }
}

static void change(struct subscriptions *table, size_t name, size_t who)
{
    struct subscription *s;
    bool created;

    s = subscriptions_find(table, names[name].text, strlen(names[name].text),
                           names[name].is_pattern, &subscribers[who]);
    cr_assert_eq(s != NULL, wanted[name][who]);
    if (s != NULL) {
        subscriptions_remove(table, s);
    } else {
        cr_assert_eq(subscriptions_subscribe(table, names[name].text, strlen(names[name].text),
                                             names[name].is_pattern, &subscribers[who],
                                             (void *)name, &s, &created),
                     STATUS_OK);
        cr_assert(created);
    }
    wanted[name][who] = !wanted[name][who];
}

static void note_ahead(void *name, void *context)
{
    (void)context;
    seen_ahead[(size_t)name]++;
}

/* Twice: the second time the audience is known. */
static void look_up_ahead(struct subscriptions *table, const char *channel)
{
    for (int i = 0; i < 2; i++) {
        struct subscriptions_ahead ahead = ahead_of(channel, strlen(channel));
        memset(seen_ahead, 0, sizeof(seen_ahead));
        subscriptions_look_ahead(table, &ahead, 1);
        subscriptions_match_ahead(table, &ahead, note_ahead, NULL);
        for (size_t name = 0; name < NAMES; name++) {
            unsigned all = 0;
            for (size_t who = 0; who < SUBSCRIBERS; who++)
                all += seen[name][who];
            cr_assert_eq(seen_ahead[name], all, "%s : %s", names[name].text, channel);
        }
        known += ahead.audience != NULL && ahead.audience->count > 1;
    }
}

static void look_up(struct subscriptions *table, const char *channel)
{
    memset(seen, 0, sizeof(seen));
    subscriptions_match(table, channel, strlen(channel), note_match, NULL);
    for (size_t i = 0; i < NAMES; i++) {
        size_t length = strlen(names[i].text);
        bool matches = names[i].is_pattern
                           ? glob_match(names[i].text, length, channel, strlen(channel))
                           : strcmp(names[i].text, channel) == 0;
        for (size_t who = 0; who < SUBSCRIBERS; who++)
            cr_assert_eq(seen[i][who], matches && wanted[i][who], "%s : %s", names[i].text,
                         channel);
    }
}

Test(subscriptions, random_run_against_a_naive_model, .timeout = 600)
{
    struct subscriptions *table = subscriptions_new(seed);
    unsigned random = 5;
    char channel[40];

    subscriptions_set_quota(table, NAMES, NAMES);
    /* rises to all, falls to none, several times */
    random_names(&random);
    for (int round = 0; round < 120000; round++) {
        size_t name = (size_t)rand_r(&random) % NAMES, who = (size_t)rand_r(&random) % SUBSCRIBERS;
        bool rising = round / 20000 % 2 == 0;
        if (wanted[name][who] != rising || rand_r(&random) % 4 == 0)
            change(table, name, who);
        if (round % 40 != 0)
            continue;
        snprintf(channel, sizeof(channel), rand_r(&random) % 2 ? "u:%d:%d" : "u:%d",
                 rand_r(&random) % 60, rand_r(&random) % 60);
        if (rand_r(&random) % 8 == 0)
            snprintf(channel, sizeof(channel), "a12b");
        look_up(table, channel);
        look_up_ahead(table, channel);
        look_up(table, names[name].text);
        look_up_ahead(table, names[name].text);
    }
    cr_assert_gt(known, 100);
    subscriptions_free(table);
}
