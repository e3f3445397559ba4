#include "connection.h"

#include "requests.h"
#include "secure.h"
#include "server.h"
#include "tls_filter.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SEND_BUFFER = 512 * 1024, KEEP_MAX = 64 * 1024 };

static const struct {
    const char *text;
    bool is_fault;
} reasons[] = {
#define CLOSE_ROW(name, text, fault) [name] = {text, fault},
    CLOSE_REASONS(CLOSE_ROW)
#undef CLOSE_ROW
};

const char *close_reason_text(enum close_reason reason)
{
    return reasons[reason].text;
}

/* The seam for what lies between socket and protocol: every byte comes in and goes out here. */
static ssize_t connection_receive(struct connection *c, void *bytes, size_t size)
{
    return c->tls != NULL ? secure_receive(c, bytes, size) : recv(c->fd, bytes, size, 0);
}

static ssize_t connection_transmit(struct connection *c, struct iovec *iov, int count)
{
    if (c->tls != NULL)
        return secure_transmit(c, iov, count);
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    return sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void log_end(const struct connection *c, enum close_reason reason, const char *detail)
{
    static struct log_limit limits[CLOSE_REASON_COUNT];
    enum log_level level = reasons[reason].is_fault     ? LOG_LEVEL_WARN
                           : reason == CLOSE_SUPERSEDED ? LOG_LEVEL_INFO
                                                        : LOG_LEVEL_DEBUG;
    log_limited(&limits[reason], 10, level, "connection of %s ended: %s%s%s", c->peer,
                reasons[reason].text, detail != NULL ? ": " : "", detail != NULL ? detail : "");
}

void connection_close(struct connection *c, enum close_reason reason, const char *detail)
{
    if (c->state == CONNECTION_CLOSED)
        return;
    struct server *server = c->server;
    c->state = CONNECTION_CLOSED;
    log_end(c, reason, detail);
    server->counters.connections_refused += reasons[reason].is_fault;
    event_free(c->readable);
    event_free(c->writable);
    secure_close(c);
    close(c->fd);
    if (c->is_dirty)
        TAILQ_REMOVE(&server->dirty_connections, c, dirty_entry);
    TAILQ_REMOVE(&server->connections, c, entry);
    TAILQ_INSERT_TAIL(&server->doomed, c, entry);
    server->connection_count--;
}

/* After a read or write that failed with errno. */
static void close_on_error(struct connection *c)
{
    if (errno == EPROTO && c->tls != NULL)
        connection_close(c, CLOSE_TLS, secure_reason(c));
    else
        connection_close(c, errno == EPIPE || errno == ECONNRESET ? CLOSE_PEER : CLOSE_ERROR,
                         strerror(errno));
}

void connection_reap(struct server *server)
{
    struct connection *c, *next;
    for (c = TAILQ_FIRST(&server->doomed); c != NULL; c = next) {
        next = TAILQ_NEXT(c, entry);
        struct session *s;
        while ((s = TAILQ_FIRST(&c->sessions)) != NULL) {
            log_info("session %016llx (%s, pid %u) ended with its link", (unsigned long long)s->id,
                     s->name, s->pid);
            session_end(s, true);
        }
        if (c->leaving > 0)
            continue;
        TAILQ_REMOVE(&server->doomed, c, entry);
        buffer_release(&c->in);
        buffer_release(&c->out);
        tls_filter_free(c->tls);
        peers_give(c->account, PEER_BYTES, c->accounted);
        peers_leave(server, c->account);
        free(c);
    }
}

void connection_stop_reading(struct connection *c)
{
    event_del(c->readable);
}

static void mark_dirty(struct connection *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    TAILQ_INSERT_TAIL(&c->server->dirty_connections, c, dirty_entry);
}

void connection_answer_first(struct connection *c)
{
    if (!c->is_dirty || c->is_awaited)
        return;
    c->is_awaited = true;
    TAILQ_REMOVE(&c->server->dirty_connections, c, dirty_entry);
    TAILQ_INSERT_HEAD(&c->server->dirty_connections, c, dirty_entry);
}

void connection_close_after_replies(struct connection *c, enum close_reason reason)
{
    if (c->state >= CONNECTION_LAST)
        return;
    c->state = CONNECTION_LAST;
    c->last_reason = reason;
    c->last_since = c->server->now;
    connection_stop_reading(c);
    mark_dirty(c);
}

uint8_t *connection_reply(struct connection *c, const uint8_t *backtrace, size_t backtrace_size,
                          size_t size)
{
    if (c->state == CONNECTION_CLOSED)
        return NULL;
    if (buffer_length(&c->out) - c->batch_rest > REPLIES_MAX) {
        if (!c->is_blocked)
            connection_flush(c);
        if (c->state != CONNECTION_CLOSED && buffer_length(&c->out) - c->batch_rest > REPLIES_MAX)
            connection_close(c, CLOSE_UNREAD, NULL);
        if (c->state == CONNECTION_CLOSED)
            return NULL;
    }
    size_t prefix = sp_prefix_size(c->transport);
    uint8_t *out = buffer_reserve(&c->out, prefix + backtrace_size + size);
    if (out == NULL) {
        connection_close(c, CLOSE_MEMORY, NULL);
        return NULL;
    }
    sp_prefix_encode(out, c->transport, backtrace_size + size);
    memcpy(out + prefix, backtrace, backtrace_size);
    buffer_commit(&c->out, prefix + backtrace_size + size);
    mark_dirty(c);
    return out + prefix + backtrace_size;
}

/* Keeps a copy of what the socket did not take: iov[1] on, without the first `taken` bytes. */
static bool keep_rest(struct connection *c, const struct iovec *iov, int count, size_t taken)
{
    for (int i = 1; i <= count; i++) {
        size_t skip = taken < iov[i].iov_len ? taken : iov[i].iov_len;
        taken -= skip;
        if (!buffer_append(&c->out, (const uint8_t *)iov[i].iov_base + skip, iov[i].iov_len - skip))
            return false;
    }
    return true;
}

static void wait_until_writable(struct connection *c)
{
    bool is_peers_turn = secure_is_opening(c) && !secure_is_pending(c); /* on_readable goes on */
    if (is_peers_turn && c->is_blocked) {
        event_del(c->writable);
        c->is_blocked = false;
    }
    if (!is_peers_turn && !c->is_blocked && event_add(c->writable, NULL) == 0)
        c->is_blocked = true;
}

/* What its buffers hold at the end of a read or a write. */
static void account(struct connection *c)
{
    uint64_t now = buffer_length(&c->in) + buffer_length(&c->out);
    if (c->state == CONNECTION_CLOSED || now == c->accounted)
        return;
    if (peers_change(c->server, c->account, c->accounted, now, c->peer))
        c->accounted = now;
    else
        connection_close(c, CLOSE_HOLDS, NULL);
}

/* All is written. */
static void drained(struct connection *c)
{
    c->batch_rest = 0;
    account(c);
    if (c->out.capacity > KEEP_MAX)
        buffer_release(&c->out);
    if (c->is_blocked) {
        event_del(c->writable);
        c->is_blocked = false;
        struct session *s;
        TAILQ_FOREACH(s, &c->sessions, of_connection)
        {
            session_mark_dirty(s);
        }
    }
    if (c->state == CONNECTION_LAST)
        connection_close(c, c->last_reason, NULL);
}

void connection_write(struct connection *c, struct iovec *iov, int count, size_t total)
{
    size_t waiting = buffer_length(&c->out);
    iov[0] = (struct iovec){.iov_base = buffer_bytes(&c->out), .iov_len = waiting};
    ssize_t written = waiting > 0 ? connection_transmit(c, iov, count + 1)
                                  : connection_transmit(c, iov + 1, count);
    if (written < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
            close_on_error(c);
            return;
        }
        written = 0;
    }
    size_t taken = (size_t)written;
    c->server->counters.bytes_out += taken;
    size_t replies = taken < waiting ? taken : waiting;
    buffer_consume(&c->out, replies);
    c->batch_rest -= replies < c->batch_rest ? replies : c->batch_rest;
    if (taken == waiting + total && !secure_is_pending(c)) {
        drained(c);
        return;
    }
    if (total > 0) {
        if (!keep_rest(c, iov, count, taken - replies)) {
            connection_close(c, CLOSE_MEMORY, NULL);
            return;
        }
        c->batch_rest = buffer_length(&c->out);
    }
    account(c);
    if (c->state != CONNECTION_CLOSED)
        wait_until_writable(c);
}

