#include "client_internal.h"
#include "io_internal.h"
#include "send_ring.h"
#include <errno.h>
#include <string.h>

enum {
    RING_FROM = 8, /* clients at once: who never has so many needs no ring */
    RING_AGAIN_MS = 1000
};

/* With thousands of clients none is in the caches any more when its turn comes. */
static void prefetch(const struct client *c)
{
    __builtin_prefetch(&c->dirty_next);
    __builtin_prefetch(&c->fd);
    __builtin_prefetch(&c->state);
}

static struct client *take_dirty(struct io_thread *io)
{
    struct client *c = io->dirty;
    io->dirty = c->dirty_next;
    if (io->dirty != NULL)
        prefetch(io->dirty);
    c->is_dirty = false;
    return c;
}

/* What passes, other than a kernel that knows no io_uring or forbids it. */
static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
}

static void make_ring(struct io_thread *io)
{
    io->ring = send_ring_new();
    if (io->ring != NULL)
        return;
    int error = errno;
    if (io->ring_next_ms == 0)
        io_log(io, LOG_LEVEL_DEBUG, "browsers are written to one by one, without io_uring: %s",
               strerror(error));
    io->ring_next_ms = is_shortage(error) ? io->now_ms + RING_AGAIN_MS : UINT64_MAX;
}

static void drop_ring(struct io_thread *io)
{
    send_ring_free(io->ring);
    io->ring = NULL;
    io->ring_next_ms = io->now_ms + RING_AGAIN_MS;
}

static void flush_together(struct io_thread *io, struct client **clients,
                           struct send_request *requests, unsigned count)
{
    if (count >= RING_FROM && io->ring == NULL && io->config.io_uring &&
        io->now_ms >= io->ring_next_ms)
        make_ring(io);
    if (!send_all(io->ring, requests, count))
        drop_ring(io);
    for (unsigned i = 0; i < count; i++)
        client_flush_end(clients[i], &requests[i]);
}

void io_flush(struct io_thread *io)
{
    while (io->dirty != NULL) {
        struct client *clients[SEND_ALL_MOST];
        struct send_request requests[SEND_ALL_MOST];
        unsigned count = 0;
        while (io->dirty != NULL && count < SEND_ALL_MOST) {
            struct client *c = take_dirty(io);
            if (c->state == CLIENT_ENDED)
                client_reap(c);
            else if (client_flush_begin(c, &requests[count]))
                clients[count++] = c;
            else
                client_flush(c);
        }
        flush_together(io, clients, requests, count);
    }
}
