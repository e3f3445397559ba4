#ifndef ADAPTER_DESCRIPTORS_H
#define ADAPTER_DESCRIPTORS_H

/*
 * A flat table of the descriptors that belong to the I/O thread: browser sockets, the link, the
 * loop's own. It exists for fork alone. A child inherits copies of all of them while every list in
 * memory may have been in the middle of a change, so the child may trust nothing but this table: an
 * array of atomics that needs no lock (rack-server facts: a pre-forking server forks whenever it
 * likes).
 *
 * Written by whoever opens and closes a descriptor, read in the child. Descriptors past the table's
 * end (65,536) are refused by descriptors_add, so that none can escape the child.
 */
#include <stdbool.h>

/* fd is ours from now on. false when it does not fit the table: close it and give up. */
bool descriptors_add(int fd);

/* Closes fd and takes it off the table. With is_socket shutdown() comes first, so that a copy that
 * a forked child still holds keeps nothing open for the peer. */
void descriptors_close(int fd, bool is_socket);

/* In a forked child only: closes every descriptor of the table without shutdown (the parent still
 * uses the connections) and empties it. Async-signal-safe. */
void descriptors_close_in_child(void);

#endif
