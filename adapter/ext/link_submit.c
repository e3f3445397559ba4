#include "bytes.h"
#include "hub.h"
#include "link_internal.h"
#include <string.h>

/*
 * What goes up. Publishes and subscriptions stand in two queues and are never in one SUBMIT (rule
 * 6); each change of a subscription notes which publish would be next, so that what one thread
 * does, a subscribe then a publish or the other way round, reaches the broker in that order.
 */

enum { BARRIER_SIZE = 8 };

void link_give_back(struct link *link, struct unanswered_removed removed)
{
    if (removed.bytes > 0)
        io_answered(link->io, removed.bytes);
}

static void refuse_publish(struct link *link, size_t size, const char *reason)
{
    static uint64_t logged;
    IO_COUNT(link->io, publishes_refused, 1);
    io_log_seldom(link->io, &logged, LOG_LEVEL_ERROR, "a publish of %zu bytes was dropped: %s",
                  size, reason);
    link_give_back(link, (struct unanswered_removed){.count = 1, .bytes = size});
}

void link_publish(struct link *link, const void *channel, size_t channel_length,
                  const void *payload, size_t payload_length, bool binary)
{
    size_t size = wire_record_size(channel_length, payload_length);
    if (size > link->record_max)
        refuse_publish(link, size, "it is larger than the broker takes");
    else if (!unanswered_append(&link->unanswered, channel, channel_length, payload, payload_length,
                                binary))
        refuse_publish(link, size, "out of memory");
}

/* Rule 9: what changes after the ATTACH was written is sent after its reply. */
static uint64_t add_change(struct link *link, const struct subscription_key *key, uint8_t type)
{
    struct link_changes *changes = &link->changes;
    if (link->state != LINK_ATTACHING && link->state != LINK_ATTACHED)
        return 0; /* the next ATTACH lists it, or does not */
    size_t size = wire_record_size(key->length, 0);
    uint8_t *out = buffer_reserve(&changes->records, BARRIER_SIZE + size);
    if (!out) {
        link->doomed = "too many changes of subscriptions at once; a new list says it shorter";
        return 0;
    }
    struct wire_record record = {.type = type,
                                 .flags = key->is_pattern ? WIRE_PATTERN : 0,
                                 .channel_length = key->length,
                                 .channel = key->name};
    put_u64le(out, link->unanswered.next);
    wire_record_encode(out + BARRIER_SIZE, &record);
    buffer_commit(&changes->records, BARRIER_SIZE + size);
    if (buffer_length(&changes->records) == BARRIER_SIZE + size)
        changes->first = link->serial + 1;
    changes->unsubmitted++;
    return ++link->serial;
}

uint64_t link_subscribe(struct link *link, const struct subscription_key *key)
{
    return add_change(link, key, WIRE_SUBSCRIBE);
}

void link_unsubscribe(struct link *link, const struct subscription_key *key)
{
    if (key->serial != HUB_REFUSED)
        add_change(link, key, WIRE_UNSUBSCRIBE);
}

void link_changes_clear(struct link *link)
{
    struct link_changes *changes = &link->changes;
    buffer_release(&changes->records);
    changes->submitted_bytes = 0;
    changes->unsubmitted = 0;
}

/* The oldest change that is in no SUBMIT waits for the publishes before it. */
static uint64_t barrier(const struct link_changes *changes)
{
    return get_u64le(buffer_bytes(&changes->records) + changes->submitted_bytes);
}

static struct link_submit *push_submit(struct link *link, const struct link_submit *submit)
{
    unsigned at = (link->submit_start + link->submit_count++) % LINK_SUBMITS;
    link->submits[at] = *submit;
    link->submits[at].out_end = link->out_written + buffer_length(&link->out);
    return &link->submits[at];
}

static bool submit_changes(struct link *link)
{
    struct link_changes *changes = &link->changes;
    const uint8_t *start = buffer_bytes(&changes->records) + changes->submitted_bytes, *at = start;
    const uint8_t *end = buffer_bytes(&changes->records) + buffer_length(&changes->records);
    bool all_published = !unanswered_has_unsubmitted(&link->unanswered);
    struct wire_request request = {.operation = WIRE_SUBMIT, .session = link->session};
    size_t body = 0;
    while (at < end && body < LINK_SUBMIT_SIZE &&
           (all_published || get_u64le(at) <= link->unanswered.cursor)) {
        size_t size = size_align8(get_u32le(at + BARRIER_SIZE));
        body += size;
        at += BARRIER_SIZE + size;
        request.records++;
    }
    struct link_submit submit = {.records = request.records};
    uint8_t *out = link_request(link, &request, body, &submit.request);
    if (!out)
        return false;
    for (at = start; request.records > 0; request.records--) {
        size_t size = size_align8(get_u32le(at + BARRIER_SIZE));
        memcpy(out, at + BARRIER_SIZE, size);
        out += size;
        at += BARRIER_SIZE + size;
    }
    link_request_end(link, body);
    changes->submitted_bytes += (size_t)(at - start);
    changes->unsubmitted -= submit.records;
    push_submit(link, &submit);
    return true;
}

