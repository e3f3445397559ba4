#include "ctl_link.h"
#include "ctl_auth.h"
#include <errno.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { RESEND_MS = 7000 }; /* above the broker's 5 s heartbeat, below its patience */

static const char own_name[] = "brokerctl";

static int send_request(struct ctl_link *link, const struct wire_request *request, const void *body,
                        size_t length)
{
    nng_msg *message = NULL;
    int error = nng_msg_alloc(&message, WIRE_REQUEST_SIZE + length);
    if (error != 0)
        return error;
    uint8_t *out = nng_msg_body(message);
    wire_request_encode(out, request);
    if (length > 0)
        memcpy(out + WIRE_REQUEST_SIZE, body, length);
    error = nng_sendmsg(link->socket, message, 0);
    if (error != 0)
        nng_msg_free(message);
    return error;
}

static int take_answer(struct ctl_link *link, struct ctl_reply *reply)
{
    const uint8_t *data = nng_msg_body(link->answer);
    size_t size = nng_msg_len(link->answer);
    enum status status = wire_reply_decode(data, size, &reply->header);
    if (status == STATUS_VERSION)
        return ctl_fail("the broker at %s answers in protocol version %u, this brokerctl speaks "
                        "%d: install the same version of both",
                        link->options->url, reply->header.version, WIRE_VERSION);
    if (status != STATUS_OK)
        return ctl_fail("what answers at %s is no brokerd: check --url", link->options->url);
    reply->body = data + WIRE_REPLY_SIZE;
    reply->length = size - WIRE_REPLY_SIZE;
    if (reply->header.status == STATUS_AUTH) /* libnng has connected anew */
        link->is_proven = false;
    return CTL_DONE;
}

static int call(struct ctl_link *link, const struct wire_request *request, const void *body,
                size_t length, unsigned wait_ms, struct ctl_reply *reply)
{
    if (wait_ms == 0)
        wait_ms = link->options->timeout_ms;
    if (link->answer != NULL)
        nng_msg_free(link->answer);
    link->answer = NULL;
    nng_socket_set_ms(link->socket, NNG_OPT_SENDTIMEO, (nng_duration)wait_ms);
    nng_socket_set_ms(link->socket, NNG_OPT_RECVTIMEO, (nng_duration)wait_ms);
    int error = send_request(link, request, body, length);
    if (error == NNG_ETIMEDOUT)
        return ctl_fail("the broker at %s went away and was not back within %g s: the request was "
                        "not sent; is brokerd running?",
                        link->options->url, wait_ms / 1000.0);
    if (error == 0)
        error = nng_recvmsg(link->socket, &link->answer, 0);
    if (error == NNG_ETIMEDOUT)
        return ctl_fail("the broker at %s did not answer within %g s%s (--timeout sets the limit)",
                        link->options->url, wait_ms / 1000.0,
                        request->operation == WIRE_SUBMIT
                            ? ": whether the messages were published is unknown"
                            : "");
    if (error != 0)
        return ctl_fail("the connection to the broker at %s failed: %s; try again",
                        link->options->url, nng_strerror(error));
    return take_answer(link, reply);
}

static int attach(struct ctl_link *link, struct wire_request *request, struct wire_attach *block,
                  const void *records, size_t length, struct ctl_reply *reply)
{
    if (link->session == 0 &&
        getrandom(&link->session, sizeof(link->session), 0) != sizeof(link->session))
        return ctl_fail("no random numbers: %s", strerror(errno));
    request->version = WIRE_VERSION;
    request->operation = WIRE_ATTACH;
    request->flags = WIRE_SIMPLE;
    request->session = link->session;
    block->generation = ++link->generation;
    block->pid = (uint32_t)getpid();
    block->name = (const uint8_t *)own_name;
    block->name_length = sizeof(own_name) - 1;
    size_t size = wire_attach_size(block);
    uint8_t *body = malloc(size + length);
    if (body == NULL)
        return ctl_fail("out of memory");
    wire_attach_encode(body, block);
    if (length > 0)
        memcpy(body + size, records, length);
    int result = call(link, request, body, size + length, 0, reply);
    free(body);
    return result;
}

static bool decode_block(const struct ctl_reply *reply, struct wire_attach_reply *block)
{
    size_t used;
    return wire_attach_reply_decode(reply->body, reply->length, block, &used) == STATUS_OK;
}

