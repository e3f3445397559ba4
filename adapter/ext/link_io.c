#include "bytes.h"
#include "link_internal.h"
#include "sp.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { READ_SIZE = 128 * 1024, KEEP_SIZE = 1024 * 1024, REQUEST_ID_SIZE = 4 };

/* The two places where bytes pass, for a byte filter to stand in. -1 with errno, 0: the peer ended.
 */
static ssize_t receive(struct link *link, void *bytes, size_t size)
{
    return link->tls ? link_tls_receive(link, bytes, size) : recv(link->fd, bytes, size, 0);
}

static ssize_t transmit(struct link *link, const void *bytes, size_t size)
{
    return link->tls ? link_tls_transmit(link, bytes, size)
                     : send(link->fd, bytes, size, MSG_NOSIGNAL);
}

static const char *failure(const struct link *link)
{
    return link->tls && errno == EPROTO ? link->tls_reason : strerror(errno);
}

/* Everything whole in the read buffer; the batches are used where they lie. */
static const char *parse(struct link *link)
{
    enum sp_transport transport = endpoint_transport(&link->endpoint);
    size_t prefix = sp_prefix_size(transport);
    const char *reason = link->doomed;
    if (!reason && link->state == LINK_GREETING)
        reason = link_greet(link);
    while (!reason && link->state > LINK_GREETING) {
        const uint8_t *bytes = buffer_bytes(&link->in);
        size_t length = buffer_length(&link->in);
        uint64_t body = 0;
        enum status status = sp_prefix_decode(bytes, length, transport, link->message_max, &body);
        if (status == STATUS_TRUNCATED)
            break;
        if (status == STATUS_TOO_LARGE)
            return "a message was larger than any that the broker may send";
        if (status != STATUS_OK)
            return "garbage instead of a message";
        if (length - prefix < body)
            break;
        reason = link_message(link, bytes + prefix, (size_t)body);
        if (!reason) {
            buffer_consume(&link->in, prefix + (size_t)body);
            reason = link->doomed;
        }
    }
    return reason;
}

/* What the message that has begun still needs, so that a large batch is read in one piece. */
static size_t wanted(const struct link *link)
{
    enum sp_transport transport = endpoint_transport(&link->endpoint);
    size_t length = buffer_length(&link->in), whole;
    uint64_t body = 0;
    if (link->state == LINK_GREETING || sp_prefix_decode(buffer_bytes(&link->in), length, transport,
                                                         link->message_max, &body) != STATUS_OK)
        return READ_SIZE;
    whole = sp_prefix_size(transport) + (size_t)body;
    return whole > length && whole - length > READ_SIZE ? whole - length : READ_SIZE;
}

static const char *end_of_connection(const struct link *link)
{
    if (link_tls_is_opening(link))
        return "the broker ended the TLS handshake";
    if (link->state == LINK_GREETING && link->endpoint.kind == ENDPOINT_TCP)
        return "the broker closed the connection at once: one that speaks TLS there wants a URL "
               "with tls+tcp://";
    return "the broker closed the connection";
}

const char *link_read(struct link *link)
{
    size_t size = wanted(link);
    uint8_t *room = buffer_reserve(&link->in, size);
    if (!room)
        return "out of memory";
    ssize_t n = receive(link, room, size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) /* a handshake may have ended */
        return link->tls && !link->write_blocked ? link_write(link) : NULL;
    if (n < 0)
        return failure(link);
    if (n == 0)
        return end_of_connection(link);
    link->heard_ms = io_clock_ms();
    buffer_commit(&link->in, (size_t)n);
    const char *reason = parse(link);
    if (!reason && buffer_length(&link->in) == 0 && link->in.capacity > KEEP_SIZE)
        buffer_release(&link->in);
    if (!reason && link_tls_is_pending(link) && !link->write_blocked)
        reason = link_write(link);
    return reason;
}

const char *link_write(struct link *link)
{
    while (buffer_length(&link->out) > 0 || link_tls_is_pending(link)) {
        ssize_t n = transmit(link, buffer_bytes(&link->out), buffer_length(&link->out));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && link_tls_is_opening(link) && !link_tls_is_pending(link))
            return NULL; /* it is the broker's turn: link_read goes on */
        if (n < 0 && errno == EAGAIN) {
            link->write_blocked = true;
            return event_add(link->writable, NULL) == 0 ? NULL : "out of memory";
        }
        if (n < 0)
            return failure(link);
        link->out_written += (uint64_t)n;
        buffer_consume(&link->out, (size_t)n);
    }
    if (link->out.capacity > KEEP_SIZE)
        buffer_release(&link->out);
    return NULL;
}

uint8_t *link_request(struct link *link, const struct wire_request *request, size_t body,
                      uint32_t *id)
{
    uint8_t *out =
        buffer_reserve(&link->out, SP_PREFIX_MAX + REQUEST_ID_SIZE + WIRE_REQUEST_SIZE + body);
    if (!out) {
        link->doomed = "out of memory";
        return NULL;
    }
    struct wire_request header = *request;
    header.version = WIRE_VERSION;
    *id = 0x80000000u | ++link->next_request;
    size_t at = sp_prefix_encode(out, endpoint_transport(&link->endpoint),
                                 REQUEST_ID_SIZE + WIRE_REQUEST_SIZE + body);
    put_u32be(out + at, *id);
    wire_request_encode(out + at + REQUEST_ID_SIZE, &header);
    return out + at + REQUEST_ID_SIZE + WIRE_REQUEST_SIZE;
}

void link_request_end(struct link *link, size_t body)
{
    buffer_commit(&link->out, sp_prefix_size(endpoint_transport(&link->endpoint)) +
                                  REQUEST_ID_SIZE + WIRE_REQUEST_SIZE + body);
}
