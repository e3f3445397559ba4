#ifndef ADAPTER_RB_BROKERD_H
#define ADAPTER_RB_BROKERD_H

/*
 * What the rb_* files share. They are the only ones that know the Ruby VM; every function here runs
 * with the interpreter lock held unless it says otherwise. Functions that may raise say so.
 *
 * Who keeps what alive: live clients stand in one Array, global subscriptions in one Hash, both
 * with a registered address; a client's own block subscriptions in its Hash. C keeps pointers to
 * the structs behind those objects (the handles of mailboxes and blocks), never their VALUEs, so
 * that compaction may move the objects.
 */
#include "callback_pool.h"
#include "client.h"
#include "io_thread.h"
#include "status.h"
#include <ruby.h>
#include <stdbool.h>
#include <time.h>

extern VALUE brokerd_module; /* Brokerd */
extern VALUE brokerd_error;  /* Brokerd::Error */
extern VALUE brokerd_pubsub; /* Brokerd::PubSub */
extern VALUE
    brokerd_callbacks; /* Brokerd::Callbacks, the Ruby side of logs, errors, gaps, engines */

void rb_text_init(void);
void rb_runtime_init(void);
void rb_callbacks_init(void);
void rb_client_init(void);
void rb_client_write_init(VALUE client_class); /* called by the former */
void rb_subscription_init(void);
void rb_pubsub_init(void);
void rb_handshake_init(void);

/* rb_brokerd.c: the one place where a status becomes an exception; STATUS_OK returns. */
void brokerd_check(enum status status);

/* rb_text.c */

/* A payload: its bytes as a String that the caller keeps alive (RB_GC_GUARD), and its kind. Valid
 * UTF-8 and US-ASCII are text; binary or invalid is binary; anything else is transcoded to UTF-8.
 * Raises TypeError for what is no String, EncodingError when it cannot be transcoded. */
VALUE text_payload(VALUE data, bool *binary);

/* A channel or pattern: String or Symbol, else TypeError. Raises ArgumentError for a name that is
 * too long or a malformed pattern. */
VALUE text_name(VALUE name, bool is_pattern);

/* A fresh String: text as UTF-8, or ASCII-8BIT when binary or not valid UTF-8. */
VALUE text_string(const uint8_t *bytes, size_t length, bool binary);

/* The same, without the check, for what is known to be valid. */
VALUE text_valid_string(const uint8_t *bytes, size_t length);

/* The key under which subscriptions are kept: kind and name in one shared frozen String. */
VALUE text_key(VALUE name, bool is_pattern);

/* rb_runtime.c */

/* This process's I/O thread, started now if it is not running; NULL only when it cannot be started,
 * which is logged. May run Ruby code (configuration). */
struct io_thread *runtime_io(void);

/* The same without starting it: NULL when it does not run in this process. */
struct io_thread *runtime_running(void);

/* A number that changes whenever the I/O thread is started anew, 0 while none runs in this process.
 * What belongs to an older one is dead: its pointers must not be used, not even to give references
 * back. */
unsigned runtime_epoch(void);

/* rb_callbacks.c */

/* Starts the callback threads for this pool. They end at callbacks_stop or with the process. */
void callbacks_start(struct callback_pool *pool, unsigned threads);

/* Tells them to end and waits at most timeout seconds. False: one still runs, the pool must live
 * on. */
bool callbacks_stop(double timeout);

/* rb_client.c */

struct rb_client;       /* the struct behind a Brokerd::Client; mailbox_owner of its mailbox */
struct rb_subscription; /* the struct behind a Brokerd::Subscription; handle of its block */

/* The C client of a Brokerd::Client while it is open and this process's, else NULL; good until Ruby
 * code runs. websocket: whether it is one, told of a closed client too. */
struct client *rb_client_open(VALUE self, bool *websocket);

/* Runs one callback of a client: handler switches before and after it, bookkeeping for the last.
 * Must be called under rb_protect for each step; see rb_callbacks.c. */
