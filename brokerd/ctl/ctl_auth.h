#ifndef BROKERCTL_CTL_AUTH_H
#define BROKERCTL_CTL_AUTH_H

/* The client's half of docs/protocol.md, "Authentication". */
#include "auth.h"
#include "wire.h"
#include <stdint.h>

struct ctl_auth {
    uint8_t proof[WIRE_PROOF_SIZE];  /* to send: our nonce and our HMAC */
    uint8_t expected[AUTH_MAC_SIZE]; /* what the broker has to show in return */
};

/* Answers the broker's nonce as a member of that name, with the secret that the file has. CTL_DONE,
 * or CTL_FAILED with the reason printed. */
int ctl_auth_answer(struct ctl_auth *auth, const char *secret_file,
                    const uint8_t nonce[WIRE_NONCE_SIZE], const char *name);

#endif
