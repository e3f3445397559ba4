#ifndef ADAPTER_CLIENT_INTERNAL_H
#define ADAPTER_CLIENT_INTERNAL_H

/*
 * What client*.c and commands.c share. All of it runs on the I/O thread, but for the members marked
 * atomic and what says "any thread".
 *
 *   client.c        life: new, start, end, the reap at the end of a turn
 *   client_queue.c  the out-queue and the flush
 *   io_flush.c      who is flushed at the end of a turn
 *   client_read.c   what the browser sends, back-pressure
 *   client_close.c  closing handshake, eviction, the tick
 *
 * The rule for being destroyed in one's own callback: client_end only marks; the struct and the
 * subscriptions stay until io_flush reaps, at the end of the turn. So a pointer is good for the
 * whole turn, hub_deliver may end clients while it walks the table, and CALLBACK_CLOSE is posted
 * after everything else.
 *
 *   NEW ──start──► OPEN ──begin_close──► CLOSING ──queue sent──► AWAIT_PEER ──its Close──► ENDED
 *                                            └── its Close was here already ─────────────► ENDED
 *                                            └── the peer broke a rule ──► LINGER ──EOF──► ENDED
 *
 * From every state client_end leads to ENDED. CLOSING has the stall limit, the others CLOSE_MS.
 */
#include "client.h"
#include "send_ring.h"
#include "ws_frame.h"
#include <event2/event.h>
#include <event2/event_struct.h>

enum client_state {
    CLIENT_NEW,
    CLIENT_OPEN,
    CLIENT_CLOSING, /* the Close frame stands in the queue (SSE: the queue is sent, then the end) */
    CLIENT_AWAIT_PEER, /* our Close is out, the peer's is not here yet */
    CLIENT_LINGER, /* our side is shut; input is dropped, or a reset would destroy our Close frame
                    */
    CLIENT_ENDED
};

enum {
    CLIENT_CLOSE_MS = 5000,
    CLIENT_FRAME_COST = 32,
    CLIENT_BYTE_MS = 1, /* what a byte of a message may take, beside stall_seconds for the whole */
    CLIENT_UNSENT = 64 * 1024 /* bytes that the kernel may hold for a peer and not have sent */
};

/* Input that was read and cannot be handed on yet. */
struct held_input {
    size_t start;
    size_t end;
    uint8_t bytes[];
};

struct client {
    struct event event; /* for reading, writing or both, as wanted; see client_update_events */
    struct io_thread *io;
    struct mailbox *mailbox;
    struct client *next; /* of io->clients */
    struct client *previous;
    struct client *dirty_next;
    uintptr_t *ring;    /* frames that wait, lowest bit: counts as a write; &only or allocated */
    uintptr_t only;     /* the ring of one frame: most flushes never need more */
    size_t queued;      /* bytes that wait, without what of the first frame was sent */
    struct frame *pong; /* the latest pong, while an earlier one still waits */
    struct held_input *held;
    struct ws_receiver *receiver; /* kept only while something is under way; idle: NULL */
    struct subscriber subscriber;
    int64_t pending;     /* atomic: writes posted or queued */
    uint32_t references; /* atomic */
    int fd;              /* -1: closed */
    uint32_t ring_head;
    uint32_t ring_count;
    uint32_t ring_capacity;
    uint32_t sent;        /* bytes of the first frame that the kernel has */
    uint32_t received_at; /* these: io_thread's clock, its low 32 bits; compared by difference */
    uint32_t progress_at; /* last time that bytes were sent, or the queue began to fill */
    uint32_t deadline;    /* OPEN: of the pong; later: of the closing handshake, if has_deadline */
    uint32_t message_at;  /* if in_message: when it began, later by CLIENT_BYTE_MS for each byte */
    uint16_t timeout;     /* atomic: seconds of silence before a ping */
    uint16_t close_later; /* atomic: code of a close whose command could not be posted */
    struct ws_deflate_terms terms;
    bool is_websocket; /* else SSE. These two never change and are read by any thread, so they share
                        */
    bool deflate;      /* no memory with the flags below. It: terms hold */
    uint8_t state;
    uint8_t closed;        /* atomic: what client_is_open tells the embedding */
    uint8_t wants_drained; /* atomic */
    uint8_t interest;      /* EV_READ and EV_WRITE as registered */
    bool is_dirty : 1;
    bool blocked : 1;        /* the socket is full: wait for EV_WRITE */
    bool paused : 1;         /* not read, since the mailbox or the queue is too full */
    bool answered : 1;       /* the response head was sent entirely */
    bool opened : 1;         /* CALLBACK_OPEN was posted */
    bool close_received : 1; /* the peer's Close is here */
    bool failed : 1;         /* what it sends is not looked at any more */
    bool at_eof : 1;
    bool has_deadline : 1; /* a pong is waited for, or the closing handshake is bounded */
    bool pong_queued : 1;
    bool in_message : 1; /* the peer has sent a part of a message or of a frame */
};

