#ifndef ADAPTER_MAILBOX_INTERNAL_H
#define ADAPTER_MAILBOX_INTERNAL_H

/*
 * What callback_pool.c and mailbox.c share: the pool's one lock guards the ready list, its
 * mailboxes and what waits for their blocks.
 */
#include "mailbox.h"
#include <pthread.h>

struct callback_pool {
    pthread_mutex_t lock;
    struct mailbox *first_ready; /* each holds a reference */
    struct mailbox *last_ready;
    size_t block_limit;
    uint64_t dropped;    /* atomic */
    uint32_t references; /* atomic: one of the owner, one of each mailbox */
    unsigned threads;    /* that entered */
    unsigned sleepers;   /* threads that were told NULL and not woken since */
    unsigned checks;     /* made so far */
    unsigned takes;      /* made so far */
    unsigned takes_then; /* at the last check */
    int fd;              /* the pipe: a token, one byte, wakes one thread; -1 once it is closed */
    int write_fd;
    unsigned waking; /* atomic: threads that write tokens without the lock */
};

struct mailbox {
    struct callback_pool *pool;
    uintptr_t owner;
    struct mailbox *next_ready;
    struct callback *first;
    struct callback *last;
    void (*notify)(void *);
    void *notify_context;
    uint32_t references; /* atomic */
    unsigned length;     /* written under the lock, read anywhere */
    unsigned below;
    unsigned ready_at; /* pool->checks when it came into the ready list */
    bool busy; /* in the ready list or running: its reference is with that list or that thread */
};

/* Gives one reference back, with the last one the memory. Not under the lock. */
void callback_pool_unref(struct callback_pool *pool);

/* Under the lock: to the end of the ready list. */
void callback_pool_append(struct callback_pool *pool, struct mailbox *m);

/* Under the lock: the oldest callback, now the caller's, or NULL. */
struct callback *mailbox_pop(struct mailbox *m);

#endif
