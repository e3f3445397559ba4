#include "query.h"

#include "buffer.h"
#include "glob.h"
#include "requests.h"
#include "server.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A table that is being written: rows past TEXT_MAX are counted and not shown. */
struct table {
    struct buffer text;
    uint64_t cut;
    const uint8_t *pattern; /* CHANNELS: only these; NULL all */
    size_t pattern_length;
};

static void row(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void row(struct table *t, const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    size_t size = length < 0                      ? 0
                  : (size_t)length < sizeof(line) ? (size_t)length
                                                  : sizeof(line) - 1;
    if (t->cut > 0 || !buffer_append(&t->text, line, size))
        t->cut++;
}

void query_each_number(const struct server *server, query_number_fn number, void *context)
{
    const struct journal *j = &server->journal;
    struct subscriptions_stats table;
    subscriptions_stats(server->subscriptions, &table);
#define COUNTER_CALL(name, text) number(#name, text, true, server->counters.name, context);
    COUNTERS(COUNTER_CALL)
#undef COUNTER_CALL
    number("uptime_seconds", "since the start", false,
           (uint64_t)(server->now - server->started) / 1000, context);
    number("connections", "open connections", false, server->connection_count, context);
    number("peers", "addresses and users that they come from", false, server->peers.count, context);
    number("sessions", "attached sessions", false, server->sessions.count, context);
    number("engines", "attached engines", false, server->engines.count, context);
    number("channels", "exact channels that somebody wants", false, table.channels, context);
    number("patterns", "patterns that somebody wants", false, table.patterns, context);
    number("subscriptions", "pairs of session and channel or pattern", false, table.subscriptions,
           context);
    number("subscription_bytes", "memory of the subscription table", false, table.bytes, context);
    number("origins", "publishers remembered", false, origins_count(server->origins), context);
    number("epoch", "random number of this journal", false, j->header->epoch, context);
    number("head", "newest message id", false, j->last_id, context);
    number("oldest", "oldest message id in the journal", false, j->first_id, context);
    number("journal_size_bytes", "size of the journal's ring", false, j->size, context);
    number("journal_used_bytes", "bytes of it that hold messages", false, j->head - j->tail,
           context);
}

static void stats_row(const char *name, const char *help, bool is_counter, uint64_t value,
                      void *context)
{
    (void)help, (void)is_counter;
    row(context, "%s\t%llu\n", name, (unsigned long long)value);
}

static const char *mode_text(const struct session *s)
{
    return s->mode == SESSION_LIVE ? "live" : s->mode == SESSION_CATCHUP ? "catch-up" : "attaching";
}

static void session_row(struct table *t, const struct session *s)
{
    uint64_t head = s->server->journal.last_id;
    row(t, "%016llx\t%s\t%s\t%u\t%llu\t%s\t%u\t%llu\t%llu\t%llu\t%u\t%s\n",
        (unsigned long long)s->id, s->engine != NULL ? "engine" : "member", s->name, s->pid,
        (unsigned long long)s->generation, mode_text(s), s->subscriber.count,
        (unsigned long long)session_queued(s), (unsigned long long)s->told,
        (unsigned long long)(head - s->told), s->credit_count, s->connection->peer);
}

static void sessions_table(struct table *t, const struct server *server)
{
    row(t, "session\trole\tname\tpid\tgeneration\tmode\tsubscriptions\tqueued\tposition\tbehind\t"
           "credits\tpeer\n");
    for (size_t i = 0; i < server->sessions.bucket_count; i++)
        for (const struct session *s = server->sessions.buckets[i]; s != NULL; s = s->chain)
            session_row(t, s);
}

/* A name with bytes below space, DEL, tab and backslash as \xNN, so that a row stays a row. */
static void escape(char *out, size_t size, const uint8_t *name, size_t length)
{
    size_t used = 0;
    for (size_t i = 0; i < length && used + 5 < size; i++) {
        if (name[i] < 0x20 || name[i] == 0x7f || name[i] == '\\')
            used += (size_t)snprintf(out + used, size - used, "\\x%02x", name[i]);
        else
            out[used++] = (char)name[i];
    }
    out[used] = 0;
}

static void channel_row(struct subscription_key *key, void *context)
{
    struct table *t = context;
    if (t->pattern != NULL && !glob_match(t->pattern, t->pattern_length, key->name, key->length))
        return;
    char name[800];
    escape(name, sizeof(name), key->name, key->length);
    row(t, "%s\t%s\t%u\n", key->is_pattern ? "pattern" : "channel", name, key->count);
}

static enum status channels_table(struct table *t, const struct request *r)
{
    struct wire_record record;
    size_t used;
    if (r->header.records > 0) {
        if (wire_record_decode(r->body, r->length, &record, &used) != STATUS_OK)
            return STATUS_MALFORMED;
        enum status status = glob_check(record.channel, record.channel_length);
        if (status != STATUS_OK)
            return status;
        t->pattern = record.channel;
        t->pattern_length = record.channel_length;
    }
    row(t, "kind\tname\tsubscribers\n");
    subscriptions_each_key(r->server->subscriptions, channel_row, t);
    return STATUS_OK;
}

static void engines_table(struct table *t, const struct server *server)
{
    row(t, "name\tsession\tpid\ttold\twaiting_bytes\tpeer\n");
    struct engine *e;
    TAILQ_FOREACH(e, &server->engines.list, entry)
    {
        row(t, "%s\t%016llx\t%u\t%llu\t%zu\t%s\n", e->session->name,
            (unsigned long long)e->session->id, e->session->pid, (unsigned long long)e->told,
            buffer_length(&e->backlog), e->session->connection->peer);
    }
}

static enum status fill(struct table *t, const struct request *r)
{
    const struct server *server = r->server;
    switch (r->header.flags) {
    case WIRE_PING:
        row(t, "version\tpid\tuptime_seconds\n" BROKERD_VERSION "\t%d\t%lld\n", getpid(),
            (long long)(server->now - server->started) / 1000);
        return STATUS_OK;
    case WIRE_STATS:
        row(t, "name\tvalue\n");
        query_each_number(server, stats_row, t);
        return STATUS_OK;
    case WIRE_SESSIONS:
        sessions_table(t, server);
        return STATUS_OK;
    case WIRE_CHANNELS:
        return channels_table(t, r);
    case WIRE_ENGINES:
        engines_table(t, server);
        return STATUS_OK;
    default:
        return STATUS_UNKNOWN_OPERATION;
    }
}

void query_handle(const struct request *r)
{
    struct table t = {0};
    buffer_init(&t.text, TEXT_MAX - 64);
    enum status status = fill(&t, r);
    size_t length = status == STATUS_OK ? buffer_length(&t.text) : 0;
    uint8_t *out = request_answer_block(r, status, 0, t.cut, length);
    if (out != NULL && length > 0)
        memcpy(out, buffer_bytes(&t.text), length);
    buffer_release(&t.text);
}
