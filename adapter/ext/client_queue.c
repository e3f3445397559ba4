#include "client_internal.h"
#include "io_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { RING_FIRST = 4, IOVECS = 256, LAGGING_PART = 4, LAGGING_PROGRESS_MS = 1000 };

static struct frame *frame_of(uintptr_t entry)
{
    return (struct frame *)(entry & ~(uintptr_t)1);
}

static uintptr_t entry_at(const struct client *c, uint32_t i)
{
    return c->ring[(c->ring_head + i) & (c->ring_capacity - 1)];
}

static bool grow(struct client *c)
{
    if (c->ring_capacity > UINT32_MAX / 2)
        return false;
    if (c->ring_capacity == 0) {
        c->ring = &c->only;
        c->ring_head = 0;
        c->ring_capacity = 1;
        return true;
    }
    uint32_t capacity = c->ring_capacity == 1 ? RING_FIRST : c->ring_capacity * 2;
    uintptr_t *ring = malloc(capacity * sizeof(*ring));
    if (ring == NULL)
        return false;
    for (uint32_t i = 0; i < c->ring_count; i++)
        ring[i] = entry_at(c, i);
    if (c->ring != &c->only)
        free(c->ring);
    c->ring = ring;
    c->ring_head = 0;
    c->ring_capacity = capacity;
    return true;
}

static void free_ring(struct client *c)
{
    if (c->ring != &c->only)
        free(c->ring);
    c->ring = NULL;
    c->ring_head = c->ring_count = c->ring_capacity = 0;
    c->sent = 0;
    c->queued = 0;
    c->pong_queued = false;
}

bool client_push(struct client *c, struct frame *frame, bool counts)
{
    if (c->ring_count == c->ring_capacity && !grow(c)) {
        frame_unref(frame);
        return false;
    }
    if (c->ring_count == 0 && c->state != CLIENT_NEW) /* new: not on the I/O thread */
        c->progress_at = (uint32_t)c->io->now_ms;
    c->ring[(c->ring_head + c->ring_count) & (c->ring_capacity - 1)] = (uintptr_t)frame | counts;
    c->ring_count++;
    c->queued += frame->length;
    if (counts)
        client_count_pending(c, 1);
    return true;
}

void client_queue(struct client *c, struct frame *frame, bool counts)
{
    if (c->state != CLIENT_OPEN)
        return; /* nothing goes out behind a Close frame */
    size_t backlog = client_backlog(c), max = c->io->config.max_pending;
    if (backlog > max / LAGGING_PART)
        c->io->lagging = true;
    if (backlog > max) {
        if (!c->blocked)
            client_flush(c);
        if (c->state != CLIENT_OPEN)
            return;
        if (client_backlog(c) > max) {
            client_evict(c);
            return;
        }
    }
    if (!client_push(c, frame_ref(frame), counts)) {
        client_end(c, "out of memory");
        return;
    }
    if (!c->blocked)
        client_mark_dirty(c);
}

bool io_clients_lag(const struct io_thread *io)
{
    for (const struct client *c = io->clients; c != NULL; c = c->next) {
        if (c->state == CLIENT_OPEN && client_backlog(c) > io->config.max_pending / LAGGING_PART &&
            (uint32_t)io->now_ms - c->progress_at < LAGGING_PROGRESS_MS)
            return true;
    }
    return false;
}

void client_set_pong(struct client *c, struct frame *frame)
{
    if (c->pong != NULL)
        frame_unref(c->pong);
    c->pong = frame;
    if (!c->blocked)
        client_mark_dirty(c);
}

static void push_pong(struct client *c)
{
    struct frame *pong = c->pong;
    if (pong == NULL || c->pong_queued || c->state != CLIENT_OPEN)
        return;
    c->pong = NULL;
    c->pong_queued = client_push(c, pong, false);
}

static size_t gather(const struct client *c, struct iovec *vectors, int *count)
{
    size_t bytes = 0;
    uint32_t skip = c->sent;
    uint32_t n = c->ring_count < IOVECS ? c->ring_count : IOVECS;
    for (uint32_t i = 0; i < n; i++) {
        struct frame *frame = frame_of(entry_at(c, i));
        vectors[i].iov_base = frame->bytes + skip;
        vectors[i].iov_len = frame->length - skip;
        bytes += vectors[i].iov_len;
        skip = 0;
    }
    *count = (int)n;
    return bytes;
}

