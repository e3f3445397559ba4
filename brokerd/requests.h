#ifndef BROKERD_REQUESTS_H
#define BROKERD_REQUESTS_H

/*
 * One request: decoded in place, dispatched, answered. Each operation's file implements one
 * function of the same shape; a reply is written (connection_reply) or, for FETCH, its credit
 * parked.
 */
#include "wire.h"
#include <stddef.h>
#include <stdint.h>

struct connection;
struct server;
struct session;

struct request {
    struct server *server;
    struct connection *connection;
    struct session *session; /* the one it names if attached on this connection, else NULL */
    struct wire_request header;
    const uint8_t *backtrace;
    size_t backtrace_size;
    const uint8_t *body; /* behind the request header */
    size_t length;
};

/* Executes one SP message. The bytes are only read and not kept. */
void requests_handle(struct connection *connection, const uint8_t *message, size_t length);

/* Answers with a bare reply. */
void request_answer(const struct request *r, unsigned status, unsigned flags, uint64_t value,
                    uint32_t records);

/* Answers with a reply and size bytes behind it, which the caller fills; NULL: the connection is
 * gone. */
uint8_t *request_answer_block(const struct request *r, unsigned status, unsigned flags,
                              uint64_t value, size_t size);

/* attach.c: ATTACH, DETACH, RESET. */
void attach_handle(const struct request *r);
void detach_handle(const struct request *r);
void reset_handle(const struct request *r);

/* publish.c: SUBMIT with publishes. */
void publish_handle(const struct request *r);

/* publish.c: the highest sequence taken of that origin, as far as the table or the session (NULL:
 * none) remembers; 0 when it is unknown. *id: of that message. */
uint64_t publish_known(const struct server *server, const struct session *s, uint64_t origin,
                       uint64_t *id);

/* subscribe.c: SUBMIT with SUBSCRIBE and UNSUBSCRIBE records. */
void subscribe_handle(const struct request *r);

/* query.c: QUERY. */
void query_handle(const struct request *r);

/* subscribe.c, for ATTACH too: executes the SUBSCRIBE (and UNSUBSCRIBE) records. *done: how many
 * were; the result is STATUS_OK or why the next one was not. */
enum status subscribe_records(struct session *s, const uint8_t *records, size_t length,
                              uint32_t count, uint32_t *done);

/* subscribe.c: removes up to `count` of a session's subscriptions. true: none is left. */
bool unsubscribe_some(struct session *s, uint32_t count, bool lingers);

#endif
