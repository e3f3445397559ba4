/*
 * The pattern index against a plain scan of all patterns, while patterns come and go. The plain
 * scan uses glob_match, which test_glob.c holds to the definition.
 */
#include "glob.h"
#include "subscriptions.h"
#include <criterion/criterion.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#define STALL_US 1000
#else
#define STALL_US 100
#endif

enum { PATTERNS_MAX = 4000 };

static const uint8_t seed[16] = "fedcba987654321";

struct entry {
    char text[64];
    size_t length;
    struct subscription *subscription;
    uint64_t found_in; /* the last look-up that found it */
};

static struct entry entries[PATTERNS_MAX];
static struct subscriber subscriber;
static uint64_t lookup, pairs, matches;

/* Puts together a few parts, which differ in how much they are shared by patterns. */
static size_t random_parts(char *out, size_t size, const char *const *parts, size_t part_count,
                           unsigned range, unsigned *random)
{
    size_t length = 0, count = 1 + (size_t)rand_r(random) % 5;

    for (size_t i = 0; i < count; i++) {
        const char *part = parts[(size_t)rand_r(random) % part_count];
        char number[16];
        if (*part == '#') {
            snprintf(number, sizeof(number), "%u", (unsigned)rand_r(random) % range);
            part = number;
        }
        if (length + strlen(part) >= size)
            break;
        memcpy(out + length, part, strlen(part));
        length += strlen(part);
    }
    return length;
}

static const char *const pattern_parts[] = {
    "*",    "*", "*",    "#",     "#",      "user:", ":",   "a",
    "b",    "?", "[ab]", "[0-9]", "[^0-4]", "\\*",   "[:]", "room/long-shared-part/",
    "/feed"};
static const char *const channel_parts[] = {
    "#", "#", "user:", ":", "a", "b", "*", "aa", "ab", "room/long-shared-part/", "/feed"};

static void add(struct subscriptions *table, struct entry *e, unsigned range, unsigned *random)
{
    bool created = false;

    while (!created) {
        e->length = random_parts(e->text, sizeof(e->text), pattern_parts,
                                 sizeof(pattern_parts) / sizeof(pattern_parts[0]), range, random);
        cr_assert_eq(subscriptions_subscribe(table, e->text, e->length, true, &subscriber, e,
                                             &e->subscription, &created),
                     STATUS_OK);
    }
}

static void note(struct subscription *s, void *context)
{
    struct entry *e = s->context;

    (void)context;
    cr_assert_neq(e->found_in, lookup, "%.*s twice", (int)e->length, e->text);
    e->found_in = lookup;
    matches++;
}

static void look_up(struct subscriptions *table, const char *channel, size_t length)
{
    lookup++;
    subscriptions_match(table, channel, length, note, NULL);
    for (size_t i = 0; i < PATTERNS_MAX; i++) {
        const struct entry *e = &entries[i];
        if (e->subscription == NULL)
            continue;
        pairs++;
        cr_assert_eq(e->found_in == lookup, glob_match(e->text, e->length, channel, length),
                     "%.*s : %.*s", (int)e->length, e->text, (int)length, channel);
    }
}

static void run(uint64_t wanted_pairs, unsigned range, unsigned random)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriptions_stats stats;
    char channel[200];
    size_t present = 0;
    bool rising = true;

    memset(entries, 0, sizeof(entries));
    subscriber_init(&subscriber);
    subscriptions_set_quota(table, PATTERNS_MAX, PATTERNS_MAX);
    for (pairs = matches = 0; pairs < wanted_pairs;) {
        struct entry *e = &entries[(size_t)rand_r(&random) % PATTERNS_MAX];
        bool add_one = rising ? rand_r(&random) % 8 != 0 : rand_r(&random) % 8 == 0;
        if (present >= PATTERNS_MAX * 9 / 10)
            rising = false;
        else if (present < PATTERNS_MAX / 50)
            rising = true;
        if (add_one && e->subscription == NULL) {
            add(table, e, range, &random);
            present++;
        } else if (!add_one && e->subscription != NULL) {
            subscriptions_remove(table, e->subscription);
            e->subscription = NULL;
            present--;
        }
        if (rand_r(&random) % 16 == 0) {
            size_t length =
                random_parts(channel, sizeof(channel), channel_parts,
                             sizeof(channel_parts) / sizeof(channel_parts[0]), range, &random);
            look_up(table, channel, length);
        }
    }
    cr_assert_gt(matches, pairs / 1000);
    while (subscriber.first != NULL)
        subscriptions_remove(table, subscriber.first);
    subscriptions_stats(table, &stats);
    cr_assert_eq(stats.patterns, 0);
    cr_assert_eq(stats.weak_patterns, 0);
    cr_assert_lt(stats.bytes, 100000);
    subscriptions_free(table);
}

/* PATTERN_PAIRS in the environment makes it longer: 100000000 takes a few minutes. */
Test(pattern_index, random_run_against_a_plain_scan, .timeout = 7200)
{
    const char *asked = getenv("PATTERN_PAIRS");
    uint64_t wanted = asked != NULL ? strtoull(asked, NULL, 10) : 6000000;

    run(wanted / 3, 10, 1);
    run(wanted / 3, 100, 2);
    run(wanted / 3, 100000, 3);
}

static struct subscription *subscribe(struct subscriptions *table, const char *pattern)
{
    struct subscription *s;
    bool created;

    cr_assert_eq(subscriptions_subscribe(table, pattern, strlen(pattern), true, &subscriber, NULL,
                                         &s, &created),
                 STATUS_OK, "%s", pattern);
    return s;
}

static void count_call(struct subscription *s, void *context)
{
    (void)s;
    ++*(unsigned *)context;
}

