/*
 * For the thread sanitizer: 8 threads open, close, subscribe, unsubscribe and publish with 1,000
 * clients of one I/O thread and attach engines, at random. An engine is what the notices tell of
 * interest, here as in Ruby: a snapshot when it is attached, then each change. Nobody is told
 * twice, and at the end the picture of every engine is the real one.
 *
 *   race_engines [SECONDS]   3 by default
 */
#include "../unit/io_harness.h"
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

#define LAST UINT64_MAX /* the token that comes behind all others and is no engine */

enum {
    WORKERS = 8,
    CLIENTS = 1000,
    OF_EACH = CLIENTS / WORKERS,
    RUNNERS = 2,
    CHANNELS = 160,
    PATTERNS = 40,
    NAMES = CHANNELS + PATTERNS,
    ENGINES = 16
};

extern char HUB_DIRECT_AUTO;

static struct io_thread *io;
static unsigned finished, stopped, attached, last_seen;
static uint64_t changes, notices;

static struct slot {
    struct peer peer;
    bool used;
    bool wants[NAMES];
} slots[CLIENTS];

/* Touched by the notices mailbox's callbacks alone, which are never two at a time. */
static struct engine {
    uint64_t token;
    bool knows[NAMES];
} engines[ENGINES];

static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static size_t name_of(char *out, size_t size, unsigned number)
{
    return (size_t)snprintf(out, size, number < CHANNELS ? "room:%u" : "room:%u*",
                            number % CHANNELS);
}

static unsigned number_of(const struct message *m)
{
    char text[32] = "";
    MUST(m->channel_length < sizeof(text));
    memcpy(text, message_channel(m), m->channel_length);
    unsigned number = (unsigned)strtoul(text + 5, NULL, 10) + (m->binary ? CHANNELS : 0u);
    MUST(number < NAMES);
    return number;
}

static void empty_socket(int fd)
{
    char bytes[16384];
    while (read(fd, bytes, sizeof(bytes)) > 0)
        ;
}

static void change_subscription(struct slot *slot, unsigned number)
{
    char name[32];
    size_t length = name_of(name, sizeof(name), number);
    bool is_pattern = number >= CHANNELS, done;
    if (slot->wants[number])
        done = commands_unsubscribe_client(slot->peer.client, name, length, is_pattern);
    else
        done = commands_subscribe_client(slot->peer.client, name, length, is_pattern, NULL,
                                         &HUB_DIRECT_AUTO);
    MUST(done);
    slot->wants[number] = !slot->wants[number];
    __atomic_add_fetch(&changes, 1, __ATOMIC_RELAXED);
}

static void leave(struct slot *slot)
{
    harness_leave(&slot->peer);
    memset(slot, 0, sizeof(*slot));
}

static void publish(uint32_t choice)
{
    char name[32];
    size_t length = name_of(name, sizeof(name), choice % CHANNELS);
    commands_publish_local(io, name, length, "here", 4, false);
    if (choice % 8 == 0)
        commands_publish(io, name, length, "there", 5, false);
}

static void *work(void *argument)
{
    uint32_t first = (uint32_t)(uintptr_t)argument * OF_EACH, state = first + 1;
    while (!__atomic_load_n(&stopped, __ATOMIC_RELAXED)) {
        struct slot *slot = &slots[first + draw(&state) % OF_EACH];
        uint32_t choice = draw(&state) % 100;
        if (!slot->used) {
            slot->peer = harness_sse(io);
            slot->used = true;
        } else if (choice < 2) {
            struct io_stats stats;
            io_stats(io, &stats);
            if (stats.clients < CLIENTS + 200) /* those who left are not all reaped yet */
                leave(slot);
        } else if (choice < 8) {
            publish(draw(&state));
        } else if (choice == 8 && draw(&state) % 8 == 0) {
            commands_report(io, __atomic_add_fetch(&attached, 1, __ATOMIC_RELAXED));
        } else {
            /* few names are wanted by few, so that first and last subscribers come and go */
            unsigned number = draw(&state) % NAMES;
            if (slot->wants[number] || draw(&state) % 1000 < 1)
                change_subscription(slot, number);
            empty_socket(slot->peer.fd);
        }
    }
    return NULL;
}

