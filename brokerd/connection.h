#ifndef BROKERD_CONNECTION_H
#define BROKERD_CONNECTION_H

/*
 * One accepted socket: the SP hello, framing, the read buffer, the out-buffer with its limit, and
 * the one place that closes. Bytes pass through connection_receive and connection_transmit
 * (connection.c), one function each way.
 */
#include "authenticate.h"
#include "buffer.h"
#include "session.h"
#include "sp.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

struct listener;

/* Why a connection ends. The last column: the peer broke a rule or a limit (logged as a warning).
 */
#define CLOSE_REASONS(X)                                                                           \
    X(CLOSE_PEER, "closed by the peer", false)                                                     \
    X(CLOSE_ERROR, "socket error", false)                                                          \
    X(CLOSE_SHUTDOWN, "the broker is shutting down", false)                                        \
    X(CLOSE_SUPERSEDED, "a newer link of the same process took over", false)                       \
    X(CLOSE_IDLE, "no session and nothing received for 60 s", false)                               \
    X(CLOSE_HELLO, "the peer does not speak SP REQ", true)                                         \
    X(CLOSE_HELLO_LATE, "no complete SP hello within 5 s", true)                                   \
    X(CLOSE_TLS, "TLS failed", true)                                                               \
    X(CLOSE_TLS_LATE, "no complete TLS handshake within 5 s", true)                                \
    X(CLOSE_PREFIX, "malformed SP message prefix", true)                                           \
    X(CLOSE_LENGTH, "SP message longer than the broker takes", true)                               \
    X(CLOSE_BACKTRACE, "malformed SP request header", true)                                        \
    X(CLOSE_REQUEST, "malformed request", true)                                                    \
    X(CLOSE_CHANNEL, "channel name longer than 4096 bytes", true)                                  \
    X(CLOSE_UNREAD, "more than 1 MiB of replies were not read", true)                              \
    X(CLOSE_OUTSTANDING, "more than 64 requests are outstanding", true)                            \
    X(CLOSE_HOLDS, "its peer holds as many bytes as it may (--peer-bytes)", true)                  \
    X(CLOSE_SILENT, "silent for 15 s", true)                                                       \
    X(CLOSE_STUCK, "it did not read its last replies within 5 s", true)                            \
    X(CLOSE_ENGINE, "the engine does not fetch what it is told", true)                             \
    X(CLOSE_DENIED, "authentication failed", true)                                                 \
    X(CLOSE_MEMORY, "out of memory", true)

enum close_reason {
#define CLOSE_ENUM(name, text, fault) name,
    CLOSE_REASONS(CLOSE_ENUM)
#undef CLOSE_ENUM
        CLOSE_REASON_COUNT
};

enum connection_state {
    CONNECTION_HELLO, /* waits for the peer's hello */
    CONNECTION_OPEN,
    CONNECTION_LAST,  /* reads no more, closes once its replies are written */
    CONNECTION_CLOSED /* in server.doomed, freed at the end of the turn */
};

struct event;
struct server;
struct tls_filter;

struct connection {
    struct server *server;
    struct event *readable, *writable;
    int fd;
    struct tls_filter *tls; /* NULL: plain */
    struct peer_account *account;
    uint64_t accounted; /* bytes of its buffers, as the account has them */
    enum sp_transport transport;
    enum connection_state state;
    enum close_reason last_reason; /* of CONNECTION_LAST */
    bool is_dirty, is_blocked;     /* has replies to write; waits until the socket takes more */
    bool is_awaited;               /* dirty, and at the head of those that are */
    TAILQ_ENTRY(connection) entry, dirty_entry;
    TAILQ_HEAD(, session) sessions;
    uint32_t session_count;
    uint32_t leaving;  /* of its sessions that ended, those whose subscriptions are not all gone */
    uint32_t parked;   /* credits of its sessions */
    struct buffer in;  /* the start of a message that is not complete; owns memory only then */
    struct buffer out; /* replies, behind the rest of a batch */
    size_t batch_rest; /* bytes of that rest: it does not count as unread replies */
    int64_t opened, heard; /* ms */
    struct challenge challenge;
    int64_t last_since; /* since when it is CONNECTION_LAST */
    char peer[80];      /* for log lines */
};

/* Takes the accepted descriptor (closed on failure) and sends the hello. */
void connection_accept(struct server *server, const struct listener *listener, int fd);

/* Ends it: one log line, the descriptor is closed. The struct is freed, and its sessions end, at
 * the end of the turn, so the caller may go on looking at its state. Closing twice is nothing.
 * detail: more for the log line, or NULL. */
void connection_close(struct connection *c, enum close_reason reason, const char *detail);

/* Reads no more; closes with that reason once the replies so far are written. */
void connection_close_after_replies(struct connection *c, enum close_reason reason);

/* Room for a reply of size bytes behind the backtrace, prefixed and counted; written at the end of
 * the turn. NULL when the connection is closed now, or was: past REPLIES_MAX, memory. */
uint8_t *connection_reply(struct connection *c, const uint8_t *backtrace, size_t backtrace_size,
                          size_t size);

/*
 * Writes what is waiting and then iov[1] .. iov[count] (iov[0] is for the connection's use), total
 * bytes. What the socket does not take is copied. Only while the connection is not blocked.
 */
void connection_write(struct connection *c, struct iovec *iov, int count, size_t total);

/* Its replies are written before this turn's batches. */
void connection_answer_first(struct connection *c);

/* Writes what is waiting. */
void connection_flush(struct connection *c);

/* Can a batch be written now? */
static inline bool connection_takes_batch(const struct connection *c)
{
    return !c->is_blocked && c->state == CONNECTION_OPEN;
}

/* Time-outs of this connection. */
void connection_tick(struct connection *c);

/* Stops reading (for good: the broker is draining). */
void connection_stop_reading(struct connection *c);

/* Frees what connection_close marked. */
void connection_reap(struct server *server);

const char *close_reason_text(enum close_reason reason);

#endif
