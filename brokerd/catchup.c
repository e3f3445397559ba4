#include "bytes.h"
#include "server.h"
#include "session.h"
#include <string.h>
#include <time.h>

enum { BUDGET_NS = 1000 * 1000, RECORDS_PER_LOOK = 64, AHEAD_MAX = 2 * WIRE_BATCH_SIZE };

/* One record is asked about for one session. Neighbouring records often have the same channel, so
 * the last answer is kept. */
struct question {
    struct session *session;
    const uint8_t *channel; /* of the last record asked about, in the ring */
    size_t length;
    bool wanted;
};

static void note_match(struct subscription *subscription, void *context)
{
    struct question *q = context;
    q->wanted |= subscription->context == q->session;
}

static bool wants(struct question *q, const uint8_t *record)
{
    const uint8_t *channel = record + WIRE_RECORD_SIZE;
    size_t length = get_u16le(record + 6);
    uint32_t engine = get_u32le(record + 36);
    if (engine != 0 && engine == q->session->engine_hash)
        return false;
    if (q->channel == NULL || length != q->length || memcmp(channel, q->channel, length) != 0) {
        q->wanted = false;
        subscriptions_match(q->session->server->subscriptions, channel, length, note_match, q);
    }
    q->channel = channel;
    q->length = length;
    return q->wanted;
}

/* Looks at up to RECORDS_PER_LOOK records; false when the session need not be looked at again now.
 */
static bool look(struct session *s, struct question *q)
{
    struct journal *j = &s->server->journal;
    for (int i = 0; i < RECORDS_PER_LOOK && s->scan < j->head; i++) {
        const uint8_t *record = journal_at(j, s->scan);
        uint32_t size = journal_record_size(j, s->scan);
        if (record[4] != WIRE_FILLER) {
            uint64_t id = get_u64le(record + 8);
            s->server->counters.scanned++;
            if (wants(q, record)) {
                struct run run = {.position = s->scan, .size = size, .records = 1};
                if (!session_append_run(s, &run, id))
                    return false;
                s->server->counters.queued++;
            }
            s->scanned = id;
        }
        s->scan += size;
    }
    if (s->scan == j->head)
        s->mode = SESSION_LIVE;
    return s->mode == SESSION_CATCHUP && s->queued_bytes < AHEAD_MAX;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool can_scan(const struct session *s)
{
    return s->mode == SESSION_CATCHUP && s->credit_count > 0 && s->queued_bytes < AHEAD_MAX &&
           s->run_count < RUNS_MAX;
}

void catchup_schedule(struct session *s)
{
    if (s->is_catching_up || !can_scan(s))
        return;
    s->is_catching_up = true;
    TAILQ_INSERT_TAIL(&s->server->catching_up, s, catchup_entry);
}

bool catchup_step(struct server *server)
{
    if (TAILQ_EMPTY(&server->catching_up))
        return false;
    int64_t deadline = now_ns() + BUDGET_NS;
    struct session *s;
    while ((s = TAILQ_FIRST(&server->catching_up)) != NULL) {
        TAILQ_REMOVE(&server->catching_up, s, catchup_entry);
        s->is_catching_up = false;
        if (s->scan < server->journal.tail || session_is_lapped(s))
            session_lapped(s);
        struct question q = {.session = s};
        bool in_time = true;
        while (can_scan(s) && look(s, &q) && (in_time = now_ns() < deadline))
            ;
        if (session_has_output(s))
            session_mark_dirty(s);
        catchup_schedule(s);
        if (now_ns() >= deadline)
            break;
    }
    return !TAILQ_EMPTY(&server->catching_up);
}
