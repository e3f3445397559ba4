#ifndef ADAPTER_IO_INTERNAL_H
#define ADAPTER_IO_INTERNAL_H

/*
 * What the parts of the I/O thread share: the struct itself. Included by io_thread.c, commands.c,
 * client.c, hub.c and link.c only, and touched on the I/O thread only, but for the members marked atomic
 * or locked.
 */
#include "io_thread.h"
#include <event2/event.h>
#include <pthread.h>

struct client;
struct command;
struct embedded;
struct hub;
struct link;

struct io_thread {
    struct io_config config; /* its strings are owned here */
    struct event_base *base;
    pthread_t thread;
    bool stopping;
    uint8_t *read_buffer; /* one for the loop: clients own none while they are idle */
    size_t read_buffer_size;

    struct hub *hub;
    struct link *link;
    struct embedded *embedded; /* NULL: the broker is somebody else's business */
    struct callback_pool *callbacks;
    struct mailbox *notices;

    struct client *clients; /* all that are open, doubly linked */
    struct client *dirty;   /* those with something to write this turn, linked through dirty_next */
    struct event *tick;     /* once a second: pings, stalls, the closing handshake's limit */
    uint64_t now_ms;        /* monotonic, read once per loop turn */

    pthread_mutex_t lock; /* guards the four below */
    struct command *first_command;
    struct command *last_command;
    bool awake;               /* a wake-up is already on its way */
    pthread_cond_t changed;   /* signalled when clients or unanswered reach 0 */
    int wake_fd;              /* eventfd */
    struct event *wake_event;

    uint64_t client_count;      /* atomic */
    uint64_t unanswered_bytes;  /* atomic: publishes accepted from callers and not answered */
    struct io_stats stats;      /* members updated with relaxed atomics */
};

/* Adds to a counter of io->stats so that io_stats may read it from any thread. */
#define IO_COUNT(io, member, n) __atomic_fetch_add(&(io)->stats.member, (uint64_t)(n), __ATOMIC_RELAXED)

/* One log line to the embedding's logger, at most 500 bytes; any thread. */
void io_log(struct io_thread *io, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