/* The kernel has taken n bytes more. Returns how many of the client's writes are through by that.
 */
static int64_t advance(struct client *c, size_t n)
{
    int64_t counted = 0;
    uint32_t frames = 0;
    c->queued -= n;
    while (c->ring_count > 0) {
        uintptr_t entry = entry_at(c, 0);
        struct frame *frame = frame_of(entry);
        size_t left = frame->length - c->sent;
        if (n < left)
            break;
        n -= left;
        c->sent = 0;
        c->ring_head = (c->ring_head + 1) & (c->ring_capacity - 1);
        c->ring_count--;
        counted += (int64_t)(entry & 1);
        frames += frame->count;
        frame_unref(frame);
    }
    c->sent += (uint32_t)n;
    if (frames > 0)
        c->answered = true;
    IO_COUNT(c->io, frames_out, frames);
    return counted;
}

/* n: of `bytes`, how many the kernel took, or a negative errno. false: no more now (the socket is
 * full, or the client ended). */
static bool sent(struct client *c, ssize_t n, size_t bytes, int64_t *counted)
{
    if (n < 0) {
        if (n == -EINTR)
            return true;
        if (n == -EAGAIN || n == -EWOULDBLOCK || n == -ENOBUFS)
            c->blocked = true;
        else
            client_end(c, "the connection is gone");
        return false;
    }
    IO_COUNT(c->io, flushes, 1);
    IO_COUNT(c->io, bytes_out, n);
    c->progress_at = (uint32_t)c->io->now_ms;
    *counted += advance(c, (size_t)n);
    if (c->ring_count == 0)
        free_ring(c);
    c->blocked = (size_t)n < bytes;
    return !c->blocked;
}

/* One system call. */
static bool send_some(struct client *c, int64_t *counted)
{
    struct iovec vectors[IOVECS];
    int count;
    size_t bytes = gather(c, vectors, &count);
    struct msghdr header = {.msg_iov = vectors, .msg_iovlen = (size_t)count};
    ssize_t n = count == 1 ? send(c->fd, vectors[0].iov_base, bytes, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : sendmsg(c->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent(c, n < 0 ? -errno : n, bytes, counted);
}

/* on_drained: pending was non-zero, since writes went through just now, and is 0. */
static void settle_pending(struct client *c, int64_t counted)
{
    if (counted > 0 && client_count_pending(c, -counted) == 0 && c->state == CLIENT_OPEN &&
        __atomic_load_n(&c->wants_drained, __ATOMIC_RELAXED))
        mailbox_post(c->mailbox, CALLBACK_DRAINED, NULL, NULL, 0, 0);
}

/* The rest of a flush that may send more, or not, and has brought so many writes through. */
static void flush(struct client *c, bool more, int64_t counted)
{
    while (more) {
        push_pong(c);
        if (c->ring_count == 0)
            break;
        more = send_some(c, &counted);
    }
    settle_pending(c, counted);
    if (c->state == CLIENT_ENDED)
        return;
    if (c->state == CLIENT_CLOSING && c->ring_count == 0)
        client_close_flushed(c);
    else if (c->paused)
        client_resume(c);
    client_update_events(c);
}

void client_flush(struct client *c)
{
    flush(c, c->state != CLIENT_ENDED, 0);
}

bool client_flush_begin(struct client *c, struct send_request *request)
{
    push_pong(c);
    if (c->ring_count != 1)
        return false;
    const struct frame *frame = frame_of(entry_at(c, 0));
    *request = (struct send_request){
        .fd = c->fd, .bytes = frame->bytes + c->sent, .length = frame->length - c->sent};
    return true;
}

void client_flush_end(struct client *c, const struct send_request *request)
{
    int64_t counted = 0;
    bool more = sent(c, request->result, request->length, &counted);
    flush(c, more, counted);
}

void client_purge(struct client *c)
{
    uint32_t kept = c->sent > 0 ? 1 : 0;
    while (c->ring_count > kept) {
        uintptr_t entry = entry_at(c, c->ring_count - 1);
        c->ring_count--;
        c->queued -= frame_of(entry)->length;
        if (entry & 1)
            client_count_pending(c, -1);
        frame_unref(frame_of(entry));
    }
    if (c->ring_count == 0)
        free_ring(c);
}

void client_release_queue(struct client *c)
{
    c->sent = 0;
    client_purge(c);
    if (c->pong != NULL)
        frame_unref(c->pong);
    c->pong = NULL;
}
