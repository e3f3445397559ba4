#include "client_internal.h"
#include "commands.h"
#include "io_internal.h"
#include "ws_message.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void room_in_mailbox(void *client)
{
    commands_resume(client);
}

static bool queue_is_high(const struct client *c)
{
    return client_backlog(c) > c->io->config.max_pending / 2;
}

static bool must_pause(const struct client *c)
{
    return c->state == CLIENT_OPEN &&
           (mailbox_length(c->mailbox) >= c->io->config.mailbox_limit || queue_is_high(c));
}

/* A flush looks at the queue again; the mailbox tells when it has room, even if it just got some.
 */
static void pause_reading(struct client *c)
{
    c->paused = true;
    if (!queue_is_high(c))
        mailbox_notify_below(c->mailbox, c->io->config.mailbox_limit / 2, room_in_mailbox, c);
}

static void take_message(struct client *c, const struct ws_event *event)
{
    if (c->state != CLIENT_OPEN)
        return; /* closed for the application already */
    struct message *message =
        message_new(NULL, 0, event->data, event->length, event->kind == WS_EVENT_BINARY, 0);
    if (message == NULL || !mailbox_post(c->mailbox, CALLBACK_MESSAGE, NULL, message, 0, 0))
        client_fail(c, WS_CLOSE_INTERNAL, "out of memory");
}

static void take_ping(struct client *c, const struct ws_event *event)
{
    struct frame *pong = c->state == CLIENT_OPEN ? frame_pong(event->data, event->length) : NULL;
    if (pong != NULL)
        client_set_pong(c, pong);
}

static bool on_ws_event(void *context, const struct ws_event *event)
{
    struct client *c = context;
    switch (event->kind) {
    case WS_EVENT_TEXT:
    case WS_EVENT_BINARY:
        c->in_message = false;
        take_message(c, event);
        break;
    case WS_EVENT_PING:
        take_ping(c, event);
        break;
    case WS_EVENT_PONG:
        break; /* any byte has proved the peer alive already */
    case WS_EVENT_CLOSE:
        client_peer_closed(c, event->code);
        break;
    case WS_EVENT_FAILURE:
        client_fail(c, event->code, (const char *)event->data);
        break;
    }
    return client_is_alive(c) && !must_pause(c);
}

static bool wants_input(const struct client *c)
{
    return c->is_websocket && !c->failed && !c->close_received && c->state < CLIENT_LINGER;
}

static bool is_between_messages(const struct ws_receiver *r)
{
    return r->header_length == 0 && !r->in_frame && r->kind == 0;
}

/* What is under way after these bytes has time until the tick finds that it dribbles. */
static void time_message(struct client *c, const struct ws_receiver *r, size_t length)
{
    bool goes_on = c->in_message;
    c->in_message = !is_between_messages(r);
    if (goes_on)
        c->message_at =
            client_later(c->message_at, (uint32_t)length * CLIENT_BYTE_MS, c->io->now_ms);
    else if (c->in_message)
        c->message_at = (uint32_t)c->io->now_ms;
}

/* An idle receiver says nothing that the client does not know, so none is kept between messages. */
static void keep_receiver(struct client *c, struct ws_receiver *r)
{
    bool needed = wants_input(c) && (!is_between_messages(r) || r->inflater != NULL);
    if (needed && r != c->receiver) {
        c->receiver = malloc(sizeof(*r));
        if (c->receiver != NULL)
            *c->receiver = *r;
        else
            client_fail(c, WS_CLOSE_INTERNAL, "out of memory");
        needed = c->receiver != NULL;
    }
    if (needed)
        return;
    ws_receiver_release(r);
    if (r == c->receiver) {
        free(r);
        c->receiver = NULL;
    }
}

