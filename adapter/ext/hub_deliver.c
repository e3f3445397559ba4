#include "frame.h"
#include "hub_internal.h"
#include "utf8.h"
#include "ws_deflate.h"

/* What a message looks like on its way to a browser; each is built at most once per message. */
enum shape {
    SHAPE_TEXT,
    SHAPE_BINARY,
    SHAPE_SSE,
    SHAPE_TEXT_DEFLATED,
    SHAPE_BINARY_DEFLATED,
    SHAPES
};

struct delivery {
    struct hub *hub;
    const struct wire_record *record;
    struct frame *frames[SHAPES];
    struct message *message; /* what blocks get */
    enum { UNCHECKED, VALID, INVALID } utf8;
    uint64_t count;
};

/* Only valid UTF-8 goes out as text, whatever the publisher called it. */
static bool is_text(struct delivery *d)
{
    if (d->utf8 == UNCHECKED)
        d->utf8 = utf8_is_valid(d->record->payload, d->record->payload_length) ? VALID : INVALID;
    return d->utf8 == VALID;
}

static bool wants_text(const struct delivery *d, const void *context)
{
    if (context == &HUB_DIRECT_AUTO)
        return !(d->record->flags & WIRE_BINARY);
    return context == &HUB_DIRECT_TEXT;
}

static struct frame *deflated(struct delivery *d, bool binary)
{
    struct hub *hub = d->hub;
    if (!hub->deflater)
        hub->deflater = ws_deflater_new(WS_DEFLATE_BITS_MAX);
    if (!hub->deflater)
        return NULL;
    return frame_deflated(hub->deflater, binary, d->record->payload, d->record->payload_length);
}

static struct frame *build(struct delivery *d, enum shape shape)
{
    const struct wire_record *r = d->record;
    switch (shape) {
    case SHAPE_TEXT:
        return frame_text(r->payload, r->payload_length);
    case SHAPE_BINARY:
        return frame_binary(r->payload, r->payload_length);
    case SHAPE_SSE:
        return frame_sse_event(r->payload, r->payload_length, NULL, 0, NULL, 0, -1);
    default:
        return deflated(d, shape == SHAPE_BINARY_DEFLATED);
    }
}

static void to_client(struct delivery *d, struct client *client, const void *context)
{
    enum shape shape = SHAPE_SSE;
    if (client_protocol(client) == CLIENT_WEBSOCKET) {
        shape = wants_text(d, context) && is_text(d) ? SHAPE_TEXT : SHAPE_BINARY;
        if (client_deflates(client))
            shape = shape == SHAPE_TEXT ? SHAPE_TEXT_DEFLATED : SHAPE_BINARY_DEFLATED;
    }
    if (!d->frames[shape])
        d->frames[shape] = build(d, shape);
    if (d->frames[shape])
        client_queue(client, d->frames[shape], false);
    else
        client_end(client, "out of memory"); /* better no connection than one with a hole in it */
}

static void to_block(struct delivery *d, struct block *block)
{
    const struct wire_record *r = d->record;
    if (!d->message)
        d->message = message_new(r->channel, r->channel_length, r->payload, r->payload_length,
                                 (r->flags & WIRE_BINARY) || !is_text(d), r->id);
    if (d->message)
        mailbox_post(block->mailbox, CALLBACK_DELIVERY, block_ref(block), message_ref(d->message),
                     0, 0);
    else
        io_log(d->hub->io, LOG_LEVEL_ERROR, "a delivery to a block was lost: out of memory");
}

static void deliver(struct subscription *s, void *context)
{
    struct delivery *d = context;
    /* Rule 10; what has no label yet has the highest. */
    if (d->record->id != 0 && d->record->id <= s->key->label)
        return;
    d->count++;
    if (hub_is_direct(s->context))
        to_client(d, client_of_subscriber(s->subscriber), s->context);
    else
        to_block(d, s->context);
}

void hub_deliver(struct hub *hub, const struct wire_record *record)
{
    struct delivery d = {.hub = hub, .record = record};
    hub->matching = true;
    subscriptions_match(hub->table, record->channel, record->channel_length, deliver, &d);
    hub->matching = false;
    if (d.count == 0)
        return;
    for (int i = 0; i < SHAPES; i++)
        frame_unref(d.frames[i]);
    message_unref(d.message);
    IO_COUNT(hub->io, deliveries, d.count);
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
