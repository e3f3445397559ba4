#ifndef TESTS_STATEFUL_MODEL_H
#define TESTS_STATEFUL_MODEL_H

/*
 * What the broker must do, said as plainly as can be: lists that are searched from the start, each
 * message kept whole, each subscription asked with glob_match. It uses the codec (which has tests
 * and a fuzz target of its own) and nothing else of what it checks. The ring's oldest id is the one
 * thing that it takes from the broker, to judge a GAP by it.
 *
 * model_request.c: what a request must do. model_reply.c: what a reply may say. model.c: peers,
 * time, and the comparison after each step.
 */
#include "../fuzz/in_process.h"
#include "bytes.h"
#include "glob.h"
#include "sp.h"
#include "wire.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    PEERS = 6,
    M_SESSIONS = 512,
    M_CREDITS = 64,
    M_NAMES = 1024, /* of one session, ever */
    M_EXPECTED = 512,
    M_LOG = 8192, /* messages kept; the ring holds at most 1,638 */
    M_ORIGINS = 65536
};

struct m_name {
    uint8_t *bytes;
    uint16_t length;
    bool is_pattern, on;
    uint64_t since; /* on: what has a higher id must come */
};

struct m_told { /* what an engine believes */
    uint8_t *bytes;
    uint16_t length;
    bool is_pattern;
    int64_t unwanted_since; /* 0: wanted */
};

struct m_credit {
    uint8_t backtrace[32];
    size_t size;
    int64_t since;
};

struct m_session {
    bool used, attaching, simple, is_engine;
    bool missed_interest; /* an engine that gave a FETCH up whose answer it had not read */
    uint64_t id, generation;
    int peer;
    char name[256];
    uint32_t hash; /* of an engine */
    uint64_t engine_serial;
    uint64_t position; /* what the client has handled */
    uint64_t clear;    /* no message up to here is missing */
    struct m_name names[M_NAMES];
    unsigned name_count;
    struct m_credit credits[M_CREDITS];
    unsigned credit_count;
    struct m_told told[M_NAMES];
    unsigned told_count;
};

struct m_expected { /* a reply that must come; value and records: only if they are known */
    uint8_t backtrace[32];
    size_t size;
    uint8_t operation, status, flags;
    bool has_value, has_records;
    bool is_optional; /* a credit that may have been answered already, unread */
    uint64_t value;
    uint32_t records;
};

enum m_peer_state { PEER_GONE, PEER_HELLO, PEER_OPEN, PEER_LAST, PEER_CLOSED };

struct m_peer {
    enum m_peer_state state;
    int fd;
    enum sp_transport transport;
    bool reads;
    bool lax;   /* it did not read lately: when things came is not known */
    bool stale; /* answers to credits that were dropped may still be on their way */
    int64_t opened, heard;
    struct buffer up;   /* sent and not a whole message yet */
    struct buffer down; /* received and not a whole message yet */
    bool greeted;       /* the broker's hello came */
    struct m_expected expected[M_EXPECTED];
    unsigned expected_count;
    unsigned sent_unread; /* requests since it last read */
};

struct m_message {
    uint64_t id;
    uint8_t *record; /* as the broker must send it */
    size_t size;
};

struct m_origin {
    uint64_t origin, sequence, id;
};

struct model {
    bool tracing;
    uint64_t step, seed, random;
    uint64_t epoch, head;
    uint32_t record_max, payload_max;
    struct m_peer peers[PEERS];
    struct m_session *sessions; /* M_SESSIONS */
    struct m_message log[M_LOG];
    struct m_origin origins[M_ORIGINS];
    unsigned origin_count;
    uint64_t engine_serial;
    struct {
        uint64_t requests, replies, delivered, gaps, heartbeats, interest, closed, restarts, jumps;
        uint64_t status[32];
    } counts;
};

extern struct model model;

unsigned pick(unsigned n); /* below n */
bool chance(unsigned one_in);
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void violated(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t model_now(void);

/* model.c */
void model_start(uint64_t seed);
void model_end(void);
void model_restart(void); /* the broker ends and comes back on its journal */
void model_jump(int64_t ms);
void model_compare(void);
void peer_connect(int peer, enum sp_transport transport);
void peer_send(int peer, const uint8_t *bytes, size_t length);
void peer_close(int peer);
void model_peer_lost(int peer); /* the broker's end is closed: its sessions end */

/* A request that is judged. */
struct asked {
    int peer;
    struct wire_request header;
    const uint8_t *backtrace;
    size_t backtrace_size;
    const uint8_t *body;
    size_t length;
    struct m_session *session;
};

/* model_request.c */
void model_message(int peer, const uint8_t *bytes, size_t length);
/* The reply to it that must come behind those waited for already. */
void model_expect(const struct asked *a, struct m_expected reply);
void model_expect_bare(const struct asked *a, unsigned status);
void model_expect_done(const struct asked *a, unsigned status, uint32_t done);
void model_last_reply(const struct asked *a); /* the connection ends behind it */

/* model_submit.c */
void model_submit(const struct asked *a);
uint64_t model_known(uint64_t origin); /* its last sequence; 0 none */
struct m_message *model_logged(uint64_t id);

/* model_session.c */
struct m_session *model_session(uint64_t id);
struct m_session *model_session_of(int peer, unsigned n); /* the n-th there, NULL: fewer */
struct m_session *model_session_new(uint64_t id, int peer);
void model_session_end(struct m_session *s);
unsigned model_sessions_of(int peer);
void model_drop_credits(struct m_session *s);
void model_drop_names(struct m_session *s);
void model_stop_being_engine(struct m_session *s);
/* Credits of the peer's sessions; fewer, if answers to them wait unread. */
unsigned model_parked(int peer);
/* Takes `count` records of names; *done of them were taken when the status is not STATUS_OK. */
unsigned model_do_names(struct m_session *s, const uint8_t *at, size_t length, uint32_t count,
                        uint32_t *done);
bool model_wants(const struct m_session *s, const struct m_message *m, bool must);

/* model_reply.c */
void model_reply(int peer, const uint8_t *bytes, size_t length);
/* Moves `clear` on as far as nothing is missing, at most to `until`. */
void model_look(struct m_session *s, uint64_t until);

#endif
