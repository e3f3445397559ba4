#include "secure.h"

#include "server.h"
#include "tls_filter.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { RECEIVE_SIZE = 64 * 1024, DAYS_LEFT_WARN = 7, SECONDS_OF_DAY = 86400 };

static void warn_of_end(const char *file, int64_t seconds)
{
    if (seconds <= 0)
        log_warn("the certificate %s has expired: clients will refuse it", file);
    else if (seconds < DAYS_LEFT_WARN * SECONDS_OF_DAY)
        log_warn("the certificate %s expires in %lld hours", file, (long long)seconds / 3600);
}

bool secure_read(struct server *server)
{
    const struct options *o = server->options;
    char reason[TLS_REASON_MAX];
    struct tls_settings settings = {.ca_file = o->tls_client_ca,
                                    .cert_file = o->tls_cert,
                                    .key_file = o->tls_key,
                                    .crl_file = o->tls_client_crl};
    if (o->tls_cert == NULL)
        return true;
    struct tls_context *context = tls_server_context_new(&settings, reason);
    if (context == NULL) {
        log_error("cannot serve tls+tcp: %s", reason);
        return false;
    }
    tls_context_free(server->tls);
    server->tls = context;
    warn_of_end(o->tls_cert, tls_context_seconds_left(server->tls));
    if (tls_context_crl_seconds_left(server->tls) <= 0)
        log_warn("the revocation list %s has expired: every client is refused", o->tls_client_crl);
    return true;
}

/* As much as the socket takes. -1 with errno when it takes nothing any more. */
static int send_output(struct connection *c)
{
    size_t length;
    const uint8_t *bytes;
    while (bytes = tls_filter_output(c->tls, &length), length > 0) {
        ssize_t n = send(c->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == ENOBUFS ? 0 : -1;
        tls_filter_sent(c->tls, (size_t)n);
    }
    return 0;
}

static ssize_t fetch_input(struct connection *c)
{
    uint8_t *room = tls_filter_room(c->tls, RECEIVE_SIZE);
    if (room == NULL) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t n = recv(c->fd, room, RECEIVE_SIZE, 0);
    if (n > 0) {
        tls_filter_commit(c->tls, (size_t)n);
        c->heard = c->server->now; /* half a record is a sign of life */
    }
    return n;
}

ssize_t secure_receive(struct connection *c, void *bytes, size_t size)
{
    size_t got;
    if (!tls_filter_has_input(c->tls)) {
        ssize_t n = fetch_input(c);
        if (n <= 0)
            return n;
    }
    enum tls_result result = tls_filter_read(c->tls, bytes, size, &got);
    send_output(c); /* what the handshake answers, or an alert; a dead socket is seen by recv */
    if (result == TLS_OK)
        return (ssize_t)got;
    errno = result == TLS_WAIT ? EAGAIN : EPROTO;
    return result == TLS_END ? 0 : -1;
}

/* The next bytes of iov behind the first `skip` ones, side by side so that they make few records.
 */
static size_t gather(uint8_t *out, size_t size, const struct iovec *iov, int count, size_t skip)
{
    size_t used = 0;
    for (int i = 0; i < count && used < size; i++) {
        size_t length = iov[i].iov_len;
        if (skip >= length) {
            skip -= length;
            continue;
        }
        length = length - skip < size - used ? length - skip : size - used;
        memcpy(out + used, (const uint8_t *)iov[i].iov_base + skip, length);
        used += length;
        skip = 0;
    }
    return used;
}

ssize_t secure_transmit(struct connection *c, const struct iovec *iov, int count)
{
    static uint8_t plain[TLS_OUTPUT_ENOUGH]; /* the loop's thread is the only one */
    size_t total = 0;
    for (;;) {
        if (send_output(c) < 0)
            return -1;
        size_t taken, length = gather(plain, sizeof(plain), iov, count, total);
        if (length == 0)
            return (ssize_t)total;
        enum tls_result result =
            secure_is_pending(c) ? TLS_WAIT : tls_filter_write(c->tls, plain, length, &taken);
        if (result != TLS_OK) {
            errno = result == TLS_WAIT ? EAGAIN : EPROTO;
            return result == TLS_WAIT && total > 0 ? (ssize_t)total : -1;
        }
        total += taken;
    }
}

bool secure_is_pending(const struct connection *c)
{
    size_t length = 0;
    if (c->tls != NULL)
        tls_filter_output(c->tls, &length);
    return length > 0;
}

bool secure_has_input(const struct connection *c)
{
    return c->tls != NULL && tls_filter_has_input(c->tls);
}

bool secure_is_opening(const struct connection *c)
{
    return c->tls != NULL && !tls_filter_is_open(c->tls);
}

void secure_close(struct connection *c)
{
    if (c->tls == NULL)
        return;
    tls_filter_close(c->tls);
    send_output(c);
}

const char *secure_reason(const struct connection *c)
{
    return c->tls != NULL ? tls_filter_reason(c->tls) : "";
}
