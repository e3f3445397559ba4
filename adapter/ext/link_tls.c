#include "link_tls.h"
#include "link_internal.h"
#include "tls_filter.h"
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

enum { RECEIVE_SIZE = 64 * 1024 };

const char *link_tls_begin(struct link *link)
{
    const struct io_config *config = &link->io->config;
    struct tls_settings settings = {.ca_file = config->ca_file,
                                    .crl_file = config->crl_file,
                                    .cert_file = config->cert_file,
                                    .key_file = config->key_file};
    io_fork_guard(true);
    link->tls_context = tls_client_context_new(&settings, link->tls_reason);
    if (link->tls_context)
        link->tls = tls_filter_new(link->tls_context, link->endpoint.host);
    io_fork_guard(false);
    if (link->tls)
        return NULL;
    return link->tls_context ? "out of memory" : link->tls_reason;
}

/* As much as the socket takes. -1 with errno when it takes nothing any more. */
static int send_output(struct link *link)
{
    size_t length;
    const uint8_t *bytes;
    while (bytes = tls_filter_output(link->tls, &length), length > 0) {
        ssize_t n = send(link->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        tls_filter_sent(link->tls, (size_t)n);
    }
    return 0;
}

static ssize_t failed(struct link *link)
{
    snprintf(link->tls_reason, sizeof(link->tls_reason), "TLS failed: %s",
             tls_filter_reason(link->tls));
    errno = EPROTO;
    return -1;
}

static ssize_t fetch_input(struct link *link)
{
    uint8_t *room = tls_filter_room(link->tls, RECEIVE_SIZE);
    if (!room) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t n = recv(link->fd, room, RECEIVE_SIZE, 0);
    if (n > 0) {
        tls_filter_commit(link->tls, (size_t)n);
        link->heard_ms = io_clock_ms(); /* half a record is a sign of life */
    }
    return n;
}

ssize_t link_tls_receive(struct link *link, void *bytes, size_t size)
{
    size_t got;
    if (!tls_filter_has_input(link->tls)) {
        ssize_t n = fetch_input(link);
        if (n <= 0)
            return n;
    }
    io_fork_guard(true);
    enum tls_result result = tls_filter_read(link->tls, bytes, size, &got);
    io_fork_guard(false);
    send_output(link); /* what the handshake answers, or an alert; a dead socket is seen by recv */
    if (result == TLS_FAILED)
        return failed(link);
    if (result == TLS_OK)
        return (ssize_t)got;
    errno = EAGAIN;
    return result == TLS_END ? 0 : -1;
}

ssize_t link_tls_transmit(struct link *link, const void *bytes, size_t size)
{
    size_t taken = 0;
    if (send_output(link) < 0)
        return -1;
    if (size == 0 && !link_tls_is_pending(link))
        return 0;
    enum tls_result result = TLS_WAIT;
    if (!link_tls_is_pending(link)) {
        io_fork_guard(true);
        result = tls_filter_write(link->tls, bytes, size, &taken);
        io_fork_guard(false);
    }
    if (result == TLS_FAILED)
        return failed(link);
    errno = EAGAIN;
    return result == TLS_OK ? (ssize_t)taken : -1;
}

bool link_tls_is_pending(const struct link *link)
{
    size_t length = 0;
    if (link->tls)
        tls_filter_output(link->tls, &length);
    return length > 0;
}

bool link_tls_has_input(const struct link *link)
{
    return link->tls && tls_filter_has_input(link->tls);
}

bool link_tls_is_opening(const struct link *link)
{
    return link->tls && !tls_filter_is_open(link->tls);
}

void link_tls_end(struct link *link)
{
    io_fork_guard(true);
    if (link->tls && link->fd >= 0) {
        tls_filter_close(link->tls);
        send_output(link);
    }
    tls_filter_free(link->tls);
    tls_context_free(link->tls_context);
    io_fork_guard(false);
    link->tls = NULL;
    link->tls_context = NULL;
}