void connection_flush(struct connection *c)
{
    if (c->state == CONNECTION_CLOSED)
        return;
    if (buffer_length(&c->out) == 0 && !secure_is_pending(c))
        drained(c);
    else
        connection_write(c, c->server->iov, 0, 0);
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    connection_flush(context);
}

/* The longest SP message that is taken; who has not shown the secret may only ATTACH. */
static uint64_t longest(const struct connection *c)
{
    if (c->server->secret != NULL && !c->challenge.passed)
        return WIRE_ATTACH_PART_SIZE + 4096;
    return c->server->request_max;
}

static size_t consume_hello(struct connection *c, const uint8_t *bytes, size_t length)
{
    enum status status = sp_hello_check(bytes, length, SP_REQ);
    if (status == STATUS_MALFORMED)
        connection_close(c, CLOSE_HELLO,
                         c->tls == NULL && tls_looks_like(bytes, length)
                             ? "it speaks TLS, this socket does not"
                             : NULL);
    if (status != STATUS_OK)
        return 0;
    c->state = CONNECTION_OPEN;
    return SP_HELLO_SIZE;
}

/* Executes all complete messages; returns how many bytes they were. */
static size_t consume(struct connection *c, const uint8_t *bytes, size_t length)
{
    size_t used = 0, prefix = sp_prefix_size(c->transport);
    if (c->state == CONNECTION_HELLO)
        used = consume_hello(c, bytes, length);
    while (c->state == CONNECTION_OPEN) {
        uint64_t body;
        enum status status =
            sp_prefix_decode(bytes + used, length - used, c->transport, longest(c), &body);
        if (status == STATUS_MALFORMED)
            connection_close(c, CLOSE_PREFIX, NULL);
        else if (status == STATUS_TOO_LARGE)
            connection_close(c, CLOSE_LENGTH, NULL);
        if (status != STATUS_OK || length - used - prefix < body)
            break;
        requests_handle(c, bytes + used + prefix, (size_t)body);
        used += prefix + (size_t)body;
    }
    return used;
}

