#include "embedded.h"
#include "link_internal.h"
#include "link_secret.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Without memory there is no timer: link_tick sees to it. */
static void set_timer(struct event *timer, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000) * 1000};
    event_add(timer, &tv);
}

void link_deadline(struct link *link, unsigned ms)
{
    link->deadline_ms = io_clock_ms() + ms;
    set_timer(link->timer, ms);
}

/* xorshift64: good enough to keep processes from coming back all at once. */
static unsigned random_below(struct link *link, unsigned n)
{
    link->random ^= link->random << 13;
    link->random ^= link->random >> 7;
    link->random ^= link->random << 17;
    return (unsigned)(link->random % n);
}

/* Rule 19. */
static void retry_later(struct link *link)
{
    unsigned wait = link->backoff_ms / 2 + random_below(link, link->backoff_ms / 2 + 1);
    link->backoff_ms *= 2;
    if (link->backoff_ms > LINK_BACKOFF_MAX_MS)
        link->backoff_ms = LINK_BACKOFF_MAX_MS;
    set_timer(link->timer, wait);
}

static void note_failure(struct link *link, bool was_attached, bool left, const char *reason)
{
    if (left)
        return;
    if (was_attached) {
        io_log(link->io, LOG_LEVEL_WARN, "link to %s lost: %s; connecting again",
               link->io->config.url, reason);
        return;
    }
    if (strncmp(link->last_failure, reason, sizeof(link->last_failure) - 1) == 0)
        return;
    snprintf(link->last_failure, sizeof(link->last_failure), "%s", reason);
    /* The broker that we start ourselves is not there at first; a start that fails is logged. */
    bool expected = link->io->embedded && link->state == LINK_CONNECTING;
    io_log(link->io, expected ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN,
           "no link to %s: %s; trying again until there is one", link->io->config.url, reason);
}

void link_down(struct link *link, const char *reason)
{
    bool was_attached = link->state >= LINK_ATTACHED, left = link->state == LINK_LEAVING;
    bool nobody_there = link->state == LINK_CONNECTING;
    note_failure(link, was_attached, left, reason);
    link_disconnect(link);
    __atomic_store_n(&link->io->stats.connected, false, __ATOMIC_RELAXED);
    if (was_attached)
        link->backoff_ms = LINK_BACKOFF_MIN_MS;
    if (link->stopped)
        return;
    if (nobody_there && link->io->embedded)
        embedded_start(link->io->embedded);
    retry_later(link);
}

static void timer_fired(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    (void)fd, (void)what;
    if (link->stopped)
        return;
    if (link->state == LINK_IDLE) {
        link_connect(link);
        return;
    }
    uint64_t now = io_clock_ms();
    uint64_t deadline =
        link->state == LINK_ATTACHED ? link->heard_ms + LINK_SILENCE_MS : link->deadline_ms;
    if (now < deadline)
        set_timer(link->timer, deadline - now);
    else
        link_down(link, link->state == LINK_ATTACHED ? "nothing was heard for 15 s" : "timed out");
}

void link_tick(struct link *link)
{
    if (!link->stopped && !event_pending(link->timer, EV_TIMEOUT, NULL))
        set_timer(link->timer, 0);
}

static void refill_fired(evutil_socket_t fd, short what, void *context)
{
    struct link *link = context;
    (void)fd, (void)what;
    link->refill_due = true;
    link_flush(link);
}

static uint64_t draw(void)
{
    uint64_t number = 0;
    while (number == 0 && getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
        ;
    return number;
}

struct link *link_new(struct io_thread *io)
{
    char error[256];
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return NULL;
    link->io = io;
    link->fd = link->resolver = -1;
    link->session = draw();
    link->random = draw();
    unanswered_init(&link->unanswered, draw());
    link->backoff_ms = LINK_BACKOFF_MIN_MS;
    link->record_max = LINK_RECORD_MAX;
    buffer_init(&link->out,
                SIZE_MAX); /* bounded by LINK_OUT_ENOUGH, a SUBMIT and a part of ATTACH */
    buffer_init(&link->list, SIZE_MAX); /* bounded by the hub's limit of names */
    buffer_init(&link->changes.records, LINK_CHANGES_MAX);
    link->timer = evtimer_new(io->base, timer_fired, link);
    link->refill = evtimer_new(io->base, refill_fired, link);
    if (!endpoint_parse(io->config.url, &link->endpoint, error, sizeof(error))) {
        io_log(io, LOG_LEVEL_ERROR, "%s", error);
        link->stopped = true;
    }
    if (link->timer && link->refill)
        return link;
    link_free(link);
    return NULL;
}

void link_free(struct link *link)
{
    if (!link)
        return;
    link->stopped = true;
    link_disconnect(link);
    if (link->timer)
        event_free(link->timer);
    if (link->refill)
        event_free(link->refill);
    unanswered_release(&link->unanswered);
    buffer_release(&link->changes.records);
    free(link);
}

void link_start(struct link *link)
{
    if (!link->stopped && link->state == LINK_IDLE)
        link_connect(link);
}

void link_detach(struct link *link)
{
    uint32_t id;
    link->stopped = true;
    event_del(link->timer);
    if (link->state == LINK_ATTACHED) {
        struct wire_request request = {.operation = WIRE_DETACH, .session = link->session};
        if (link_request(link, &request, 0, &id)) {
            link_request_end(link, 0);
            (void)link_write(link);
        }
    }
    link_disconnect(link);
    __atomic_store_n(&link->io->stats.connected, false, __ATOMIC_RELAXED);
}

void link_flush(struct link *link)
{
    if (link->fd < 0 || link->state <= LINK_CONNECTING)
        return;
    if (link->state == LINK_ATTACHED && !link->doomed) {
        link_fetch_more(link);
        link_submit_more(link);
    }
    const char *reason = link->doomed;
    if (!reason && !link->write_blocked && buffer_length(&link->out) > 0)
        reason = link_write(link);
    if (reason)
        link_down(link, reason);
}

bool link_is_attached(const struct link *link)
{
    return link->state == LINK_ATTACHED;
}

uint64_t link_unanswered(const struct link *link)
{
    return unanswered_count(&link->unanswered);
}
