#ifndef ADAPTER_MAILBOX_H
#define ADAPTER_MAILBOX_H

/*
 * What the I/O thread hands to the callback threads. Each client has a mailbox, so has each block
 * that is subscribed outside a client, and one more carries notices (log lines, interest for
 * engines). The callbacks of one mailbox run in order and never two at a time; different mailboxes
 * run side by side.
 *
 * A mailbox with work stands in the pool's ready list, once. A callback thread takes a mailbox,
 * runs one callback (or a few) and gives it back; callback_pool_dispatch wakes a thread through the
 * pool's pipe, if all sleep. One short pthread mutex per pool guards
 * it all; it is never held while a callback runs, so a callback may post, subscribe, publish.
 *
 * Any thread may post. After fork the child forgets the pool (io_thread.h).
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

/* limit: bytes that may wait for one block before its oldest are dropped. NULL: no memory or no
 * pipe (errno tells). Its ends are in the descriptor table. */
struct callback_pool *callback_pool_new(size_t block_limit);

/* Closes the pipe and frees what waits. No thread may be in callback_pool_take any more.
 * Mailboxes that are still referenced stay valid; what is posted to them from now on is refused. */
void callback_pool_free(struct callback_pool *pool);

/* The descriptor that a callback thread blocks in read() on (one byte) when take gave NULL: take
 * then counts the thread as asleep, and only sleepers are woken. */
int callback_pool_fd(const struct callback_pool *pool);

/*
 * A thread that runs callbacks tells the pool of its coming and going, so that the pool knows how
 * many are awake: while one is, further work wakes no second one (in Ruby that would only wait for
 * the first one's interpreter lock). Without these calls every mailbox that becomes ready wakes
 * one.
 */
void callback_pool_enter(struct callback_pool *pool);
void callback_pool_leave(struct callback_pool *pool); /* awake, or after callback_pool_rouse */

/* For a thread that was told NULL and did not read a byte from the descriptor after that: it is
 * awake again. */
void callback_pool_rouse(struct callback_pool *pool);

/*
 * Wakes a thread if work waits and all sleep. Whoever posts calls it afterwards, once for all that
 * was posted together. Returns whether work waits while threads sleep: then callback_pool_check is
 * to be called in a millisecond.
 */
bool callback_pool_dispatch(struct callback_pool *pool);

/* Wakes one more thread when those that are awake took nothing since the last check, or what waits
 * has waited for five checks. Returns whether to check again in a millisecond. */
bool callback_pool_check(struct callback_pool *pool);

/* Wakes one thread for what waits, whoever else is awake: for those who will not call
 * callback_pool_check. */
void callback_pool_hurry(struct callback_pool *pool);

/* Wakes n threads that block in read, for instance to end them. */
void callback_pool_wake(struct callback_pool *pool, unsigned n);

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
 * callback_pool_dispatch. A DELIVERY past the block's
 * limit drops the oldest deliveries of that block and leaves one CALLBACK_DROPPED in their place. A
 * DRAINED behind a DRAINED that still waits says nothing new and is left out (true).
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

/*
 * Takes the next mailbox that has work and is not running: returns it with a reference and
 * *callback set to its oldest callback (now the caller's to run and free); NULL when nothing is
 * ready. The mailbox counts as running until mailbox_done.
 */
struct mailbox *callback_pool_take(struct callback_pool *pool, struct callback **callback);

/* The next callback of the same running mailbox without giving it back, or NULL when it has none.
 */
struct callback *mailbox_next(struct mailbox *m);

/* The taken mailbox is not running any more: it goes to the end of the ready list if it has work,
 * and the reference from take is given back. */
void mailbox_done(struct mailbox *m);

/* Deliveries dropped so far because a block's limit was reached. Any thread. */
uint64_t callback_pool_dropped(const struct callback_pool *pool);

#endif