/* Bytes that are missing of the message whose start is in c->in. */
static size_t missing(const struct connection *c)
{
    uint64_t body;
    if (c->state != CONNECTION_OPEN ||
        sp_prefix_decode(buffer_bytes(&c->in), buffer_length(&c->in), c->transport, longest(c),
                         &body) != STATUS_OK)
        return 1;
    return sp_prefix_size(c->transport) + (size_t)body - buffer_length(&c->in);
}

/* A long message grows in the connection's own buffer; nothing behind it is read with it. */
static ssize_t read_long(struct connection *c, size_t wanted)
{
    size_t room = wanted < READ_SIZE ? wanted : READ_SIZE;
    uint8_t *at = buffer_reserve(&c->in, room);
    if (at == NULL) {
        connection_close(c, CLOSE_MEMORY, NULL);
        return -1;
    }
    ssize_t got = connection_receive(c, at, room);
    if (got > 0) {
        buffer_commit(&c->in, (size_t)got);
        buffer_consume(&c->in, consume(c, buffer_bytes(&c->in), buffer_length(&c->in)));
    }
    return got;
}

/* All else is read behind what is there already, in the one buffer of the server, which stays warm.
 */
static ssize_t read_short(struct connection *c)
{
    size_t before = buffer_length(&c->in);
    uint8_t *bytes = c->server->read_buffer;
    ssize_t got = connection_receive(c, bytes + before, READ_SIZE);
    if (got <= 0)
        return got;
    if (before > 0) {
        memcpy(bytes, buffer_bytes(&c->in), before);
        buffer_consume(&c->in, before);
    }
    size_t length = before + (size_t)got;
    size_t used = consume(c, bytes, length);
    if (c->state < CONNECTION_LAST && used < length &&
        !buffer_append(&c->in, bytes + used, length - used))
        connection_close(c, CLOSE_MEMORY, NULL);
    return got;
}

