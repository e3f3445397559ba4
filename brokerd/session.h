#ifndef BROKERD_SESSION_H
#define BROKERD_SESSION_H

/*
 * A session: one process (or engine) as the broker sees it, from its ATTACH until its link ends.
 *
 * What a session has to be sent is a queue of *runs*: stretches of the journal whose records all go
 * to it. No message is copied, and neighbouring records are one run. The queue is bounded
 * (RUNS_MAX); when it is full the session falls back to *catch-up*: it is not matched live any more
 * but reads the journal on from the first record that did not fit (catchup.c). When the ring passes
 * it by it is told a GAP. delivery.md, rules 11 to 17.
 *
 * Credits are parked FETCH requests; each is answered with one batch. Sessions with something to
 * send are noted in server.dirty_sessions and answered once at the end of the loop's turn.
 */
#include "engines.h"
#include "journal.h"
#include "subscriptions.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum {
    RUNS_MAX = 4096, /* a power of two */
    RUN_SIZE_MAX =
        64 * 1024, /* a run is not extended past it, so that batches need not split one */
    CREDITS_MAX = 64,
    LEAVE_AT_ONCE = 2048 /* subscriptions that a turn takes away from sessions that ended: about a
                            millisecond */
};

struct connection;
struct server;

struct run {
    uint64_t position; /* in the journal */
    uint32_t size;     /* bytes */
    uint32_t records;
};

struct credit {
    int64_t since; /* when it was parked, ms */
    uint8_t backtrace_size;
    uint8_t backtrace[BACKTRACE_SIZE_MAX];
};

enum session_mode {
    SESSION_ATTACHING, /* more parts of the list are to come: nothing is delivered */
    SESSION_CATCHUP,   /* reads the journal from `scan` on */
    SESSION_LIVE,      /* matched as messages are published */
    SESSION_ENDED      /* nothing of it is left but subscriptions, in server.leaving */
};

/* The newest publish of a session. The table of origins may forget a quiet one, which would then be
 * taken for a new one when it repeats a SUBMIT on its living connection. */
struct session_published {
    uint64_t origin, sequence, id;
};

struct session {
    uint64_t id; /* drawn by the client */
    uint64_t generation;
    struct server *server;
    struct connection *connection;
    TAILQ_ENTRY(session) of_connection, dirty_entry, catchup_entry;
    struct session *chain; /* in the session table */
    struct subscriber subscriber;
    size_t name_bytes; /* of its channels and patterns */
    uint64_t origin;
    uint32_t pid;
    struct session_published published;
    enum session_mode mode;
    bool simple, is_dirty, is_catching_up;
    bool lingers;          /* ENDED: as of session_end */
    struct engine *engine; /* NULL: a member */
    uint32_t engine_hash;  /* 0: a member */
    char name[256];        /* terminated */

    uint64_t
        told; /* the position in the last FETCH reply: what the client has, once it handled it */
    uint64_t settled;             /* up to here nothing is missing: it was sent or did not match */
    uint64_t match_serial;        /* the last look-up that found it, so that it is queued once */
    uint64_t submit_serial;       /* the last SUBMIT that reached it */
    uint64_t scan;                /* catch-up: position of the next record to look at */
    uint64_t scanned;             /* catch-up: id of the last one that was looked at */
    uint64_t gap_first, gap_last; /* a GAP not told yet; 0, 0: none */

    struct run *runs; /* RUNS_MAX, a ring */
    uint32_t run_start, run_count;
    uint64_t queued_bytes;
    uint64_t held_bytes; /* that were queued when it last waited for more; 0: it does not wait */

    struct credit credits[CREDITS_MAX]; /* a ring */
    uint32_t credit_start, credit_count;
};

/* Sessions by id. Zeroed is empty. */
struct session_table {
    struct session **buckets;
    size_t bucket_count, count;
    uint64_t seed;
};

struct session *session_find(const struct session_table *table, uint64_t id);

/* A new session in the table, in mode ATTACHING, on that connection; NULL: memory is out. */
struct session *session_new(struct server *server, uint64_t id, struct connection *connection);

/* Ends it: queue and credits are gone, nobody finds it any more. lingers: its interest is told to
 * engines for 5 s more (a cut link), else at once (DETACH). Its subscriptions go now, and s with
 * them; of a session that has very many, the rest in the next turns, and its connection's struct
 * and account stay until then. Not from within a match callback. */
void session_end(struct session *s, bool lingers);

/* The next of what is left of sessions that ended. true: there is more. */
bool session_end_step(struct server *server);

/* Puts it on another connection; its credits belonged to the old one and are dropped. */
void session_move(struct session *s, struct connection *connection);

/* As it is before the first part of its list: ATTACHING, nothing queued. */
void session_begin(struct session *s);

/* Delivery starts, or starts over, behind `position`: nothing queued, catch-up if the journal has
 * more, a GAP first if it does not reach back that far. position is at most the journal's last id.
 */
void session_seek(struct session *s, uint64_t position);

/* Messages from first_id on, of which it wants each, go to this session, which is LIVE. */
void session_queue(struct session *s, const struct run *run, uint64_t first_id);

/* As session_queue for catch-up: false when the queue is full. Does not note the session as dirty.
 */
bool session_append_run(struct session *s, const struct run *run, uint64_t first_id);

/* Does the record at `position` lie behind the run, in the same lap of the ring? */
static inline bool run_is_followed(const struct run *run, uint64_t position,
                                   const struct journal *journal)
{
    return run->position + run->size == position && position != journal->lap;
}

/* Throws the queue away, notes what is lost as GAP, and goes on from the middle of the ring. */
void session_lapped(struct session *s);

/* Has the ring overwritten what the queue points at? */
bool session_is_lapped(const struct session *s);

/* Parks a FETCH. A credit with the same backtrace is replaced; a SIMPLE session keeps only this
 * one. false: no room. */
bool session_park(struct session *s, const uint8_t *backtrace, size_t size);

/* It has something to send: answered at the end of this turn. */
void session_mark_dirty(struct session *s);

/* Like it, in the next turn, which then comes at once. Only while the sessions are flushed. */
void session_hold(struct session *s);

/* Answers credits as long as there is something to send and the socket takes it; a small rest
 * behind a full batch is held, and so is less than two batches while much comes in for it. When
 * more than WIRE_SMALL_BATCH bytes are to be sent, credits above WIRE_FULL_CREDITS are answered
 * first, with empty batches. */
void session_flush(struct session *s);

/* Answers the oldest credit with an empty batch: a heartbeat or one credit too many (STATUS_OK), or
 * why no more will come. */
void session_answer_empty(struct session *s, unsigned status);

/* Heartbeats of credits that were parked too long. */
void session_tick(struct session *s);

/* Messages in its queue. */
uint64_t session_queued(const struct session *s);

/* The position to put into a FETCH reply now. */
uint64_t session_position(const struct session *s);

static inline bool session_has_output(const struct session *s)
{
    return s->run_count > 0 || s->gap_last != 0 ||
           (s->engine != NULL && s->mode != SESSION_ATTACHING && engine_has_output(s->engine));
}

/* catchup.c: for at most 1 ms, reads the journal on for the sessions in catch-up, in turn. Returns
 * whether there is more to do at once. */
bool catchup_step(struct server *server);

/* Puts a session in mode CATCHUP (back) in line, if it has credits to fill. */
void catchup_schedule(struct session *s);

#endif
