/* What each request must do, from its bytes. */
#include "model.h"

void model_expect(const struct asked *a, struct m_expected reply)
{
    struct m_peer *p = &model.peers[a->peer];
    if (p->expected_count == M_EXPECTED)
        violated("too many replies are waited for");
    memcpy(reply.backtrace, a->backtrace, a->backtrace_size);
    reply.size = a->backtrace_size;
    reply.operation = a->header.operation;
    p->expected[p->expected_count++] = reply;
    trace("peer %d: operation %u must be answered %u", a->peer, reply.operation, reply.status);
}

void model_expect_bare(const struct asked *a, unsigned status)
{
    model_expect(a, (struct m_expected){.status = (uint8_t)status});
}

void model_expect_done(const struct asked *a, unsigned status, uint32_t done)
{
    model_expect(a, (struct m_expected){.status = (uint8_t)status,
                                        .has_value = true,
                                        .value = done,
                                        .has_records = true,
                                        .records = done});
}

void model_last_reply(const struct asked *a)
{
    model.peers[a->peer].state = PEER_LAST;
}

/* ---- sessions ---- */

static unsigned engines(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        count += model.sessions[i].used && model.sessions[i].is_engine;
    return count;
}

/* Rule 17. NULL: answered. */
static struct m_session *session_for(const struct asked *a, const struct wire_attach *attach)
{
    struct m_session *s = model_session(a->header.session);
    if (s != NULL && attach->generation < s->generation) {
        model_expect(a, (struct m_expected){
                            .status = STATUS_STALE, .has_value = true, .value = s->generation});
        return NULL;
    }
    if (s != NULL && attach->generation == s->generation && s->peer == a->peer)
        return s;
    if ((s == NULL || s->peer != a->peer) && model_sessions_of(a->peer) == 64) {
        model_expect_bare(a, STATUS_FULL);
        return NULL;
    }
    if (s == NULL) {
        s = model_session_new(a->header.session, a->peer);
    } else {
        int old = s->peer;
        model_drop_credits(s);
        model_drop_names(s);
        s->peer = a->peer;
        if (old != a->peer && model_sessions_of(old) == 0)
            model.peers[old].state = PEER_CLOSED;
    }
    model_stop_being_engine(s);
    s->attaching = true;
    s->position = s->clear = a->header.position;
    s->generation = attach->generation;
    s->simple = (a->header.flags & WIRE_SIMPLE) != 0;
    memcpy(s->name, attach->name, attach->name_length);
    s->name[attach->name_length] = 0;
    return s;
}

static bool is_unsure(const struct wire_attach *attach)
{
    return attach->origin != 0 && attach->unanswered != 0 && model_known(attach->origin) == 0 &&
           (attach->epoch != model.epoch || attach->unanswered < in_process.journal.first_id);
}

static void grant(const struct asked *a, struct m_session *s, const struct wire_attach *attach)
{
    bool ours = attach->epoch == model.epoch && a->header.position <= model.head;
    uint8_t flags = attach->epoch != 0 && !ours ? WIRE_NEW_EPOCH : 0;
    if (is_unsure(attach))
        flags |= WIRE_UNSURE;
    model_expect(
        a, (struct m_expected){.status = STATUS_OK,
                               .flags = flags,
                               .has_value = true,
                               .value = attach->origin != 0 ? model_known(attach->origin) : 0});
    if (!s->attaching)
        return;
    s->attaching = false;
    s->position = s->clear = ours ? a->header.position : model.head;
    trace("session %llu is attached at %llu%s%s", (unsigned long long)s->id,
          (unsigned long long)s->position, s->simple ? ", simple" : "",
          s->is_engine ? ", engine" : "");
    for (unsigned i = 0; i < s->name_count; i++)
        s->names[i].since = s->position;
}