VALUE rb_client_self(const struct rb_client *c);
VALUE rb_client_handler(const struct rb_client *c);

/* The next handler switch, if one was asked for: returns true with the handler that goes; the new
 * one is the handler from now on. */
bool rb_client_switch(struct rb_client *c, VALUE *old);

/* A CALLBACK_OPEN with first != 0 only makes the mailbox run; counts it off. */
void rb_client_nudged(struct rb_client *c);

/* on_close has run: subscriptions are cancelled, the object may be collected. */
void rb_client_closed(struct rb_client *c);

/* After on_shutdown: closes with 1001. */
void rb_client_end_shutdown(struct rb_client *c);

/* Clients whose on_close has not run yet. */
unsigned rb_client_live(void);

/* Forgets them all: the process forked, or the I/O thread is gone. */
void rb_client_forget(bool in_child);

/* rb_env.c */

/* A request's env as a client keeps it until somebody asks for it. */
struct packed_env;

/* Packs that Hash, which does not change, into *place (for xfree), which must be owner's own:
 * marked through it while this still runs. False: it has keys other than Strings and Symbols, and
 * has to stay a Hash. May raise NoMemoryError. */
bool rb_env_pack(VALUE owner, struct packed_env **place, VALUE env);

/* A new Hash with the same entries in the same order. Runs no Ruby code. */
VALUE rb_env_unpack(const struct packed_env *packed);

/* For the owner's own mark, compact and size; packed may be NULL. */
void rb_env_mark(const struct packed_env *packed);
void rb_env_compact(struct packed_env *packed);
size_t rb_env_size(const struct packed_env *packed); /* bytes */

/* rb_subscription.c */

/* A new Subscription that is not attached to anything yet. name from text_name. */
VALUE rb_subscription_new(VALUE name, bool is_pattern, VALUE callable);

/* Its block, made to deliver into that mailbox, owned by the subscription; NULL when memory is out.
 */
struct block *rb_subscription_block(VALUE subscription, struct mailbox *mailbox);

/* No more deliveries, also none that wait. */
void rb_subscription_cancel(VALUE subscription);

/* What a client has subscribed to (rb_subscriptions.c); *subscriptions, nil at first, is marked by
 * its owner. The key is text_key's, subscription true when there is no block. An older one of the
 * same key is cancelled. */
void rb_subscriptions_add(VALUE owner, VALUE *subscriptions, VALUE key, VALUE subscription);
bool rb_subscriptions_remove(VALUE *subscriptions, VALUE key); /* false: there was none */
void rb_subscriptions_drop(VALUE *subscriptions);              /* cancels them all */

/* Registers every global subscription with the I/O thread that was just started. */
void rb_subscription_attach_all(struct io_thread *io);

/* Gives back their blocks before the I/O thread ends; a later one will serve them again. */
void rb_subscription_detach_all(void);

/* Is there any global subscription? */
bool rb_subscription_any(void);

VALUE rb_subscription_self(const struct rb_subscription *s);
VALUE rb_subscription_callable(const struct rb_subscription *s);

/* rb_pubsub.c */

/* publish(to, message, engine = nil), shared by the module and the clients. */
VALUE pubsub_publish(int argc, VALUE *argv);

/* The arguments of every form of subscribe. */
struct subscribe_arguments {
    VALUE name; /* from text_name */
    bool is_pattern;
    void *as;    /* HUB_DIRECT_* */
    VALUE block; /* or nil */
};
void pubsub_subscribe_arguments(int argc, VALUE *argv, struct subscribe_arguments *arguments);
void pubsub_unsubscribe_arguments(int argc, VALUE *argv, struct subscribe_arguments *arguments);

/* Milliseconds of the monotonic clock, for waiting: how long a wait took in fact says only the
 * clock, since threads that compete for the interpreter lengthen each. */
static inline uint64_t rb_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#endif
