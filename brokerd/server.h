#ifndef BROKERD_SERVER_H
#define BROKERD_SERVER_H

/*
 * The broker's state, all of it, and its loop. One thread: every function of brokerd/ runs on it.
 *
 * A turn of the loop is: libevent reports what is readable, connection.c reads and requests.c
 * executes at once; sessions that got something to send, and connections that got a reply, are
 * noted as dirty; then, once for all, what is dirty is written. So one write carries all that a
 * turn brought.
 *
 * Destruction: connection_close only marks. What is marked is freed at the end of the turn and
 * nowhere else, so no callback sees its own struct vanish.
 */
#include "connection.h"
#include "engines.h"
#include "journal.h"
#include "listen.h"
#include "log.h"
#include "options.h"
#include "origins.h"
#include "session.h"
#include "subscriptions.h"
#include <event2/event.h>
#include <sys/queue.h>
#include <sys/uio.h>

enum {
    READ_SIZE = 1024 * 1024,    /* bytes asked for in one read */
    REPLIES_MAX = 1024 * 1024,  /* replies that a peer has not read: closed past it */
    TEXT_MAX = 4 * 1024 * 1024, /* the text of one QUERY reply: cut past it */
    OUTSTANDING_MAX = 64,       /* parked requests of a connection: closed past it */
    SESSIONS_PER_CONNECTION_MAX = 64,
    NAMES_MAX = 64 * 1024 * 1024, /* bytes of channel names of one session */
    HELLO_TIMEOUT = 5000,         /* these in milliseconds */
    PARK_TIMEOUT = 5000,
    SILENCE_TIMEOUT = 15000,
    IDLE_TIMEOUT = 60000,
    DRAIN_TIMEOUT = 5000,
    TICK = 500,
    IOV_COUNT = 1024 /* what one sendmsg takes */
};

/* Counters since the start, shown by STATS and /metrics. */
#define COUNTERS(X)                                                                                \
    X(published, "messages taken into the journal")                                                \
    X(published_bytes, "bytes of them, as records")                                                \
    X(duplicates, "publishes that were known already and only answered")                           \
    X(out_of_order, "SUBMITs refused for a hole in the sequence")                                  \
    X(refused, "requests answered with another error")                                             \
    X(not_attached, "requests that named a session not attached there")                            \
    X(queued, "messages queued to sessions")                                                       \
    X(delivered, "messages written to sessions")                                                   \
    X(batches, "non-empty FETCH replies")                                                          \
    X(heartbeats, "empty FETCH replies")                                                           \
    X(overflows, "session queues that overflowed")                                                 \
    X(scanned, "journal records looked at in catch-up")                                            \
    X(gaps, "GAP records told to sessions")                                                        \
    X(gap_messages, "message ids in them")                                                         \
    X(connections_opened, "connections accepted")                                                  \
    X(connections_refused, "connections that ended for breaking a rule or a limit")                \
    X(peer_connections_refused, "connections past --peer-connections")                             \
    X(peer_sessions_refused, "ATTACHes past --peer-sessions")                                      \
    X(peer_subscriptions_refused, "subscriptions past --peer-subscriptions")                       \
    X(peer_bytes_refused, "connections and subscriptions past --peer-bytes")                       \
    X(accept_failures, "times that accept failed for want of descriptors or memory")               \
    X(attached, "ATTACHes that were granted")                                                      \
    X(bytes_in, "bytes read")                                                                      \
    X(bytes_out, "bytes written")

struct counters {
#define COUNTER_FIELD(name, text) uint64_t name;
    COUNTERS(COUNTER_FIELD)
#undef COUNTER_FIELD
};

TAILQ_HEAD(connection_list, connection);
TAILQ_HEAD(session_list, session);

struct admin;
struct tls_context;

struct server {
    struct event_base *base;
    const struct options *options;
    struct journal journal;
    struct origins *origins;
    struct subscriptions *subscriptions;
    struct session_table sessions;
    struct engines engines;
    struct admin *admin;
    struct listener *listeners[OPTIONS_LISTEN_MAX];
    size_t listener_count;
    struct connection_list connections, dirty_connections, doomed;
    size_t connection_count, connection_max;
    struct peer_table peers;
    struct session_list dirty_sessions, held_sessions, catching_up, leaving;
    uint8_t *read_buffer;     /* READ_SIZE, lent to one read at a time */
    struct iovec *iov;        /* IOV_COUNT, lent to one write at a time */
    uint8_t *scratch;         /* small records of one batch, copied together */
    struct session **matched; /* room for all sessions: those that want the channel at hand */
    size_t matched_count, matched_room;
    uint64_t match_serial;   /* of the look-up that filled it */
    uint64_t submit_serial;  /* of the SUBMIT being executed, to count its sessions once */
    struct tls_context *tls; /* NULL: no socket speaks TLS */
    uint8_t *secret;         /* NULL: everybody may speak */
    size_t secret_length;
    uint32_t request_max; /* bytes of a request's SP body */
    struct event *tick, *on_sigterm, *on_sigint, *on_sighup;
    int64_t started, now;  /* monotonic milliseconds */
    int64_t idle_since;    /* when the last session ended (or the start) */
    int64_t accept_paused; /* until then no accept: descriptors ran out; 0 not paused */
    int64_t drain_until;   /* 0 until a signal asks to end */
    uint64_t turn_bytes;   /* read in this turn */
    struct log_limit accept_limit;
    struct counters counters;
};

/* The parts of server_run, for tests that are the loop themselves. server_open: journal, listeners
 * and admin port as the options say; false: logged. server_close belongs behind it in any case.
 * server_turn: one turn; true: there is more to do at once, so the next should not wait. */
bool server_open(struct server *server, const struct options *options);
bool server_turn(struct server *server, bool waits);
void server_close(struct server *server);

/* Opens all as the options say and runs until a signal or, with
 * --exit-when-idle, until nobody is left. The exit status of the program. */
int server_run(const struct options *options);

#endif