static void take_notice(const struct callback *c)
{
    if (c->kind == CALLBACK_REPORT && c->first == LAST) {
        __atomic_store_n(&last_seen, 1, __ATOMIC_RELEASE);
        return;
    }
    if (c->kind == CALLBACK_REPORT) {
        struct engine *e = &engines[c->first % ENGINES];
        memset(e, 0, sizeof(*e));
        e->token = c->first;
        return;
    }
    if (c->kind != CALLBACK_INTEREST && c->kind != CALLBACK_NO_INTEREST)
        return;
    unsigned number = number_of(c->message);
    notices++;
    for (int i = 0; i < ENGINES; i++) {
        struct engine *e = &engines[i];
        if (e->token == 0 || (c->first != 0 && c->first != e->token))
            continue;
        MUST(e->knows[number] == (c->kind == CALLBACK_NO_INTEREST)); /* neither twice nor never */
        e->knows[number] = !e->knows[number];
    }
}

static void *run_callbacks(void *argument)
{
    struct callback_pool *pool = io_callbacks(io);
    (void)argument;
    while (!__atomic_load_n(&finished, __ATOMIC_ACQUIRE)) {
        struct callback *c;
        struct mailbox *m = callback_pool_take(pool, &c);
        if (m == NULL) {
            uint8_t token;
            MUST(read(callback_pool_fd(pool), &token, sizeof(token)) == sizeof(token));
            continue;
        }
        if (m == io_notices(io))
            take_notice(c);
        callback_free(c);
        mailbox_done(m);
    }
    return NULL;
}

static void spawn(pthread_t *threads, unsigned n, void *(*run)(void *))
{
    for (unsigned i = 0; i < n; i++)
        MUST(pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)i) == 0);
}

static void join(pthread_t *threads, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void wait_for_clients(uint64_t count)
{
    struct io_stats stats;
    for (int i = 0; i < 10 * WAIT_MS; i++) {
        io_stats(io, &stats);
        if (stats.clients == count)
            return;
        usleep(1000);
    }
    MUST(stats.clients == count);
}

/* The I/O thread publishes these at the end of a turn, maybe after that turn's last notice was
 * taken. */
static void wait_for_names(uint64_t count)
{
    struct io_stats stats;
    for (int i = 0; i < 10 * WAIT_MS; i++) {
        io_stats(io, &stats);
        if (stats.channels + stats.patterns == count)
            return;
        usleep(1000);
    }
    MUST(stats.channels + stats.patterns == count);
}

static unsigned compare(void)
{
    bool real[NAMES] = {false};
    unsigned compared = 0, count = 0;
    for (int i = 0; i < CLIENTS; i++)
        for (int n = 0; n < NAMES; n++)
            real[n] |= slots[i].wants[n];
    for (int n = 0; n < NAMES; n++)
        count += real[n];
    for (int i = 0; i < ENGINES; i++) {
        if (engines[i].token == 0)
            continue;
        for (int n = 0; n < NAMES; n++)
            MUST(engines[i].knows[n] == real[n]);
        compared++;
    }
    wait_for_names(count);
    printf("%u of %d names are wanted, as %u engines know\n", count, NAMES, compared);
    return compared;
}

static void allow_descriptors(void)
{
    struct rlimit limit;
    MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

int main(int argc, char **argv)
{
    struct io_config config = harness_config();
    struct timespec run = {.tv_sec = argc > 1 ? atoi(argv[1]) : 3};
    pthread_t workers[WORKERS], runners[RUNNERS];
    uint64_t used = 0;
    config.max_pending = 64 << 20; /* nobody is to be evicted: the truth is kept here */
    config.ping_seconds = 0;
    config.stall_seconds = 3600;
    allow_descriptors();
    io = harness_start(&config);
    commands_watch(io, true);
    spawn(runners, RUNNERS, run_callbacks);
    spawn(workers, WORKERS, work);
    nanosleep(&run, NULL);
    __atomic_store_n(&stopped, 1, __ATOMIC_RELAXED);
    join(workers, WORKERS);
    for (int i = 0; i < CLIENTS; i++)
        used += slots[i].used;
    wait_for_clients(used);
    commands_report(io, ++attached);
    commands_report(io, LAST);
    for (int i = 0; i < 10 * WAIT_MS && !__atomic_load_n(&last_seen, __ATOMIC_ACQUIRE); i++)
        usleep(1000);
    MUST(__atomic_load_n(&last_seen, __ATOMIC_ACQUIRE));
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    callback_pool_wake(io_callbacks(io), RUNNERS);
    join(runners, RUNNERS);
    MUST(compare() >= 1);
    printf("%llu subscriptions changed, %u engines attached, %llu notices, %llu clients left\n",
           (unsigned long long)changes, attached, (unsigned long long)notices,
           (unsigned long long)used);
    for (int i = 0; i < CLIENTS; i++)
        if (slots[i].used)
            leave(&slots[i]);
    MUST(io_wait_clients(io, WAIT_MS));
    io_thread_stop(io);
    return 0;
}
