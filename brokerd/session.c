#include "session.h"

#include "bytes.h"
#include "connection.h"
#include "requests.h"
#include "server.h"
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static struct session **bucket_of(const struct session_table *table, uint64_t id)
{
    uint64_t mixed = (id ^ table->seed) * 0x9e3779b97f4a7c15u;
    return &table->buckets[(mixed ^ (mixed >> 32)) & (table->bucket_count - 1)];
}

struct session *session_find(const struct session_table *table, uint64_t id)
{
    if (table->bucket_count == 0)
        return NULL;
    struct session *s = *bucket_of(table, id);
    while (s != NULL && s->id != id)
        s = s->chain;
    return s;
}

static bool table_grow(struct session_table *table)
{
    struct session_table larger = *table;
    larger.bucket_count = table->bucket_count == 0 ? 64 : table->bucket_count * 2;
    larger.buckets = calloc(larger.bucket_count, sizeof(struct session *));
    if (larger.buckets == NULL)
        return table->bucket_count > 0; /* full buckets are slow, not wrong */
    if (table->bucket_count == 0 && getrandom(&larger.seed, sizeof(larger.seed), 0) < 0)
        larger.seed = (uint64_t)(uintptr_t)larger.buckets;
    for (size_t i = 0; i < table->bucket_count; i++) {
        struct session *next;
        for (struct session *s = table->buckets[i]; s != NULL; s = next) {
            next = s->chain;
            struct session **bucket = bucket_of(&larger, s->id);
            s->chain = *bucket;
            *bucket = s;
        }
    }
    free(table->buckets);
    *table = larger;
    return true;
}

/* Publishing must not run out of room for the sessions that it finds. */
static bool make_match_room(struct server *server)
{
    if (server->sessions.count < server->matched_room)
        return true;
    size_t room = server->matched_room == 0 ? 64 : server->matched_room * 2;
    struct session **matched = realloc(server->matched, room * sizeof(*matched));
    if (matched == NULL)
        return false;
    server->matched = matched;
    server->matched_room = room;
    return true;
}

struct session *session_new(struct server *server, uint64_t id, struct connection *connection)
{
    struct session_table *table = &server->sessions;
    if ((table->count >= table->bucket_count && !table_grow(table)) || !make_match_room(server))
        return NULL;
    struct session *s = calloc(1, sizeof(*s));
    if (s == NULL || (s->runs = malloc(RUNS_MAX * sizeof(*s->runs))) == NULL) {
        free(s);
        return NULL;
    }
    s->id = id;
    s->server = server;
    s->connection = connection;
    subscriber_init(&s->subscriber);
    struct session **bucket = bucket_of(table, id);
    s->chain = *bucket;
    *bucket = s;
    table->count++;
    TAILQ_INSERT_TAIL(&connection->sessions, s, of_connection);
    connection->session_count++;
    return s;
}

static void drop_credits(struct session *s)
{
    s->connection->parked -= s->credit_count;
    s->credit_count = 0;
}

static void leave_connection(struct session *s)
{
    drop_credits(s);
    TAILQ_REMOVE(&s->connection->sessions, s, of_connection);
    s->connection->session_count--;
}

static void leave_table(struct session *s)
{
    struct session **link = bucket_of(&s->server->sessions, s->id);
    while (*link != s)
        link = &(*link)->chain;
    *link = s->chain;
    s->server->sessions.count--;
    s->server->idle_since = s->server->now;
}

/* Takes away some of an ENDED session's subscriptions, and with the last the rest of it. */
static void dismantle(struct session *s)
{
    if (!unsubscribe_some(s, LEAVE_AT_ONCE, s->lingers))
        return;
    TAILQ_REMOVE(&s->server->leaving, s, dirty_entry);
    s->connection->leaving--;
    free(s);
}

