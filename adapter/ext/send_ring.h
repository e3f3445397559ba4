#ifndef ADAPTER_SEND_RING_H
#define ADAPTER_SEND_RING_H

/*
 * Sends to many sockets in one system call (io_uring), where the library was there when this was
 * built and the kernel lets us; else one by one. What a broadcast to many idle browsers costs is
 * mostly the way into the kernel and back, once for each of them.
 *
 * Owned and used by the I/O thread alone. Nothing is ever under way in it between two calls: each
 * send is done or refused when send_all returns, so sockets and memory stay their owners', and a
 * forked child has nothing to fear from the copy of the ring's descriptor that it inherits (as of
 * libevent's own; closed by exec). The ring's memory is not mapped in the child.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct send_ring;

enum { SEND_ALL_MOST = 64 };

struct send_request {
    int fd; /* a socket */
    const void *bytes;
    size_t length;  /* bytes */
    ssize_t result; /* how many of them the kernel took, or the negative errno (-EAGAIN: full) */
};

/* NULL: not to be had (errno); then send_all does without. */
struct send_ring *send_ring_new(void);
void send_ring_free(struct send_ring *ring); /* NULL is nothing */

/* Each request once, in any order and without waiting; no signal for a broken pipe. count: at most
 * SEND_ALL_MOST. ring may be NULL. false: the ring failed, so that some were sent one by one; it is
 * only good for send_ring_free. */
bool send_all(struct send_ring *ring, struct send_request *requests, unsigned count);

#endif
