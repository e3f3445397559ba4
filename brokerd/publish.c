#include "bytes.h"
#include "glob.h"
#include "requests.h"
#include "server.h"
#include <string.h>

/* Messages of one channel that lie in the journal one behind the other are queued together, at the
 * latest when their SUBMIT ends. If the ring overtakes them before, they are lapped as any run. */
enum { STRETCH_MAX = RUN_SIZE_MAX / 4 };

/* One SUBMIT on its way into the journal and to the sessions. */
struct delivery {
    struct server *server;
    uint32_t engine;        /* that publishes; 0 none */
    uint32_t sessions;      /* reached by this SUBMIT */
    const uint8_t *channel; /* that server->matched is of; NULL none yet */
    size_t channel_length;
    struct run stretch; /* the latest messages, of that channel and not queued yet; empty: none */
    uint64_t first_id;  /* of them */
};

/* A session that wants the channel, once, however many of its subscriptions match. */
static void note_match(void *subscriber, void *context)
{
    struct delivery *d = context;
    struct session *s = subscriber;
    if (s == NULL || s->mode == SESSION_ENDED || /* NULL: interest that lingers */
        s->match_serial == d->server->match_serial)
        return;
    s->match_serial = d->server->match_serial;
    if (s->engine_hash != 0 && s->engine_hash == d->engine)
        return;
    if (s->submit_serial != d->server->submit_serial) {
        s->submit_serial = d->server->submit_serial;
        d->sessions++;
    }
    d->server->matched[d->server->matched_count++] = s;
}

static void queue_stretch(struct delivery *d)
{
    if (d->stretch.records == 0)
        return;
    for (size_t i = 0; i < d->server->matched_count; i++)
        if (d->server->matched[i]->mode == SESSION_LIVE)
            session_queue(d->server->matched[i], &d->stretch, d->first_id);
    d->stretch.records = 0;
}

/* Neighbours in a SUBMIT often go to the same channel: then the sessions are known already. */
static void match(struct delivery *d, const struct subscriptions_ahead *ahead)
{
    if (d->channel != NULL && d->channel_length == ahead->length &&
        memcmp(d->channel, ahead->channel, ahead->length) == 0)
        return;
    queue_stretch(d);
    d->channel = ahead->channel;
    d->channel_length = ahead->length;
    d->server->match_serial++;
    d->server->matched_count = 0;
    subscriptions_match_ahead(d->server->subscriptions, ahead, note_match, d);
}

static void publish(struct delivery *d, const uint8_t *record, uint32_t size,
                    const struct subscriptions_ahead *ahead)
{
    struct server *server = d->server;
    uint64_t position = journal_append(&server->journal, record, size, d->engine);
    match(d, ahead);
    if (d->stretch.size + (uint64_t)size > STRETCH_MAX ||
        !run_is_followed(&d->stretch, position, &server->journal))
        queue_stretch(d);
    if (d->stretch.records == 0) {
        d->stretch = (struct run){.position = position};
        d->first_id = server->journal.last_id;
    }
    d->stretch.size += size;
    d->stretch.records++;
    server->counters.published++;
    server->counters.published_bytes += size;
    server->counters.queued += server->matched_count;
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

uint64_t publish_known(const struct server *server, const struct session *s, uint64_t origin,
                       uint64_t *id)
{
    uint64_t known = origins_known(server->origins, origin, id);
    if (s == NULL || s->published.origin != origin || s->published.sequence <= known)
        return known;
    *id = s->published.id;
    return s->published.sequence;
}

static void note(const struct request *r, uint64_t origin, uint64_t sequence, uint64_t id)
{
    struct session *s = r->session;
    origins_note(r->server->origins, origin, sequence, id, s != NULL);
    if (s == NULL)
        return;
    s->published = (struct session_published){origin, sequence, id};
}

/* The look-ups of the next records of a SUBMIT begin. */
static void look_ahead(const struct server *server, const uint8_t *record, uint64_t count,
                       struct subscriptions_ahead *ahead)
{
    size_t n = count < SUBSCRIPTIONS_AHEAD ? (size_t)count : SUBSCRIPTIONS_AHEAD;
    for (size_t i = 0; i < n; i++) {
        ahead[i].channel = record + WIRE_RECORD_SIZE;
        ahead[i].length = get_u16le(record + 6);
        record += size_align8(get_u32le(record));
    }
    subscriptions_look_ahead(server->subscriptions, ahead, n);
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
    uint64_t known = publish_known(server, r->session, origin, &known_id);
    if (known != 0 && first > known + 1) {
        request_answer(r, STATUS_OUT_OF_ORDER, 0, known, 0);
        return;
    }
    struct delivery d = {.server = server,
                         .engine = r->session != NULL ? r->session->engine_hash : 0};
    struct subscriptions_ahead ahead[SUBSCRIPTIONS_AHEAD];
    server->submit_serial++;
    const uint8_t *record = r->body;
    uint64_t sequence = first, end = first + r->header.records;
    for (; sequence < end; sequence++) {
        uint32_t size = (uint32_t)size_align8(get_u32le(record));
        size_t at = (size_t)(sequence - first) % SUBSCRIPTIONS_AHEAD;
        if (at == 0)
            look_ahead(server, record, end - sequence, ahead);
        if (sequence > known)
            publish(&d, record, size, &ahead[at]);
        else
            server->counters.duplicates++;
        record += size;
    }
    queue_stretch(&d);
    if (end - 1 > known) {
        known_id = server->journal.last_id;
        note(r, origin, end - 1, known_id);
    }
    request_answer(r, STATUS_OK, 0, known_id, d.sessions);
    if (r->header.flags & WIRE_ANSWER_FIRST)
        connection_answer_first(r->connection);
}
