#include "engines.h"

#include "bytes.h"
#include "server.h"
#include <stdlib.h>
#include <string.h>

void engines_init(struct engines *engines)
{
    TAILQ_INIT(&engines->list);
    for (int i = 0; i <= LINGER_SECONDS; i++)
        subscriber_init(&engines->lingering[i]);
}

enum status engine_attach(struct session *s)
{
    struct engines *engines = &s->server->engines;
    if (engines->count == ENGINES_MAX)
        return STATUS_FULL;
    struct engine *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return STATUS_NO_MEMORY;
    e->session = s;
    buffer_init(&e->backlog, ENGINE_BACKLOG_MAX);
    s->engine = e;
    s->engine_hash = wire_engine_hash(s->name, strlen(s->name));
    TAILQ_INSERT_TAIL(&engines->list, e, entry);
    engines->count++;
    return STATUS_OK;
}

void engine_detach(struct session *s)
{
    struct engines *engines = &s->server->engines;
    TAILQ_REMOVE(&engines->list, s->engine, entry);
    engines->count--;
    buffer_release(&s->engine->backlog);
    free(s->engine);
    s->engine = NULL;
}

void engine_sent(struct session *s, const uint8_t *backtrace, uint8_t backtrace_size, size_t size)
{
    struct engine *e = s->engine;
    if (!s->simple) {
        buffer_consume(&e->backlog, size);
        return;
    }
    e->sent = size;
    e->sent_to_size = backtrace_size;
    memcpy(e->sent_to, backtrace, backtrace_size);
}

void engine_fetches(struct session *s, const uint8_t *backtrace, size_t backtrace_size)
{
    struct engine *e = s->engine;
    if (e->sent == 0 ||
        (e->sent_to_size == backtrace_size && memcmp(e->sent_to, backtrace, backtrace_size) == 0))
        return;
    buffer_consume(&e->backlog, e->sent);
    e->sent = 0;
}

unsigned engines_named(struct server *server, const void *name, size_t length,
                       void (*callback)(struct session *s))
{
    unsigned count = 0;
    struct engine *next;
    for (struct engine *e = TAILQ_FIRST(&server->engines.list); e != NULL; e = next) {
        next = TAILQ_NEXT(e, entry);
        if (strlen(e->session->name) != length || memcmp(e->session->name, name, length) != 0)
            continue;
        callback(e->session);
        count++;
    }
    return count;
}

static void tell(struct engine *e, uint8_t type, const struct subscription_key *key)
{
    uint8_t *out = buffer_reserve(&e->backlog, wire_record_size(key->length, 0));
    if (out == NULL) {
        connection_close(e->session->connection, CLOSE_ENGINE, e->session->name);
        return;
    }
    wire_record_encode(out, &(struct wire_record){.type = type,
                                                  .flags = key->is_pattern ? WIRE_PATTERN : 0,
                                                  .channel = key->name,
                                                  .channel_length = key->length});
    buffer_commit(&e->backlog, wire_record_size(key->length, 0));
    e->told++;
    session_mark_dirty(e->session);
}

static void tell_all(struct server *server, uint8_t type, const struct subscription_key *key)
{
    struct engine *e;
    TAILQ_FOREACH(e, &server->engines.list, entry)
    {
        tell(e, type, key);
    }
}

/* The subscription that holds a key of which interest lingers; NULL: it does not. */
static struct subscription *lingering(const struct engines *engines,
                                      const struct subscription_key *key)
{
    for (struct subscription *s = key->subscriptions; s != NULL; s = s->next)
        if (s->subscriber >= engines->lingering &&
            s->subscriber <= &engines->lingering[LINGER_SECONDS])
            return s;
    return NULL;
}

static void tell_present(struct subscription_key *key, void *context)
{
    struct engine *e = context;
    if (key->serial > 0 || lingering(&e->session->server->engines, key) != NULL)
        tell(e, WIRE_INTEREST, key);
}

/* Leaves only what takes interest back: all that there is follows. */
static void keep_endings(struct buffer *backlog)
{
    uint8_t *bytes = buffer_bytes(backlog);
    size_t length = buffer_length(backlog), kept = 0, size;
    for (size_t at = 0; at < length; at += size) {
        size = size_align8(get_u32le(bytes + at));
        if (bytes[at + 4] != WIRE_NO_INTEREST)
            continue;
        memmove(bytes + kept, bytes + at, size);
        kept += size;
    }
    backlog->end = backlog->start + kept;
}

void engine_reset(struct session *s)
{
    keep_endings(&s->engine->backlog);
    s->engine->sent = 0;
    subscriptions_each_key(s->server->subscriptions, tell_present, s->engine);
}

void engines_note_interest(struct server *server, struct subscription_key *key)
{
    struct engines *engines = &server->engines;
    if (key->serial++ > 0)
        return;
    struct subscription *held = lingering(engines, key); /* also from before the last engine left */
    if (held != NULL)
        subscriptions_remove(server->subscriptions, held);
    else
        tell_all(server, WIRE_INTEREST, key);
}

void engines_note_leaving(struct server *server, struct subscription_key *key, bool lingers)
{
    struct engines *engines = &server->engines;
    if (--key->serial > 0 || engines->count == 0)
        return;
    struct subscription *held;
    bool created;
    int64_t second = engines->lingering_second;
    if (!lingers ||
        subscriptions_subscribe(server->subscriptions, key->name, key->length, key->is_pattern,
                                &engines->lingering[second % (LINGER_SECONDS + 1)], NULL, &held,
                                &created) != STATUS_OK)
        tell_all(server, WIRE_NO_INTEREST, key);
}

void engines_tick(struct server *server)
{
    struct engines *engines = &server->engines;
    int64_t second = server->now / 1000;
    while (engines->lingering_second < second) {
        /* after a long stop of the process all buckets are old: go round once */
        if (second - engines->lingering_second > LINGER_SECONDS + 1)
            engines->lingering_second = second - LINGER_SECONDS - 1;
        struct subscriber *oldest =
            &engines->lingering[++engines->lingering_second % (LINGER_SECONDS + 1)];
        while (oldest->first != NULL) {
            tell_all(server, WIRE_NO_INTEREST, oldest->first->key);
            subscriptions_remove(server->subscriptions, oldest->first);
        }
    }
}
