/* What each request must do, from its bytes. */
#include "model.h"

struct asked {
    int peer;
    struct wire_request header;
    const uint8_t *backtrace;
    size_t backtrace_size;
    const uint8_t *body;
    size_t length;
    struct m_session *session;
};

struct m_session *model_session(uint64_t id)
{
    for (unsigned i = 0; i < M_SESSIONS; i++)
        if (model.sessions[i].used && model.sessions[i].id == id)
            return &model.sessions[i];
    return NULL;
}

struct m_session *model_session_of(int peer, unsigned n)
{
    struct m_session *last = NULL;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        if (model.sessions[i].used && model.sessions[i].peer == peer) {
            last = &model.sessions[i];
            if (n-- == 0)
                return last;
        }
    return last;
}

static unsigned sessions_of(int peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        count += model.sessions[i].used && model.sessions[i].peer == peer;
    return count;
}

void model_drop_credits(struct m_session *s)
{
    if (s->credit_count > 0 && !model.peers[s->peer].reads)
        model.peers[s->peer].stale = s->missed_interest = true;
    s->credit_count = 0;
}

/* Engines may believe in what a member has just left for as long as it lingers. */
static void unwant(const struct m_session *s, struct m_name *name)
{
    bool was_wanted = name->on && !s->is_engine;
    name->on = false;
    if (!was_wanted)
        return;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        for (unsigned n = 0; model.sessions[i].used && n < model.sessions[i].told_count; n++) {
            struct m_told *t = &model.sessions[i].told[n];
            if (t->length == name->length && t->is_pattern == name->is_pattern &&
                memcmp(t->bytes, name->bytes, name->length) == 0)
                t->unwanted_since = 0;
        }
}

static void drop_names(struct m_session *s)
{
    for (unsigned i = 0; i < s->name_count; i++) {
        unwant(s, &s->names[i]);
        free(s->names[i].bytes);
    }
    s->name_count = 0;
}

static void stop_being_engine(struct m_session *s)
{
    for (unsigned i = 0; i < s->told_count; i++)
        free(s->told[i].bytes);
    s->told_count = 0;
    s->is_engine = false;
    s->hash = 0;
}

void model_session_end(struct m_session *s)
{
    trace("session %llu ends", (unsigned long long)s->id);
    model_drop_credits(s);
    drop_names(s);
    stop_being_engine(s);
    s->used = false;
}

static struct m_origin *origin_of(uint64_t origin)
{
    for (unsigned i = 0; i < model.origin_count; i++)
        if (model.origins[i].origin == origin)
            return &model.origins[i];
    return NULL;
}

uint64_t model_known(uint64_t origin)
{
    struct m_origin *o = origin_of(origin);
    return o != NULL ? o->sequence : 0;
}

static void expect(const struct asked *a, struct m_expected reply)
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

static void expect_bare(const struct asked *a, unsigned status)
{
    expect(a, (struct m_expected){.status = (uint8_t)status});
}

static void expect_done(const struct asked *a, unsigned status, uint32_t done)
{
    expect(a, (struct m_expected){.status = (uint8_t)status,
                                  .has_value = true,
                                  .value = done,
                                  .has_records = true,
                                  .records = done});
}

static void last_reply(const struct asked *a)
{
    model.peers[a->peer].state = PEER_LAST;
}

/* ---- subscriptions ---- */

static struct m_name *find_name(struct m_session *s, const struct wire_record *r)
{
    for (unsigned i = 0; i < s->name_count; i++) {
        struct m_name *n = &s->names[i];
        if (n->length == r->channel_length && n->is_pattern == ((r->flags & WIRE_PATTERN) != 0) &&
            memcmp(n->bytes, r->channel, n->length) == 0)
            return n;
    }
    return NULL;
}

static unsigned subscribe(struct m_session *s, const struct wire_record *r)
{
    bool is_pattern = (r->flags & WIRE_PATTERN) != 0;
    if (r->channel_length > CHANNEL_LENGTH_MAX)
        return STATUS_CHANNEL_LENGTH;
    if (is_pattern && glob_check(r->channel, r->channel_length) != STATUS_OK)
        return glob_check(r->channel, r->channel_length);
    struct m_name *n = find_name(s, r);
    if (n == NULL) {
        if (s->name_count == M_NAMES)
            violated("the model has no room for the names of a session");
        n = &s->names[s->name_count++];
        *n = (struct m_name){.length = r->channel_length, .is_pattern = is_pattern};
        n->bytes = malloc(r->channel_length + 1u);
        memcpy(n->bytes, r->channel, r->channel_length);
    }
    trace("session %llu subscribes to '%.*s'%s", (unsigned long long)s->id, (int)n->length,
          (const char *)n->bytes, n->on ? " again" : "");
    if (!n->on) {
        n->on = true;
        n->since = model.head;
    }
    return STATUS_OK;
}

