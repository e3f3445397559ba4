#include "ctl_link.h"
#include "auth.h"
#include "bytes.h"
#include <errno.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { RESEND_MS = 7000 }; /* above the broker's 5 s heartbeat, below its patience */

static int unreachable(const struct ctl_link *link, const char *why)
{
    return ctl_fail(
        "no broker at %s: %s. Is brokerd running there? --url or BROKERD_URL names another",
        link->options->url, why);
}

static const char *dial_reason(int error)
{
    switch (error) {
    case NNG_ECONNREFUSED:
        return "nobody listens";
    case NNG_ENOENT:
        return "the socket does not exist";
    case NNG_EPERM:
        return "this user may not use the socket";
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
        return "the URL is not of the form ipc:///path or tcp://host:port";
    case NNG_ENOTSUP:
        return "this libnng does not speak that transport";
    default:
        return nng_strerror(error);
    }
}

/* Fills what the broker asked for: a fresh client nonce and the HMAC over both. */
static int prove(struct ctl_link *link, const uint8_t *nonce, const char *name,
                 uint8_t proof[WIRE_PROOF_SIZE])
{
    const char *path = link->options->secret_file;
    if (!path)
        return ctl_fail("the broker at %s wants a secret: give --secret-file FILE",
                        link->options->url);
    char secret[AUTH_SECRET_MAX + 2];
    FILE *file = fopen(path, "re");
    if (!file)
        return ctl_fail("--secret-file %s: %s", path, strerror(errno));
    size_t length = fread(secret, 1, sizeof(secret), file);
    fclose(file);
    struct auth_exchange exchange = {
        .secret = secret,
        .secret_length = auth_secret_length(secret, length),
        .nonce = nonce,
        .client_nonce = proof,
        .name = name,
        .name_length = strlen(name),
    };
    if (getrandom(proof, AUTH_NONCE_SIZE, 0) != AUTH_NONCE_SIZE ||
        !auth_client_proof(&exchange, proof + AUTH_NONCE_SIZE))
        return ctl_fail("--secret-file %s: the secret must have 1 to %d bytes", path,
                        AUTH_SECRET_MAX);
    return CTL_DONE;
}

static int attach_once(struct ctl_link *link, const struct wire_attach *attach,
                       const struct wire_request *request, const void *records, size_t length,
                       struct ctl_reply *reply)
{
    size_t block = wire_attach_size(attach);
    uint8_t *body = malloc(block + length);
    if (!body)
        return ctl_fail("out of memory");
    wire_attach_encode(body, attach);
    if (length)
        memcpy(body + block, records, length);
    int result = ctl_link_call(link, request, body, block + length, 0, reply);
    free(body);
    return result;
}

int ctl_link_attach(struct ctl_link *link, uint64_t epoch, uint64_t position, const void *records,
                    size_t length, uint32_t count, struct ctl_reply *reply)
{
    static const char name[] = "brokerctl";
    if (!link->session && getrandom(&link->session, sizeof(link->session), 0) < 0)
        return ctl_fail("no random numbers: %s", strerror(errno));
    struct wire_request request = {.version = WIRE_VERSION,
                                   .operation = WIRE_ATTACH,
                                   .flags = WIRE_SIMPLE,
                                   .records = count,
                                   .session = link->session,
                                   .position = position};
    struct wire_attach attach = {.generation = ++link->generation,
                                 .epoch = epoch,
                                 .pid = (uint32_t)getpid(),
                                 .name = (const uint8_t *)name,
                                 .name_length = sizeof(name) - 1};
    int result = attach_once(link, &attach, &request, records, length, reply);
    if (result != CTL_DONE || reply->header.status != STATUS_AUTH)
        return result;

    struct wire_attach_reply block;
    size_t used;
    uint8_t proof[WIRE_PROOF_SIZE];
    if (wire_attach_reply_decode(reply->body, reply->length, &block, &used) != STATUS_OK ||
        block.proof_length != WIRE_NONCE_SIZE)
        return ctl_fail("the broker at %s sent a challenge that cannot be read",
                        link->options->url);
    if (prove(link, block.proof, name, proof) != CTL_DONE)
        return CTL_FAILED;
    attach.proof = proof;
    attach.proof_length = sizeof(proof);
    return attach_once(link, &attach, &request, records, length, reply);
}

