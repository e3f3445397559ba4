#include "descriptors.h"
#include "link_internal.h"
#include "link_secret.h"
#include "sp.h"
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>

static void free_event(struct event **event)
{
    if (*event)
        event_free(*event);
    *event = NULL;
}

/* What was written as a whole may have been executed; the rest of the connection's state is void.
 */
static void forget_requests(struct link *link)
{
    for (unsigned i = 0; i < link->submit_count; i++) {
        const struct link_submit *s = &link->submits[(link->submit_start + i) % LINK_SUBMITS];
        if (s->publishes && s->out_end <= link->out_written)
            unanswered_mark_written(&link->unanswered, s->last);
    }
    link->submit_start = link->submit_count = 0;
    link->fetch_count = 0;
    link->small_batches = 0;
    link->attach_request = 0;
    link->refill_due = link->catching_up = link->paced = false;
    link->paced_ms = 0;
    link_changes_clear(link);
}

void link_disconnect(struct link *link)
{
    free_event(&link->readable);
    free_event(&link->writable);
    free_event(&link->resolved);
    event_del(link->refill);
    event_del(link->timer);
    if (link->resolver >= 0)
        descriptors_close(link->resolver, false);
    link_tls_end(link);
    if (link->fd >= 0)
        descriptors_close(link->fd, true);
    link->resolver = link->fd = -1;
    forget_requests(link);
    buffer_release(&link->in);
    buffer_release(&link->out);
    buffer_release(&link->list);
    link->out_written = 0;
    link->write_blocked = false;
    link->doomed = NULL;
    link_secret_free(link->secret);
    link->secret = NULL;
    link->state = LINK_IDLE;
}

static void readable(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    (void)fd, (void)what;
    const char *reason;
    do /* what the filter holds makes no socket readable */
        reason = link_read(link);
    while (!reason && link_tls_has_input(link));
    if (reason)
        link_down(link, reason);
}

static const char *connected(struct link *link)
{
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        return strerror(error);
    const char *reason = link->endpoint.kind == ENDPOINT_TLS ? link_tls_begin(link) : NULL;
    if (reason)
        return reason;
    uint8_t *hello = buffer_reserve(&link->out, SP_HELLO_SIZE);
    if (!hello)
        return "out of memory";
    sp_hello_encode(hello, SP_REQ);
    buffer_commit(&link->out, SP_HELLO_SIZE);
    link->state = LINK_GREETING;
    if (event_add(link->readable, NULL) != 0)
        return "out of memory";
    return link_write(link);
}

static void writable(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    const char *reason = NULL;
    (void)fd, (void)what;
    link->write_blocked = false;
    if (link->state == LINK_CONNECTING)
        reason = connected(link);
    if (reason)
        link_down(link, reason);
    else
        link_flush(link);
}

static const char *try_address(struct link *link)
{
    unsigned n = link->address++ % link->addresses.count;
    link->fd = endpoint_connect((struct sockaddr *)&link->addresses.list[n].address,
                                link->addresses.list[n].length);
    if (link->fd < 0)
        return strerror(errno);
    link->readable = event_new(link->io->base, link->fd, EV_READ | EV_PERSIST, readable, link);
    link->writable = event_new(link->io->base, link->fd, EV_WRITE, writable, link);
    if (!link->readable || !link->writable || event_add(link->writable, NULL) != 0)
        return "out of memory";
    return NULL;
}

static void resolved(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    (void)what;
    ssize_t n = recv(fd, &link->addresses, sizeof(link->addresses), 0);
    const char *reason = NULL;
    if (n != (ssize_t)sizeof(link->addresses))
        reason = "the look-up of the host's name failed";
    else if (link->addresses.error || link->addresses.count == 0)
        reason = gai_strerror(link->addresses.error ? link->addresses.error : EAI_NONAME);
    free_event(&link->resolved);
    descriptors_close(link->resolver, false);
    link->resolver = -1;
    link->state = LINK_CONNECTING;
    if (!reason)
        reason = try_address(link);
    if (reason)
        link_down(link, reason);
}

static const char *resolve(struct link *link)
{
    link->state = LINK_RESOLVING;
    link->resolver = endpoint_resolve(&link->endpoint);
    if (link->resolver < 0)
        return strerror(errno);
    link->resolved = event_new(link->io->base, link->resolver, EV_READ, resolved, link);
    if (!link->resolved || event_add(link->resolved, NULL) != 0)
        return "out of memory";
    return NULL;
}

void link_connect(struct link *link)
{
    const char *reason;
    link->generation++; /* rule 17 */
    link->message_max = 64 * 1024;
    buffer_init(&link->in, SIZE_MAX); /* bounded by message_max and one read */
    link->state = LINK_CONNECTING;
    link_deadline(link, LINK_ATTACH_MS);
    if (endpoint_address(&link->endpoint, &link->addresses))
        reason = try_address(link);
    else
        reason = resolve(link);
    if (reason)
        link_down(link, reason);
}

const char *link_greet(struct link *link)
{
    switch (sp_hello_check(buffer_bytes(&link->in), buffer_length(&link->in), SP_REP)) {
    case STATUS_OK:
        buffer_consume(&link->in, SP_HELLO_SIZE);
        return link_attach_begin(link);
    case STATUS_TRUNCATED:
        return NULL;
    default:
        if (!link->tls && tls_looks_like(buffer_bytes(&link->in), buffer_length(&link->in)))
            return "the broker speaks TLS there: it wants a URL with tls+tcp://";
        return "what listens there does not speak SP as a broker does";
    }
}
