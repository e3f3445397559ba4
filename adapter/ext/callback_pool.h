#ifndef ADAPTER_CALLBACK_POOL_H
#define ADAPTER_CALLBACK_POOL_H

/*
 * The mailboxes with work, and the threads that run their callbacks.
 *
 * A mailbox with work stands in the ready list, once. A callback thread takes a mailbox, runs one
 * callback (or a few) and gives it back; callback_pool_dispatch wakes a thread through the pool's
 * pipe, if all sleep. One short pthread mutex guards the pool, its mailboxes and what waits in
 * them.
 *
 * take, enter, leave and rouse are called by the threads that run callbacks; check by the I/O
 * thread; the rest by any. After fork the child forgets the pool (io_thread.h).
 */
#include "mailbox.h"

struct callback_pool;

/* block_limit: bytes that may wait for one block before its oldest are dropped. NULL: no memory or
 * no pipe (errno tells). Its ends are in the descriptor table. */
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

/*
 * Takes the next mailbox that has work and is not running: returns it with a reference and
 * *callback set to its oldest callback (now the caller's to run and free); NULL when nothing is
 * ready. The mailbox counts as running until mailbox_done.
 */
struct mailbox *callback_pool_take(struct callback_pool *pool, struct callback **callback);

/* Deliveries dropped so far because a block's limit was reached. */
uint64_t callback_pool_dropped(const struct callback_pool *pool);

#endif
