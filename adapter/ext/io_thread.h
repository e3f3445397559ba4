#ifndef ADAPTER_IO_THREAD_H
#define ADAPTER_IO_THREAD_H

/*
 * The adapter's one native thread: a libevent loop that owns clients (browser sockets), the hub
 * (who in this process wants which channel) and the link to the broker. It never touches the Ruby
 * VM.
 *
 * Thread story, whole: everything in client.h, hub.h and link.h that is not marked "any thread"
 * runs on the I/O thread alone. Other threads reach it through commands.h only, one short-locked
 * queue and an eventfd. It reaches the Ruby side through mailboxes only. One turn of the loop:
 * events (reads, the link's batches, commands) queue frames on clients and mark them dirty; then
 * io_flush writes each dirty client once.
 *
 * Fork: a child must not use the loop, the lists or the locks of its parent. io_thread.c registers
 * one pthread_atfork child handler: it closes the descriptors of the table, forgets the struct
 * (leaks it on purpose: nothing in it can be trusted) and bumps io_generation. In the child all
 * clients of the parent count as closed, commands to it are refused and io_thread_stop does
 * nothing.
 */
#include "callback_pool.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_thread;

struct io_config {           /* strings are copied */
    const char *url;         /* ipc:///path, tcp://host:port, tls+tcp://host:port */
    const char *name;        /* shown by brokerctl sessions */
    const char *secret_file; /* or NULL */
    const char *ca_file;     /* of tls+tcp, each or NULL: who may have signed the broker's */
    const char *crl_file;    /* certificate; what these have revoked; the own certificate */
    const char *cert_file;   /* and its key, when the broker asks for one */
    const char *key_file;
    const char *program;   /* the brokerd to start at url's path when nobody serves it (embedded.h);
                              NULL: never start one */
    size_t max_message;    /* inbound WebSocket message, bytes */
    size_t max_pending;    /* a client's out-queue, bytes */
    size_t publish_buffer; /* publishes not answered by the broker, bytes */
    size_t block_buffer;   /* deliveries waiting for one block, bytes */
    unsigned mailbox_limit; /* callbacks waiting for one client before its socket is not read */
    unsigned ping_seconds;  /* idle time before a ping; 0 never */
    unsigned pong_seconds;  /* a pong must come within */
    unsigned stall_seconds; /* eviction without progress while something is queued, or when a
                             * message comes too slowly (client_close.c) */
    bool deflate;           /* offer permessage-deflate */
    bool io_uring;          /* many sends in one system call, where the kernel lets us */
};

/* The defaults of the limits table; url and name NULL. */
void io_config_init(struct io_config *config);

/* Starts the thread (all signals blocked in it) and begins to connect. NULL with a reason in error
 * (never more than error_size bytes). Called with no other start or stop running. */
struct io_thread *io_thread_start(const struct io_config *config, char *error, size_t error_size);

/* The pool whose callbacks the embedding runs; lives as long as the thread struct. Any thread. */
struct callback_pool *io_callbacks(struct io_thread *io);

/* The mailbox of notices: CALLBACK_LOG, CALLBACK_REPORT, CALLBACK_INTEREST, CALLBACK_NO_INTEREST,
 * and CALLBACK_GAP without a block (whole process). Any thread. */
struct mailbox *io_notices(struct io_thread *io);

/* Grows by one in every forked child. Any thread. */
unsigned io_generation(void);

/*
 * Graceful end, in steps that the embedding drives without the interpreter lock:
 * commands_shutdown posts CALLBACK_SHUTDOWN to every client, whose on_shutdown ends with
 * client_close; io_wait_clients waits until none is left; io_wait_published until the broker has
 * answered every publish. Each returns true when that was reached, false after timeout_ms. Any
 * thread but the I/O one.
 */
bool io_wait_clients(struct io_thread *io, unsigned timeout_ms);
bool io_wait_published(struct io_thread *io, unsigned timeout_ms);

/* Takes the link down (DETACH), closes what is left, joins the thread, frees all but clients and
 * blocks that others still hold references to. The callback threads must have ended. */
void io_thread_stop(struct io_thread *io);

struct io_stats { /* a snapshot, counters since start; any thread */
    uint64_t clients, messages_in, deliveries, frames_out, bytes_out, flushes;
    uint64_t evicted_slow, evicted_stalled, ping_timeouts, protocol_errors;
    uint64_t publishes, publishes_refused, publishes_unsure, unanswered, unanswered_bytes;
    uint64_t subscriptions_refused;
    uint64_t gaps, gap_messages, blocks_dropped, link_connects, channels, patterns;
    bool connected;
};
void io_stats(struct io_thread *io, struct io_stats *stats);

#endif
