/* What comes from the broker: each reply must be the next that is waited for, or the answer to a
 * credit, with nothing missing, nothing twice and nothing that was not asked for. */
#include "model.h"

void model_look(struct m_session *s, uint64_t until)
{
    if (s->clear < s->position)
        s->clear = s->position;
    while (s->clear < until) {
        struct m_message *m = model_logged(s->clear + 1);
        if (m == NULL || model_wants(s, m, true))
            return;
        s->clear++;
    }
}

/* The client has handled everything up to `id` now, if nothing is missing before it. */
static void advance(struct m_session *s, uint64_t id, const char *what)
{
    model_look(s, id);
    if (s->clear < id)
        violated("session %llu: message %llu is missing before %s %llu", (unsigned long long)s->id,
                 (unsigned long long)s->clear + 1, what, (unsigned long long)id);
    s->position = id;
}

static void see_message(struct m_session *s, const uint8_t *bytes, size_t size,
                        const struct wire_record *r)
{
    struct m_message *m = model_logged(r->id);
    if (r->id <= s->position)
        violated("session %llu: message %llu after position %llu", (unsigned long long)s->id,
                 (unsigned long long)r->id, (unsigned long long)s->position);
    if (m == NULL || m->size != size || memcmp(m->record, bytes, get_u32le(bytes)) != 0)
        violated("session %llu: message %llu is not what was published", (unsigned long long)s->id,
                 (unsigned long long)r->id);
    if (!model_wants(s, m, false))
        violated("session %llu: message %llu was not wanted", (unsigned long long)s->id,
                 (unsigned long long)r->id);
    advance(s, r->id - 1, "message");
    s->position = s->clear = r->id;
    model.counts.delivered++;
}

static void see_gap(struct m_session *s, const struct wire_record *r)
{
    if (r->sequence <= s->position || r->sequence > r->id || r->id > model.head ||
        r->sequence >= in_process.journal.first_id)
        violated("session %llu: GAP %llu to %llu, position %llu, the ring begins with %llu",
                 (unsigned long long)s->id, (unsigned long long)r->sequence,
                 (unsigned long long)r->id, (unsigned long long)s->position,
                 (unsigned long long)in_process.journal.first_id);
    advance(s, r->sequence - 1, "GAP from");
    s->position = s->clear = r->id;
    model.counts.gaps++;
}

static void see_interest(struct m_session *s, const struct wire_record *r)
{
    bool is_pattern = (r->flags & WIRE_PATTERN) != 0;
    unsigned i = 0;
    trace("engine %llu is told %s'%.*s'", (unsigned long long)s->id,
          r->type == WIRE_INTEREST ? "" : "the end of ", (int)r->channel_length,
          (const char *)r->channel);
    if (!s->is_engine)
        violated("session %llu is no engine and is told of interest", (unsigned long long)s->id);
    while (i < s->told_count &&
           (s->told[i].length != r->channel_length || s->told[i].is_pattern != is_pattern ||
            memcmp(s->told[i].bytes, r->channel, r->channel_length) != 0))
        i++;
    if (r->type == WIRE_NO_INTEREST && i < s->told_count) {
        free(s->told[i].bytes);
        s->told[i] = s->told[--s->told_count];
    } else if (r->type == WIRE_INTEREST && i == s->told_count) {
        if (i == M_NAMES)
            violated("the model has no room for what an engine is told");
        s->told[s->told_count++] = (struct m_told){.bytes = malloc(r->channel_length + 1u),
                                                   .length = r->channel_length,
                                                   .is_pattern = is_pattern};
        memcpy(s->told[i].bytes, r->channel, r->channel_length);
    }
    model.counts.interest++;
}

static void see_batch(struct m_session *s, const struct wire_reply *reply, const uint8_t *bytes,
                      size_t length)
{
    for (uint32_t i = 0; i < reply->records; i++) {
        struct wire_record r;
        size_t used;
        if (wire_record_decode(bytes, length, &r, &used) != STATUS_OK)
            violated("session %llu: a malformed record in a batch", (unsigned long long)s->id);
        switch (r.type) {
        case WIRE_MESSAGE:
            see_message(s, bytes, used, &r);
            break;
        case WIRE_GAP:
            see_gap(s, &r);
            break;
        case WIRE_INTEREST:
        case WIRE_NO_INTEREST:
            see_interest(s, &r);
            break;
        default:
            violated("a record of type %u in a batch", r.type);
        }
        bytes += used;
        length -= used;
    }
    if (length > 0)
        violated("a batch is longer than its records");
    if (reply->value < s->position || (reply->value > model.head && !s->attaching))
        violated("session %llu: position %llu after %llu", (unsigned long long)s->id,
                 (unsigned long long)reply->value, (unsigned long long)s->position);
    advance(s, reply->value, "position");
}

