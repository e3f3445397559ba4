#include "auth.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

enum { LABEL_SIZE = 15 };

static bool prove(const struct auth_exchange *e, const char *label, uint8_t out[AUTH_MAC_SIZE])
{
    uint8_t text[LABEL_SIZE + 2 * AUTH_NONCE_SIZE + 1 + AUTH_NAME_MAX];
    uint8_t *at = text;
    unsigned length = 0;
    if (e->secret_length == 0 || e->secret_length > AUTH_SECRET_MAX ||
        e->name_length > AUTH_NAME_MAX)
        return false;
    memcpy(at, label, LABEL_SIZE);
    at += LABEL_SIZE;
    memcpy(at, e->nonce, AUTH_NONCE_SIZE);
    at += AUTH_NONCE_SIZE;
    memcpy(at, e->client_nonce, AUTH_NONCE_SIZE);
    at += AUTH_NONCE_SIZE;
    *at++ = e->is_engine ? 1 : 0;
    if (e->name_length > 0)
        memcpy(at, e->name, e->name_length);
    at += e->name_length;
    return HMAC(EVP_sha256(), e->secret, (int)e->secret_length, text, (size_t)(at - text), out,
                &length) != NULL &&
           length == AUTH_MAC_SIZE;
}

bool auth_client_proof(const struct auth_exchange *exchange, uint8_t out[AUTH_MAC_SIZE])
{
    return prove(exchange, "brokerd1 client", out);
}

bool auth_server_proof(const struct auth_exchange *exchange, uint8_t out[AUTH_MAC_SIZE])
{
    return prove(exchange, "brokerd1 server", out);
}

bool auth_equal(const uint8_t a[AUTH_MAC_SIZE], const uint8_t b[AUTH_MAC_SIZE])
{
    return CRYPTO_memcmp(a, b, AUTH_MAC_SIZE) == 0;
}

size_t auth_secret_length(const void *bytes, size_t length)
{
    const uint8_t *text = bytes;
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r'))
        length--;
    return length;
}
