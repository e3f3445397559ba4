#ifndef ADAPTER_LINK_TLS_H
#define ADAPTER_LINK_TLS_H

/*
 * The link's bytes when the broker's URL is tls+tcp://, between its socket and link_io.c. The files
 * of the settings are read again for each connection, so a corrected one needs no restart. While
 * encrypted bytes wait for the socket no more plaintext is taken. I/O thread only; each call holds
 * io_fork_guard, so that no child begins with OpenSSL's locks held.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct link;

/* The connection speaks TLS: reads the files and makes the first bytes. NULL, or what is wrong. */
const char *link_tls_begin(struct link *link);

/* As recv and send: -1 with errno, EAGAIN also while the handshake or a record is incomplete,
 * EPROTO when TLS failed (link->tls_reason). Nothing to send (size 0) sends what waits. */
ssize_t link_tls_receive(struct link *link, void *bytes, size_t size);
ssize_t link_tls_transmit(struct link *link, const void *bytes, size_t size);

/* Do encrypted bytes wait for the socket? false of a plain link, as the next two. */
bool link_tls_is_pending(const struct link *link);

/* Would link_tls_receive have something to say without more from the socket? */
bool link_tls_has_input(const struct link *link);

/* Is the handshake not done? */
bool link_tls_is_opening(const struct link *link);

/* Says goodbye as far as the socket takes it, and frees. */
void link_tls_end(struct link *link);

#endif
