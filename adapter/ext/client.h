#ifndef ADAPTER_CLIENT_H
#define ADAPTER_CLIENT_H

/*
 * One browser connection: a WebSocket or an SSE stream whose handshake response is already decided.
 *
 * Owned by reference: the embedding's object holds one, the I/O thread one while the connection is
 * in its list, each command in the queue one. The socket belongs to the I/O thread from
 * commands_open on.
 *
 * Closing has one road, client_end (I/O thread): it closes the socket, takes the client out of the
 * list and drops what waits. At the end of the turn io_flush drops its subscriptions, posts
 * CALLBACK_CLOSE and gives the loop's reference back: so client_end may be called from anywhere,
 * also in the middle of hub_deliver, and a pointer stays good for the rest of the turn. Code that
 * may have ended a client asks client_is_alive before it does more with it; client_queue and all of
 * the below do so themselves.
 */
#include "frame.h"
#include "mailbox.h"
#include "subscriptions.h"
#include "ws_deflate.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_thread;
struct client;

enum client_protocol { CLIENT_WEBSOCKET, CLIENT_SSE };

struct client_options {
    int fd; /* a connected non-blocking socket, the client's from now on */
    enum client_protocol protocol;
    const void *response; /* the whole response head, sent first; copied */
    size_t response_length;
    const void *received; /* bytes that the server had already read past the request; copied */
    size_t received_length;
    bool deflate;          /* permessage-deflate was negotiated */
    bool deflate_takeover; /* these three: its terms (ws_deflate.h); bits 0 means 15 */
    uint8_t client_bits;
    uint8_t server_bits;
    bool wants_drained; /* the handler has on_drained */
};

/* A new client with one reference, not yet known to the I/O thread. owner: the embedding's handle,
 * found again with mailbox_owner(client_mailbox(c)). NULL: no memory (the fd is still the
 * caller's). */
struct client *client_new(struct io_thread *io, const struct client_options *options,
                          uintptr_t owner);
struct client *client_ref(struct client *c); /* any thread */
void client_unref(struct client *c);         /* any thread */

/* Any thread, all of these. After fork, in the child: closed. */
struct mailbox *client_mailbox(struct client *c);
enum client_protocol client_protocol(const struct client *c);
bool client_is_open(const struct client *c);  /* false once closed or marked to be closed */
bool client_deflates(const struct client *c); /* it may be sent frames of frame_deflated, 15 bits */
int64_t client_pending(const struct client *c); /* writes not yet with the kernel; -1 when closed */
void client_set_wants_drained(struct client *c, bool wants);
unsigned client_timeout(const struct client *c); /* seconds of silence before a ping; 0 never */

/* Seconds above 65,535 count as that. Any thread; at once. */
void client_set_timeout(struct client *c, unsigned seconds);

/* Below: the I/O thread only. */

bool client_is_alive(const struct client *c); /* client_end was not called yet */

/* Takes the connection into the loop; called by commands_open's command. */
void client_start(struct client *c);

/*
 * Queues a frame (takes a reference of its own) and marks the client dirty. The policy of a full
 * out-queue is here: when more than max_pending bytes are already queued (a frame counts 32 more
 * than its own), and a flush now does not help, the client is evicted. counts: it is one of the
 * writes that client_pending tells of.
 */
void client_queue(struct client *c, struct frame *frame, bool counts);

/* Writes what is queued, as much as the socket takes, in one or few sendmsg. io_flush sees to it
 * once per dirty client and loop turn, for many of one piece together (client_flush_begin). */
void client_flush(struct client *c);

/* After what is queued was sent: close frame with that code and the closing handshake (WebSocket),
 * or the end of the stream (SSE); bounded in time. */
void client_begin_close(struct client *c, uint16_t code, const char *reason);

/* The end, at once. reason is logged at debug level; NULL for what is ordinary. */
void client_end(struct client *c, const char *reason);

/* Once a second: ping, missing pong, stall, closing handshake out of time. */
void client_tick(struct client *c);

/* For so long this process did not run: what the client is given time for ends so much later. */
void client_excuse(struct client *c, uint32_t ms);

/* The client's place in the subscription table, and back. */
struct subscriber *client_subscriber(struct client *c);
struct client *client_of_subscriber(struct subscriber *s);

#endif
