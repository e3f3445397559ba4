#ifndef ADAPTER_EMBEDDED_H
#define ADAPTER_EMBEDDED_H

/*
 * Starts the broker of an application that has configured none. I/O thread only.
 *
 * Who starts it: any process of the application whose link finds nobody at the socket. Processes
 * agree by a file lock (SOCKET.start, flock): who does not get it only tries to connect again,
 * since the holder is starting the broker right now; who gets it connects once more and starts
 * `brokerd --background`, which puts itself into a session of its own, works in /, inherits no
 * descriptor and returns when it listens. The lock is held until then. A broker that died is
 * started again in the same way by whoever's link notices first. The broker ends by itself when its
 * last session has been gone for a while.
 */
#include <stdbool.h>

struct embedded;
struct io_thread;

/* socket_path: where the broker is to listen; program: the brokerd to run. Both are copied. The
 * directory was made and checked by the embedding (0700, owned by this user, no symbolic link).
 * NULL when memory is out. */
struct embedded *embedded_new(struct io_thread *io, const char *socket_path, const char *program);

/* Gives up waiting for a start that is under way (the broker goes on) and frees. NULL is allowed.
 */
void embedded_free(struct embedded *e);

/*
 * The link could not connect: starts a broker unless a start is under way here or elsewhere.
 * Returns at once; the link's next attempts find the broker. A start that failed is logged with the
 * file that has the broker's own words, and tried again at the earliest after a second.
 */
void embedded_start(struct embedded *e);

#endif
