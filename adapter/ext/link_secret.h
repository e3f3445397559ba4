#ifndef ADAPTER_LINK_SECRET_H
#define ADAPTER_LINK_SECRET_H

/*
 * The authentication exchange of one connection (docs/protocol.md, "Authentication"), the client's
 * side. The secret's file is read for each connection, so that it can be replaced while the process
 * runs; the secret is wiped when the exchange is freed. I/O thread.
 */
#include "wire.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link_secret;

/* Reads the file. NULL with a reason (a static string). */
struct link_secret *link_secret_read(const char *path, const char **reason);

/* Wipes and frees; NULL is allowed. */
void link_secret_free(struct link_secret *s);

/* The broker asked with its nonce: makes the proof, WIRE_PROOF_SIZE bytes that live as long as s,
 * and computes what the broker has to show. NULL: OpenSSL failed, or it asked twice. */
const uint8_t *link_secret_answer(struct link_secret *s, const uint8_t nonce[WIRE_NONCE_SIZE],
                                  const void *name, size_t name_length);

/* Has the broker asked? */
bool link_secret_was_asked(const struct link_secret *s);

/* Does the broker know the secret? Right only after link_secret_answer. */
bool link_secret_check(const struct link_secret *s, const uint8_t *proof, size_t length);

#endif
