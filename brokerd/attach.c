#include "authenticate.h"
#include "requests.h"
#include "server.h"
#include <string.h>

/* Rule 17: the link before has lost its session to this one. */
static void supersede(struct connection *before, const struct request *r)
{
    if (before != r->connection && before->session_count == 0)
        connection_close(before, CLOSE_SUPERSEDED, NULL);
}

/* true: answered. */
static bool is_full(const struct request *r)
{
    if (r->connection->session_count < SESSIONS_PER_CONNECTION_MAX)
        return false;
    static struct log_limit limit;
    log_limited(&limit, 1, LOG_LEVEL_WARN, "a session of %s is refused: its connection has %d",
                r->connection->peer, SESSIONS_PER_CONNECTION_MAX);
    request_answer(r, STATUS_FULL, 0, 0, r->header.records); /* none of the list is at fault */
    return true;
}

/* NULL: answered. */
static struct session *make_session(const struct request *r)
{
    struct connection *c = r->connection;
    if (is_full(r))
        return NULL;
    bool may = peers_take(r->server, c->account, PEER_SESSIONS, 1, c->peer);
    struct session *s = may ? session_new(r->server, r->header.session, c) : NULL;
    if (s == NULL) {
        if (may)
            peers_give(c->account, PEER_SESSIONS, 1);
        request_answer(r, may ? STATUS_NO_MEMORY : STATUS_FULL, 0, 0, r->header.records);
    }
    return s;
}

/* It goes on under another struct: its subscriptions stay behind and leave by and by. */
static struct session *renew(struct session *s, const struct request *r)
{
    const struct session_published published = s->published;
    session_end(s, true);
    s = make_session(r);
    if (s != NULL)
        s->published = published;
    return s;
}

/* A newer link wants the session: of the older list nothing is left. NULL: answered. */
static struct session *take_over(struct session *s, const struct request *r)
{
    struct connection *before = s->connection;
    if (before != r->connection && is_full(r))
        return NULL;
    if (s->subscriber.count > LEAVE_AT_ONCE) {
        s = renew(s, r);
    } else {
        if (before != r->connection)
            session_move(s, r->connection);
        unsubscribe_some(s, UINT32_MAX, true);
    }
    supersede(before, r);
    return s;
}

/* The session as the ATTACH wants it, its list still empty; NULL: answered. A repeated ATTACH, or
 * the next part of one, finds it as it is. */
static struct session *open_session(const struct request *r, const struct wire_attach *attach)
{
    struct session *s = session_find(&r->server->sessions, r->header.session);
    if (s != NULL && attach->generation < s->generation) {
        request_answer(r, STATUS_STALE, 0, s->generation, 0);
        return NULL;
    }
    if (s != NULL && attach->generation == s->generation && s->connection == r->connection)
        return s;
    s = s != NULL ? take_over(s, r) : make_session(r);
    if (s == NULL)
        return NULL;
    if (s->engine != NULL) /* the new link may come in another role or name */
        engine_detach(s);
    s->engine_hash = 0;
    session_begin(s);
    s->told = s->settled = r->header.position; /* not what the link before may never have got */
    s->generation = attach->generation;
    s->origin = attach->origin;
    s->pid = attach->pid;
    s->simple = (r->header.flags & WIRE_SIMPLE) != 0;
    memcpy(s->name, attach->name, attach->name_length);
    s->name[attach->name_length] = 0;
    return s;
}

/* Rule 8: might something that was sent and not answered have been taken, and nobody knows any
 * more? */
static bool is_unsure(const struct server *server, const struct wire_attach *attach, uint64_t known)
{
    if (attach->origin == 0 || attach->unanswered == 0 || known != 0)
        return false;
    return attach->epoch != server->journal.header->epoch ||
           attach->unanswered < server->journal.first_id ||
           origins_forgotten(server->origins) >= attach->unanswered;
}

/* OK, with the block that tells the limit and, to who gave a proof, the broker's own. false: the
 * connection is gone. */
static bool answer_granted(const struct request *r, const struct proof *proof, unsigned flags,
                           uint64_t known)
{
    struct wire_attach_reply block = {.record_max = r->server->journal.record_max,
                                      .proof = proof->bytes,
                                      .proof_length = proof->length};
    uint8_t *out = request_answer_block(r, STATUS_OK, flags, known, wire_attach_reply_size(&block));
    if (out != NULL)
        wire_attach_reply_encode(out, &block);
    return out != NULL;
}

