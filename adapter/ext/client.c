#include "client_internal.h"
#include "commands.h"
#include "descriptors.h"
#include "hub.h"
#include "io_internal.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static bool copy_input(struct client *c, const struct client_options *options)
{
    size_t length = options->received_length;
    if (length == 0)
        return true;
    c->held = malloc(sizeof(*c->held) + length);
    if (c->held == NULL)
        return false;
    c->held->start = 0;
    c->held->end = length;
    memcpy(c->held->bytes, options->received, length);
    return true;
}

static void set_terms(struct client *c, const struct client_options *options)
{
    const uint8_t bits = WS_DEFLATE_BITS_MAX;
    c->deflate = options->deflate && c->is_websocket;
    c->terms = (struct ws_deflate_terms){
        .client_takeover = options->deflate_takeover,
        .client_bits = options->client_bits == 0 ? bits : options->client_bits,
        .server_bits = options->server_bits == 0 ? bits : options->server_bits};
}

static void client_free(struct client *c)
{
    if (c->fd >= 0 && io_is_ours(c->io)) /* in a child the table closed it */
        descriptors_close(c->fd, true);
    client_release_queue(c);
    client_release_input(c);
    mailbox_unref(c->mailbox);
    io_unref(c->io);
    free(c);
}

struct client *client_new(struct io_thread *io, const struct client_options *options,
                          uintptr_t owner)
{
    struct client *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->io = io_ref(io);
    c->references = 1;
    c->fd = -1;
    c->is_websocket = options->protocol == CLIENT_WEBSOCKET;
    set_terms(c, options);
    c->wants_drained = options->wants_drained;
    c->timeout =
        (uint16_t)(io->config.ping_seconds < UINT16_MAX ? io->config.ping_seconds : UINT16_MAX);
    subscriber_init(&c->subscriber);
    c->mailbox = mailbox_new(io->callbacks, owner);
    struct frame *response = frame_raw(options->response, options->response_length);
    bool ok = response != NULL && client_push(c, response, false);
    if (ok && c->mailbox != NULL && copy_input(c, options) && descriptors_add(options->fd)) {
        c->fd = options->fd;
        return c;
    }
    client_free(c);
    return NULL;
}

struct client *client_ref(struct client *c)
{
    __atomic_add_fetch(&c->references, 1, __ATOMIC_RELAXED);
    return c;
}

void client_unref(struct client *c)
{
    if (c != NULL && __atomic_sub_fetch(&c->references, 1, __ATOMIC_ACQ_REL) == 0)
        client_free(c);
}

/* Any thread. */

struct mailbox *client_mailbox(struct client *c)
{
    return c->mailbox;
}

enum client_protocol client_protocol(const struct client *c)
{
    return c->is_websocket ? CLIENT_WEBSOCKET : CLIENT_SSE;
}

bool client_deflates(const struct client *c)
{
    return c->deflate && c->terms.server_bits == WS_DEFLATE_BITS_MAX;
}

bool client_is_open(const struct client *c)
{
    return !__atomic_load_n(&c->closed, __ATOMIC_ACQUIRE) && io_is_ours(c->io);
}

int64_t client_pending(const struct client *c)
{
    return client_is_open(c) ? __atomic_load_n(&c->pending, __ATOMIC_ACQUIRE) : -1;
}

void client_set_wants_drained(struct client *c, bool wants)
{
    __atomic_store_n(&c->wants_drained, wants, __ATOMIC_RELAXED);
}

unsigned client_timeout(const struct client *c)
{
    return __atomic_load_n(&c->timeout, __ATOMIC_RELAXED);
}

void client_set_timeout(struct client *c, unsigned seconds)
{
    __atomic_store_n(&c->timeout, (uint16_t)(seconds < UINT16_MAX ? seconds : UINT16_MAX),
                     __ATOMIC_RELAXED);
}

bool client_mark_closed(struct client *c)
{
    return !__atomic_exchange_n(&c->closed, 1, __ATOMIC_ACQ_REL);
}

void client_close_later(struct client *c, uint16_t code)
{
    client_mark_closed(c);
    __atomic_store_n(&c->close_later, code, __ATOMIC_RELAXED);
}

/* The I/O thread. */

bool client_is_alive(const struct client *c)
{
    return c->state != CLIENT_ENDED;
}

struct subscriber *client_subscriber(struct client *c)
{
    return &c->subscriber;
}

struct client *client_of_subscriber(struct subscriber *s)
{
    return (struct client *)(void *)((char *)s - offsetof(struct client, subscriber));
}

static void enlist(struct client *c)
{
    struct io_thread *io = c->io;
    c->next = io->clients;
    if (c->next != NULL)
        c->next->previous = c;
    io->clients = client_ref(c);
}

static void delist(struct client *c)
{
    if (c->previous != NULL)
        c->previous->next = c->next;
    else
        c->io->clients = c->next;
    if (c->next != NULL)
        c->next->previous = c->previous;
    c->next = c->previous = NULL;
}

void client_start(struct client *c)
{
    struct io_thread *io = c->io;
    const int on = 1;
    /* Else the kernel takes megabytes for a peer that reads nothing. Both fail on unix sockets. */
    const int unsent = CLIENT_UNSENT;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
    event_assign(&c->event, io->base, c->fd, 0, client_on_event, c);
    c->state = CLIENT_OPEN;
    c->received_at = c->progress_at = (uint32_t)io->now_ms;
    enlist(c);
    c->opened = mailbox_post(c->mailbox, CALLBACK_OPEN, NULL, NULL, 0, 0);
    if (!c->opened) {
        client_end(c, "out of memory");
        return;
    }
    client_mark_dirty(c);
    client_update_events(c);
    if (!client_is_alive(c))
        return;
    if (io->shutting_down)
        client_begin_close(c, WS_CLOSE_GOING_AWAY, NULL);
    else if (c->held != NULL)
        client_resume(c);
}

void client_end(struct client *c, const char *reason)
{
    if (c->state == CLIENT_ENDED)
        return;
    if (reason != NULL && reason[0] != '\0')
        io_log(c->io, LOG_LEVEL_DEBUG, "a client ends: %s", reason);
    c->state = CLIENT_ENDED;
    client_mark_closed(c);
    client_update_events(c);
    mailbox_notify_below(c->mailbox, 0, NULL, NULL);
    delist(c);
    descriptors_close(c->fd, true);
    c->fd = -1;
    client_release_queue(c);
    client_mark_dirty(c); /* to be reaped */
}

void client_reap(struct client *c)
{
    struct io_thread *io = c->io;
    client_release_input(c);
    hub_drop_client(io->hub, c);
    if (c->opened && !mailbox_post(c->mailbox, CALLBACK_CLOSE, NULL, NULL, 0, 0))
        io_log(io, LOG_LEVEL_ERROR, "out of memory: an on_close is lost");
    io->again = true; /* the link has to tell what nobody wants any more */
    io_client_gone(io);
    client_unref(c);
}

void client_mark_dirty(struct client *c)
{
    if (c->is_dirty)
        return;
    c->is_dirty = true;
    c->dirty_next = c->io->dirty;
    c->io->dirty = c;
}
