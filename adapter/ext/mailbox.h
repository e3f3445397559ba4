#ifndef ADAPTER_MAILBOX_H
#define ADAPTER_MAILBOX_H

/*
 * What the I/O thread hands to the callback threads (callback_pool.h). Each client has a mailbox,
 * so has each block that is subscribed outside a client, and one more carries notices (log lines,
 * interest for engines). The callbacks of one mailbox run in order and never two at a time;
 * different mailboxes run side by side.
 *
 * Any thread may post. The pool's lock guards what waits; it is never held while a callback runs,
 * so a callback may post, subscribe, publish.
 */
#include "message.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum callback_kind {
    CALLBACK_OPEN,
    CALLBACK_MESSAGE, /* message: what the browser sent; its channel is empty */
    CALLBACK_DRAINED,
    CALLBACK_SHUTDOWN,
    CALLBACK_CLOSE,    /* always the last of a client's mailbox */
    CALLBACK_DELIVERY, /* block, message: a publication for a block */
    CALLBACK_GAP,      /* block; first..last: ids that the block will not see */
    CALLBACK_DROPPED,  /* block; first = 1, last = number of deliveries dropped from a full mailbox
                        */
    CALLBACK_LOG,      /* message: payload is the line; first is the level (enum log_level) */
    CALLBACK_REPORT,   /* engine notices: first = token of the engine whose snapshot follows */
    CALLBACK_INTEREST, /* message: channel is the key, binary tells pattern; first = token, 0 for
                          all */
    CALLBACK_NO_INTEREST
};

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* A receiver of publications that is not a socket: a Ruby block. Shared by reference between the
 * hub's subscription, the deliveries that wait for it, and the Ruby object. */
struct block {
    uint32_t references;     /* atomic */
    bool cancelled;          /* atomic; set by unsubscribe: what still waits is skipped */
    uint64_t waiting;        /* bytes of the deliveries that wait, with what each costs in memory */
    struct mailbox *mailbox; /* a reference: the client's, or the block's own */
    uintptr_t handle;        /* the embedding's (the gem: a VALUE, kept alive until cancelled) */
    struct callback *oldest; /* this and the next two: waiting callbacks, under the pool's lock */
    struct callback *newest;
    struct callback *dropped; /* the CALLBACK_DROPPED that still waits, or NULL */
};

/* A new block with one reference that delivers into mailbox (takes a reference of its own); NULL
 * when memory is out. */
struct block *block_new(struct mailbox *mailbox, uintptr_t handle);
struct block *block_ref(struct block *b);
void block_unref(struct block *b);

/* Nothing more is to be delivered to it. Any thread. */
void block_cancel(struct block *b);
bool block_is_cancelled(const struct block *b);

struct callback {
    struct callback *next; /* the three links are the mailbox's */
    struct callback *previous;
    struct callback *next_of_block;
    enum callback_kind kind;
    struct block *block;     /* a reference, or NULL */
    struct message *message; /* a reference, or NULL */
    uint64_t first;
    uint64_t last;
};

/* Frees a callback and gives its references back. */
void callback_free(struct callback *c);

struct callback_pool;
struct mailbox;

/* A new empty mailbox with one reference. owner: the embedding's handle of the client (the gem: its
 * VALUE), 0 for a mailbox without one. */
struct mailbox *mailbox_new(struct callback_pool *pool, uintptr_t owner);
struct mailbox *mailbox_ref(struct mailbox *m);
void mailbox_unref(struct mailbox *m);
uintptr_t mailbox_owner(const struct mailbox *m); /* any thread */

/* Callbacks that wait, without the one that runs. Any thread; for back-pressure. */
unsigned mailbox_length(const struct mailbox *m);

/*
 * Posts one callback; block and message are given as references that the callback takes over. false
 * when memory is out (the references are given back all the same). Wakes nobody: see
 * callback_pool_dispatch. A DELIVERY past the block's limit drops the oldest deliveries of that
 * block and leaves one CALLBACK_DROPPED in their place. A DRAINED behind a DRAINED that still waits
 * says nothing new and is left out (true).
 */
bool mailbox_post(struct mailbox *m, enum callback_kind kind, struct block *block,
                  struct message *message, uint64_t first, uint64_t last);

/*
 * When at most `below` callbacks wait, now or later, notify(context) is called once, on the thread
 * that took the callback or at once on this one. It runs under the pool's lock: it may take the
 * command queue's lock and must not touch a mailbox. notify NULL takes an earlier request back;
 * after that returned, context is not used any more. Used by a client to read its socket again; I/O
 * thread.
 */
void mailbox_notify_below(struct mailbox *m, unsigned below, void (*notify)(void *), void *context);

/* The next callback of the same running mailbox without giving it back, or NULL when it has none.
 */
struct callback *mailbox_next(struct mailbox *m);

/* The taken mailbox is not running any more: it goes to the end of the ready list if it has work,
 * and the reference from callback_pool_take is given back. */
void mailbox_done(struct mailbox *m);

#endif
