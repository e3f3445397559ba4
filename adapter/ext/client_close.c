#include "client_internal.h"
#include "io_internal.h"
#include <string.h>
#include <sys/socket.h>

enum { DRAIN_READS = 16 };

void client_bound_close(struct client *c)
{
    if (c->has_deadline)
        return;
    c->has_deadline = true;
    c->deadline = (uint32_t)c->io->now_ms + CLIENT_CLOSE_MS;
}

void client_begin_close(struct client *c, uint16_t code, const char *reason)
{
    if (c->state != CLIENT_OPEN)
        return;
    client_mark_closed(c);
    c->state = CLIENT_CLOSING;
    c->has_deadline = false;
    if (c->is_websocket) {
        size_t length = reason == NULL ? 0 : strlen(reason);
        struct frame *frame = frame_close(code, reason, length);
        if (frame == NULL || !client_push(c, frame, false)) {
            client_end(c, "out of memory");
            return;
        }
    }
    if (!c->blocked)
        client_mark_dirty(c);
    client_update_events(c);
}

void client_peer_closed(struct client *c, uint16_t code)
{
    c->close_received = true;
    if (c->state == CLIENT_AWAIT_PEER) {
        client_end(c, NULL);
        return;
    }
    client_begin_close(c, code, NULL);
    client_bound_close(c);
}

void client_fail(struct client *c, uint16_t code, const char *reason)
{
    IO_COUNT(c->io, protocol_errors, 1);
    io_log_peer(c->io, "a WebSocket is closed with %u: %s", (unsigned)code, reason);
    c->failed = true;
    if (c->state == CLIENT_AWAIT_PEER) {
        client_end(c, NULL);
        return;
    }
    client_begin_close(c, code, reason);
    client_bound_close(c);
}

static void close_as_too_slow(struct client *c)
{
    c->failed = true;
    client_begin_close(c, WS_CLOSE_POLICY, "too slow");
    client_bound_close(c);
}

void client_evict(struct client *c)
{
    IO_COUNT(c->io, evicted_slow, 1);
    io_log_peer(c->io, "a client is evicted: it reads too slowly, %zu bytes wait", c->queued);
    if (!c->is_websocket || !c->answered) {
        client_end(c, NULL);
        return;
    }
    client_purge(c);
    close_as_too_slow(c);
}

static void evict_dribbler(struct client *c)
{
    IO_COUNT(c->io, evicted_stalled, 1);
    io_log_peer(c->io, "a client is evicted: its message comes too slowly");
    close_as_too_slow(c);
}

/* Closing a socket with unread input makes the kernel send a reset, which destroys what the peer
 * has not read yet. */
static void drain_input(struct client *c)
{
    struct io_thread *io = c->io;
    for (int i = 0; i < DRAIN_READS; i++)
        if (recv(c->fd, io->read_buffer, io->read_buffer_size, MSG_DONTWAIT) <= 0)
            return;
}

void client_close_flushed(struct client *c)
{
    if (!c->is_websocket || c->close_received || c->at_eof) {
        drain_input(c);
        client_end(c, NULL);
        return;
    }
    c->has_deadline = false;
    client_bound_close(c);
    if (c->failed) {
        shutdown(c->fd, SHUT_WR);
        c->state = CLIENT_LINGER;
    } else {
        c->state = CLIENT_AWAIT_PEER;
        client_resume(c); /* its Close may be among what was held back */
    }
}

/* The tick. */

static bool has_passed(const struct client *c, uint32_t since, uint32_t seconds)
{
    return (uint32_t)c->io->now_ms - since >= seconds * 1000;
}

static bool is_stalled(const struct client *c)
{
    unsigned limit = c->io->config.stall_seconds;
    return limit > 0 && c->ring_count > 0 && has_passed(c, c->progress_at, limit);
}

/* Its message would never be whole: for stall_seconds it came slower than a byte a CLIENT_BYTE_MS.
 */
static bool is_dribbling(const struct client *c)
{
    unsigned limit = c->io->config.stall_seconds;
    return limit > 0 && c->in_message && has_passed(c, c->message_at, limit);
}

static bool is_late(const struct client *c)
{
    return c->has_deadline && (int32_t)((uint32_t)c->io->now_ms - c->deadline) >= 0;
}

static void keep_alive_websocket(struct client *c, unsigned timeout)
{
    if (c->paused || c->ring_count > 0)
        return; /* not reading, or the ping would only wait: the limits of those states hold */
    if (is_late(c)) {
        IO_COUNT(c->io, ping_timeouts, 1);
        client_end(c, "no pong");
        return;
    }
    if (c->has_deadline || timeout == 0 || !has_passed(c, c->received_at, timeout))
        return;
    struct frame *ping = frame_ping(NULL, 0);
    if (ping == NULL)
        return;
    client_queue(c, ping, false);
    frame_unref(ping);
    c->has_deadline = true;
    c->deadline = (uint32_t)c->io->now_ms + c->io->config.pong_seconds * 1000;
}

/* For proxies, and to learn that nobody is there any more. */
static void keep_alive_sse(struct client *c, unsigned timeout)
{
    if (timeout == 0 || c->ring_count > 0 || !has_passed(c, c->progress_at, timeout))
        return;
    struct frame *comment = frame_sse_comment(NULL, 0);
    if (comment == NULL)
        return;
    client_queue(c, comment, false);
    frame_unref(comment);
}

void client_excuse(struct client *c, uint32_t ms)
{
    c->received_at = client_later(c->received_at, ms, c->io->now_ms);
    c->progress_at = client_later(c->progress_at, ms, c->io->now_ms);
    c->message_at = client_later(c->message_at, ms, c->io->now_ms);
    c->deadline += ms;
}

void client_tick(struct client *c)
{
    uint16_t close_later = __atomic_exchange_n(&c->close_later, 0, __ATOMIC_RELAXED);
    if (close_later != 0)
        client_begin_close(c, close_later, NULL);
    if (c->paused)
        client_resume(c);
    if (!client_is_alive(c))
        return;
    if (c->paused || c->held != NULL)
        c->message_at = (uint32_t)c->io->now_ms; /* it is not the peer that is slow */
    if (is_stalled(c)) {
        IO_COUNT(c->io, evicted_stalled, 1);
        io_log_peer(c->io, "a client is evicted: no progress for %u s, %zu bytes wait",
                    c->io->config.stall_seconds, c->queued);
        client_end(c, NULL);
    } else if (c->state != CLIENT_OPEN) {
        if (is_late(c))
            client_end(c, "the closing handshake took too long");
    } else if (is_dribbling(c)) {
        evict_dribbler(c);
    } else if (c->is_websocket) {
        keep_alive_websocket(c, client_timeout(c));
    } else {
        keep_alive_sse(c, client_timeout(c));
    }
}
