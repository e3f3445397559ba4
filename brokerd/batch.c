#include "bytes.h"
#include "connection.h"
#include "server.h"
#include "session.h"
#include <string.h>

/*
 * One FETCH reply, put together for one write: prefix, header, then what an engine is told, a GAP,
 * and runs straight from the ring. A run that is small is copied to the scratch buffer, behind the
 * one before: that costs less than an iovec of its own in the kernel.
 */
enum {
    COPY_MAX = 512,
    REST_MAX = WIRE_BATCH_SIZE / 4,
    JOINED = 2 * WIRE_BATCH_SIZE, /* queued bytes that are sent at once in any case */
    TURN_LARGE = 64 * 1024        /* bytes read in a turn: more of them are under way */
};

struct batch {
    struct iovec *iov;
    int count;        /* of iov used; [0] is the connection's, [1] our header */
    uint8_t *scratch; /* where the next small piece goes */
    size_t bytes;     /* behind the reply header */
    uint32_t records;
    size_t backlog_used; /* bytes of an engine's backlog */
};

static void add_bytes(struct batch *b, const void *bytes, size_t size, uint32_t records)
{
    struct iovec *last = &b->iov[b->count - 1];
    if (size <= COPY_MAX) {
        memcpy(b->scratch, bytes, size);
        bytes = b->scratch;
        b->scratch += size;
    }
    if ((const uint8_t *)last->iov_base + last->iov_len == bytes)
        last->iov_len += size;
    else
        b->iov[b->count++] = (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    b->bytes += size;
    b->records += records;
}

static void add_backlog(struct batch *b, struct engine *engine)
{
    const uint8_t *bytes = buffer_bytes(&engine->backlog);
    size_t length = buffer_length(&engine->backlog), used = 0;
    uint32_t records = 0;
    while (used < length) {
        size_t size = size_align8(get_u32le(bytes + used));
        if (used + size > WIRE_BATCH_SIZE)
            break;
        used += size;
        records++;
    }
    if (used > 0)
        add_bytes(b, bytes, used, records);
    b->backlog_used = used;
}

static void add_gap(struct batch *b, struct session *s)
{
    uint8_t record[WIRE_RECORD_SIZE];
    wire_record_encode(record, &(struct wire_record){
                                   .type = WIRE_GAP, .id = s->gap_last, .sequence = s->gap_first});
    put_u32le(record + 32, wire_record_checksum(record));
    add_bytes(b, record, sizeof(record), 1);
    s->server->counters.gaps++;
    s->server->counters.gap_messages += s->gap_last - s->gap_first + 1;
    s->gap_first = s->gap_last = 0;
}

static void add_runs(struct batch *b, struct session *s)
{
    while (s->run_count > 0 && b->count < IOV_COUNT - 1) {
        const struct run *run = &s->runs[s->run_start];
        if (b->bytes > 0 && b->bytes + run->size > WIRE_BATCH_SIZE)
            return;
        add_bytes(b, journal_at(&s->server->journal, run->position), run->size, run->records);
        s->queued_bytes -= run->size;
        s->server->counters.delivered += run->records;
        s->run_start = (s->run_start + 1) % RUNS_MAX;
        s->run_count--;
    }
}

static void encode_head(struct session *s, const struct credit *credit, const struct batch *b)
{
    uint8_t *out = s->server->scratch;
    size_t prefix = sp_prefix_encode(out, s->connection->transport,
                                     credit->backtrace_size + WIRE_REPLY_SIZE + b->bytes);
    memcpy(out + prefix, credit->backtrace, credit->backtrace_size);
    s->told = s->settled = session_position(s);
    wire_reply_encode(out + prefix + credit->backtrace_size,
                      &(struct wire_reply){.version = WIRE_VERSION,
                                           .operation = WIRE_FETCH,
                                           .status = STATUS_OK,
                                           .records = b->records,
                                           .epoch = s->server->journal.header->epoch,
                                           .head = s->server->journal.last_id,
                                           .value = s->told});
}

static void send_batch(struct session *s)
{
    struct server *server = s->server;
    const struct credit *credit = &s->credits[s->credit_start];
    size_t head =
        sp_prefix_size(s->connection->transport) + credit->backtrace_size + WIRE_REPLY_SIZE;
    struct batch b = {.iov = server->iov, .count = 2, .scratch = server->scratch + head};
    b.iov[1] = (struct iovec){.iov_base = server->scratch, .iov_len = head};
    if (s->engine != NULL)
        add_backlog(&b, s->engine);
    if (s->gap_last != 0)
        add_gap(&b, s);
    add_runs(&b, s);
    encode_head(s, credit, &b);
    s->credit_start = (s->credit_start + 1) % CREDITS_MAX;
    s->credit_count--;
    s->connection->parked--;
    server->counters.batches++;
    connection_write(s->connection, b.iov, b.count - 1, head + b.bytes);
    if (b.backlog_used > 0)
        engine_sent(s, credit->backtrace, credit->backtrace_size, b.backlog_used);
}

/* The little that a full batch left behind would cost a credit and a wake-up of the peer for
 * itself: it joins what the next turn brings, which comes at once. */
static bool is_rest(const struct session *s)
{
    return s->queued_bytes < REST_MAX && s->gap_last == 0 && s->engine == NULL;
}

/* Many credits spare the peer of a quiet broker a FETCH for each few messages; but what may be
 * under way to a process that stands still is what the last WIRE_FULL_CREDITS of them bring. A GAP
 * goes first: an empty batch would tell a position behind it. */
static bool has_credit_too_many(const struct session *s)
{
    size_t backlog = s->engine != NULL ? buffer_length(&s->engine->backlog) : 0;
    return s->credit_count > WIRE_FULL_CREDITS && s->gap_last == 0 &&
           s->queued_bytes + backlog > WIRE_SMALL_BATCH;
}

/*
 * Each write wakes the peer, which costs as much as dozens of messages. So as long as turns bring
 * much, and much more of it each time for this session, two batches go out together; the next turn
 * comes at once.
 */
static bool waits_for_more(struct session *s)
{
    bool waits = s->server->turn_bytes >= TURN_LARGE && s->queued_bytes < JOINED &&
                 s->queued_bytes >= s->held_bytes + WIRE_BATCH_SIZE / 2 && s->credit_count > 1;
    s->held_bytes = waits ? s->queued_bytes : 0;
    return waits;
}

void session_flush(struct session *s)
{
    bool is_full = false;
    if (waits_for_more(s)) {
        session_hold(s);
        return;
    }
    while (s->credit_count > 0 && session_has_output(s) && connection_takes_batch(s->connection)) {
        if (is_full && is_rest(s)) {
            session_hold(s);
            break;
        }
        if (session_is_lapped(s))
            session_lapped(s);
        if (has_credit_too_many(s)) {
            session_answer_empty(s, STATUS_OK);
            continue;
        }
        send_batch(s);
        is_full = true; /* if anything is left */
    }
    catchup_schedule(s);
}
