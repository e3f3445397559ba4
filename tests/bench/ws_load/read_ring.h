#ifndef WS_LOAD_READ_RING_H
#define WS_LOAD_READ_RING_H

/*
 * Reads many sockets in one system call (io_uring), where the library and the kernel have it: what
 * the load program spends is taken from the machine's processors, and so from the server that it
 * measures. One thread; nothing is under way between two calls.
 */
#include <stddef.h>
#include <sys/types.h>

struct read_ring;

enum { READ_ALL_MOST = 64 };

struct read_request {
    int fd;
    void *bytes;
    size_t size;
    ssize_t result; /* as recv's, or the negative errno */
};

/* NULL: not to be had; then read_all reads one by one. */
struct read_ring *read_ring_new(void);
void read_ring_free(struct read_ring *ring); /* NULL is nothing */
void read_all(struct read_ring *ring, struct read_request *requests, unsigned count);

#endif
