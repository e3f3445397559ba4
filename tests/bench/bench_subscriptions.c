/*
 * What a look-up in the subscription table costs, by shape and number of keys: the table of
 * docs/patterns.md. Beside it a plain scan of the same patterns with the same matcher, and what
 * inserts, removals and memory cost.
 *
 *   bench_subscriptions [MOST [SHAPE]]   keys at the most, 1000000 by default; that shape alone
 *
 * Channels are random and each has a subscriber; every run draws them anew, so that with many keys
 * caches are cold. A figure is the median of five runs, in nanoseconds of processor
 * time per look-up.
 */
#include "glob.h"
#include "subscriptions.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 5, NAME_MAX_HERE = 64, SIZES = 4, CHANNELS_MAX = 200000 };

struct shape {
    const char *label;
    const char *pattern; /* %u: the number of the key */
    const char *channel; /* %u: the number, then a random one */
    bool is_pattern;
};

static const struct shape shapes[] = {
    {"exact", "user:%u:news", "user:%u:news", false},
    {"user:<n>:*", "user:%u:*", "user:%u:%u", true},
    {"*:<n>", "*:%u", "room:%2$u:%1$u", true},
    {"chat.<n>.*.typing", "chat.%u.*.typing", "chat.%u.%u.typing", true},
    {"room:<n>?", "room:%u?", "room:%ux", true},
    {"user:*:<n>", "user:*:%u", "user:%2$u:%1$u", true},
    {"long prefix:<n>:*", "application/production/region-1/user:%u:*",
     "application/production/region-1/user:%u:%u", true},
    {"a*b*<n>c", "a*b*%uc", "a%2$ub%1$uc", true},
    {"*<n>*", "*%u*", "room:x%ux", true},
    {"[a-c]er:<n>:*", "[a-c]er:%u:*", "ber:%u:%u", true},
    {"*users/<n>/feed*", "*users/%u/feed*", "app/users/%u/feed/%u", true},
    {"user:*:<n>:*:x", "user:*:%u:*:x", "user:%2$u:%1$u:abc:x", true},
    {"mixture", NULL, NULL, true},
};

enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static const unsigned sizes[SIZES] = {10, 1000, 100000, 1000000};

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

/* The mixture: the shapes one after another. */
static const struct shape *shape_of(const struct shape *shape, unsigned number)
{
    return shape->pattern != NULL ? shape : &shapes[1 + number % 9];
}

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
static size_t key_name(char *out, const struct shape *shape, unsigned number)
{
    return (size_t)snprintf(out, NAME_MAX_HERE, shape_of(shape, number)->pattern, number);
}

static size_t channel_name(char *out, const struct shape *shape, unsigned number, unsigned other)
{
    return (size_t)snprintf(out, NAME_MAX_HERE, shape_of(shape, number)->channel, number, other);
}

struct channels {
    char (*names)[NAME_MAX_HERE];
    size_t *lengths;
    size_t count;
};

static void draw(struct channels *channels, const struct shape *shape, unsigned keys,
                 unsigned *random)
{
    for (size_t i = 0; i < channels->count; i++)
        channels->lengths[i] =
            channel_name(channels->names[i], shape, (unsigned)rand_r(random) % keys,
                         (unsigned)rand_r(random) % 1000);
}

static void count_call(struct subscription *s, void *context)
{
    (void)s;
    ++*(uint64_t *)context;
}

static double look_up(struct subscriptions *table, const struct channels *channels)
{
    uint64_t found = 0;
    double from = now_ns();

    for (size_t i = 0; i < channels->count; i++)
        subscriptions_match(table, channels->names[i], channels->lengths[i], count_call, &found);
    double took = (now_ns() - from) / (double)channels->count;
    if (found < channels->count) {
        fprintf(stderr, "only %llu of %zu found\n", (unsigned long long)found, channels->count);
        exit(1);
    }
    return took;
}

/* All keys in one array, one after another, as a broker without an index would have them. */
static double scan(const struct shape *shape, unsigned keys, const struct channels *channels)
{
    size_t rounds = 20000000 / keys / 20 + 1, found = 0;
    struct {
        size_t length;
        char text[NAME_MAX_HERE];
    } *all = malloc(keys * sizeof(*all));

    if (all == NULL)
        exit(1);
    for (unsigned i = 0; i < keys; i++)
        all[i].length = key_name(all[i].text, shape, i);
    rounds = rounds > channels->count ? channels->count : rounds;
    double from = now_ns();
    for (size_t n = 0; n < rounds; n++)
        for (unsigned i = 0; i < keys; i++)
            found += shape->is_pattern
                         ? glob_match(all[i].text, all[i].length, channels->names[n],
                                      channels->lengths[n])
                         : all[i].length == channels->lengths[n] &&
                               memcmp(all[i].text, channels->names[n], all[i].length) == 0;
    double took = (now_ns() - from) / (double)rounds;
    free(all);
    return found >= rounds ? took : -1;
}

