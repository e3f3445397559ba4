#include "link_secret.h"
#include "auth.h"
#include "io_internal.h"
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct link_secret {
    bool asked;
    uint8_t proof[WIRE_PROOF_SIZE];
    uint8_t expected[AUTH_MAC_SIZE];
    size_t length;
    uint8_t secret[AUTH_SECRET_MAX + 1];
};

static const char *read_file(const char *path, uint8_t *out, size_t size, size_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold up the loop */
    if (fd < 0)
        return "the secret's file cannot be opened";
    ssize_t n = read(fd, out, size);
    close(fd);
    if (n < 0)
        return "the secret's file cannot be read";
    *length = auth_secret_length(out, (size_t)n);
    if (*length == 0 || (size_t)n == size)
        return "the secret's file must hold 1 to 4096 bytes";
    return NULL;
}

struct link_secret *link_secret_read(const char *path, const char **reason)
{
    struct link_secret *s = calloc(1, sizeof(*s));
    *reason = s ? read_file(path, s->secret, sizeof(s->secret), &s->length) : "out of memory";
    if (!*reason)
        return s;
    link_secret_free(s);
    return NULL;
}

void link_secret_free(struct link_secret *s)
{
    if (s)
        OPENSSL_cleanse(s, sizeof(*s));
    free(s);
}

const uint8_t *link_secret_answer(struct link_secret *s, const uint8_t nonce[WIRE_NONCE_SIZE],
                                  const void *name, size_t name_length)
{
    struct auth_exchange exchange = {.secret = s->secret,
                                     .secret_length = s->length,
                                     .nonce = nonce,
                                     .client_nonce = s->proof,
                                     .name = name,
                                     .name_length = name_length};
    if (s->asked || getrandom(s->proof, AUTH_NONCE_SIZE, GRND_NONBLOCK) != (ssize_t)AUTH_NONCE_SIZE)
        return NULL;
    io_fork_guard(true);
    bool proven = auth_client_proof(&exchange, s->proof + AUTH_NONCE_SIZE) &&
                  auth_server_proof(&exchange, s->expected);
    io_fork_guard(false);
    if (!proven)
        return NULL;
    s->asked = true;
    return s->proof;
}

bool link_secret_was_asked(const struct link_secret *s)
{
    return s->asked;
}

bool link_secret_check(const struct link_secret *s, const uint8_t *proof, size_t length)
{
    return s->asked && length == AUTH_MAC_SIZE && auth_equal(proof, s->expected);
}