void session_end(struct session *s, bool lingers)
{
    struct server *server = s->server;
    if (s->is_dirty)
        TAILQ_REMOVE(&server->dirty_sessions, s, dirty_entry);
    if (s->is_catching_up)
        TAILQ_REMOVE(&server->catching_up, s, catchup_entry);
    leave_table(s);
    leave_connection(s);
    peers_give(s->connection->account, PEER_SESSIONS, 1);
    if (s->engine != NULL)
        engine_detach(s);
    free(s->runs);
    s->runs = NULL;
    s->mode = SESSION_ENDED;
    s->lingers = lingers;
    s->connection->leaving++;
    TAILQ_INSERT_TAIL(&server->leaving, s, dirty_entry);
    dismantle(s);
}

bool session_end_step(struct server *server)
{
    if (!TAILQ_EMPTY(&server->leaving))
        dismantle(TAILQ_FIRST(&server->leaving));
    return !TAILQ_EMPTY(&server->leaving);
}

void session_move(struct session *s, struct connection *connection)
{
    struct peer_account *from = s->connection->account, *to = connection->account;
    peers_move(from, to, PEER_SESSIONS, 1);
    peers_move(from, to, PEER_SUBSCRIPTIONS, s->subscriber.count);
    peers_move(from, to, PEER_BYTES, s->name_bytes);
    leave_connection(s);
    s->connection = connection;
    TAILQ_INSERT_TAIL(&connection->sessions, s, of_connection);
    connection->session_count++;
}

static void clear_queue(struct session *s)
{
    s->run_start = s->run_count = 0;
    s->queued_bytes = 0;
}

void session_begin(struct session *s)
{
    drop_credits(s);
    clear_queue(s);
    s->gap_first = s->gap_last = 0;
    s->mode = SESSION_ATTACHING;
    if (s->engine != NULL)
        s->engine->sent = 0; /* told again: the answer may have gone with its connection */
}

void session_seek(struct session *s, uint64_t position)
{
    struct journal *j = &s->server->journal;
    clear_queue(s);
    s->gap_first = s->gap_last = 0;
    s->told = s->settled = position;
    if (position == j->last_id) {
        s->mode = SESSION_LIVE;
        return;
    }
    s->mode = SESSION_CATCHUP;
    if (position + 1 < j->first_id) {
        s->gap_first = position + 1;
        s->gap_last = j->first_id - 1;
        s->scan = j->tail;
        s->scanned = s->gap_last;
    } else {
        s->scan = journal_find(j, position + 1);
        s->scanned = position;
    }
    catchup_schedule(s);
}

void session_lapped(struct session *s)
{
    struct journal *j = &s->server->journal;
    uint64_t middle = j->first_id + (j->last_id - j->first_id) / 2;
    if (s->mode == SESSION_CATCHUP && s->run_count == 0)
        s->settled = s->scanned;
    clear_queue(s);
    if (s->gap_last == 0)
        s->gap_first = s->settled + 1;
    s->gap_last = middle - 1;
    s->scan = journal_find(j, middle);
    s->scanned = middle - 1;
    s->mode = SESSION_CATCHUP;
    session_mark_dirty(s);
    catchup_schedule(s);
}

bool session_is_lapped(const struct session *s)
{
    return s->run_count > 0 && s->runs[s->run_start].position < s->server->journal.tail;
}

bool session_append_run(struct session *s, const struct run *run, uint64_t first_id)
{
    struct run *last = &s->runs[(s->run_start + s->run_count - 1) % RUNS_MAX];
    if (s->run_count > 0 && last->size + (uint64_t)run->size <= RUN_SIZE_MAX &&
        run_is_followed(last, run->position, &s->server->journal)) {
        last->size += run->size;
        last->records += run->records;
    } else {
        if (s->run_count == RUNS_MAX)
            return false;
        if (s->run_count == 0) {
            s->run_start = 0;
            if (s->gap_last == 0)
                s->settled = first_id - 1;
        }
        s->runs[(s->run_start + s->run_count++) % RUNS_MAX] = *run;
    }
    s->queued_bytes += run->size;
    return true;
}

