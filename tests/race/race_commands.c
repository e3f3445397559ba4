/*
 * For the thread sanitizer: threads write to, subscribe, publish to and close clients of one I/O
 * thread while others open them and go away, while callbacks are taken and counters read. At the
 * end everything must be accounted for: as many on_close as on_open, no client left.
 */
#include "../unit/io_harness.h"
#include <pthread.h>

enum { SLOTS = 32, WORKERS = 3, RUNNERS = 2, ROUNDS = 30000 };

extern char HUB_DIRECT_AUTO;

static struct io_thread *io;
static struct block *block;

static struct slot {
    pthread_mutex_t lock;
    struct peer peer;
    bool used;
} slots[SLOTS];

static unsigned opened, closed, finished;

static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void read_all(int fd)
{
    char bytes[4096];
    while (read(fd, bytes, sizeof(bytes)) > 0)
        ;
}

/* The other side may have closed, or not be reading. */
static void send_message(int fd)
{
    uint8_t frame[WS_HEADER_MAX + 7];
    ssize_t ignored =
        send(fd, frame, harness_frame(frame, WS_TEXT, true, "message", 7), MSG_NOSIGNAL);
    (void)ignored;
}

static void leave(struct slot *slot)
{
    harness_leave(&slot->peer);
    slot->used = false;
}

static void act(struct slot *slot, uint32_t choice)
{
    struct peer *p = &slot->peer;
    switch (choice % 10) {
    case 0:
        leave(slot);
        break;
    case 1:
        commands_close(p->client, 1000);
        break;
    case 2:
        commands_subscribe_client(p->client, "a", 1, false, NULL, &HUB_DIRECT_AUTO);
        break;
    case 3:
        commands_unsubscribe_client(p->client, "a", 1, false);
        break;
    case 4:
        send_message(p->fd);
        break;
    case 5:
        read_all(p->fd);
        commands_set_timeout(p->client, choice % 50);
        break;
    case 6:
        commands_publish_local(io, "a", 1, "published", 9, false);
        commands_publish(io, "a", 1, "up", 2, false);
        break;
    default:
        harness_write(p, "written");
        client_set_wants_drained(p->client, choice & 16);
        MUST(client_pending(p->client) >= -1);
        break;
    }
}

static void *work(void *argument)
{
    uint32_t state = (uint32_t)(uintptr_t)argument;
    for (int i = 0; i < ROUNDS; i++) {
        struct slot *slot = &slots[draw(&state) % SLOTS];
        pthread_mutex_lock(&slot->lock);
        if (!slot->used) {
            slot->peer = draw(&state) % 4 == 0 ? harness_sse(io) : harness_websocket(io);
            slot->used = true;
            __atomic_add_fetch(&opened, 1, __ATOMIC_RELAXED);
        } else {
            act(slot, draw(&state));
        }
        pthread_mutex_unlock(&slot->lock);
        if (i % 100 == 0) {
            struct io_stats stats;
            io_stats(io, &stats);
            commands_subscribe_block(io, block, "a", 1, false);
            commands_unsubscribe_block(io, block);
        }
    }
    return NULL;
}

/* A callback thread as the embedding has them, without its work. */
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
        if (c->kind == CALLBACK_CLOSE)
            __atomic_add_fetch(&closed, 1, __ATOMIC_RELAXED);
        callback_free(c);
        mailbox_done(m);
    }
    return NULL;
}

static void spawn(pthread_t *threads, unsigned n, void *(*run)(void *))
{
    for (unsigned i = 0; i < n; i++)
        MUST(pthread_create(&threads[i], NULL, run, (void *)(uintptr_t)(i + 1)) == 0);
}

static void join(pthread_t *threads, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    struct io_config config = harness_config();
    config.publish_buffer = 100000;
    config.max_pending = 20000;
    pthread_t workers[WORKERS], runners[RUNNERS];
    io = harness_start(&config);
    struct mailbox *own = mailbox_new(io_callbacks(io), 0);
    block = block_new(own, 0);
    for (int i = 0; i < SLOTS; i++)
        pthread_mutex_init(&slots[i].lock, NULL);
    spawn(runners, RUNNERS, run_callbacks);
    spawn(workers, WORKERS, work);
    join(workers, WORKERS);
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].used)
            leave(&slots[i]);
    MUST(io_wait_clients(io, WAIT_MS));
    while (__atomic_load_n(&closed, __ATOMIC_RELAXED) != opened)
        usleep(1000);
    __atomic_store_n(&finished, 1, __ATOMIC_RELEASE);
    callback_pool_wake(io_callbacks(io), RUNNERS);
    join(runners, RUNNERS);
    io_thread_stop(io);
    block_unref(block);
    mailbox_unref(own);
    printf("%u clients opened and closed\n", opened);
    return 0;
}