static int authenticate(struct ctl_link *link)
{
    struct ctl_reply reply;
    if (ctl_link_attach(link, 0, 0, NULL, 0, 0, &reply) != CTL_DONE)
        return CTL_FAILED;
    if (reply.header.status != STATUS_OK)
        return ctl_link_refused(link, "authentication", reply.header.status);
    return CTL_DONE;
}

int ctl_link_open(struct ctl_link *link, const struct ctl_options *options)
{
    *link = (struct ctl_link){.options = options};
    int error = nng_req0_open(&link->socket);
    if (error)
        return ctl_fail("no NNG socket: %s", nng_strerror(error));
    nng_socket_set_ms(link->socket, NNG_OPT_SENDTIMEO, (nng_duration)options->timeout_ms);
    nng_socket_set_ms(link->socket, NNG_OPT_REQ_RESENDTIME, RESEND_MS);
    error = nng_dial(link->socket, options->url, NULL, 0);
    if (error) {
        unreachable(link, dial_reason(error));
        nng_close(link->socket);
        return CTL_FAILED;
    }
    if (options->secret_file && authenticate(link) != CTL_DONE) {
        ctl_link_close(link);
        return CTL_FAILED;
    }
    return CTL_DONE;
}

void ctl_link_close(struct ctl_link *link)
{
    if (link->answer)
        nng_msg_free(link->answer);
    link->answer = NULL;
    nng_close(link->socket);
}

static int send_request(struct ctl_link *link, const struct wire_request *request, const void *body,
                        size_t length)
{
    nng_msg *message = NULL;
    int error = nng_msg_alloc(&message, WIRE_REQUEST_SIZE + length);
    if (error)
        return error;
    uint8_t *out = nng_msg_body(message);
    wire_request_encode(out, request);
    if (length)
        memcpy(out + WIRE_REQUEST_SIZE, body, length);
    error = nng_sendmsg(link->socket, message, 0);
    if (error)
        nng_msg_free(message);
    return error;
}

int ctl_link_call(struct ctl_link *link, const struct wire_request *request, const void *body,
                  size_t length, unsigned wait_ms, struct ctl_reply *reply)
{
    if (!wait_ms)
        wait_ms = link->options->timeout_ms;
    if (link->answer)
        nng_msg_free(link->answer);
    link->answer = NULL;
    nng_socket_set_ms(link->socket, NNG_OPT_RECVTIMEO, (nng_duration)wait_ms);
    int error = send_request(link, request, body, length);
    if (!error)
        error = nng_recvmsg(link->socket, &link->answer, 0);
    if (error == NNG_ETIMEDOUT)
        return ctl_fail("the broker at %s did not answer within %u ms (--timeout sets the limit)",
                        link->options->url, wait_ms);
    if (error)
        return unreachable(link, nng_strerror(error));

    const uint8_t *data = nng_msg_body(link->answer);
    size_t size = nng_msg_len(link->answer);
    enum status status = wire_reply_decode(data, size, &reply->header);
    if (status == STATUS_VERSION)
        return ctl_fail("the broker at %s speaks protocol version %u, this brokerctl %d",
                        link->options->url, reply->header.version, WIRE_VERSION);
    if (status != STATUS_OK)
        return ctl_fail("what answers at %s is no brokerd", link->options->url);
    reply->body = data + WIRE_REPLY_SIZE;
    reply->length = size - WIRE_REPLY_SIZE;
    return CTL_DONE;
}

int ctl_link_refused(const struct ctl_link *link, const char *what, unsigned status)
{
    const char *hint = "";
    if (status == STATUS_AUTH || status == STATUS_DENIED)
        hint = ": give the broker's secret with --secret-file FILE";
    else if (status == STATUS_GOING_AWAY)
        hint = ": try again";
    return ctl_fail("%s refused by %s: %s%s", what, link->options->url, status_text(status), hint);
}
