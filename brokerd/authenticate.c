#include "authenticate.h"

#include "requests.h"
#include "server.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

uint8_t *authenticate_read_secret(const char *path, size_t *length)
{
    uint8_t *secret = NULL;
    ssize_t got = -1;
    struct stat file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &file) == 0 && (secret = malloc(AUTH_SECRET_MAX + 1)) != NULL)
        got = read(fd, secret, AUTH_SECRET_MAX + 1);
    int error = errno;
    if (fd >= 0)
        close(fd);
    *length = got > 0 ? auth_secret_length(secret, (size_t)got) : 0;
    if (got < 0)
        log_error("cannot read --secret-file %s: %s", path, strerror(error));
    else if (*length == 0 || got > AUTH_SECRET_MAX)
        log_error("--secret-file %s: it must hold 1 to %d bytes", path, AUTH_SECRET_MAX);
    else if ((file.st_mode & 0004) != 0)
        log_error("--secret-file %s can be read by everybody: chmod 640 it, or stricter", path);
    else
        return secret;
    free(secret);
    return NULL;
}

/* The nonce is drawn once for as long as it is good, since libnng may repeat the question. */
static bool ask(const struct request *r)
{
    struct challenge *challenge = &r->connection->challenge;
    if (challenge->until <= r->server->now) {
        if (getrandom(challenge->nonce, AUTH_NONCE_SIZE, 0) != AUTH_NONCE_SIZE) {
            request_answer(r, STATUS_NO_MEMORY, 0, 0, 0);
            return false;
        }
        challenge->until = r->server->now + CHALLENGE_TIME;
    }
    struct wire_attach_reply block = {.record_max = r->server->journal.record_max,
                                      .proof = challenge->nonce,
                                      .proof_length = AUTH_NONCE_SIZE};
    uint8_t *out = request_answer_block(r, STATUS_AUTH, 0, 0, wire_attach_reply_size(&block));
    if (out != NULL)
        wire_attach_reply_encode(out, &block);
    return false;
}

static bool refuse(const struct request *r)
{
    request_answer(r, STATUS_DENIED, 0, 0, 0);
    connection_close_after_replies(r->connection, CLOSE_DENIED);
    return false;
}

bool authenticate(const struct request *r, const struct wire_attach *attach, struct proof *proof)
{
    struct challenge *challenge = &r->connection->challenge;
    proof->length = 0;
    if (r->server->secret == NULL || (challenge->passed && attach->proof_length == 0))
        return true;
    if (attach->proof_length == 0)
        return ask(r);
    /* once passed, the same proof may come again: libnng repeats requests */
    if (attach->proof_length != WIRE_PROOF_SIZE || challenge->until == 0 ||
        (!challenge->passed && challenge->until <= r->server->now))
        return refuse(r);
    uint8_t expected[AUTH_MAC_SIZE];
    struct auth_exchange exchange = {.secret = r->server->secret,
                                     .secret_length = r->server->secret_length,
                                     .nonce = challenge->nonce,
                                     .client_nonce = attach->proof,
                                     .is_engine = (r->header.flags & WIRE_ENGINE) != 0,
                                     .name = attach->name,
                                     .name_length = attach->name_length};
    if (!auth_client_proof(&exchange, expected) ||
        !auth_equal(expected, attach->proof + AUTH_NONCE_SIZE) ||
        !auth_server_proof(&exchange, proof->bytes))
        return refuse(r);
    challenge->passed = true;
    proof->length = AUTH_MAC_SIZE;
    return true;
}
