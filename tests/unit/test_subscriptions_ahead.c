/*
 * Channels that are looked up some messages ahead, with and without audiences that are known.
 */
#include "audience_cache.h"
#include "subscriptions_fixture.h"
#include <stdio.h>

static void count_context(void *subscription_context, void *context)
{
    (void)subscription_context;
    ++*(unsigned *)context;
}

/* Of 20,000 channels several share a place and a tag; the first there is not always the one. In the
 * second round audiences are known. */
Test(subscriptions_ahead, the_answers_are_the_same)
{
    enum { CHANNELS = 20000, ABSENT = 500, ALL = CHANNELS + ABSENT };
    static char channels[ALL][16];
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriptions_ahead ahead[SUBSCRIPTIONS_AHEAD];
    struct subscriber a;
    size_t others = 0, known = 0;

    subscriber_init(&a);
    for (int i = 0; i < ALL; i++) {
        snprintf(channels[i], sizeof(channels[i]), "channel:%d", i);
        if (i < CHANNELS)
            subscribe(table, channels[i], false, &a, NULL);
    }
    subscribe(table, "*:7", true, &a, NULL);
    for (size_t all = 0; all < 20 * ALL;) {
        size_t count = 0;
        for (; count < SUBSCRIPTIONS_AHEAD; count++)
            ahead[count] =
                ahead_of(channels[(all + count) % ALL], strlen(channels[(all + count) % ALL]));
        subscriptions_look_ahead(table, ahead, count);
        for (size_t n = 0; n < count; n++, all++) {
            size_t i = all % ALL;
            unsigned matches = 0;
            subscriptions_match_ahead(table, &ahead[n], count_context, &matches);
            cr_assert_eq(matches, (i < CHANNELS) + (i == 7), "%s", channels[i]);
            known += ahead[n].audience != NULL;
            others +=
                ahead[n].audience == NULL &&
                ahead[n].likely != subscriptions_key(table, channels[i], ahead[n].length, false);
        }
    }
    cr_assert_gt(others, 0, "no two names with the same tag: the test shows nothing");
    cr_assert_gt(known, 10 * CHANNELS, "audiences of %zu look-ups were known", known);
    subscriptions_free(table);
}

/* Adds up who is called: contexts are small numbers here. */
static void add_context(void *subscription_context, void *context)
{
    *(uintptr_t *)context += (uintptr_t)subscription_context;
}

static uintptr_t sum_ahead(struct subscriptions *table, const void *channel, size_t length)
{
    struct subscriptions_ahead ahead = ahead_of(channel, length);
    uintptr_t sum = 0;

    subscriptions_look_ahead(table, &ahead, 1);
    subscriptions_match_ahead(table, &ahead, add_context, &sum);
    return sum;
}

/* With a seed that is known it is easy: a name that begins with its second half is multiplied by
 * zero. */
Test(subscriptions_ahead, two_channels_with_one_hash_are_not_mixed_up)
{
    static const char x[16] = "89abcde\0 this is", y[16] = "89abcde\0 that is";
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriber a, b;
    struct subscription *of_x, *of_y;
    bool created;

    subscriber_init(&a);
    subscriber_init(&b);
    for (int i = 0; i < 100; i++) { /* few channels are not looked up ahead */
        char name[16];
        snprintf(name, sizeof(name), "other:%d", i);
        subscribe(table, name, false, &a, NULL);
    }
    for (int round = 0; round < 3; round++) {
        subscriptions_subscribe(table, x, 16, false, &a, (void *)1, &of_x, &created);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(sum_ahead(table, x, 16), 1);
        subscriptions_subscribe(table, y, 16, false, &b, (void *)2, &of_y, &created);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(sum_ahead(table, x, 16), 1);
            cr_assert_eq(sum_ahead(table, y, 16), 2);
        }
        subscriptions_remove(table, of_x);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(sum_ahead(table, y, 16), 2);
        subscriptions_remove(table, of_y);
        cr_assert_eq(sum_ahead(table, x, 16) + sum_ahead(table, y, 16), 0);
    }
    subscriptions_free(table);
}
