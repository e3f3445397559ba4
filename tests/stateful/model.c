/* Peers, time, and the comparison after each step. */
#define IN_PROCESS_HERE
#include "model.h"
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>

struct model model;

static char journal_path[100];
static struct options options = {.journal = journal_path,
                                 .journal_size = 64 * 1024,
                                 .max_message = 4096,
                                 .ready_fd = -1,
                                 .log_level = LOG_LEVEL_ERROR};

unsigned pick(unsigned n)
{
    model.random ^= model.random << 13;
    model.random ^= model.random >> 7;
    model.random ^= model.random << 17;
    return n == 0 ? 0 : (unsigned)((model.random >> 16) % n);
}

bool chance(unsigned one_in)
{
    return pick(one_in) == 0;
}

void trace(const char *format, ...)
{
    va_list arguments;
    if (!model.tracing)
        return;
    printf("%8llu  ", (unsigned long long)model.step);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

_Noreturn void violated(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fprintf(stderr, "seed %llu, step %llu: ", (unsigned long long)model.seed,
            (unsigned long long)model.step);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    unlink(journal_path);
    abort();
}

int64_t model_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void adopt_broker(void)
{
    model.epoch = in_process.journal.header->epoch;
    model.record_max = in_process.journal.record_max;
    model.payload_max = options.max_message;
    if (in_process.journal.last_id != model.head)
        violated("the journal's newest message is %llu, not %llu",
                 (unsigned long long)in_process.journal.last_id, (unsigned long long)model.head);
}

void model_start(uint64_t seed)
{
    model.seed = seed;
    model.random = seed * 0x9e3779b97f4a7c15u + 1;
    model.sessions = calloc(M_SESSIONS, sizeof(*model.sessions));
    snprintf(journal_path, sizeof(journal_path), "%s/brokerd-steps-%d.journal",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", getpid());
    unlink(journal_path);
    signal(SIGPIPE, SIG_IGN);
    in_process_start(&options);
    adopt_broker();
}

/* ---- peers ---- */

void peer_connect(int peer, enum sp_transport transport)
{
    struct m_peer *p = &model.peers[peer];
    *p = (struct m_peer){.state = PEER_HELLO,
                         .transport = transport,
                         .reads = true,
                         .opened = model_now(),
                         .heard = model_now()};
    buffer_init(&p->up, 1 << 20);
    buffer_init(&p->down, 16 << 20);
    p->fd = in_process_connect(transport);
    trace("peer %d connects", peer);
}

/* Splits what was sent as the broker must. */
static void feed_model(int peer)
{
    struct m_peer *p = &model.peers[peer];
    if (p->state == PEER_HELLO) {
        switch (sp_hello_check(buffer_bytes(&p->up), buffer_length(&p->up), SP_REQ)) {
        case STATUS_OK:
            buffer_consume(&p->up, SP_HELLO_SIZE);
            p->state = PEER_OPEN;
            break;
        case STATUS_MALFORMED:
            p->state = PEER_CLOSED;
            break;
        default:
            break;
        }
    }
    while (p->state == PEER_OPEN) {
        size_t length = buffer_length(&p->up), prefix = sp_prefix_size(p->transport);
        uint64_t body;
        enum status status = sp_prefix_decode(buffer_bytes(&p->up), length, p->transport,
                                              in_process.request_max, &body);
        if (status == STATUS_MALFORMED || status == STATUS_TOO_LARGE)
            p->state = PEER_CLOSED;
        if (status != STATUS_OK || length - prefix < body)
            return;
        model_message(peer, buffer_bytes(&p->up) + prefix, (size_t)body);
        buffer_consume(&p->up, prefix + (size_t)body);
        p->sent_unread++;
    }
}

void peer_send(int peer, const uint8_t *bytes, size_t length)
{
    struct m_peer *p = &model.peers[peer];
    p->heard = model_now();
    if (send(p->fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
        violated("peer %d: the broker takes nothing", peer);
    trace("peer %d sends %zu bytes", peer, length);
    buffer_append(&p->up, bytes, length);
    feed_model(peer);
}

void model_peer_lost(int peer)
{
    struct m_peer *p = &model.peers[peer];
    for (unsigned i = 0; i < M_SESSIONS; i++)
        if (model.sessions[i].used && model.sessions[i].peer == peer)
            model_session_end(&model.sessions[i]);
    close(p->fd);
    buffer_release(&p->up);
    buffer_release(&p->down);
    p->state = PEER_GONE;
    p->fd = -1;
    trace("peer %d is gone", peer);
}

void peer_close(int peer)
{
    model_peer_lost(peer);
}

/* May the broker have had enough of a peer that said nothing? `margin` is added to its patience. */
static bool is_overdue(int peer, int64_t margin)
{
    const struct m_peer *p = &model.peers[peer];
    int64_t now = model_now();
    if (p->state == PEER_HELLO)
        return now - p->opened > HELLO_TIMEOUT + margin;
    return now - p->heard >
           (model_session_of(peer, 0) != NULL ? SILENCE_TIMEOUT : IDLE_TIMEOUT) + margin;
}

static void see_end(int peer)
{
    struct m_peer *p = &model.peers[peer];
    bool expected = p->state == PEER_LAST || p->state == PEER_CLOSED;
    if (!expected && !is_overdue(peer, -1000))
        violated("peer %d: the broker closed the connection", peer);
    if (p->state == PEER_LAST && p->expected_count > 0)
        violated("peer %d: closed before the last reply", peer);
    model.counts.closed++;
    model_peer_lost(peer);
}

static void split_replies(int peer)
{
    struct m_peer *p = &model.peers[peer];
    if (!p->greeted && buffer_length(&p->down) >= SP_HELLO_SIZE) {
        if (sp_hello_check(buffer_bytes(&p->down), SP_HELLO_SIZE, SP_REP) != STATUS_OK)
            violated("peer %d: no hello", peer);
        buffer_consume(&p->down, SP_HELLO_SIZE);
        p->greeted = true;
    }
    uint64_t body;
    size_t prefix = sp_prefix_size(p->transport);
    while (p->greeted &&
           sp_prefix_decode(buffer_bytes(&p->down), buffer_length(&p->down), p->transport, 16 << 20,
                            &body) == STATUS_OK &&
           buffer_length(&p->down) - prefix >= body) {
        model_reply(peer, buffer_bytes(&p->down) + prefix, (size_t)body);
        buffer_consume(&p->down, prefix + (size_t)body);
    }
}

/* Reads what is there; true if there was anything. */
static bool read_peer(int peer)
{
    static uint8_t bytes[1 << 20];
    struct m_peer *p = &model.peers[peer];
    ssize_t n = recv(p->fd, bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n > 0) {
        buffer_append(&p->down, bytes, (size_t)n);
        split_replies(peer);
        p->sent_unread = 0;
    } else {
        see_end(peer);
    }
    return true;
}

/* Until neither side has anything to say. */
static void settle(void)
{
    bool more = true;
    while (more) {
        in_process_settle();
        more = false;
        for (int i = 0; i < PEERS; i++) {
            struct m_peer *p = &model.peers[i];
            if (p->state != PEER_GONE && (p->reads || p->state >= PEER_LAST))
                more |= read_peer(i);
        }
    }
}

/* ---- comparison ---- */

static bool wanted_by_a_member(const struct m_told *t)
{
    for (unsigned i = 0; i < M_SESSIONS; i++) {
        const struct m_session *s = &model.sessions[i];
        for (unsigned n = 0; s->used && !s->is_engine && n < s->name_count; n++)
            if (s->names[n].on && s->names[n].length == t->length &&
                s->names[n].is_pattern == t->is_pattern &&
                memcmp(s->names[n].bytes, t->bytes, t->length) == 0)
                return true;
    }
    return false;
}

static bool is_told(const struct m_session *engine, const struct m_name *n)
{
    for (unsigned i = 0; i < engine->told_count; i++)
        if (engine->told[i].length == n->length && engine->told[i].is_pattern == n->is_pattern &&
            memcmp(engine->told[i].bytes, n->bytes, n->length) == 0)
            return true;
    return false;
}

/* An engine that listens knows what members want, and does not believe what nobody wants long. */
static void compare_interest(struct m_session *engine)
{
    int64_t now = model_now();
    for (unsigned i = 0; i < M_SESSIONS; i++) {
        const struct m_session *s = &model.sessions[i];
        for (unsigned n = 0; s->used && !s->is_engine && n < s->name_count; n++)
            if (s->names[n].on && !is_told(engine, &s->names[n]))
                violated("engine %llu was not told of %.*s (pattern %d), which session %llu wants",
                         (unsigned long long)engine->id, (int)s->names[n].length,
                         (const char *)s->names[n].bytes, s->names[n].is_pattern,
                         (unsigned long long)s->id);
    }
    for (unsigned i = 0; i < engine->told_count; i++) {
        struct m_told *t = &engine->told[i];
        if (wanted_by_a_member(t))
            t->unwanted_since = 0;
        else if (t->unwanted_since == 0)
            t->unwanted_since = now;
        else if (now - t->unwanted_since > (LINGER_SECONDS + 3) * 1000)
            violated("engine %llu still believes in '%.*s'", (unsigned long long)engine->id,
                     t->length, (const char *)t->bytes);
    }
}

static void compare_session(struct m_session *s)
{
    const struct m_peer *p = &model.peers[s->peer];
    if (s->attaching || s->credit_count == 0 || !p->reads || p->state != PEER_OPEN)
        return;
    model_look(s, model.head);
    if (s->clear < model.head)
        violated("session %llu has a credit and is not given message %llu",
                 (unsigned long long)s->id, (unsigned long long)s->clear + 1);
    if (s->is_engine && !s->missed_interest && model.step % 16 == 0)
        compare_interest(s);
}

void model_compare(void)
{
    settle();
    size_t peers = 0, sessions = 0;
    for (int i = 0; i < PEERS; i++) {
        struct m_peer *p = &model.peers[i];
        peers += p->state != PEER_GONE;
        p->lax = !p->reads;
        if (p->state >= PEER_LAST)
            violated("peer %d: the broker should have closed (state %d; it has %zu connections)", i,
                     p->state, in_process.connection_count);
        if (p->state != PEER_GONE && p->reads && p->expected_count > 0 &&
            !p->expected[p->expected_count - 1].is_optional)
            violated("peer %d: operation %u is not answered", i, p->expected[0].operation);
    }
    for (unsigned i = 0; i < M_SESSIONS; i++)
        if (model.sessions[i].used) {
            sessions++;
            compare_session(&model.sessions[i]);
        }
    if (in_process.connection_count != peers || in_process.sessions.count != sessions)
        violated("%zu connections and %zu sessions, not %zu and %zu", in_process.connection_count,
                 in_process.sessions.count, peers, sessions);
    if (in_process.journal.last_id != model.head)
        violated("the newest message is %llu, not %llu",
                 (unsigned long long)in_process.journal.last_id, (unsigned long long)model.head);
    const struct journal *j = &in_process.journal;
    if (j->head > j->size && j->head - j->tail < j->size / 2)
        violated("the ring holds only %llu bytes", (unsigned long long)(j->head - j->tail));
}

/* ---- time ---- */

void model_jump(int64_t ms)
{
    trace("%lld ms pass", (long long)ms);
    model.counts.jumps++;
    settle();
    in_process_jump(ms);
    settle(); /* the broker sees the time */
    in_process_jump(TICK + 100);
    in_process_settle();
    for (int i = 0; i < PEERS; i++)
        if (model.peers[i].state != PEER_GONE && is_overdue(i, 700)) {
            while (model.peers[i].state != PEER_GONE && read_peer(i))
                ;
            if (model.peers[i].state != PEER_GONE)
                violated("peer %d: silent for too long, and not closed", i);
        }
}

/* Of the origins it then knows what is in the ring. */
static void forget_origins(void)
{
    model.origin_count = 0;
    for (uint64_t id = in_process.journal.first_id; id <= model.head; id++) {
        struct wire_record r;
        size_t used;
        wire_record_decode(model_logged(id)->record, model_logged(id)->size, &r, &used);
        unsigned i = 0;
        while (i < model.origin_count && model.origins[i].origin != r.origin)
            i++;
        model.origin_count += i == model.origin_count;
        model.origins[i] = (struct m_origin){r.origin, r.sequence, id};
    }
}

void model_restart(void)
{
    trace("the broker is closed and opened again");
    settle();
    for (int i = 0; i < PEERS; i++)
        if (model.peers[i].state != PEER_GONE)
            model_peer_lost(i);
    server_close(&in_process);
    if (chance(2)) { /* as if it had been killed: not clean */
        FILE *file = fopen(journal_path, "r+b");
        fseek(file, 12, SEEK_SET);
        fwrite("\0\0\0\0", 4, 1, file);
        fclose(file);
    }
    uint64_t epoch = model.epoch;
    in_process_start(&options);
    adopt_broker();
    if (model.epoch != epoch)
        violated("another epoch after a restart");
    forget_origins();
    model.counts.restarts++;
}

void model_end(void)
{
    for (int i = 0; i < PEERS; i++)
        if (model.peers[i].state != PEER_GONE)
            peer_close(i);
    in_process_settle();
    if (in_process.connection_count != 0 || in_process.sessions.count != 0)
        violated("something is left of peers that are gone");
    server_close(&in_process);
    for (unsigned i = 0; i < M_LOG; i++)
        free(model.log[i].record);
    free(model.sessions);
    unlink(journal_path);
    printf("%llu steps: %llu requests, %llu replies (", (unsigned long long)model.step,
           (unsigned long long)model.counts.requests, (unsigned long long)model.counts.replies);
    for (unsigned i = 0; i < 32; i++)
        if (model.counts.status[i] > 0)
            printf("%s%s %llu", i > 0 ? ", " : "", i == 0 ? "ok" : status_text(i),
                   (unsigned long long)model.counts.status[i]);
    printf(");\n%llu messages published, %llu delivered, %llu GAPs, %llu heartbeats, %llu records "
           "of interest; %llu connections closed by the broker, %llu restarts, %llu jumps of "
           "time\nno difference between broker and model\n",
           (unsigned long long)model.head, (unsigned long long)model.counts.delivered,
           (unsigned long long)model.counts.gaps, (unsigned long long)model.counts.heartbeats,
           (unsigned long long)model.counts.interest, (unsigned long long)model.counts.closed,
           (unsigned long long)model.counts.restarts, (unsigned long long)model.counts.jumps);
}