static unsigned count(struct subscriptions *table, const char *channel)
{
    unsigned n = 0;

    subscriptions_match(table, channel, strlen(channel), count_call, &n);
    return n;
}

Test(pattern_index, a_window_that_occurs_often_in_a_channel_counts_once)
{
    struct subscriptions *table = subscriptions_new(seed);
    char pattern[40], channel[400] = "";

    subscriber_init(&subscriber);
    for (int i = 0; i < 200; i++) {
        snprintf(pattern, sizeof(pattern), "*x%03dx*", i);
        subscribe(table, pattern);
    }
    for (int i = 0; i < 60; i++) /* more different windows than are remembered, each twice */
        snprintf(channel + strlen(channel), sizeof(channel) - strlen(channel), "x%03dx", i % 45);
    cr_assert_eq(count(table, channel), 45);
    strcpy(channel, "x007x x007x x007x x008x x007x");
    cr_assert_eq(count(table, channel), 2);
    subscriptions_free(table);
}

Test(pattern_index, weak_patterns_do_not_stand_in_the_way_of_others)
{
    struct subscriptions *table = subscriptions_new(seed);
    struct subscriptions_stats stats;
    char pattern[200] = "";

    subscriber_init(&subscriber);
    subscriptions_set_quota(table, 100, 100);
    for (int i = 0; i < 100; i++) {
        strcat(pattern, "?");
        subscribe(table, pattern);
    }
    subscribe(table, "room:*"); /* the quota is used up */
    subscribe(table, "*:x");
    subscriptions_stats(table, &stats);
    cr_assert_eq(stats.weak_patterns, 100);
    cr_assert_eq(count(table, "room:x"), 3);
    while (subscriber.first != NULL)
        subscriptions_remove(table, subscriber.first);
    subscriptions_stats(table, &stats);
    cr_assert_eq(stats.weak_patterns, 0);
    subscriptions_free(table);
}

Test(pattern_index, a_look_up_looks_at_few_of_many_patterns)
{
    static const char *const forms[] = {"user:%d:*",       "*:%d",          "chat.%d.*.typing",
                                        "user:*:%d",       "a*b*%dc",       "[a-c]er:%d:*",
                                        "*users/%d/feed*", "user:*:%d:*:x", "room:%d?"};
    static const char *const channels[] = {
        "user:7777:a",        "x:7777",          "chat.7777.x.typing",
        "user:x:7777",        "a1b27777c",       "ber:7777:1",
        "x/users/7777/feed/", "user:q:7777:r:x", "room:7777x"};
    struct subscriptions_stats before, after;
    char pattern[40];

    for (size_t form = 0; form < 9; form++) {
        struct subscriptions *table = subscriptions_new(seed);
        subscriber_init(&subscriber);
        for (int i = 0; i < 20000; i++) {
            snprintf(pattern, sizeof(pattern), forms[form], i);
            subscribe(table, pattern);
        }
        subscriptions_stats(table, &before);
        cr_assert_geq(count(table, channels[form]), 1, "%s", forms[form]);
        subscriptions_stats(table, &after);
        cr_assert_leq(after.candidates - before.candidates, 60, "%s: %llu", forms[form],
                      (unsigned long long)(after.candidates - before.candidates));
        subscriptions_free(table);
    }
}

Test(pattern_index, whoever_joins_a_long_list_is_weak)
{
    struct subscriptions *table = subscriptions_new(seed);
    enum status status = STATUS_OK;
    struct subscription *s;
    char pattern[200];
    bool created;

    subscriber_init(&subscriber);
    subscriptions_set_quota(table, 5, 5);
    for (int i = 0; status == STATUS_OK && i < 128; i++) { /* all the same to the index: a and b */
        int length = snprintf(pattern, sizeof(pattern), "a%.*s*b", i,
                              "????????????????????????????????????????????????????????????????"
                              "????????????????????????????????????????????????????????????????");
        status = subscriptions_subscribe(table, pattern, (size_t)length, true, &subscriber, NULL,
                                         &s, &created);
    }
    cr_assert_eq(status, STATUS_WEAK_PATTERN);
    cr_assert_eq(subscriber.weak, 5);
    cr_assert_geq(subscriber.count, 64 + 5);
    cr_assert_leq(subscriber.count, 64 + 5 + 2 * 9, "and some in lists on the way there");
    while (subscriber.first != NULL)
        subscriptions_remove(table, subscriber.first);
    cr_assert_eq(subscriber.weak, 0);
    subscriptions_free(table);
}

static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* The same inserts twice, at the same places of a heap that is warm: what is slow both times is
 * slow by itself, and not for a page fault or a busy machine. */
Test(pattern_index, no_insert_into_a_big_table_takes_over_100_us, .timeout = 300)
{
    enum { COUNT = 200000, RUNS = 4 };
    static float least[COUNT];
    char pattern[40];

    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_MMAP_THRESHOLD, INT_MAX);
    for (int run = 0; run < RUNS; run++) {
        struct subscriptions *table = subscriptions_new(seed);
        subscriber_init(&subscriber);
        for (int i = 0; i < COUNT; i++) {
            snprintf(pattern, sizeof(pattern), i % 2 ? "user:%d:*" : "*users/%d/feed*", i);
            double from = now_us();
            subscribe(table, pattern);
            float took = (float)(now_us() - from);
            least[i] = run == 0 || took < least[i] ? took : least[i];
        }
        subscriptions_free(table);
    }
    for (int i = 0; i < COUNT; i++)
        cr_assert_lt(least[i], STALL_US, "insert %d took %.0f us", i, (double)least[i]);
}
