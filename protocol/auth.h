#ifndef PROTOCOL_AUTH_H
#define PROTOCOL_AUTH_H

/*
 * Authentication of a connection by a shared secret: who answers with the right HMAC knows it, and
 * it never crosses the wire. docs/protocol.md, section "Authentication", has the exchange. Pure: no
 * I/O, nonces are the caller's (getrandom). Any thread.
 *
 * The HMAC-SHA-256, with the secret as key, is over: "brokerd1 client" or "brokerd1 server" (15
 * bytes), the broker's nonce, the client's nonce, the role (one byte: 0 member, 1 engine), the
 * name.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { AUTH_NONCE_SIZE = 32, AUTH_MAC_SIZE = 32, AUTH_NAME_MAX = 255, AUTH_SECRET_MAX = 4096 };

struct auth_exchange {
    const void *secret;
    size_t secret_length;        /* 1 to AUTH_SECRET_MAX bytes */
    const uint8_t *nonce;        /* AUTH_NONCE_SIZE bytes, the broker's */
    const uint8_t *client_nonce; /* AUTH_NONCE_SIZE bytes */
    bool is_engine;
    const void *name;
    size_t name_length; /* at most AUTH_NAME_MAX */
};

/* What the client has to show; false when a length is past its limit or OpenSSL fails. */
bool auth_client_proof(const struct auth_exchange *exchange, uint8_t out[AUTH_MAC_SIZE]);

/* What the broker has to show. */
bool auth_server_proof(const struct auth_exchange *exchange, uint8_t out[AUTH_MAC_SIZE]);

/* Are these proofs the same? In constant time. */
bool auth_equal(const uint8_t a[AUTH_MAC_SIZE], const uint8_t b[AUTH_MAC_SIZE]);

/* The length of a secret as read from a file: without the line ends at its end. */
size_t auth_secret_length(const void *bytes, size_t length);

#endif
