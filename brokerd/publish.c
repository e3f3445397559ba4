#include "bytes.h"
#include "glob.h"
#include "requests.h"
#include "server.h"
#include <string.h>

/* One SUBMIT on its way into the journal and to the sessions. */
struct delivery {
    struct server *server;
    uint64_t position, id; /* of the record that is matched */
    uint32_t size;
    uint32_t engine;   /* that publishes; 0 none */
    uint32_t sessions; /* reached by this SUBMIT */
};

static void deliver(struct subscription *subscription, void *context)
{
    struct delivery *d = context;
    struct session *s = subscription->context;
    if (s == NULL || s->last_match == d->id) /* interest that lingers; a second subscription */
        return;
    s->last_match = d->id;
    if (s->engine_hash != 0 && s->engine_hash == d->engine)
        return;
    if (s->submit_serial != d->server->submit_serial) {
        s->submit_serial = d->server->submit_serial;
        d->sessions++;
    }
    if (s->mode == SESSION_LIVE)
        session_queue(s, d->position, d->size, d->id);
}

static void publish(struct delivery *d, const uint8_t *record, uint32_t size)
{
    struct journal *j = &d->server->journal;
    uint8_t *copy = journal_reserve(j, size, &d->position);
    memcpy(copy, record, size);
    copy[5] &= WIRE_BINARY;
    d->size = size;
    d->id = j->last_id + 1;
    wire_record_stamp(copy, d->id, d->engine);
    journal_commit(j, size);
    d->server->counters.published++;
    d->server->counters.published_bytes += size;
    subscriptions_match(d->server->subscriptions, copy + WIRE_RECORD_SIZE, get_u16le(copy + 6),
                        deliver, d);
}

/* Refuses the whole SUBMIT before anything of it is taken. */
static enum status check(const struct request *r, uint64_t *origin, uint64_t *first)
{
    const struct journal *j = &r->server->journal;
    size_t at = 0, used;
    for (uint32_t i = 0; i < r->header.records; i++, at += used) {
        struct wire_record record;
        if (wire_record_decode(r->body + at, r->length - at, &record, &used) != STATUS_OK ||
            record.type != WIRE_PUBLISH || record.origin == 0)
            return STATUS_MALFORMED;
        if (i == 0) {
            *origin = record.origin;
            *first = record.sequence;
        }
        if (record.origin != *origin || record.sequence != *first + i || record.sequence == 0)
            return STATUS_MALFORMED;
        if (record.channel_length > CHANNEL_LENGTH_MAX)
            return STATUS_CHANNEL_LENGTH;
        if (used > j->record_max || record.payload_length > r->server->options->max_message)
            return STATUS_TOO_LARGE;
    }
    return at == r->length ? STATUS_OK : STATUS_MALFORMED;
}

static void refuse(const struct request *r, enum status status)
{
    request_answer(r, status, 0, 0, 0);
    if (status == STATUS_MALFORMED)
        connection_close_after_replies(r->connection, CLOSE_REQUEST);
    else if (status == STATUS_CHANNEL_LENGTH)
        connection_close_after_replies(r->connection, CLOSE_CHANNEL);
}

void publish_handle(const struct request *r)
{
    struct server *server = r->server;
    uint64_t origin = 0, first = 0, known_id;
    enum status status = check(r, &origin, &first);
    if (status != STATUS_OK) {
        refuse(r, status);
        return;
    }
    uint64_t known = origins_known(server->origins, origin, &known_id);
    if (known != 0 && first > known + 1) {
        request_answer(r, STATUS_OUT_OF_ORDER, 0, known, 0);
        return;
    }
    struct delivery d = {.server = server,
                         .engine = r->session != NULL ? r->session->engine_hash : 0};
    server->submit_serial++;
    const uint8_t *record = r->body;
    uint64_t sequence = first, end = first + r->header.records;
    for (; sequence < end; sequence++) {
        uint32_t size = (uint32_t)size_align8(get_u32le(record));
        if (sequence > known)
            publish(&d, record, size);
        else
            server->counters.duplicates++;
        record += size;
    }
    if (end - 1 > known)
        origins_note(server->origins, origin, end - 1, d.id, r->session != NULL);
    request_answer(r, STATUS_OK, 0, d.id != 0 ? d.id : known_id, d.sessions);
}