void session_queue(struct session *s, const struct run *run, uint64_t first_id)
{
    if (!session_append_run(s, run, first_id)) {
        s->server->counters.overflows++;
        s->mode = SESSION_CATCHUP;
        s->scan = run->position;
        s->scanned = first_id - 1;
        catchup_schedule(s);
    }
    if (!s->is_dirty)
        session_mark_dirty(s);
}

void session_mark_dirty(struct session *s)
{
    if (s->is_dirty)
        return;
    s->is_dirty = true;
    TAILQ_INSERT_TAIL(&s->server->dirty_sessions, s, dirty_entry);
}

void session_hold(struct session *s)
{
    if (s->is_dirty) /* what it sent has marked it: it is answered in this turn */
        return;
    s->is_dirty = true;
    TAILQ_INSERT_TAIL(&s->server->held_sessions, s, dirty_entry);
}

bool session_park(struct session *s, const uint8_t *backtrace, size_t size)
{
    struct credit *credit = NULL;
    for (uint32_t i = 0; i < s->credit_count && credit == NULL; i++) {
        struct credit *c = &s->credits[(s->credit_start + i) % CREDITS_MAX];
        if (c->backtrace_size == size && memcmp(c->backtrace, backtrace, size) == 0)
            credit = c;
    }
    if (credit != NULL) {
        credit->since = s->server->now;
        return true;
    }
    if (s->simple)
        drop_credits(s);
    if (s->credit_count == CREDITS_MAX)
        return false;
    credit = &s->credits[(s->credit_start + s->credit_count) % CREDITS_MAX];
    credit->since = s->server->now;
    credit->backtrace_size = (uint8_t)size;
    memcpy(credit->backtrace, backtrace, size);
    s->credit_count++;
    s->connection->parked++;
    return true;
}

static const struct credit *take_credit(struct session *s)
{
    const struct credit *credit = &s->credits[s->credit_start];
    s->credit_start = (s->credit_start + 1) % CREDITS_MAX;
    s->credit_count--;
    s->connection->parked--;
    return credit;
}

uint64_t session_queued(const struct session *s)
{
    uint64_t records = 0;
    for (uint32_t i = 0; i < s->run_count; i++)
        records += s->runs[(s->run_start + i) % RUNS_MAX].records;
    return records;
}

uint64_t session_position(const struct session *s)
{
    const struct journal *j = &s->server->journal;
    if (s->run_count > 0)
        return get_u64le(journal_at(j, s->runs[s->run_start].position) + 8) - 1;
    if (s->mode == SESSION_LIVE)
        return j->last_id;
    return s->mode == SESSION_CATCHUP ? s->scanned : s->told;
}

void session_answer_empty(struct session *s, unsigned status)
{
    const struct credit *credit = take_credit(s);
    uint8_t *out =
        connection_reply(s->connection, credit->backtrace, credit->backtrace_size, WIRE_REPLY_SIZE);
    if (out == NULL)
        return;
    s->told = s->settled = session_position(s);
    wire_reply_encode(out, &(struct wire_reply){.version = WIRE_VERSION,
                                                .operation = WIRE_FETCH,
                                                .status = (uint8_t)status,
                                                .epoch = s->server->journal.header->epoch,
                                                .head = s->server->journal.last_id,
                                                .value = s->told});
    s->server->counters.heartbeats++;
}

void session_tick(struct session *s)
{
    if (s->credit_count == 0 || session_has_output(s) ||
        s->server->now - s->credits[s->credit_start].since < PARK_TIMEOUT)
        return;
    session_answer_empty(s, STATUS_OK);
    for (uint32_t i = 0; i < s->credit_count; i++) /* one heartbeat at a time is enough */
        s->credits[(s->credit_start + i) % CREDITS_MAX].since = s->server->now;
}