static bool submit_publishes(struct link *link, uint64_t before)
{
    struct unanswered *u = &link->unanswered;
    struct wire_request request = {.operation = WIRE_SUBMIT, .session = link->session};
    struct link_submit submit = {.publishes = true};
    size_t bytes, limit = u->cursor <= link->one_by_one ? 0 : LINK_SUBMIT_SIZE;
    const uint8_t *records = unanswered_peek(u, limit, before, &bytes, &request.records);
    uint8_t *out = records ? link_request(link, &request, bytes, &submit.request) : NULL;
    if (!out)
        return false;
    memcpy(out, records, bytes);
    link_request_end(link, bytes);
    submit.records = request.records;
    submit.last = unanswered_submit(u, bytes, request.records, link->head);
    push_submit(link, &submit);
    return true;
}

void link_submit_more(struct link *link)
{
    bool more = true;
    while (more && link->submit_count < LINK_SUBMITS &&
           buffer_length(&link->out) < LINK_OUT_ENOUGH) {
        bool changes = link->changes.unsubmitted > 0;
        bool publishes = unanswered_has_unsubmitted(&link->unanswered);
        if (changes && (!publishes || barrier(&link->changes) <= link->unanswered.cursor))
            more = submit_changes(link);
        else
            more =
                publishes && submit_publishes(link, changes ? barrier(&link->changes) : UINT64_MAX);
    }
}

/* Rule 10: the head in its own request's reply is a subscription's label. */
static void confirm_changes(struct link *link, const struct wire_reply *reply, uint32_t records)
{
    struct link_changes *changes = &link->changes;
    const uint8_t *at = buffer_bytes(&changes->records);
    size_t left = buffer_length(&changes->records), used, done = 0;
    struct wire_record record;
    while (records-- > 0 && wire_record_decode(at + done + BARRIER_SIZE, left - done - BARRIER_SIZE,
                                               &record, &used) == STATUS_OK) {
        if (record.type == WIRE_SUBSCRIBE)
            hub_label(link->io->hub, record.channel, record.channel_length,
                      record.flags & WIRE_PATTERN, changes->first, reply->head);
        changes->first++;
        done += BARRIER_SIZE + used;
    }
    buffer_consume(&changes->records, done);
    changes->submitted_bytes -= done;
    if (buffer_length(&changes->records) == 0)
        buffer_release(&changes->records);
}

static const char *changes_refused(struct link *link, const struct wire_reply *reply,
                                   const struct link_submit *submit)
{
    struct wire_record record;
    size_t used;
    if (!hub_may_refuse(reply->status) || reply->records >= submit->records)
        return status_text(reply->status);
    confirm_changes(link, reply, reply->records);
    if (wire_record_decode(buffer_bytes(&link->changes.records) + BARRIER_SIZE,
                           buffer_length(&link->changes.records) - BARRIER_SIZE, &record,
                           &used) == STATUS_OK)
        hub_refuse(link->io->hub, &record, reply->status);
    /* The rest was not executed, and what was sent behind it may be about the same names: the next
     * ATTACH says it all in one. */
    return "the broker refused a subscription";
}

/* A publish that the broker refuses for good must not come again for ever: it is found by sending
 * the records of that SUBMIT one by one, and left out once the next ATTACH said what was taken. */
static const char *publish_refused(struct link *link, const struct wire_reply *reply,
                                   const struct link_submit *submit)
{
    if (reply->status == STATUS_TOO_LARGE || reply->status == STATUS_CHANNEL_LENGTH ||
        reply->status == STATUS_MALFORMED) {
        if (submit->records == 1) {
            IO_COUNT(link->io, publishes_refused, 1);
            static uint64_t logged;
            io_log_seldom(link->io, &logged, LOG_LEVEL_ERROR, "the broker refused a publish: %s",
                          status_text(reply->status));
            link->refused = submit->last;
        } else {
            link->one_by_one = submit->last;
        }
    }
    return status_text(reply->status); /* rule 5: any refusal ends the link */
}

const char *link_submit_reply(struct link *link, const struct wire_reply *reply)
{
    struct link_submit submit = link->submits[link->submit_start];
    link->submit_start = (link->submit_start + 1) % LINK_SUBMITS;
    link->submit_count--;
    if (reply->status != STATUS_OK) {
        /* A refused SUBMIT is not in the ring any more when the connection ends, and need not be:
         * none of it was taken. NOT_ATTACHED and GOING_AWAY say the same. */
        return submit.publishes ? publish_refused(link, reply, &submit)
                                : changes_refused(link, reply, &submit);
    }
    if (submit.publishes)
        link_give_back(link, unanswered_answer(&link->unanswered, submit.last));
    else
        confirm_changes(link, reply, submit.records);
    return NULL;
}
