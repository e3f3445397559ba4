#include "read_ring.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { RING_FROM = 12 }; /* what few cost one by one */

static void read_each(struct read_request *requests, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct read_request *r = &requests[i];
        r->result = recv(r->fd, r->bytes, r->size, MSG_DONTWAIT);
        if (r->result < 0)
            r->result = -errno;
    }
}

#ifdef HAVE_LIBURING_H
#include <liburing.h>

struct read_ring {
    struct io_uring uring;
};

struct read_ring *read_ring_new(void)
{
    struct read_ring *ring = malloc(sizeof(*ring));
    if (ring != NULL && io_uring_queue_init(READ_ALL_MOST, &ring->uring, 0) == 0)
        return ring;
    free(ring);
    return NULL;
}

void read_ring_free(struct read_ring *ring)
{
    if (ring != NULL)
        io_uring_queue_exit(&ring->uring);
    free(ring);
}

void read_all(struct read_ring *ring, struct read_request *requests, unsigned count)
{
    struct io_uring_cqe *entry;
    if (ring == NULL || count < RING_FROM) {
        read_each(requests, count);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *request = io_uring_get_sqe(&ring->uring);
        io_uring_prep_recv(request, requests[i].fd, requests[i].bytes, requests[i].size,
                           MSG_DONTWAIT);
        request->user_data = i;
    }
    if (io_uring_submit_and_wait(&ring->uring, count) != (int)count)
        abort();
    for (unsigned i = 0; i < count; i++) {
        if (io_uring_peek_cqe(&ring->uring, &entry) != 0)
            abort();
        requests[entry->user_data].result = entry->res;
        io_uring_cqe_seen(&ring->uring, entry);
    }
}

#else

struct read_ring *read_ring_new(void)
{
    return NULL;
}

void read_ring_free(struct read_ring *ring)
{
    (void)ring;
}

void read_all(struct read_ring *ring, struct read_request *requests, unsigned count)
{
    (void)ring;
    read_each(requests, count);
}

#endif