static unsigned do_names(struct m_session *s, const uint8_t *at, size_t length, uint32_t count,
                         uint32_t *done)
{
    for (*done = 0; *done < count; ++*done) {
        struct wire_record r;
        size_t used;
        if (wire_record_decode(at, length, &r, &used) != STATUS_OK ||
            (r.type != WIRE_SUBSCRIBE && r.type != WIRE_UNSUBSCRIBE))
            return STATUS_MALFORMED;
        if (r.type == WIRE_SUBSCRIBE) {
            unsigned status = subscribe(s, &r);
            if (status != STATUS_OK)
                return status;
        } else {
            struct m_name *n = find_name(s, &r);
            if (n != NULL)
                unwant(s, n);
        }
        at += used;
        length -= used;
    }
    return length == 0 ? STATUS_OK : STATUS_MALFORMED;
}

bool model_wants(const struct m_session *s, const struct m_message *m, bool must)
{
    struct wire_record r;
    size_t used;
    wire_record_decode(m->record, m->size, &r, &used);
    if (s->hash != 0 && r.engine == s->hash)
        return false;
    for (unsigned i = 0; i < s->name_count; i++) {
        const struct m_name *n = &s->names[i];
        if (must && (!n->on || m->id <= n->since))
            continue;
        if (n->is_pattern
                ? glob_match(n->bytes, n->length, r.channel, r.channel_length)
                : n->length == r.channel_length && memcmp(n->bytes, r.channel, n->length) == 0)
            return true;
    }
    return false;
}

struct m_message *model_logged(uint64_t id)
{
    struct m_message *m = &model.log[id % M_LOG];
    return id != 0 && m->id == id ? m : NULL;
}

static void submit_names(const struct asked *a)
{
    uint32_t done;
    if (a->session == NULL) {
        expect_bare(a, STATUS_NOT_ATTACHED);
        return;
    }
    unsigned status = do_names(a->session, a->body, a->length, a->header.records, &done);
    expect_done(a, status, done);
    if (status == STATUS_MALFORMED || status == STATUS_CHANNEL_LENGTH)
        last_reply(a);
}

/* ---- publishes ---- */

static unsigned check_publishes(const struct asked *a, uint64_t *origin, uint64_t *first)
{
    const uint8_t *at = a->body;
    size_t length = a->length, used;
    for (uint32_t i = 0; i < a->header.records; i++, at += used, length -= used) {
        struct wire_record r;
        if (wire_record_decode(at, length, &r, &used) != STATUS_OK || r.type != WIRE_PUBLISH ||
            r.origin == 0 || r.sequence == 0)
            return STATUS_MALFORMED;
        if (i == 0) {
            *origin = r.origin;
            *first = r.sequence;
        }
        if (r.origin != *origin || r.sequence != *first + i)
            return STATUS_MALFORMED;
        if (r.channel_length > CHANNEL_LENGTH_MAX)
            return STATUS_CHANNEL_LENGTH;
        if (used > model.record_max || r.payload_length > model.payload_max)
            return STATUS_TOO_LARGE;
    }
    return length == 0 ? STATUS_OK : STATUS_MALFORMED;
}

static struct m_message *take_publish(const struct wire_record *r, uint32_t engine)
{
    struct m_message *m = &model.log[++model.head % M_LOG];
    struct wire_record kept = *r;
    free(m->record);
    kept.type = WIRE_MESSAGE;
    kept.flags &= WIRE_BINARY;
    kept.checksum = 0;
    m->id = model.head;
    m->size = wire_record_size(r->channel_length, r->payload_length);
    m->record = malloc(m->size);
    wire_record_encode(m->record, &kept);
    wire_record_stamp(m->record, m->id, engine);
    return m;
}

static void note_origin(uint64_t origin, uint64_t sequence)
{
    struct m_origin *o = origin_of(origin);
    if (o == NULL) {
        if (model.origin_count == M_ORIGINS)
            violated("the model has no room for origins");
        o = &model.origins[model.origin_count++];
    }
    *o = (struct m_origin){origin, sequence, model.head};
}

static void submit_publishes(const struct asked *a)
{
    uint64_t origin = 0, first = 0, sequence;
    unsigned status = check_publishes(a, &origin, &first);
    if (status != STATUS_OK) {
        expect_bare(a, status);
        if (status == STATUS_MALFORMED || status == STATUS_CHANNEL_LENGTH)
            last_reply(a);
        return;
    }
    uint64_t known = model_known(origin);
    if (known != 0 && first > known + 1) {
        expect(a, (struct m_expected){
                      .status = STATUS_OUT_OF_ORDER, .has_value = true, .value = known});
        return;
    }
    static bool reached[M_SESSIONS];
    memset(reached, 0, sizeof(reached));
    const uint8_t *at = a->body;
    size_t length = a->length, used;
    for (sequence = first; sequence < first + a->header.records; sequence++) {
        struct wire_record r;
        wire_record_decode(at, length, &r, &used);
        at += used;
        length -= used;
        if (sequence <= known)
            continue;
        struct m_message *m = take_publish(&r, a->session != NULL ? a->session->hash : 0);
        note_origin(origin, sequence);
        for (unsigned i = 0; i < M_SESSIONS; i++)
            if (model.sessions[i].used &&
                !reached[i]) /* since: a list that is not complete counts */
                reached[i] = model_wants(&model.sessions[i], m, false) &&
                             model_wants(&model.sessions[i], m, true);
    }
    uint32_t sessions = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        sessions += reached[i];
    expect(a, (struct m_expected){.status = STATUS_OK,
                                  .has_value = true,
                                  .value = origin_of(origin)->id,
                                  .has_records = true,
                                  .records = sessions});
}