static void read_once(struct connection *c)
{
    size_t wanted = buffer_length(&c->in) > 0 ? missing(c) : 0;
    bool is_long = buffer_length(&c->in) + wanted > READ_SIZE;
    ssize_t got = is_long ? read_long(c, wanted) : read_short(c);
    if (c->state == CONNECTION_CLOSED)
        return;
    if (got > 0) {
        c->heard = c->server->now;
        c->server->counters.bytes_in += (uint64_t)got;
        if (buffer_length(&c->in) == 0)
            buffer_release(&c->in);
        account(c);
    } else if (got == 0) {
        connection_close(c, CLOSE_PEER, NULL);
    } else if (errno != EAGAIN && errno != EINTR) {
        close_on_error(c);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    struct connection *c = context;
    do /* what a filter holds makes no socket readable */
        read_once(c);
    while (c->state < CONNECTION_LAST && secure_has_input(c));
    if (c->tls != NULL && !c->is_blocked && !c->is_dirty &&
        (buffer_length(&c->out) > 0 || secure_is_pending(c)))
        connection_flush(c); /* the handshake may just have ended, or its answer wait */
}

void connection_tick(struct connection *c)
{
    int64_t now = c->server->now;
    if (c->state == CONNECTION_HELLO && now - c->opened >= HELLO_TIMEOUT)
        connection_close(c, secure_is_opening(c) ? CLOSE_TLS_LATE : CLOSE_HELLO_LATE, NULL);
    else if (c->state == CONNECTION_LAST && now - c->last_since >= HELLO_TIMEOUT)
        connection_close(c, CLOSE_STUCK, close_reason_text(c->last_reason));
    else if (c->state == CONNECTION_OPEN && c->session_count > 0 &&
             now - c->heard >= SILENCE_TIMEOUT)
        connection_close(c, CLOSE_SILENT, NULL);
    else if (c->state == CONNECTION_OPEN && c->session_count == 0 && now - c->heard >= IDLE_TIMEOUT)
        connection_close(c, CLOSE_IDLE, NULL);
}

static void describe_peer(struct connection *c, const struct listener *listener)
{
    if (listener->url->transport == SP_IPC) {
        struct ucred peer = {0};
        socklen_t size = sizeof(peer);
        getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
        snprintf(c->peer, sizeof(c->peer), "ipc peer pid %d uid %u", peer.pid, peer.uid);
        return;
    }
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    char host[48] = "?", port[8] = "?";
    if (getpeername(c->fd, (struct sockaddr *)&address, &size) == 0)
        getnameinfo((struct sockaddr *)&address, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(c->peer, sizeof(c->peer), "%s peer %s port %s", listener->url->tls ? "tls+tcp" : "tcp",
             host, port);
}

static void tune(const struct connection *c)
{
    int one = 1, size = SEND_BUFFER;
    if (c->transport == SP_IPC)
        setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    else
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* NULL: the peer has as many as it may (errno EUSERS), or out of memory. */
static struct connection *connection_new(struct server *server, const struct listener *listener,
                                         int fd)
{
    struct connection *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->server = server;
    c->fd = fd;
    c->transport = listener->url->transport;
    describe_peer(c, listener);
    c->account = peers_enter(server, fd, c->peer);
    if (c->account == NULL) {
        free(c);
        return NULL;
    }
    c->readable = event_new(server->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(server->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    if (listener->url->tls)
        c->tls = tls_filter_new(server->tls, NULL);
    if (c->readable != NULL && c->writable != NULL && (c->tls != NULL || !listener->url->tls) &&
        event_add(c->readable, NULL) == 0)
        return c;
    if (c->readable != NULL)
        event_free(c->readable);
    if (c->writable != NULL)
        event_free(c->writable);
    tls_filter_free(c->tls);
    peers_leave(server, c->account);
    free(c);
    errno = ENOMEM;
    return NULL;
}

void connection_accept(struct server *server, const struct listener *listener, int fd)
{
    struct connection *c = connection_new(server, listener, fd);
    if (c == NULL) {
        server->counters.accept_failures += errno != EUSERS;
        close(fd);
        return;
    }
    c->opened = c->heard = server->now;
    TAILQ_INIT(&c->sessions);
    buffer_init(&c->in, server->request_max + SP_PREFIX_MAX + READ_SIZE);
    buffer_init(&c->out, (size_t)REPLIES_MAX + TEXT_MAX + WIRE_BATCH_SIZE + server->request_max);
    TAILQ_INSERT_TAIL(&server->connections, c, entry);
    server->connection_count++;
    server->counters.connections_opened++;
    tune(c);
    uint8_t *hello = buffer_reserve(&c->out, SP_HELLO_SIZE);
    if (hello == NULL) {
        connection_close(c, CLOSE_MEMORY, NULL);
        return;
    }
    sp_hello_encode(hello, SP_REP);
    buffer_commit(&c->out, SP_HELLO_SIZE);
    log_debug("connection of %s accepted on %s", c->peer, listener->name);
    connection_flush(c);
}
