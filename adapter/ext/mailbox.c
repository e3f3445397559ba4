#include "mailbox.h"
#include "descriptors.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

enum { LATE_CHECKS = 5 }; /* a mailbox that waited for so many checks needs one more thread */

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

static void pool_unref(struct callback_pool *pool)
{
    if (__atomic_sub_fetch(&pool->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* A pipe and no eventfd: of several threads that read from it, a write wakes one; from an eventfd
 * it wakes all, and all but one go back to sleep. */
static bool open_pipe(struct callback_pool *pool)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return false;
    pool->fd = fds[0];
    pool->write_fd = fds[1];
    if (descriptors_add(fds[0]) && descriptors_add(fds[1]) &&
        fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0)
        return true;
    descriptors_close(fds[0], false);
    descriptors_close(fds[1], false);
    return false;
}

struct callback_pool *callback_pool_new(size_t block_limit)
{
    struct callback_pool *pool = calloc(1, sizeof(*pool));
    if (pool == NULL)
        return NULL;
    pool->references = 1;
    pool->block_limit = block_limit;
    if (!open_pipe(pool)) {
        free(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    return pool;
}

static struct callback *pop(struct mailbox *m);

void callback_pool_free(struct callback_pool *pool)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->lock);
    int fd = pool->fd, write_fd = pool->write_fd;
    pool->fd = pool->write_fd = -1;
    struct mailbox *ready = pool->first_ready;
    pool->first_ready = pool->last_ready = NULL;
    pthread_mutex_unlock(&pool->lock);
    while (__atomic_load_n(&pool->waking, __ATOMIC_ACQUIRE) > 0)
        sched_yield();
    descriptors_close(write_fd, false);
    descriptors_close(fd, false);
    while (ready != NULL) {
        struct mailbox *m = ready;
        struct callback *c;
        ready = m->next_ready;
        while ((c = pop(m)) != NULL)
            callback_free(c);
        m->busy = false;
        mailbox_unref(m);
    }
    pool_unref(pool);
}

int callback_pool_fd(const struct callback_pool *pool)
{
    return pool->fd;
}

uint64_t callback_pool_dropped(const struct callback_pool *pool)
{
    return __atomic_load_n(&pool->dropped, __ATOMIC_RELAXED);
}

/* Gives the lock back and wakes n sleepers: in this order, since it is the first thing that a woken
 * thread wants. Only sleepers are woken, so the pipe's 64 KiB never fill up. */
static void unlock_and_wake(struct callback_pool *pool, unsigned n)
{
    int fd = pool->write_fd;
    bool wakes = n > 0 && fd >= 0;
    if (wakes)
        __atomic_add_fetch(&pool->waking, 1, __ATOMIC_ACQUIRE);
    pthread_mutex_unlock(&pool->lock);
    if (!wakes)
        return;
    for (; n > 0; n--) {
        ssize_t ignored = write(fd, "", 1);
        (void)ignored;
    }
    __atomic_sub_fetch(&pool->waking, 1, __ATOMIC_RELEASE);
}

void callback_pool_wake(struct callback_pool *pool, unsigned n)
{
    pthread_mutex_lock(&pool->lock);
    pool->sleepers -= n < pool->sleepers ? n : pool->sleepers;
    unlock_and_wake(pool, n);
}

struct mailbox *mailbox_new(struct callback_pool *pool, uintptr_t owner)
{
    struct mailbox *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return NULL;
    __atomic_add_fetch(&pool->references, 1, __ATOMIC_RELAXED);
    m->pool = pool;
    m->owner = owner;
    m->references = 1;
    return m;
}

struct mailbox *mailbox_ref(struct mailbox *m)
{
    __atomic_add_fetch(&m->references, 1, __ATOMIC_RELAXED);
    return m;
}

void mailbox_unref(struct mailbox *m)
{
    if (m == NULL || __atomic_sub_fetch(&m->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    pool_unref(m->pool);
    free(m);
}

uintptr_t mailbox_owner(const struct mailbox *m)
{
    return m->owner;
}

unsigned mailbox_length(const struct mailbox *m)
{
    return __atomic_load_n(&m->length, __ATOMIC_RELAXED);
}

/* Both run under the lock. */
static void set_length(struct mailbox *m, unsigned length)
{
    __atomic_store_n(&m->length, length, __ATOMIC_RELAXED);
}

static void notify_if_below(struct mailbox *m)
{
    void (*notify)(void *) = m->notify;
    if (notify == NULL || m->length > m->below)
        return;
    m->notify = NULL;
    notify(m->notify_context);
}

void mailbox_notify_below(struct mailbox *m, unsigned below, void (*notify)(void *), void *context)
{
    pthread_mutex_lock(&m->pool->lock);
    m->below = below;
    m->notify = notify;
    m->notify_context = context;
    notify_if_below(m);
    pthread_mutex_unlock(&m->pool->lock);
}

static void make_ready(struct mailbox *m)
{
    struct callback_pool *pool = m->pool;
    m->next_ready = NULL;
    m->ready_at = pool->checks;
    if (pool->last_ready == NULL)
        pool->first_ready = m;
    else
        pool->last_ready->next_ready = m;
    pool->last_ready = m;
}

/* Whether a sleeper was counted as woken: a token is to be written for it. */
static bool take_sleeper(struct callback_pool *pool)
{
    if (pool->sleepers == 0)
        return false;
    pool->sleepers--;
    return true;
}

/* For work that waits. A thread that is awake looks for more before it sleeps: a second one would
 * only wait for the first one's interpreter lock. callback_pool_check sees to the case that it is
 * held up. */
static bool take_first_sleeper(struct callback_pool *pool)
{
    return pool->first_ready != NULL && pool->threads <= pool->sleepers && take_sleeper(pool);
}

void callback_pool_enter(struct callback_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->threads++;
    pthread_mutex_unlock(&pool->lock);
}

void callback_pool_leave(struct callback_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->threads--;
    unlock_and_wake(pool, take_first_sleeper(pool));
}

void callback_pool_rouse(struct callback_pool *pool)
{
    uint8_t token;
    ssize_t ignored = 0;

    pthread_mutex_lock(&pool->lock);
    bool has_token = pool->sleepers == 0; /* all sleepers were woken: one token is this thread's */
    if (!has_token)
        pool->sleepers--;
    pthread_mutex_unlock(&pool->lock);
    if (has_token)
        ignored = read(pool->fd, &token, sizeof(token));
    (void)ignored;
}

static bool is_behind(const struct callback_pool *pool)
{
    return pool->first_ready != NULL && pool->sleepers > 0;
}

void callback_pool_hurry(struct callback_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    unlock_and_wake(pool, is_behind(pool) && take_sleeper(pool));
}

bool callback_pool_dispatch(struct callback_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool wakes = take_first_sleeper(pool);
    bool behind = is_behind(pool);
    pool->takes_then = pool->takes;
    unlock_and_wake(pool, wakes);
    return behind;
}

bool callback_pool_check(struct callback_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->checks++;
    bool behind = is_behind(pool);
    bool wakes = behind &&
                 (pool->takes == pool->takes_then ||
                  pool->checks - pool->first_ready->ready_at > LATE_CHECKS) &&
                 take_sleeper(pool);
    pool->takes_then = pool->takes;
    unlock_and_wake(pool, wakes);
    return behind;
}

static void append(struct mailbox *m, struct callback *c)
{
    c->previous = m->last;
    if (m->last == NULL)
        m->first = c;
    else
        m->last->next = c;
    m->last = c;
    set_length(m, m->length + 1);
}

static void unlink_callback(struct mailbox *m, struct callback *c)
{
    if (c->previous == NULL)
        m->first = c->next;
    else
        c->previous->next = c->next;
    if (c->next == NULL)
        m->last = c->previous;
    else
        c->next->previous = c->previous;
    c->next = c->previous = NULL;
    set_length(m, m->length - 1);
}

/* What a waiting delivery costs: without the fixed part a flood of empty messages would be free. */
static size_t cost(const struct callback *c)
{
    size_t bytes = sizeof(*c) + sizeof(struct message);
    if (c->message != NULL)
        bytes += (size_t)c->message->channel_length + c->message->payload_length;
    return bytes;
}

static void forget_oldest(struct block *block)
{
    struct callback *c = block->oldest;
    block->oldest = c->next_of_block;
    if (block->oldest == NULL)
        block->newest = NULL;
    block->waiting -= cost(c);
}

/* Makes room for one more: the oldest delivery turns into the notice, or goes when the notice is
 * there already. The newest always stays, so a message larger than the limit still gets through. */
static void drop_oldest(struct mailbox *m, struct block *block)
{
    struct callback *c = block->oldest;
    forget_oldest(block);
    __atomic_fetch_add(&m->pool->dropped, 1, __ATOMIC_RELAXED);
    if (block->dropped != NULL) {
        block->dropped->last++;
        unlink_callback(m, c);
        callback_free(c);
        return;
    }
    message_unref(c->message);
    c->message = NULL;
    c->kind = CALLBACK_DROPPED;
    c->first = c->last = 1;
    block->dropped = c;
}

static void account_delivery(struct mailbox *m, struct callback *c)
{
    struct block *block = c->block;
    while (block->oldest != NULL && block->waiting + cost(c) > m->pool->block_limit)
        drop_oldest(m, block);
    if (block->newest == NULL)
        block->oldest = c;
    else
        block->newest->next_of_block = c;
    block->newest = c;
    block->waiting += cost(c);
}

static struct callback *callback_new(enum callback_kind kind, struct block *block,
                                     struct message *message, uint64_t first, uint64_t last)
{
    struct callback *c = malloc(sizeof(*c));
    if (c == NULL) {
        message_unref(message);
        block_unref(block);
        return NULL;
    }
    *c = (struct callback){
        .kind = kind, .block = block, .message = message, .first = first, .last = last};
    return c;
}

bool mailbox_post(struct mailbox *m, enum callback_kind kind, struct block *block,
                  struct message *message, uint64_t first, uint64_t last)
{
    struct callback_pool *pool = m->pool;
    struct callback *c = callback_new(kind, block, message, first, last);
    if (c == NULL)
        return false;
    pthread_mutex_lock(&pool->lock);
    bool closed = pool->fd < 0;
    bool nothing_new =
        kind == CALLBACK_DRAINED && m->last != NULL && m->last->kind == CALLBACK_DRAINED;
    if (!closed && !nothing_new) {
        if (kind == CALLBACK_DELIVERY)
            account_delivery(m, c);
        append(m, c);
        if (!m->busy) {
            m->busy = true;
            mailbox_ref(m);
            make_ready(m);
        }
        c = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    if (c != NULL)
        callback_free(c);
    return !closed;
}

/* Under the lock: the oldest callback, or NULL. */
static struct callback *pop(struct mailbox *m)
{
    struct callback *c = m->first;
    if (c == NULL)
        return NULL;
    unlink_callback(m, c);
    if (c->kind == CALLBACK_DELIVERY)
        forget_oldest(c->block);
    else if (c->kind == CALLBACK_DROPPED)
        c->block->dropped = NULL;
    notify_if_below(m);
    return c;
}

struct mailbox *callback_pool_take(struct callback_pool *pool, struct callback **callback)
{
    pthread_mutex_lock(&pool->lock);
    struct mailbox *m = pool->first_ready;
    if (m == NULL) {
        pool->sleepers++;
    } else {
        pool->first_ready = m->next_ready;
        if (pool->first_ready == NULL)
            pool->last_ready = NULL;
        *callback = pop(m);
        pool->takes++;
    }
    pthread_mutex_unlock(&pool->lock);
    return m;
}

struct callback *mailbox_next(struct mailbox *m)
{
    pthread_mutex_lock(&m->pool->lock);
    struct callback *c = pop(m);
    m->pool->takes += c != NULL;
    pthread_mutex_unlock(&m->pool->lock);
    return c;
}

void mailbox_done(struct mailbox *m)
{
    struct callback_pool *pool = m->pool;
    pthread_mutex_lock(&pool->lock);
    bool more = m->first != NULL;
    if (more)
        make_ready(m);
    else
        m->busy = false;
    pthread_mutex_unlock(&pool->lock);
    if (!more)
        mailbox_unref(m);
}

void callback_free(struct callback *c)
{
    message_unref(c->message);
    block_unref(c->block);
    free(c);
}

struct block *block_new(struct mailbox *mailbox, uintptr_t handle)
{
    struct block *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;
    b->references = 1;
    b->mailbox = mailbox_ref(mailbox);
    b->handle = handle;
    return b;
}

struct block *block_ref(struct block *b)
{
    __atomic_add_fetch(&b->references, 1, __ATOMIC_RELAXED);
    return b;
}

void block_unref(struct block *b)
{
    if (b == NULL || __atomic_sub_fetch(&b->references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    mailbox_unref(b->mailbox);
    free(b);
}

void block_cancel(struct block *b)
{
    __atomic_store_n(&b->cancelled, true, __ATOMIC_RELEASE);
}

bool block_is_cancelled(const struct block *b)
{
    return __atomic_load_n(&b->cancelled, __ATOMIC_ACQUIRE);
}
