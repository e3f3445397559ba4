#ifndef BROKERD_SECURE_H
#define BROKERD_SECURE_H

/*
 * The bytes of a connection that speaks TLS, between its socket and connection.c. What the socket
 * does not take stays encrypted in the filter, at most TLS_OUTPUT_ENOUGH and a record: as long as
 * something waits there no more plaintext is taken, so a peer that does not read is felt as on a
 * plain socket.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct connection;
struct server;

/* Reads the certificate, the key and the clients' authority of the options, at the start and again
 * whenever they may have changed. false after one logged line: what was read before stays. Open
 * connections keep what they began with. */
bool secure_read(struct server *server);

/* As recv: plaintext, 0 at the end, -1 with errno: EAGAIN also while records or the handshake are
 * incomplete, EPROTO when TLS failed (secure_reason). */
ssize_t secure_receive(struct connection *c, void *bytes, size_t size);

/* As sendmsg; EAGAIN also before the handshake is done. */
ssize_t secure_transmit(struct connection *c, const struct iovec *iov, int count);

/* Do encrypted bytes wait for the socket? */
bool secure_is_pending(const struct connection *c);

/* Would secure_receive have something to say without more from the socket? */
bool secure_has_input(const struct connection *c);

/* Is it still in the handshake, or failed there? false of a plain connection. */
bool secure_is_opening(const struct connection *c);

/* Says goodbye as far as the socket takes it. The filter is freed with the connection. */
void secure_close(struct connection *c);

const char *secure_reason(const struct connection *c);

#endif