/* The list is complete: delivery starts. */
static void grant(const struct request *r, struct session *s, const struct wire_attach *attach,
                  const struct proof *proof)
{
    struct server *server = r->server;
    uint64_t last_id = server->journal.last_id, known_id;
    bool ours = attach->epoch == server->journal.header->epoch && r->header.position <= last_id;
    unsigned flags = attach->epoch != 0 && !ours ? WIRE_NEW_EPOCH : 0;
    uint64_t known = attach->origin != 0 ? publish_known(server, s, attach->origin, &known_id) : 0;
    if (known != 0)
        origins_note(server->origins, attach->origin, known, known_id, true);
    if (is_unsure(server, attach, known))
        flags |= WIRE_UNSURE;
    if (!answer_granted(r, proof, flags, known))
        return;
    if (s->mode == SESSION_ATTACHING) {
        session_seek(s, ours ? r->header.position : last_id);
        server->counters.attached++;
        log_info("session %016llx attached: %s %s, pid %u, generation %llu, %u subscriptions",
                 (unsigned long long)s->id, s->engine != NULL ? "engine" : "member", s->name,
                 s->pid, (unsigned long long)s->generation, s->subscriber.count);
    }
    if (s->engine != NULL)
        engine_reset(s);
}

void attach_handle(const struct request *r)
{
    struct wire_attach attach;
    size_t used;
    if (r->header.session == 0 ||
        wire_attach_decode(r->body, r->length, &attach, &used) != STATUS_OK) {
        request_answer(r, STATUS_MALFORMED, 0, 0, 0);
        connection_close_after_replies(r->connection, CLOSE_REQUEST);
        return;
    }
    struct proof proof;
    if (!authenticate(r, &attach, &proof))
        return;
    struct session *s = open_session(r, &attach);
    if (s == NULL)
        return;
    uint32_t done = 0;
    enum status status = STATUS_OK;
    if ((r->header.flags & WIRE_ENGINE) != 0 && s->engine == NULL)
        status = s->mode == SESSION_ATTACHING && s->subscriber.count == 0 ? engine_attach(s)
                                                                          : STATUS_MALFORMED;
    if (status == STATUS_OK)
        status = subscribe_records(s, r->body + used, r->length - used, r->header.records, &done);
    else
        done = r->header.records;
    if (status == STATUS_OK) {
        if ((r->header.flags & WIRE_MORE) != 0)
            answer_granted(r, &proof, 0, 0);
        else
            grant(r, s, &attach, &proof);
        return;
    }
    request_answer(r, status, 0, done, done);
    if (s->mode == SESSION_ATTACHING)
        session_end(s, true);
    if (status == STATUS_MALFORMED)
        connection_close_after_replies(r->connection, CLOSE_REQUEST);
}

static void detach(struct session *s)
{
    log_info("session %016llx (%s, pid %u) detached", (unsigned long long)s->id, s->name, s->pid);
    while (s->credit_count > 0)
        session_answer_empty(s, STATUS_GOING_AWAY);
    session_end(s, false);
}

/* What a request is about: all engines of the name that its one record has. How many there were. */
static uint64_t each_named(const struct request *r, void (*act)(struct session *))
{
    struct wire_record record;
    size_t used;
    if (r->header.records != 1 ||
        wire_record_decode(r->body, r->length, &record, &used) != STATUS_OK)
        return 0;
    return engines_named(r->server, record.channel, record.channel_length, act);
}

static void answer_named(const struct request *r, uint64_t count)
{
    request_answer(r, count > 0 ? STATUS_OK : STATUS_UNKNOWN_NAME, 0, count, 0);
}

void detach_handle(const struct request *r)
{
    if (r->header.records > 0 || r->session == NULL) {
        answer_named(r, each_named(r, detach));
        return;
    }
    detach(r->session);
    request_answer(r, STATUS_OK, 0, 0, 0);
}

void reset_handle(const struct request *r)
{
    if (r->header.records > 0 || r->session == NULL || r->session->engine == NULL) {
        answer_named(r, each_named(r, engine_reset));
        return;
    }
    engine_reset(r->session);
    request_answer(r, STATUS_OK, 0, 0, 0);
}
