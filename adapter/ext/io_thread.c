#include "io_thread.h"
#include "client_internal.h"
#include "commands.h"
#include "descriptors.h"
#include "embedded.h"
#include "hub.h"
#include "io_internal.h"
#include "link.h"
#include "send_ring.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { READ_BUFFER_SIZE = 64 * 1024, FLUSH_AT_STOP_TURNS = 3, TICK_MS = 1000, TICK_LATE_MS = 2000 };

static atomic_uint generation;
static pthread_mutex_t fork_guard = PTHREAD_MUTEX_INITIALIZER;

void io_fork_guard(bool enter)
{
    if (enter)
        pthread_mutex_lock(&fork_guard);
    else
        pthread_mutex_unlock(&fork_guard);
}

static void before_fork(void)
{
    io_fork_guard(true);
}

static void after_fork(void)
{
    io_fork_guard(false);
}

static void forget_in_child(void)
{
    io_fork_guard(false);
    descriptors_close_in_child();
    atomic_fetch_add(&generation, 1);
}

static void register_fork_handler(void)
{
    pthread_atfork(before_fork, after_fork, forget_in_child);
}

unsigned io_generation(void)
{
    return atomic_load(&generation);
}

bool io_is_ours(const struct io_thread *io)
{
    return io->generation == io_generation();
}

uint64_t io_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void io_config_init(struct io_config *config)
{
    *config = (struct io_config){
        .max_message = 256 * 1024,
        .max_pending = 1024 * 1024,
        .publish_buffer = 16 * 1024 * 1024,
        .block_buffer = 8 * 1024 * 1024,
        .mailbox_limit = 64,
        .ping_seconds = 40,
        .pong_seconds = 20,
        .stall_seconds = 30,
        .io_uring = true,
    };
}

/* The loop. */

/* true: commands wait, so the loop must not sleep. Else posters from now on wake it. */
static bool prepare_to_sleep(struct io_thread *io)
{
    pthread_mutex_lock(&io->lock);
    bool work = !command_queue_is_empty(&io->commands) || io->again;
    io->awake = work;
    pthread_mutex_unlock(&io->lock);
    io->again = false;
    return work;
}

static void publish_stats(struct io_thread *io)
{
    struct subscriptions_stats table;
    subscriptions_stats(hub_table(io->hub), &table);
    __atomic_store_n(&io->stats.channels, table.channels, __ATOMIC_RELAXED);
    __atomic_store_n(&io->stats.patterns, table.patterns, __ATOMIC_RELAXED);
    __atomic_store_n(&io->stats.unanswered, link_unanswered(io->link), __ATOMIC_RELAXED);
}

static const struct timeval millisecond = {0, 1000};

static void on_late(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct io_thread *io = context;
    io->late_is_set = callback_pool_check(io->callbacks) && event_add(io->late, &millisecond) == 0;
}

static void watch_callbacks(struct io_thread *io)
{
    if (callback_pool_dispatch(io->callbacks) && !io->late_is_set)
        io->late_is_set = event_add(io->late, &millisecond) == 0;
}

static void turn(struct io_thread *io, int flags)
{
    event_base_loop(io->base, EVLOOP_ONCE | flags);
    callback_pool_dispatch(io->callbacks); /* they work while this thread sends */
    io->now_ms = io_clock_ms();
    commands_run(io);
    link_flush(io->link);
    io_flush(io);
    if (io->lagging)
        link_pace(io->link);
    watch_callbacks(io);
    publish_stats(io);
}

/* The last turns: who is still there is told 1001, the broker gets DETACH, if their sockets take
 * it. */
static void wind_down(struct io_thread *io)
{
    struct client *next;
    for (struct client *c = io->clients; c != NULL; c = next) {
        next = client_next(c);
        client_begin_close(c, 1001, "the server is shutting down");
    }
    link_detach(io->link);
    for (int i = 0; i < FLUSH_AT_STOP_TURNS; i++)
        turn(io, EVLOOP_NONBLOCK);
    while (io->clients != NULL)
        client_end(io->clients, "the I/O thread stops");
    io_flush(io);
    callback_pool_dispatch(io->callbacks);
}

static void *run(void *argument)
{
    struct io_thread *io = argument;
    pthread_setname_np(pthread_self(), "brokerd-io");
    io->now_ms = io->ticked_ms = io_clock_ms();
    link_start(io->link);
    while (!io->stopping)
        turn(io, prepare_to_sleep(io) ? EVLOOP_NONBLOCK : 0);
    wind_down(io);
    return NULL;
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    (void)context;
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));
    (void)ignored; /* the turn runs the commands; only the readiness had to go */
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct io_thread *io = context;
    struct client *next;
    io->now_ms = io_clock_ms();
    /* The process was stopped, or got no processor: peers are not to blame for that time. */
    uint64_t late = io->now_ms - io->ticked_ms - TICK_MS;
    bool excused = io->now_ms >= io->ticked_ms + TICK_MS + TICK_LATE_MS;
    io->ticked_ms = io->now_ms;
    link_tick(io->link);
    if (excused)
        link_catch_up(io->link);
    for (struct client *c = io->clients; c != NULL; c = next) {
        next = client_next(c);
        if (excused)
            client_excuse(c, (uint32_t)late);
        client_tick(c);
    }
    io_log_peers_tick(io);
}

/* Start. */

static char *copy_string(const char *s, bool *ok)
{
    char *copy = s == NULL ? NULL : strdup(s);
    *ok = *ok && (s == NULL || copy != NULL);
    return copy;
}

