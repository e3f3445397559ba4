#include "mailbox.h"
#include "mailbox_internal.h"
#include <stdlib.h>

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
    callback_pool_unref(m->pool);
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
            callback_pool_append(pool, m);
        }
        c = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    if (c != NULL)
        callback_free(c);
    return !closed;
}

struct callback *mailbox_pop(struct mailbox *m)
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

struct callback *mailbox_next(struct mailbox *m)
{
    pthread_mutex_lock(&m->pool->lock);
    struct callback *c = mailbox_pop(m);
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
        callback_pool_append(pool, m);
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
