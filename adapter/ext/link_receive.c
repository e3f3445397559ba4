#include "bytes.h"
#include "hub.h"
#include "link_internal.h"
#include "sp.h"
#include <string.h>

/* Messages of one channel that stand together in a batch: they are handed on together. */
struct run {
    struct wire_record records[HUB_RUN_RECORDS];
    unsigned count;
    size_t bytes;
};

static void deliver_run(struct link *link, struct run *run)
{
    if (run->count == 0)
        return;
    hub_deliver(link->io->hub, run->records, run->count);
    IO_COUNT(link->io, messages_in, run->count);
    run->count = 0;
    run->bytes = 0;
}

static bool belongs_to(const struct run *run, const struct wire_record *record)
{
    const struct wire_record *first = &run->records[0];
    return run->count < HUB_RUN_RECORDS && run->bytes + record->payload_length <= HUB_RUN_BYTES &&
           first->channel_length == record->channel_length &&
           memcmp(first->channel, record->channel, record->channel_length) == 0;
}

static const char *message(struct link *link, struct run *run, const struct wire_record *record)
{
    if (record->id <= link->position)
        return "the broker sent a message twice or out of order";
    if (run->count > 0 && !belongs_to(run, record))
        deliver_run(link, run);
    run->records[run->count++] = *record;
    run->bytes += record->payload_length;
    link->position = record->id;
    return NULL;
}

/* Rule 14. Handling it makes its end the position, in one step (rule 12). */
static const char *gap(struct link *link, struct run *run, const struct wire_record *record)
{
    if (record->sequence > record->id || record->id <= link->position)
        return "the broker sent a GAP that makes no sense";
    deliver_run(link, run);
    hub_gap(link->io->hub, record->sequence, record->id);
    link->position = record->id;
    return NULL;
}

/* Rule 11. Each record moves the position, so that a batch that turns bad in its middle is not
 * handed out again from its start. */
static const char *records(struct link *link, struct run *run, uint32_t count, const uint8_t *at,
                           size_t length)
{
    for (; count > 0; count--) {
        struct wire_record record;
        size_t used;
        const char *reason = NULL;
        if (wire_record_decode(at, length, &record, &used) != STATUS_OK)
            return "a malformed record in a batch";
        if (record.type == WIRE_MESSAGE)
            reason = message(link, run, &record);
        else if (record.type == WIRE_GAP)
            reason = gap(link, run, &record);
        if (reason)
            return reason;
        at += used;
        length -= used;
    }
    return length > 0 ? "a batch that is longer than its records" : NULL;
}

static const char *batch(struct link *link, const struct wire_reply *reply, const uint8_t *body,
                         size_t length)
{
    struct run run;
    run.count = 0;
    run.bytes = 0;
    const char *reason = records(link, &run, reply->records, body, length);
    deliver_run(link, &run); /* what came whole before something bad, too */
    if (reason == NULL && reply->value > link->position)
        link->position = reply->value;
    return reason;
}

/* Live batches are small, or the last that there is. */
static void note_distance(struct link *link, size_t batch_size)
{
    uint64_t behind = link->head > link->position ? link->head - link->position : 0;
    if (behind == 0 || (batch_size < WIRE_BATCH_SIZE / 4 && behind <= LINK_BEHIND))
        link->catching_up = false;
    else if (behind > LINK_FAR_BEHIND)
        link->catching_up = true;
}

void link_catch_up(struct link *link)
{
    link->catching_up = link->state == LINK_ATTACHED;
}

static unsigned credits_wanted(const struct link *link)
{
    if (link->paced)
        return LINK_PACED_CREDITS;
    return link->small_batches >= LINK_SMALL_FROM ? LINK_SMALL_CREDITS : LINK_CREDITS;
}