static void attach(const struct asked *a)
{
    struct wire_attach block;
    size_t used;
    if (a->header.session == 0 ||
        wire_attach_decode(a->body, a->length, &block, &used) != STATUS_OK) {
        model_expect_bare(a, STATUS_MALFORMED);
        model_last_reply(a);
        return;
    }
    struct m_session *s = session_for(a, &block);
    if (s == NULL)
        return;
    uint32_t done = 0;
    unsigned status = STATUS_OK, on = 0;
    for (unsigned i = 0; i < s->name_count; i++)
        on += s->names[i].on;
    if ((a->header.flags & WIRE_ENGINE) != 0 && !s->is_engine) {
        if (!s->attaching || on > 0)
            status = STATUS_MALFORMED;
        else if (engines() == ENGINES_MAX)
            status = STATUS_FULL;
        else {
            s->is_engine = true;
            s->missed_interest = false;
            s->engine_serial = ++model.engine_serial;
            s->hash = wire_engine_hash(s->name, strlen(s->name));
        }
    }
    if (status == STATUS_OK)
        status = model_do_names(s, a->body + used, a->length - used, a->header.records, &done);
    else
        done = a->header.records; /* no record is to blame */
    if (status != STATUS_OK) {
        model_expect_done(a, status, done);
        if (s->attaching)
            model_session_end(s);
        if (status == STATUS_MALFORMED)
            model_last_reply(a);
    } else if ((a->header.flags & WIRE_MORE) != 0) {
        model_expect(a, (struct m_expected){.status = STATUS_OK, .has_value = true});
    } else {
        grant(a, s, &block);
    }
}

static bool is_named(const struct m_session *s, const struct wire_record *r)
{
    return s->used && s->is_engine && strlen(s->name) == r->channel_length &&
           memcmp(s->name, r->channel, r->channel_length) == 0;
}

/* The engines that a DETACH or RESET names, the oldest first. How many. */
static unsigned engines_called(const struct asked *a, struct m_session *named[M_SESSIONS])
{
    struct wire_record r;
    size_t used;
    unsigned count = 0;
    if (a->header.records != 1 || wire_record_decode(a->body, a->length, &r, &used) != STATUS_OK)
        return 0;
    for (unsigned i = 0; i < M_SESSIONS; i++) {
        struct m_session *s = &model.sessions[i];
        if (!is_named(s, &r))
            continue;
        unsigned at = count++;
        for (; at > 0 && named[at - 1]->engine_serial > s->engine_serial; at--)
            named[at] = named[at - 1];
        named[at] = s;
    }
    return count;
}

static void expect_named(const struct asked *a, unsigned count)
{
    model_expect(a, (struct m_expected){.status = count > 0 ? STATUS_OK : STATUS_UNKNOWN_NAME,
                                        .has_value = true,
                                        .value = count});
}

static void detach_session(struct m_session *s)
{
    for (unsigned i = 0; i < s->credit_count; i++) {
        struct asked credit = {.peer = s->peer,
                               .header.operation = WIRE_FETCH,
                               .backtrace = s->credits[i].backtrace,
                               .backtrace_size = s->credits[i].size};
        model_expect(&credit, (struct m_expected){.status = STATUS_GOING_AWAY,
                                                  .is_optional = !model.peers[s->peer].reads});
    }
    model_drop_credits(s);
    model_session_end(s);
}

static void detach(const struct asked *a)
{
    struct m_session *named[M_SESSIONS];
    if (a->header.records == 0 && a->session != NULL) {
        detach_session(a->session);
        model_expect_bare(a, STATUS_OK);
        return;
    }
    unsigned count = engines_called(a, named);
    for (unsigned i = 0; i < count; i++)
        detach_session(named[i]);
    expect_named(a, count);
}

static void reset(const struct asked *a)
{
    struct m_session *named[M_SESSIONS];
    if (a->header.records == 0 && a->session != NULL && a->session->is_engine)
        model_expect_bare(a, STATUS_OK);
    else
        expect_named(a, engines_called(a, named));
}