static bool copy_config(struct io_thread *io, const struct io_config *config)
{
    bool ok = true;
    io->config = *config;
    io->config.url = copy_string(config->url, &ok);
    io->config.name = copy_string(config->name, &ok);
    io->config.secret_file = copy_string(config->secret_file, &ok);
    io->config.ca_file = copy_string(config->ca_file, &ok);
    io->config.crl_file = copy_string(config->crl_file, &ok);
    io->config.cert_file = copy_string(config->cert_file, &ok);
    io->config.key_file = copy_string(config->key_file, &ok);
    io->config.program = copy_string(config->program, &ok);
    return ok;
}

static void free_config(struct io_config *config)
{
    free((char *)(uintptr_t)config->url);
    free((char *)(uintptr_t)config->name);
    free((char *)(uintptr_t)config->secret_file);
    free((char *)(uintptr_t)config->ca_file);
    free((char *)(uintptr_t)config->crl_file);
    free((char *)(uintptr_t)config->cert_file);
    free((char *)(uintptr_t)config->key_file);
    free((char *)(uintptr_t)config->program);
}

/* libevent's own three descriptors (epoll, a pipe) cannot be had for the table: a child keeps
 * copies of them until it execs, which hold nothing open for anyone. */
static bool make_loop(struct io_thread *io)
{
    struct event_config *config = event_config_new();
    if (config == NULL)
        return false;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    io->base = event_base_new_with_config(config);
    event_config_free(config);
    if (io->base == NULL)
        return false;
    io->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (io->wake_fd >= 0 && !descriptors_add(io->wake_fd)) {
        close(io->wake_fd);
        io->wake_fd = -1;
    }
    if (io->wake_fd < 0)
        return false;
    const struct timeval second = {1, 0};
    io->wake_event = event_new(io->base, io->wake_fd, EV_READ | EV_PERSIST, on_wake, io);
    io->tick = event_new(io->base, -1, EV_PERSIST, on_tick, io);
    io->late = event_new(io->base, -1, 0, on_late, io);
    return io->wake_event != NULL && event_add(io->wake_event, NULL) == 0 && io->tick != NULL &&
           event_add(io->tick, &second) == 0 && io->late != NULL;
}

/* Only an ipc socket can be served by a broker that we start. */
static bool make_embedded(struct io_thread *io)
{
    const struct io_config *config = &io->config;
    if (config->program == NULL || config->url == NULL || strncmp(config->url, "ipc://", 6) != 0)
        return true;
    io->embedded = embedded_new(io, config->url + 6, config->program);
    return io->embedded != NULL;
}

static bool make_parts(struct io_thread *io)
{
    io->read_buffer_size = READ_BUFFER_SIZE;
    io->read_buffer = malloc(io->read_buffer_size);
    io->callbacks = callback_pool_new(io->config.block_buffer);
    if (io->read_buffer == NULL || io->callbacks == NULL || !make_loop(io))
        return false;
    io->notices = mailbox_new(io->callbacks, 0);
    io->hub = hub_new(io);
    io->link = link_new(io);
    return io->notices != NULL && make_embedded(io) && io->hub != NULL && io->link != NULL;
}

static void init_locks(struct io_thread *io)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&io->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&io->lock, NULL);
}

static void free_parts(struct io_thread *io)
{
    if (io->link != NULL)
        link_free(io->link);
    embedded_free(io->embedded);
    if (io->hub != NULL)
        hub_free(io->hub);
    if (io->late != NULL)
        event_free(io->late);
    if (io->tick != NULL)
        event_free(io->tick);
    if (io->wake_event != NULL)
        event_free(io->wake_event);
    descriptors_close(io->wake_fd, false);
    if (io->base != NULL)
        event_base_free(io->base);
    mailbox_unref(io->notices);
    callback_pool_free(io->callbacks);
    command_queue_release(&io->commands);
    send_ring_free(io->ring);
    free(io->read_buffer);
    free_config(&io->config);
}

/* Signals are the embedding's: the thread starts, and stays, with all of them blocked. */
static int create_thread(struct io_thread *io)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&io->thread, NULL, run, io);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

struct io_thread *io_thread_start(const struct io_config *config, char *error, size_t error_size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
    struct io_thread *io = calloc(1, sizeof(*io));
    if (io == NULL) {
        snprintf(error, error_size, "the I/O thread cannot be started: out of memory");
        return NULL;
    }
    io->references = 1;
    io->generation = io_generation();
    io->wake_fd = -1;
    io->awake = true;
    init_locks(io);
    errno = 0;
    int failure = 0;
    if (!copy_config(io, config) || !make_parts(io))
        failure = errno != 0 ? errno : ENOMEM;
    else
        failure = create_thread(io);
    if (failure == 0)
        return io;
    snprintf(error, error_size, "the I/O thread cannot be started: %s", strerror(failure));
    free_parts(io);
    io_unref(io);
    return NULL;
}

/* The end. */

void io_thread_stop(struct io_thread *io)
{
    if (io == NULL || !io_is_ours(io))
        return; /* a child leaks its parent's: nothing in it can be trusted */
    commands_stop(io);
    pthread_join(io->thread, NULL);
    while (__atomic_load_n(&io->waking, __ATOMIC_ACQUIRE) > 0)
        sched_yield();
    free_parts(io);
    io_unref(io);
}

struct io_thread *io_ref(struct io_thread *io)
{
    __atomic_add_fetch(&io->references, 1, __ATOMIC_RELAXED);
    return io;
}

void io_unref(struct io_thread *io)
{
    if (__atomic_sub_fetch(&io->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pthread_cond_destroy(&io->changed);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

struct callback_pool *io_callbacks(struct io_thread *io)
{
    return io->callbacks;
}

struct mailbox *io_notices(struct io_thread *io)
{
    return io->notices;
}