static const char *fetch_reply(struct link *link, const struct wire_reply *reply,
                               const uint8_t *body, size_t length)
{
    if (reply->status != STATUS_OK && reply->status != STATUS_GOING_AWAY)
        return status_text(reply->status);
    const char *reason = batch(link, reply, body, length);
    note_distance(link, length);
    if (length > 0) /* an empty one tells nothing of the next */
        link->small_batches =
            length <= WIRE_SMALL_BATCH && !link->catching_up ? link->small_batches + 1 : 0;
    if (reason || link->state != LINK_ATTACHED)
        return reason;
    if (reply->status == STATUS_GOING_AWAY) {
        io_log(link->io, LOG_LEVEL_INFO, "the broker at %s is going away", link->io->config.url);
        link->state = LINK_LEAVING;
        link_deadline(link, LINK_SILENCE_MS);
        return NULL;
    }
    struct timeval wait = {.tv_usec = LINK_REFILL_MS * 1000};
    unsigned full = link->paced ? LINK_PACED_CREDITS : LINK_CREDITS;
    if (link->fetch_count <= full / 2 || event_add(link->refill, &wait) != 0)
        link->refill_due = true;
    return NULL;
}

static void fetch(struct link *link, unsigned credits)
{
    struct wire_request request = {
        .operation = WIRE_FETCH, .session = link->session, .position = link->position};
    link->refill_due = false;
    event_del(link->refill);
    while (link->fetch_count < credits &&
           link_request(link, &request, 0, &link->fetches[link->fetch_count])) {
        link_request_end(link, 0);
        link->fetch_count++;
    }
}

void link_fetch_more(struct link *link)
{
    link->paced = link->paced && link->catching_up;
    if (!link->refill_due || (link->io->lagging && link->catching_up))
        return; /* link_pace decides when the clients were flushed */
    link->paced_ms = 0;
    fetch(link, credits_wanted(link));
}

void link_pace(struct link *link)
{
    struct io_thread *io = link->io;
    if (link->state != LINK_ATTACHED || !link->catching_up || !io_clients_lag(io)) {
        io->lagging = false;
        link->paced = link->catching_up;
        link_flush(link);
        return;
    }
    link->paced = true;
    if (link->paced_ms == 0)
        link->paced_ms = io->now_ms;
    if (io->now_ms - link->paced_ms >= LINK_PACE_MS) {
        link->paced_ms = io->now_ms;
        fetch(link, LINK_PACED_CREDITS / 2);
        link_flush(link);
    } else if (link->refill_due) {
        event_add(link->refill, &(struct timeval){.tv_usec = LINK_PACE_LOOK_MS * 1000});
    }
}

/* Was it the id of a FETCH? Then it is none any more. */
static bool take_fetch(struct link *link, uint32_t id)
{
    for (unsigned i = 0; i < link->fetch_count; i++) {
        if (link->fetches[i] != id)
            continue;
        link->fetches[i] = link->fetches[--link->fetch_count];
        return true;
    }
    return false;
}

const char *link_message(struct link *link, const uint8_t *body, size_t length)
{
    struct wire_reply reply;
    size_t backtrace;
    if (sp_backtrace_decode(body, length, &backtrace) != STATUS_OK || backtrace != 4)
        return "an answer without the id of its request";
    uint32_t id = get_u32be(body);
    body += backtrace;
    length -= backtrace;
    switch (wire_reply_decode(body, length, &reply)) {
    case STATUS_OK:
        break;
    case STATUS_VERSION:
        return "the broker speaks another version of the protocol: both sides need the same "
               "brokerd (an application's own broker ends when all processes that use it have "
               "ended)";
    default:
        return "an answer that is shorter than its header";
    }
    body += WIRE_REPLY_SIZE;
    length -= WIRE_REPLY_SIZE;
    if (link->state >= LINK_ATTACHED) {
        if (reply.epoch != link->epoch)
            return "the epoch changed on a living connection";
        if (reply.head > link->head)
            link->head = reply.head;
    }
    if (id == link->attach_request)
        return link_attach_reply(link, &reply, body, length);
    if (take_fetch(link, id))
        return fetch_reply(link, &reply, body, length);
    /* The broker executes one connection's SUBMITs in order and answers them at once (rule 6). */
    if (link->submit_count > 0 && id == link->submits[link->submit_start].request)
        return link_submit_reply(link, &reply);
    return "an answer to nothing that was asked, or out of order";
}
