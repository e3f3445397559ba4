#ifndef BROKERD_ENGINES_H
#define BROKERD_ENGINES_H

/*
 * Engines: sessions with the role engine, which are told what the members are interested in. An
 * engine hears INTEREST for each channel or pattern that some member wants, present and future,
 * NO_INTEREST when the last one left, and the messages it subscribed to itself, but never its own.
 * delivery.md, rules 17 and 18.
 *
 * Names need not be unique: several of one name are one engine in several processes. None of them
 * hears what another published, and an operation that names them is done to each.
 *
 * Interest outlives a cut link by 5 s: the key is then held by one of the *lingering* subscribers,
 * one for each second, whose subscriptions have no context.
 *
 * How many members want a key stands in subscription_key.serial (the table leaves it to its owner).
 */
#include "buffer.h"
#include "sp.h"
#include "subscriptions.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum {
    ENGINES_MAX = 64,
    BACKTRACE_SIZE_MAX = 4 * SP_BACKTRACE_MAX, /* bytes by which an answer finds its request */
    LINGER_SECONDS = 5,
    ENGINE_BACKLOG_MAX = 64 * 1024 * 1024 /* bytes of interest not fetched yet: closed past it */
};

struct server;
struct session;

struct engine {
    struct session *session;
    struct buffer backlog; /* encoded INTEREST and NO_INTEREST records */
    uint64_t told;         /* records ever put there */
    size_t sent;           /* SIMPLE: bytes of it that were sent and may not have arrived ... */
    uint8_t sent_to[BACKTRACE_SIZE_MAX]; /* ... in answer to this request */
    uint8_t sent_to_size;
    TAILQ_ENTRY(engine) entry;
};

struct engines {
    TAILQ_HEAD(, engine) list;
    unsigned count;
    struct subscriber lingering[LINGER_SECONDS + 1]; /* by second */
    int64_t lingering_second;                        /* the newest bucket's */
};

void engines_init(struct engines *engines);

/* The session becomes an engine. STATUS_OK, STATUS_FULL, STATUS_NO_MEMORY. */
enum status engine_attach(struct session *s);
void engine_detach(struct session *s);

/* Tells it all interest that there is (again). */
void engine_reset(struct session *s);

/* Calls back for every engine of that name, and says how many there were. The engine may be
 * detached in the callback, no other. */
unsigned engines_named(struct server *server, const void *name, size_t length,
                       void (*callback)(struct session *s));

/* A batch with the first `size` bytes of the backlog goes out as the answer to a FETCH. */
void engine_sent(struct session *s, const uint8_t *backtrace, uint8_t backtrace_size, size_t size);

/*
 * A FETCH of a SIMPLE engine. Libraries repeat a request while they have no answer, also one that
 * is on its way just then; the answer to the repetition is thrown away. So what was sent in answer
 * to a request is kept until another request comes, and is sent again when the same one does.
 */
void engine_fetches(struct session *s, const uint8_t *backtrace, size_t backtrace_size);

static inline bool engine_has_output(const struct engine *e)
{
    return buffer_length(&e->backlog) > 0;
}

/* A member subscribed to the key, or its subscription is about to be removed. */
void engines_note_interest(struct server *server, struct subscription_key *key);
void engines_note_leaving(struct server *server, struct subscription_key *key, bool lingers);

/* Lets go of what lingered long enough. Once a second. */
void engines_tick(struct server *server);

#endif