static inline struct client *client_next(const struct client *c)
{
    return c->next;
}

/* What waits, with what a frame costs beside its bytes: or a flood of tiny ones would be free. */
static inline size_t client_backlog(const struct client *c)
{
    return c->queued + (size_t)c->ring_count * CLIENT_FRAME_COST;
}

/* A moment of the io_thread's clock, moved on by ms, but not past now. */
static inline uint32_t client_later(uint32_t since, uint32_t ms, uint64_t now_ms)
{
    uint32_t passed = (uint32_t)now_ms - since;
    return since + (passed < ms ? passed : ms);
}

/* Any thread. True: it was open until now. */
bool client_mark_closed(struct client *c);

/* Any thread: a close without memory for its command; the next tick begins it. */
void client_close_later(struct client *c, uint16_t code);

/* Any thread. */
static inline int64_t client_count_pending(struct client *c, int64_t n)
{
    return __atomic_add_fetch(&c->pending, n, __ATOMIC_ACQ_REL);
}

void client_mark_dirty(struct client *c);

/* Buries a client that ended: everything that must not happen while someone may still be walking
 * past it. */
void client_reap(struct client *c);

/* client_queue.c */

/*
 * client_flush in two steps, with the first send in between (send_all). begin: false when there is
 * nothing to send, or more than one piece: then client_flush does all of it. end: the result is in
 * the request. Nothing else is done to the client between the two, which is alive.
 */
bool client_flush_begin(struct client *c, struct send_request *request);
void client_flush_end(struct client *c, const struct send_request *request);

/* Appends without any policy and takes the reference over; false: no memory, the reference is gone.
 */
bool client_push(struct client *c, struct frame *frame, bool counts);

/* The pong for the latest ping; takes the reference over. At most one stands in the queue. */
void client_set_pong(struct client *c, struct frame *frame);

/* Drops what waits, but for a frame that the peer has the beginning of. */
void client_purge(struct client *c);

/* Drops all. */
void client_release_queue(struct client *c);

/* client_read.c */
void client_on_event(evutil_socket_t fd, short what, void *client);

/* Reads on, if the reasons for a pause are gone; input that was held back first. */
void client_resume(struct client *c);

/* Registers for what the state now wants. */
void client_update_events(struct client *c);

void client_release_input(struct client *c);

/* client_close.c */

/* CLIENT_CLOSE_MS from now on, unless that runs already. */
void client_bound_close(struct client *c);

/* The peer's Close frame: echo and end. code 0: it had none. */
void client_peer_closed(struct client *c, uint16_t code);

/* The peer broke a rule of the protocol: Close with code, then the end. */
void client_fail(struct client *c, uint16_t code, const char *reason);

/* Too slow: dropped, with a Close frame if the socket takes one in time. */
void client_evict(struct client *c);

/* The queue is empty in state CLOSING. */
void client_close_flushed(struct client *c);

#endif