/* A session with nothing in it, whose ATTACH proves both sides to each other. */
static int authenticate(struct ctl_link *link)
{
    struct ctl_reply reply;
    struct wire_attach_reply block;
    if (attach(link, &(struct wire_request){0}, &(struct wire_attach){0}, NULL, 0, &reply) !=
        CTL_DONE)
        return CTL_FAILED;
    if (reply.header.status == STATUS_OK)
        return ctl_fail("the broker at %s knows no secret, though --secret-file is given: leave "
                        "that out, or check --url",
                        link->options->url);
    if (reply.header.status != STATUS_AUTH)
        return ctl_link_refused(link, "authentication", &reply);
    struct ctl_auth auth;
    if (!decode_block(&reply, &block) || block.proof_length != WIRE_NONCE_SIZE)
        return ctl_fail("the broker at %s sent a challenge that cannot be read",
                        link->options->url);
    if (ctl_auth_answer(&auth, link->options->secret_file, block.proof, own_name) != CTL_DONE)
        return CTL_FAILED;
    struct wire_attach proven = {.proof = auth.proof, .proof_length = sizeof(auth.proof)};
    if (attach(link, &(struct wire_request){0}, &proven, NULL, 0, &reply) != CTL_DONE)
        return CTL_FAILED;
    if (reply.header.status != STATUS_OK)
        return ctl_link_refused(link, "authentication", &reply);
    if (!decode_block(&reply, &block) || block.proof_length != AUTH_MAC_SIZE ||
        !auth_equal(block.proof, auth.expected))
        return ctl_fail("what answers at %s does not know the secret: it is not your broker",
                        link->options->url);
    link->is_proven = true;
    return CTL_DONE;
}

int ctl_link_open(struct ctl_link *link, const struct ctl_options *options)
{
    *link = (struct ctl_link){.options = options};
    int error = nng_req0_open(&link->socket);
    if (error != 0)
        return ctl_fail("no NNG socket: %s", nng_strerror(error));
    nng_socket_set_ms(link->socket, NNG_OPT_REQ_RESENDTIME, RESEND_MS);
    if (ctl_dial(&link->dial, link->socket, options) != CTL_DONE ||
        (options->secret_file != NULL && authenticate(link) != CTL_DONE)) {
        ctl_link_close(link);
        return CTL_FAILED;
    }
    return CTL_DONE;
}

void ctl_link_close(struct ctl_link *link)
{
    if (link->answer != NULL)
        nng_msg_free(link->answer);
    link->answer = NULL;
    ctl_undial(&link->dial);
}

int ctl_link_call(struct ctl_link *link, const struct wire_request *request, const void *body,
                  size_t length, unsigned wait_ms, struct ctl_reply *reply)
{
    int result = call(link, request, body, length, wait_ms, reply);
    bool again = result == CTL_DONE && reply->header.status == STATUS_AUTH &&
                 link->options->secret_file != NULL && request->session == 0;
    if (!again)
        return result;
    if (authenticate(link) != CTL_DONE)
        return CTL_FAILED;
    return call(link, request, body, length, wait_ms, reply);
}

int ctl_link_attach(struct ctl_link *link, uint64_t epoch, uint64_t position, const void *records,
                    size_t length, uint32_t count, struct ctl_reply *reply)
{
    if (link->options->secret_file != NULL && !link->is_proven && authenticate(link) != CTL_DONE)
        return CTL_FAILED;
    struct wire_request request = {.records = count, .position = position};
    struct wire_attach block = {.epoch = epoch};
    return attach(link, &request, &block, records, length, reply);
}

int ctl_link_refused(const struct ctl_link *link, const char *what, const struct ctl_reply *reply)
{
    unsigned status = reply->header.status;
    if (status == STATUS_VERSION)
        return ctl_fail("the broker at %s speaks protocol versions %u to %u, this brokerctl %d: "
                        "install the same version of both",
                        link->options->url, (unsigned)(reply->header.value & 0xff),
                        (unsigned)(reply->header.value >> 8 & 0xff), WIRE_VERSION);
    const char *hint = "";
    if (status == STATUS_AUTH)
        hint = ": give the broker's secret with --secret-file FILE";
    else if (status == STATUS_DENIED)
        hint = ": the secret in --secret-file is not this broker's";
    else if (status == STATUS_GOING_AWAY)
        hint = ": try again";
    else if (status == STATUS_TOO_LARGE)
        hint = ": brokerd --max-message and --journal-size set the limit";
    else if (status == STATUS_WEAK_PATTERN)
        hint = ": 64 a session, 4096 in all; begin or end them with what is certain";
    return ctl_fail("%s refused by the broker at %s: %s%s", what, link->options->url,
                    status_text(status), hint);
}