static void fetch(const struct asked *a)
{
    struct m_session *s = a->session;
    if (s->simple && !s->attaching) {
        if (a->header.position > model.head) {
            model_expect_bare(a, STATUS_MALFORMED);
            return;
        }
        if (a->header.position != s->position)
            s->clear = a->header.position;
        s->position = a->header.position;
        trace("session %llu fetches from %llu", (unsigned long long)s->id,
              (unsigned long long)s->position);
    }
    for (unsigned i = 0; i < s->credit_count; i++)
        if (s->credits[i].size == a->backtrace_size &&
            memcmp(s->credits[i].backtrace, a->backtrace, a->backtrace_size) == 0) {
            s->credits[i].since = model_now();
            return;
        }
    if (s->simple)
        model_drop_credits(s);
    if (s->credit_count == M_CREDITS || model_parked(a->peer) == 64) {
        model.peers[a->peer].state = PEER_CLOSED;
        return;
    }
    struct m_credit *credit = &s->credits[s->credit_count++];
    memcpy(credit->backtrace, a->backtrace, a->backtrace_size);
    credit->size = a->backtrace_size;
    credit->since = model_now();
}

static void query(const struct asked *a)
{
    struct wire_record r;
    size_t used;
    unsigned status = STATUS_OK;
    if (a->header.flags > WIRE_ENGINES)
        status = STATUS_UNKNOWN_OPERATION;
    else if (a->header.flags == WIRE_CHANNELS && a->header.records > 0)
        status = wire_record_decode(a->body, a->length, &r, &used) != STATUS_OK
                     ? STATUS_MALFORMED
                     : glob_check(r.channel, r.channel_length);
    model_expect_bare(a, status);
}

static bool needs_session(const struct wire_request *r)
{
    return r->operation == WIRE_FETCH ||
           (r->session != 0 && (r->operation == WIRE_SUBMIT || r->operation == WIRE_DETACH ||
                                r->operation == WIRE_RESET));
}

void model_message(int peer, const uint8_t *bytes, size_t length)
{
    struct asked a = {.peer = peer, .backtrace = bytes};
    model.counts.requests++;
    if (sp_backtrace_decode(bytes, length, &a.backtrace_size) != STATUS_OK) {
        model.peers[peer].state = PEER_CLOSED;
        return;
    }
    bytes += a.backtrace_size;
    length -= a.backtrace_size;
    enum status status = wire_request_decode(bytes, length, &a.header);
    if (status == STATUS_VERSION) {
        model_expect(&a, (struct m_expected){.status = STATUS_VERSION,
                                             .has_value = true,
                                             .value = WIRE_VERSION | WIRE_VERSION << 8});
        return;
    }
    if (status != STATUS_OK) {
        model.peers[peer].state = PEER_CLOSED;
        return;
    }
    trace("peer %d: operation %u, session %llu, flags %u, position %llu, %u records", peer,
          a.header.operation, (unsigned long long)a.header.session, a.header.flags,
          (unsigned long long)a.header.position, a.header.records);
    a.body = bytes + WIRE_REQUEST_SIZE;
    a.length = length - WIRE_REQUEST_SIZE;
    a.session = model_session(a.header.session);
    if (a.session != NULL && a.session->peer != peer)
        a.session = NULL;
    if (needs_session(&a.header) && a.session == NULL) {
        model_expect_bare(&a, STATUS_NOT_ATTACHED);
        return;
    }
    static void (*const operations[])(const struct asked *) = {
        [WIRE_ATTACH] = attach,       [WIRE_DETACH] = detach, [WIRE_RESET] = reset,
        [WIRE_SUBMIT] = model_submit, [WIRE_FETCH] = fetch,   [WIRE_QUERY] = query};
    if (a.header.operation >= 1 && a.header.operation <= WIRE_QUERY)
        operations[a.header.operation](&a);
    else
        model_expect_bare(&a, STATUS_UNKNOWN_OPERATION);
}
