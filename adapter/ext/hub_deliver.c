#include "frame.h"
#include "hub_internal.h"
#include "utf8.h"
#include "ws_deflate.h"

/* What messages look like on their way to a browser: what its subscription makes of text and
 * binary, and compressed or not. Each is built at most once for a run. */
enum shape {
    SHAPE_AUTO,
    SHAPE_TEXT,
    SHAPE_BINARY,
    SHAPE_AUTO_DEFLATED,
    SHAPE_TEXT_DEFLATED,
    SHAPE_BINARY_DEFLATED,
    SHAPE_SSE,
    SHAPES
};

struct delivery {
    struct hub *hub;
    const struct wire_record *records;
    unsigned count;
    struct frame *frames[SHAPES];              /* of the whole run */
    struct message *messages[HUB_RUN_RECORDS]; /* what blocks get */
    enum { UNCHECKED = 0, VALID, INVALID } utf8[HUB_RUN_RECORDS];
    uint64_t deliveries;
};

/* Only valid UTF-8 goes out as text, whatever the publisher called it. */
static bool is_text(struct delivery *d, unsigned i)
{
    const struct wire_record *r = &d->records[i];
    if (d->utf8[i] == UNCHECKED)
        d->utf8[i] = utf8_is_valid(r->payload, r->payload_length) ? VALID : INVALID;
    return d->utf8[i] == VALID;
}

static bool goes_as_text(struct delivery *d, unsigned i, enum shape shape)
{
    if (shape == SHAPE_BINARY || shape == SHAPE_BINARY_DEFLATED)
        return false;
    if ((shape == SHAPE_AUTO || shape == SHAPE_AUTO_DEFLATED) && d->records[i].flags & WIRE_BINARY)
        return false;
    return is_text(d, i);
}

static struct frame *deflated(struct hub *hub, bool binary, const struct wire_record *r)
{
    if (!hub->deflater)
        hub->deflater = ws_deflater_new(WS_DEFLATE_BITS_MAX);
    if (!hub->deflater)
        return NULL;
    return frame_deflated(hub->deflater, binary, r->payload, r->payload_length);
}

static struct frame *build_one(struct delivery *d, unsigned i, enum shape shape)
{
    const struct wire_record *r = &d->records[i];
    if (shape == SHAPE_SSE)
        return frame_sse_event(r->payload, r->payload_length, NULL, 0, NULL, 0, -1);
    bool text = goes_as_text(d, i, shape);
    if (shape >= SHAPE_AUTO_DEFLATED)
        return deflated(d->hub, !text, r);
    return text ? frame_text(r->payload, r->payload_length)
                : frame_binary(r->payload, r->payload_length);
}

/* Of the records from that one on; NULL: no memory. */
static struct frame *build(struct delivery *d, unsigned from, enum shape shape)
{
    if (from + 1 == d->count)
        return build_one(d, from, shape);
    struct frame *frames[HUB_RUN_RECORDS], *joined = NULL;
    unsigned count = 0;
    bool ok = true;
    for (unsigned i = from; ok && i < d->count; i++) {
        frames[count] = build_one(d, i, shape);
        ok = frames[count++] != NULL;
    }
    if (ok)
        joined = frame_joined(frames, count);
    while (count > 0)
        frame_unref(frames[--count]);
    return joined;
}

static enum shape shape_for(const struct client *client, const void *context)
{
    if (client_protocol(client) == CLIENT_SSE)
        return SHAPE_SSE;
    bool deflates = client_deflates(client);
    if (context == &HUB_DIRECT_AUTO)
        return deflates ? SHAPE_AUTO_DEFLATED : SHAPE_AUTO;
    if (context == &HUB_DIRECT_TEXT)
        return deflates ? SHAPE_TEXT_DEFLATED : SHAPE_TEXT;
    return deflates ? SHAPE_BINARY_DEFLATED : SHAPE_BINARY;
}

static void queue(struct client *client, struct frame *frame)
{
    if (frame)
        client_queue(client, frame, false);
    else
        client_end(client, "out of memory"); /* better no connection than one with a hole in it */
}

