#include "callback_pool.h"
#include "descriptors.h"
#include "mailbox_internal.h"
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

enum { LATE_CHECKS = 5 }; /* a mailbox that waited for so many checks needs one more thread */

void callback_pool_unref(struct callback_pool *pool)
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
        while ((c = mailbox_pop(m)) != NULL)
            callback_free(c);
        m->busy = false;
        mailbox_unref(m);
    }
    callback_pool_unref(pool);
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

void callback_pool_append(struct callback_pool *pool, struct mailbox *m)
{
    m->next_ready = NULL;
    m->ready_at = pool->checks;
    if (pool->last_ready == NULL)
        pool->first_ready = m;
    else
        pool->last_ready->next_ready = m;
    pool->last_ready = m;
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
        *callback = mailbox_pop(m);
        pool->takes++;
    }
    pthread_mutex_unlock(&pool->lock);
    return m;
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
