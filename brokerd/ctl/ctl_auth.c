#include "ctl_auth.h"
#include "ctl.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int ctl_auth_answer(struct ctl_auth *auth, const char *secret_file,
                    const uint8_t nonce[WIRE_NONCE_SIZE], const char *name)
{
    char secret[AUTH_SECRET_MAX + 2];
    FILE *file = fopen(secret_file, "re");
    if (file == NULL)
        return ctl_fail("the secret file %s cannot be read: %s", secret_file, strerror(errno));
    setvbuf(file, NULL, _IONBF, 0); /* no copy of the secret in a stdio buffer */
    size_t length = fread(secret, 1, sizeof(secret), file);
    fclose(file);
    struct auth_exchange exchange = {
        .secret = secret,
        .secret_length = auth_secret_length(secret, length),
        .nonce = nonce,
        .client_nonce = auth->proof,
        .name = name,
        .name_length = strlen(name),
    };
    bool done = getrandom(auth->proof, AUTH_NONCE_SIZE, 0) == AUTH_NONCE_SIZE &&
                auth_client_proof(&exchange, auth->proof + AUTH_NONCE_SIZE) &&
                auth_server_proof(&exchange, auth->expected);
    OPENSSL_cleanse(secret, sizeof(secret));
    if (!done)
        return ctl_fail("the secret file %s does not hold a secret of 1 to %d bytes", secret_file,
                        AUTH_SECRET_MAX);
    return CTL_DONE;
}