/* Returns how many bytes are done with: all, unless reading has to pause. */
static size_t feed(struct client *c, uint8_t *bytes, size_t length)
{
    if (!wants_input(c))
        return length;
    struct ws_receiver fresh;
    struct ws_receiver *r = c->receiver;
    if (r == NULL) {
        r = &fresh;
        ws_receiver_init(r, c->io->config.max_message, c->deflate ? &c->terms : NULL);
    }
    size_t used = ws_receiver_feed(r, bytes, length, on_ws_event, c);
    time_message(c, r, used);
    keep_receiver(c, r);
    return used;
}

static void hold(struct client *c, const uint8_t *bytes, size_t length)
{
    c->held = malloc(sizeof(*c->held) + length);
    if (c->held == NULL) {
        client_fail(c, WS_CLOSE_INTERNAL, "out of memory");
        return;
    }
    c->held->start = 0;
    c->held->end = length;
    memcpy(c->held->bytes, bytes, length);
}

static void feed_held(struct client *c)
{
    struct held_input *held = c->held;
    held->start += feed(c, held->bytes + held->start, held->end - held->start);
    if (held->start < held->end && client_is_alive(c))
        return;
    free(held);
    c->held = NULL;
}

void client_resume(struct client *c)
{
    if (!client_is_alive(c))
        return;
    c->paused = false;
    while (c->held != NULL && !must_pause(c))
        feed_held(c);
    if (c->held != NULL || must_pause(c))
        pause_reading(c);
    client_update_events(c);
}

void client_release_input(struct client *c)
{
    if (c->receiver != NULL)
        ws_receiver_release(c->receiver);
    free(c->receiver);
    free(c->held);
    c->receiver = NULL;
    c->held = NULL;
}

static void at_end_of_input(struct client *c)
{
    if (c->state == CLIENT_CLOSING) {
        /* It may still read what is on the way to it, the Close frame above all. */
        c->at_eof = true;
        client_bound_close(c);
        client_update_events(c);
    } else {
        client_end(c, c->state == CLIENT_OPEN && c->is_websocket
                          ? "the peer left without a closing handshake"
                          : NULL);
    }
}

static void client_read(struct client *c)
{
    struct io_thread *io = c->io;
    if (must_pause(c)) {
        pause_reading(c);
        client_update_events(c);
        return;
    }
    if (c->held != NULL) { /* closing by now: what was held back comes first */
        client_resume(c);
        return;
    }
    ssize_t n = recv(c->fd, io->read_buffer, io->read_buffer_size, MSG_DONTWAIT);
    if (n == 0) {
        at_end_of_input(c);
        return;
    }
    if (n < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            client_end(c, "the connection was reset");
        return;
    }
    c->received_at = (uint32_t)io->now_ms;
    if (c->state == CLIENT_OPEN)
        c->has_deadline = false; /* as good as a pong */
    size_t used = feed(c, io->read_buffer, (size_t)n);
    if (!client_is_alive(c) || used == (size_t)n)
        return;
    hold(c, io->read_buffer + used, (size_t)n - used);
    client_resume(c);
}

void client_on_event(evutil_socket_t fd, short what, void *client)
{
    struct client *c = client;
    (void)fd;
    if (what & EV_WRITE) {
        c->blocked = false;
        client_mark_dirty(c);
    }
    if (what & EV_READ)
        client_read(c);
}

static bool wants_read(const struct client *c)
{
    if (c->state == CLIENT_OPEN)
        return !c->paused && c->held == NULL;
    return c->state != CLIENT_ENDED && !c->at_eof;
}

void client_update_events(struct client *c)
{
    int wanted = 0;
    if (wants_read(c))
        wanted |= EV_READ;
    if (c->blocked && c->state != CLIENT_ENDED)
        wanted |= EV_WRITE;
    if (wanted == c->interest)
        return;
    if (c->interest != 0)
        event_del(&c->event);
    c->interest = (uint8_t)wanted;
    if (wanted == 0)
        return;
    event_assign(&c->event, c->io->base, c->fd, (short)(wanted | EV_PERSIST), client_on_event, c);
    if (event_add(&c->event, NULL) != 0) {
        c->interest = 0;
        client_end(c, "the socket cannot be watched");
    }
}