static struct m_session *credit_of(int peer, const uint8_t *backtrace, size_t size,
                                   unsigned *credit)
{
    for (unsigned i = 0; i < M_SESSIONS; i++) {
        struct m_session *s = &model.sessions[i];
        for (*credit = 0; s->used && s->peer == peer && *credit < s->credit_count; ++*credit)
            if (s->credits[*credit].size == size &&
                memcmp(s->credits[*credit].backtrace, backtrace, size) == 0)
                return s;
    }
    return NULL;
}

/* What it reads now may have been said before the latest ATTACH, whose answer is still to come. */
static bool waits_for_attach(int peer)
{
    const struct m_peer *p = &model.peers[peer];
    for (unsigned i = 0; i < p->expected_count; i++)
        if (p->expected[i].operation == WIRE_ATTACH)
            return true;
    return false;
}

static void fetch_reply(int peer, const uint8_t *backtrace, size_t size,
                        const struct wire_reply *reply, const uint8_t *bytes, size_t length)
{
    unsigned credit;
    struct m_session *s = credit_of(peer, backtrace, size, &credit);
    if (s == NULL) {
        if (!model.peers[peer].stale)
            violated("peer %d: an answer to no FETCH", peer);
        return;
    }
    if (reply->records == 0 && s->credit_count <= WIRE_FULL_CREDITS) {
        if (!model.peers[peer].lax && model_now() - s->credits[credit].since < 4000)
            violated("session %llu: an empty batch after %lld ms", (unsigned long long)s->id,
                     (long long)(model_now() - s->credits[credit].since));
        for (unsigned i = 0; i < s->credit_count; i++)
            s->credits[i].since = model_now();
        model.counts.heartbeats++;
    }
    s->credit_count--;
    memmove(&s->credits[credit], &s->credits[credit + 1],
            (s->credit_count - credit) * sizeof(*s->credits));
    /* a heartbeat that lay unread while the list was completed says where the session was before */
    if (model.peers[peer].lax && reply->records == 0 &&
        (reply->value < s->position || waits_for_attach(peer)))
        return;
    see_batch(s, reply, bytes, length);
}

static void expected_reply(int peer, const uint8_t *backtrace, size_t size,
                           const struct wire_reply *reply)
{
    struct m_peer *p = &model.peers[peer];
    const struct m_expected *e = &p->expected[0];
    while (p->expected_count > 0 && e->is_optional &&
           (e->operation != reply->operation || e->status != reply->status || e->size != size ||
            memcmp(e->backtrace, backtrace, size) != 0))
        memmove(p->expected, p->expected + 1, --p->expected_count * sizeof(*p->expected));
    if (p->expected_count == 0)
        violated("peer %d: an answer (operation %u, status %u) that nobody waits for", peer,
                 reply->operation, reply->status);
    if (e->size != size || memcmp(e->backtrace, backtrace, size) != 0)
        violated("peer %d: an answer to another request", peer);
    if (e->operation != reply->operation || e->status != reply->status || e->flags != reply->flags)
        violated("peer %d: operation %u answered %u (flags %u), not %u (flags %u)", peer,
                 reply->operation, reply->status, reply->flags, e->status, e->flags);
    if ((e->has_value && e->value != reply->value) ||
        (e->has_records && e->records != reply->records))
        violated("peer %d: operation %u, status %u, value %llu, records %u; not %llu, %u", peer,
                 reply->operation, reply->status, (unsigned long long)reply->value, reply->records,
                 (unsigned long long)e->value, e->records);
    memmove(p->expected, p->expected + 1, --p->expected_count * sizeof(*p->expected));
}

void model_reply(int peer, const uint8_t *bytes, size_t length)
{
    size_t size;
    struct wire_reply reply;
    if (sp_backtrace_decode(bytes, length, &size) != STATUS_OK ||
        wire_reply_decode(bytes + size, length - size, &reply) != STATUS_OK)
        violated("peer %d: a malformed reply", peer);
    if (reply.epoch != model.epoch)
        violated("peer %d: another epoch", peer);
    if (reply.head > model.head)
        violated("peer %d: head %llu, but only %llu were published", peer,
                 (unsigned long long)reply.head, (unsigned long long)model.head);
    model.counts.replies++;
    model.counts.status[reply.status % 32]++;
    trace("peer %d: reply to operation %u: status %u, records %u, value %llu", peer,
          reply.operation, reply.status, reply.records, (unsigned long long)reply.value);
    if (reply.operation == WIRE_FETCH && reply.status == STATUS_OK)
        fetch_reply(peer, bytes, size, &reply, bytes + size + WIRE_REPLY_SIZE,
                    length - size - WIRE_REPLY_SIZE);
    else
        expected_reply(peer, bytes, size, &reply);
}
