/* What the broker must know of a session: its names, its credits, whether it is an engine. */
#include "model.h"

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

unsigned model_sessions_of(int peer)
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

void model_drop_names(struct m_session *s)
{
    for (unsigned i = 0; i < s->name_count; i++) {
        unwant(s, &s->names[i]);
        free(s->names[i].bytes);
    }
    s->name_count = 0;
}

void model_stop_being_engine(struct m_session *s)
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
    model_drop_names(s);
    model_stop_being_engine(s);
    s->used = false;
}

struct m_session *model_session_new(uint64_t id, int peer)
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

unsigned model_parked(int peer)
{
    unsigned count = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        if (model.sessions[i].used && model.sessions[i].peer == peer)
            count += model.sessions[i].credit_count;
    return count;
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

unsigned model_do_names(struct m_session *s, const uint8_t *at, size_t length, uint32_t count,
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
