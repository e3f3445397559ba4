#ifndef ADAPTER_IO_INTERNAL_H
#define ADAPTER_IO_INTERNAL_H

/*
 * What the parts of the I/O thread share: the struct itself. Included by io_*.c, commands.c,
 * client*.c, hub.c, link.c and what belongs to them only, and touched on the I/O thread only, but
 * for the members marked atomic or locked.
 */
#include "command_queue.h"
#include "io_thread.h"
#include <event2/event.h>
#include <pthread.h>

struct client;
struct embedded;
struct hub;
struct link;
struct send_ring;

struct io_thread {
    struct io_config config; /* its strings are owned here */
    struct event_base *base;
    pthread_t thread;
    unsigned generation;  /* io_generation() when it was started; differs in a forked child */
    uint32_t references;  /* atomic: the embedding's, and one of each client */
    bool stopping;        /* leave the loop after this turn */
    bool shutting_down;   /* commands_shutdown ran: who opens now is closed with 1001 */
    bool lagging;         /* since it was last asked, a client's queue was found a quarter full */
    bool again;           /* something ended in io_flush: the next turn does not wait */
    uint8_t *read_buffer; /* one for the loop: clients own none while they are idle */
    size_t read_buffer_size;

    struct hub *hub;
    struct link *link;
    struct embedded *embedded; /* NULL: the broker is somebody else's business */
    struct callback_pool *callbacks;
    struct mailbox *notices;

    struct client *clients; /* all that are open, doubly linked */
    struct client *dirty;   /* those with something to write this turn, linked through dirty_next */
    struct send_ring *ring; /* NULL: not needed yet, or not to be had */
    uint64_t ring_next_ms;  /* not asked for before; UINT64_MAX: never again */
    struct event *tick;     /* once a second: pings, stalls, the closing handshake's limit */
    struct event *late;     /* in a millisecond: do callbacks wait for a thread too long? */
    bool late_is_set;
    uint64_t now_ms;     /* monotonic, read once per loop turn */
    uint64_t ticked_ms;  /* the last tick's */
    unsigned peer_lines; /* these two: of io_log_peer since the last tick */
    unsigned peer_lines_dropped;

    pthread_mutex_t lock; /* guards the three below */
    struct command_queue commands;
    bool awake;  /* the loop does not sleep, or a wake-up is already on its way */
    bool closed; /* stopped: commands are refused */

    pthread_cond_t changed; /* signalled under the lock when clients or unanswered reach 0 */
    int wake_fd;            /* eventfd */
    unsigned waking;        /* atomic: threads that write to it without the lock */
    struct event *wake_event;

    uint64_t client_count;     /* atomic: opened (the command may still wait) and not closed */
    uint64_t unanswered_bytes; /* atomic: publishes accepted from callers and not answered, each
                                  counted as wire_record_size; taken back with io_answered */
    uint64_t names_bytes;      /* atomic: what an ATTACH list of all names takes; hub.c's */
    struct io_stats stats;     /* members updated with relaxed atomics */
};

/* Adds to a counter of io->stats so that io_stats may read it from any thread. */
#define IO_COUNT(io, member, n)                                                                    \
    __atomic_fetch_add(&(io)->stats.member, (uint64_t)(n), __ATOMIC_RELAXED)

/* Flushes every dirty client once and buries those that ended; the last step of each turn. I/O
 * thread. */
void io_flush(struct io_thread *io);

/* Gives bytes back to the publish buffer: answered by the broker, or given up. Wakes
 * io_wait_published at 0. I/O thread. */
void io_answered(struct io_thread *io, uint64_t bytes);

/* One client less; wakes io_wait_clients at 0. Any thread. */
void io_client_gone(struct io_thread *io);

/* Are there clients that read, but have not read yet what was queued for them: over a quarter of
 * max_pending, and something of it was sent not long ago? Right after a flush; I/O thread. */
bool io_clients_lag(const struct io_thread *io);

/* Is the process still the one that started io? false in a forked child: leave io alone then. */
bool io_is_ours(const struct io_thread *io);

/* The struct's memory is shared with clients that outlive the thread. Any thread. */
struct io_thread *io_ref(struct io_thread *io);
void io_unref(struct io_thread *io);

/* Held around calls of OpenSSL, whose own locks a forked child could never get if they were held at
 * the fork: a fork waits until the guard is free. Never held while waiting for anything. I/O
 * thread.
 */
void io_fork_guard(bool enter);

/* Milliseconds of the monotonic clock. Any thread. */
uint64_t io_clock_ms(void);

/* One log line to the embedding's logger, at most 500 bytes; any thread. Lines are dropped while
 * more than 1,000 notices wait. */
void io_log(struct io_thread *io, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line (info) of which a peer decides how often it comes: at most ten between two ticks, then
 * only how many there were. I/O thread. */
void io_log_peer(struct io_thread *io, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void io_log_peers_tick(struct io_thread *io);

/* The same, but at most once a second for each *logged (zeroed at the start): for what input could
 * repeat without end, and a counter tells how often. Any thread. */
void io_log_seldom(struct io_thread *io, uint64_t *logged, enum log_level level, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));

#endif