static void to_client(struct delivery *d, unsigned from, struct client *client, const void *context)
{
    enum shape shape = shape_for(client, context);
    if (from > 0) { /* confirmed in the middle of the run: seldom, and nobody shares its frame */
        struct frame *rest = build(d, from, shape);
        queue(client, rest);
        frame_unref(rest);
        return;
    }
    if (!d->frames[shape])
        d->frames[shape] = build(d, 0, shape);
    queue(client, d->frames[shape]);
}

static void to_block(struct delivery *d, unsigned i, struct block *block)
{
    const struct wire_record *r = &d->records[i];
    if (!d->messages[i])
        d->messages[i] = message_new(r->channel, r->channel_length, r->payload, r->payload_length,
                                     (r->flags & WIRE_BINARY) || !is_text(d, i), r->id);
    if (d->messages[i])
        mailbox_post(block->mailbox, CALLBACK_DELIVERY, block_ref(block),
                     message_ref(d->messages[i]), 0, 0);
    else
        io_log(d->hub->io, LOG_LEVEL_ERROR, "a delivery to a block was lost: out of memory");
}

/* Rule 10; what has no label yet has the highest. The first record that it may have. */
static unsigned first_above(const struct delivery *d, uint64_t label)
{
    unsigned i = 0;
    while (i < d->count && d->records[i].id != 0 && d->records[i].id <= label)
        i++;
    return i;
}

static void deliver(struct subscription *s, void *context)
{
    struct delivery *d = context;
    unsigned from = first_above(d, s->key->label);
    if (from == d->count)
        return;
    d->deliveries += d->count - from;
    if (hub_is_direct(s->context))
        to_client(d, from, client_of_subscriber(s->subscriber), s->context);
    else
        for (unsigned i = from; i < d->count; i++)
            to_block(d, i, s->context);
}

static void count_key(struct subscription_key *key, void *count)
{
    (void)key;
    ++*(unsigned *)count;
}

static void deliver_run(struct hub *hub, const struct wire_record *records, unsigned count)
{
    struct delivery d = {.hub = hub, .records = records, .count = count};
    hub->matching = true;
    subscriptions_match(hub->table, records->channel, records->channel_length, deliver, &d);
    hub->matching = false;
    if (d.deliveries == 0)
        return;
    for (int i = 0; i < SHAPES; i++)
        frame_unref(d.frames[i]);
    for (unsigned i = 0; i < count; i++)
        message_unref(d.messages[i]);
    IO_COUNT(hub->io, deliveries, d.deliveries);
}

void hub_deliver(struct hub *hub, const struct wire_record *records, unsigned count)
{
    unsigned keys = 0;
    if (count > 1)
        subscriptions_match_keys(hub->table, records->channel, records->channel_length, count_key,
                                 &keys);
    /* Who subscribed to a channel and to a pattern gets each message twice, and both times of one
     * before the next. */
    if (keys == 1)
        deliver_run(hub, records, count);
    else
        for (unsigned i = 0; i < count; i++)
            deliver_run(hub, &records[i], 1);
}

struct gap {
    uint64_t first, last;
    bool told;
};

static void tell_gap(struct subscription_key *key, void *context)
{
    struct gap *gap = context;
    if (key->label >= gap->last)
        return;
    gap->told = true;
    for (struct subscription *s = key->subscriptions; s; s = s->next) {
        struct block *block = s->context;
        if (!hub_is_direct(block))
            mailbox_post(block->mailbox, CALLBACK_GAP, block_ref(block), NULL, gap->first,
                         gap->last);
    }
}

void hub_gap(struct hub *hub, uint64_t first, uint64_t last)
{
    struct gap gap = {.first = first, .last = last};
    subscriptions_each_key(hub->table, tell_gap, &gap);
    if (!gap.told)
        return;
    IO_COUNT(hub->io, gaps, 1);
    if (last != UINT64_MAX)
        IO_COUNT(hub->io, gap_messages, last - first + 1);
    mailbox_post(hub->io->notices, CALLBACK_GAP, NULL, NULL, first, last);
    io_log(hub->io, LOG_LEVEL_WARN, "messages were lost: ids %llu to %s%llu",
           (unsigned long long)first,
           last == UINT64_MAX ? "the end of the old journal, not above " : "",
           (unsigned long long)last);
}