static void submit(const struct asked *a)
{
    struct wire_record first;
    size_t used;
    if (a->header.records == 0 ||
        wire_record_decode(a->body, a->length, &first, &used) != STATUS_OK) {
        expect_bare(a, STATUS_MALFORMED);
        last_reply(a);
    } else if (first.type == WIRE_PUBLISH) {
        submit_publishes(a);
    } else {
        submit_names(a);
    }
}

/* ---- sessions ---- */

static unsigned engines(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        count += model.sessions[i].used && model.sessions[i].is_engine;
    return count;
}

static struct m_session *new_session(uint64_t id, int peer)
{
    for (unsigned i = 0; i < M_SESSIONS; i++) {
        struct m_session *s = &model.sessions[i];
        if (s->used)
            continue;
        s->used = true;
        s->is_engine = false;
        s->hash = 0;
        s->id = id;
        s->peer = peer;
        s->name_count = s->credit_count = s->told_count = 0;
        return s;
    }
    violated("the model has no room for sessions");
}

/* Rule 17. NULL: answered. */
static struct m_session *session_for(const struct asked *a, const struct wire_attach *attach)
{
    struct m_session *s = model_session(a->header.session);
    if (s != NULL && attach->generation < s->generation) {
        expect(a, (struct m_expected){
                      .status = STATUS_STALE, .has_value = true, .value = s->generation});
        return NULL;
    }
    if (s != NULL && attach->generation == s->generation && s->peer == a->peer)
        return s;
    if ((s == NULL || s->peer != a->peer) && sessions_of(a->peer) == 64) {
        expect_bare(a, STATUS_FULL);
        return NULL;
    }
    if (s == NULL) {
        s = new_session(a->header.session, a->peer);
    } else {
        int old = s->peer;
        model_drop_credits(s);
        drop_names(s);
        s->peer = a->peer;
        if (old != a->peer && sessions_of(old) == 0)
            model.peers[old].state = PEER_CLOSED;
    }
    stop_being_engine(s);
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
    expect(a, (struct m_expected){.status = STATUS_OK,
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
        expect_bare(a, STATUS_MALFORMED);
        last_reply(a);
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
        status = do_names(s, a->body + used, a->length - used, a->header.records, &done);
    else
        done = a->header.records; /* no record is to blame */
    if (status != STATUS_OK) {
        expect_done(a, status, done);
        if (s->attaching)
            model_session_end(s);
        if (status == STATUS_MALFORMED)
            last_reply(a);
    } else if ((a->header.flags & WIRE_MORE) != 0) {
        expect(a, (struct m_expected){.status = STATUS_OK, .has_value = true});
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
    expect(a, (struct m_expected){.status = count > 0 ? STATUS_OK : STATUS_UNKNOWN_NAME,
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
        expect(&credit, (struct m_expected){.status = STATUS_GOING_AWAY,
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
        expect_bare(a, STATUS_OK);
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
        expect_bare(a, STATUS_OK);
    else
        expect_named(a, engines_called(a, named));
}

unsigned model_parked(int peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        if (model.sessions[i].used && model.sessions[i].peer == peer)
            count += model.sessions[i].credit_count;
    return count;
}

static void fetch(const struct asked *a)
{
    struct m_session *s = a->session;
    if (s->simple && !s->attaching) {
        if (a->header.position > model.head) {
            expect_bare(a, STATUS_MALFORMED);
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
    expect_bare(a, status);
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
        expect(&a, (struct m_expected){.status = STATUS_VERSION,
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
        expect_bare(&a, STATUS_NOT_ATTACHED);
        return;
    }
    static void (*const operations[])(const struct asked *) = {
        [WIRE_ATTACH] = attach, [WIRE_DETACH] = detach, [WIRE_RESET] = reset,
        [WIRE_SUBMIT] = submit, [WIRE_FETCH] = fetch,   [WIRE_QUERY] = query};
    if (a.header.operation >= 1 && a.header.operation <= WIRE_QUERY)
        operations[a.header.operation](&a);
    else
        expect_bare(&a, STATUS_UNKNOWN_OPERATION);
}