struct result {
    double lookup, scan, insert, remove, bytes, candidates;
};

static struct subscriptions *fill(const struct shape *shape, unsigned keys,
                                  struct subscriber *subscriber)
{
    static const uint8_t seed[16] = "a secret of ours";
    struct subscriptions *table = subscriptions_new(seed);
    struct subscription *s;
    char name[NAME_MAX_HERE];
    bool created;

    subscriber_init(subscriber);
    for (unsigned i = 0; i < keys; i++) {
        size_t length = key_name(name, shape, i);
        if (subscriptions_subscribe(table, name, length, shape->is_pattern, subscriber, NULL, &s,
                                    &created) != STATUS_OK)
            exit(1);
    }
    return table;
}

/* One insert and one removal of keys beyond those that are there, in batches. */
static void measure_changes(struct subscriptions *table, const struct shape *shape, unsigned keys,
                            struct subscriber *subscriber, struct result *result)
{
    enum { BATCH = 2000 };
    static char names[BATCH][NAME_MAX_HERE];
    static size_t lengths[BATCH];
    static struct subscription *made[BATCH];
    double inserts[RUNS], removes[RUNS];
    bool created;

    for (unsigned run = 0; run < RUNS; run++) {
        for (unsigned i = 0; i < BATCH; i++)
            lengths[i] = key_name(names[i], shape, keys + (i * 7919) % BATCH);
        double from = now_ns();
        for (unsigned i = 0; i < BATCH; i++)
            subscriptions_subscribe(table, names[i], lengths[i], shape->is_pattern, subscriber,
                                    NULL, &made[i], &created);
        inserts[run] = (now_ns() - from) / BATCH;
        from = now_ns();
        for (unsigned i = 0; i < BATCH; i++)
            subscriptions_remove(table, made[i]);
        removes[run] = (now_ns() - from) / BATCH;
    }
    result->insert = median(inserts, RUNS);
    result->remove = median(removes, RUNS);
}

static struct result measure(const struct shape *shape, unsigned keys)
{
    struct subscriber subscriber;
    struct subscriptions *table = fill(shape, keys, &subscriber);
    struct subscriptions_stats before, after;
    struct channels channels = {.count = CHANNELS_MAX};
    struct result result = {0};
    double took[RUNS];
    unsigned random = 17;

    channels.names = malloc(channels.count * sizeof(*channels.names));
    channels.lengths = malloc(channels.count * sizeof(*channels.lengths));
    if (channels.names == NULL || channels.lengths == NULL)
        exit(1);
    subscriptions_stats(table, &before);
    for (int run = 0; run < RUNS; run++) {
        draw(&channels, shape, keys, &random);
        took[run] = look_up(table, &channels);
    }
    subscriptions_stats(table, &after);
    result.lookup = median(took, RUNS);
    result.candidates = (double)(after.candidates - before.candidates) / RUNS / CHANNELS_MAX;
    /* without the subscriptions themselves, 64 bytes each */
    result.bytes = (double)before.bytes / keys - 64;
    measure_changes(table, shape, keys, &subscriber, &result);
    result.scan = scan(shape, keys, &channels);
    free(channels.names);
    free(channels.lengths);
    subscriptions_free(table);
    return result;
}

int main(int argc, char **argv)
{
    unsigned most = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000000;

    printf("%-20s %8s %9s %12s %9s %9s %9s %11s\n", "shape", "keys", "ns", "plain scan", "insert",
           "remove", "bytes", "candidates");
    for (size_t i = 0; i < SHAPES; i++)
        for (size_t n = 0; n < SIZES && sizes[n] <= most; n++) {
            if (argc > 2 && strcmp(shapes[i].label, argv[2]) != 0)
                continue;
            struct result r = measure(&shapes[i], sizes[n]);
            printf("%-20s %8u %9.0f %12.0f %9.0f %9.0f %9.0f %11.1f\n", shapes[i].label, sizes[n],
                   r.lookup, r.scan, r.insert, r.remove, r.bytes, r.candidates);
            fflush(stdout);
        }
    return 0;
}
