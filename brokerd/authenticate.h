#ifndef BROKERD_AUTHENTICATE_H
#define BROKERD_AUTHENTICATE_H

/*
 * Who may speak, when the broker has a secret: a connection whose ATTACH proved that its peer knows
 * it. The first ATTACH is answered AUTH with a nonce, which is good for CHALLENGE_TIME on this
 * connection; the second carries the proof, and its reply ours (protocol/auth.h).
 */
#include "auth.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHALLENGE_TIME = 5000 }; /* ms */

struct request;
struct wire_attach;

/* Of one connection. Zeroed at the start. */
struct challenge {
    bool passed;
    int64_t until; /* when the nonce ends to be good; 0: none was drawn */
    uint8_t nonce[AUTH_NONCE_SIZE];
};

/* What the broker shows in return; length 0: nothing. */
struct proof {
    size_t length;
    uint8_t bytes[AUTH_MAC_SIZE];
};

/* The secret of the file `path` (line ends at its end do not count). NULL after one logged line.
 * The result is one allocation of *length bytes, which belongs to the caller. */
uint8_t *authenticate_read_secret(const char *path, size_t *length);

/* May this ATTACH be executed? If not, it was answered. */
bool authenticate(const struct request *r, const struct wire_attach *attach, struct proof *proof);

#endif
