#include "send_ring.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#ifdef HAVE_LIBURING_H
#include <liburing.h>
#endif

enum { FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT, NOT_SENT = -ECANCELED };

static void send_one(struct send_request *r)
{
    do
        r->result = send(r->fd, r->bytes, r->length, FLAGS);
    while (r->result < 0 && errno == EINTR);
    if (r->result < 0)
        r->result = -errno;
}

#ifdef HAVE_LIBURING_H

struct send_ring {
    struct io_uring uring;
};

struct send_ring *send_ring_new(void)
{
    struct send_ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL)
        return NULL;
    int error = io_uring_queue_init(SEND_ALL_MOST, &ring->uring, 0);
    if (error == 0 && (error = io_uring_ring_dontfork(&ring->uring)) != 0)
        io_uring_queue_exit(&ring->uring);
    if (error == 0)
        return ring;
    free(ring);
    errno = -error;
    return NULL;
}

void send_ring_free(struct send_ring *ring)
{
    if (ring == NULL)
        return;
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

static unsigned collect(struct send_ring *ring, struct send_request *requests)
{
    struct io_uring_cqe *entry;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&ring->uring, head, entry)
    {
        requests[entry->user_data].result = entry->res;
        count++;
    }
    io_uring_cq_advance(&ring->uring, count);
    return count;
}

/* With MSG_DONTWAIT the kernel has done or refused each when it comes back: nothing waits here.
 * false: what it did not take (no memory for it) stays NOT_SENT. */
static bool send_through(struct send_ring *ring, struct send_request *requests, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&ring->uring);
        io_uring_prep_send(entry, requests[i].fd, requests[i].bytes, requests[i].length, FLAGS);
        entry->user_data = i;
    }
    unsigned taken = 0, done = 0;
    while (taken < count) {
        int n = io_uring_submit_and_wait(&ring->uring, count - taken);
        if (n <= 0 && n != -EINTR)
            break;
        taken += n > 0 ? (unsigned)n : 0;
        done += collect(ring, requests);
    }
    while (done < taken) {
        struct io_uring_cqe *entry;
        io_uring_wait_cqe(&ring->uring, &entry);
        done += collect(ring, requests);
    }
    return taken == count;
}

#else

struct send_ring *send_ring_new(void)
{
    errno = ENOSYS;
    return NULL;
}

void send_ring_free(struct send_ring *ring)
{
    (void)ring;
}

static bool send_through(struct send_ring *ring, struct send_request *requests, unsigned count)
{
    (void)ring;
    (void)requests;
    (void)count;
    return false;
}

#endif

bool send_all(struct send_ring *ring, struct send_request *requests, unsigned count)
{
    bool works = true;
    for (unsigned i = 0; i < count; i++)
        requests[i].result = NOT_SENT;
    if (ring != NULL && count > 1)
        works = send_through(ring, requests, count);
    for (unsigned i = 0; i < count; i++) {
        if (requests[i].result == NOT_SENT || requests[i].result == -EINTR)
            send_one(&requests[i]);
    }
    return works;
}
