/*
 * Our globs and a real redis-server's, on random patterns and channels: every pattern that both
 * accept has to match the same channels. What we refuse (a class that does not end, an empty one)
 * and bytes above 127 in ranges, where Redis compares signed bytes, are left out. docs/patterns.md.
 *
 * REDIS_CHANNELS in the environment makes it longer. Skipped where there is no redis-server.
 */
#include "glob.h"
#include "subscriptions.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATTERNS = 3000, TEXT_MAX_HERE = 24 };

static char directory[] = "/tmp/redis-globs-XXXXXX";
static char socket_path[64];
static pid_t server;

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static FILE *connect_redis(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    double deadline = now_s() + 20;

    strcpy(address.sun_path, socket_path);
    for (;;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
        cr_assert_geq(fd, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fdopen(fd, "r+");
        close(fd);
        if (waitpid(server, &status, WNOHANG) == server) {
            server = 0;
            return NULL; /* it could not be started */
        }
        cr_assert_lt(now_s(), deadline, "redis-server does not listen");
        poll(NULL, 0, 5);
    }
}

static void start_redis(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(socket_path, sizeof(socket_path), "%s/s", directory);
    server = fork();
    if (server == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(126);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", socket_path, "--dir",
               directory, "--save", "", "--client-output-buffer-limit", "pubsub 0 0 0", NULL);
        _exit(127);
    }
}

static void stop_redis(void)
{
    if (server > 0) {
        kill(server, SIGTERM);
        waitpid(server, NULL, 0);
    }
    unlink(socket_path);
    rmdir(directory);
}

static void send_command(FILE *redis, const char *command, const void *argument, size_t length)
{
    bool publish = strcmp(command, "PUBLISH") == 0;

    fprintf(redis, "*%d\r\n$%zu\r\n%s\r\n$%zu\r\n", publish ? 3 : 2, strlen(command), command,
            length);
    fwrite(argument, 1, length, redis);
    fputs(publish ? "\r\n$1\r\nx\r\n" : "\r\n", redis);
    fflush(redis);
}

/* A line of the form X123: its number. */
static size_t read_number(FILE *redis, char kind)
{
    char line[64];

    cr_assert_not_null(fgets(line, sizeof(line), redis));
    cr_assert_eq(line[0], kind, "%s", line);
    return strtoul(line + 1, NULL, 10);
}

static size_t read_bulk(FILE *redis, char *out)
{
    size_t length = read_number(redis, '$');

    cr_assert_leq(length, TEXT_MAX_HERE * 4);
    cr_assert_eq(fread(out, 1, length + 2, redis), length + 2);
    return length;
}

static size_t random_text(uint8_t *out, size_t most, const char *alphabet, unsigned *random)
{
    size_t length = 1 + (size_t)rand_r(random) % most, letters = strlen(alphabet);

    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)alphabet[(size_t)rand_r(random) % letters];
    return length;
}

static struct subscriptions *subscribe_both(FILE *redis, unsigned *random)
{
    static const uint8_t seed[16] = "redis and we too";
    static struct subscriber subscriber;
    struct subscriptions *table = subscriptions_new(seed);
    char answer[TEXT_MAX_HERE * 4 + 2];

    subscriber_init(&subscriber);
    subscriptions_set_quota(table, PATTERNS, PATTERNS);
    while (subscriber.count < PATTERNS) {
        static const char *const alphabets[] = {"ab*?", "abc[]^-*\\", "ab[]c-*?", "a*b?:1"};
        uint8_t pattern[TEXT_MAX_HERE];
        size_t length = random_text(pattern, rand_r(random) % 2 ? 8 : TEXT_MAX_HERE,
                                    alphabets[(size_t)rand_r(random) % 4], random);
        struct subscription *s;
        bool created;
        if (subscriptions_subscribe(table, pattern, length, true, &subscriber, NULL, &s,
                                    &created) != STATUS_OK ||
            !created)
            continue;
        send_command(redis, "PSUBSCRIBE", pattern, length);
        cr_assert_eq(read_number(redis, '*'), 3);
        cr_assert_eq(read_bulk(redis, answer), strlen("psubscribe"));
        cr_assert_eq(read_bulk(redis, answer), length);
        cr_assert_eq(read_number(redis, ':'), subscriber.count);
    }
    return table;
}

static void note(struct subscription_key *key, void *context)
{
    key->label++;
    ++*(size_t *)context;
}

static void forget(struct subscription_key *key, void *context)
{
    (void)context;
    key->label = 0;
}

/* What Redis delivered, taken off what we found. */
static void read_message(FILE *redis, struct subscriptions *table, const uint8_t *channel,
                         size_t length)
{
    char text[TEXT_MAX_HERE * 4 + 2];
    struct subscription_key *key;
    size_t pattern_length;

    cr_assert_eq(read_number(redis, '*'), 4);
    cr_assert_eq(read_bulk(redis, text), strlen("pmessage"));
    pattern_length = read_bulk(redis, text);
    key = subscriptions_key(table, text, pattern_length, true);
    cr_assert_not_null(key);
    cr_assert_eq(key->label, 1, "Redis alone: %.*s : %.*s", (int)pattern_length, text, (int)length,
                 channel);
    cr_assert(glob_match(text, pattern_length, channel, length));
    read_bulk(redis, text);
    read_bulk(redis, text);
}

Test(redis_globs, the_same_channels_match_as_in_redis, .timeout = 3600, .fini = stop_redis)
{
    const char *asked = getenv("REDIS_CHANNELS");
    unsigned long channels = asked != NULL ? strtoul(asked, NULL, 10) : 400;
    unsigned random = 41;
    size_t delivered = 0;
    FILE *publisher, *reader;

    start_redis();
    reader = connect_redis();
    if (reader == NULL)
        cr_skip_test("no redis-server here");
    publisher = connect_redis();
    struct subscriptions *table = subscribe_both(reader, &random);
    for (unsigned long i = 0; i < channels; i++) {
        uint8_t channel[TEXT_MAX_HERE];
        size_t ours = 0, length = random_text(channel, TEXT_MAX_HERE >> (i % 3),
                                              i % 2 ? "ab" : "abc]^-\\*?:1[", &random);
        subscriptions_match_keys(table, channel, length, note, &ours);
        send_command(publisher, "PUBLISH", channel, length);
        size_t theirs = read_number(publisher, ':');
        for (size_t n = 0; n < theirs; n++)
            read_message(reader, table, channel, length);
        cr_assert_eq(ours, theirs, "%.*s: we %zu, Redis %zu", (int)length, channel, ours, theirs);
        subscriptions_each_key(table, forget, NULL);
        delivered += theirs;
    }
    cr_assert_gt(delivered, channels);
    subscriptions_free(table);
    fclose(reader);
    fclose(publisher);
}
