#include "requests.h"

#include "server.h"

uint8_t *request_answer_block(const struct request *r, unsigned status, unsigned flags,
                              uint64_t value, size_t size)
{
    uint8_t *out =
        connection_reply(r->connection, r->backtrace, r->backtrace_size, WIRE_REPLY_SIZE + size);
    if (out == NULL)
        return NULL;
    wire_reply_encode(out, &(struct wire_reply){.version = WIRE_VERSION,
                                                .operation = r->header.operation,
                                                .status = (uint8_t)status,
                                                .flags = (uint8_t)flags,
                                                .epoch = r->server->journal.header->epoch,
                                                .head = r->server->journal.last_id,
                                                .value = value});
    return out + WIRE_REPLY_SIZE;
}

/* A limit that does not end the connection; at most once a second for each. */
static void log_refusal(const struct request *r, unsigned status)
{
    static struct log_limit too_large, version;
    if (status == STATUS_TOO_LARGE)
        log_limited(&too_large, 1, LOG_LEVEL_WARN,
                    "a message of %s is refused: larger than --max-message or a quarter of the "
                    "journal",
                    r->connection->peer);
    else if (status == STATUS_VERSION)
        log_limited(&version, 1, LOG_LEVEL_WARN,
                    "a request of %s is refused: it is of protocol version %u, this broker speaks "
                    "%d",
                    r->connection->peer, r->header.version, WIRE_VERSION);
}

void request_answer(const struct request *r, unsigned status, unsigned flags, uint64_t value,
                    uint32_t records)
{
    uint8_t *behind = request_answer_block(r, status, flags, value, 0);
    if (behind == NULL)
        return;
    uint8_t *records_field = behind - WIRE_REPLY_SIZE + 4;
    for (int i = 0; i < 4; i++)
        records_field[i] = (uint8_t)(records >> (8 * i));
    struct counters *counters = &r->server->counters;
    if (status == STATUS_NOT_ATTACHED)
        counters->not_attached++;
    else if (status == STATUS_OUT_OF_ORDER)
        counters->out_of_order++;
    else if (status != STATUS_OK)
        counters->refused++;
    log_refusal(r, status);
}

/* A credit: parked until there is something to deliver. */
static void fetch_handle(const struct request *r)
{
    struct session *s = r->session;
    if (s->simple && s->mode != SESSION_ATTACHING && r->header.position != s->told) {
        if (r->header.position > r->server->journal.last_id) {
            request_answer(r, STATUS_MALFORMED, 0, s->told, 0);
            return;
        }
        session_seek(s, r->header.position);
    }
    if (s->engine != NULL && s->simple)
        engine_fetches(s, r->backtrace, r->backtrace_size);
    if (!session_park(s, r->backtrace, r->backtrace_size) ||
        r->connection->parked > OUTSTANDING_MAX) {
        connection_close(r->connection, CLOSE_OUTSTANDING, NULL);
        return;
    }
    if (session_has_output(s))
        session_mark_dirty(s);
    catchup_schedule(s);
}

/* What the first record is decides what all have to be. */
static void submit_handle(const struct request *r)
{
    struct wire_record first;
    size_t used;
    if (r->header.records == 0 ||
        wire_record_decode(r->body, r->length, &first, &used) != STATUS_OK) {
        request_answer(r, STATUS_MALFORMED, 0, 0, 0);
        connection_close_after_replies(r->connection, CLOSE_REQUEST);
    } else if (first.type == WIRE_PUBLISH) {
        publish_handle(r);
    } else {
        subscribe_handle(r);
    }
}

static struct session *session_of(const struct connection *c, uint64_t id)
{
    struct session *s;
    TAILQ_FOREACH(s, &c->sessions, of_connection)
    {
        if (s->id == id)
            return s;
    }
    return NULL;
}

static void dispatch(struct request *r)
{
    if (r->server->secret != NULL && !r->connection->challenge.passed &&
        r->header.operation != WIRE_ATTACH) {
        request_answer(r, STATUS_AUTH, 0, 0, 0);
        return;
    }
    r->session = session_of(r->connection, r->header.session);
    bool needs_session = r->header.operation == WIRE_FETCH ||
                         (r->header.session != 0 && (r->header.operation == WIRE_SUBMIT ||
                                                     r->header.operation == WIRE_DETACH ||
                                                     r->header.operation == WIRE_RESET));
    if (needs_session && r->session == NULL) {
        request_answer(r, STATUS_NOT_ATTACHED, 0, 0, 0);
        return;
    }
    switch (r->header.operation) {
    case WIRE_ATTACH:
        attach_handle(r);
        break;
    case WIRE_DETACH:
        detach_handle(r);
        break;
    case WIRE_RESET:
        reset_handle(r);
        break;
    case WIRE_SUBMIT:
        submit_handle(r);
        break;
    case WIRE_FETCH:
        fetch_handle(r);
        break;
    case WIRE_QUERY:
        query_handle(r);
        break;
    default:
        request_answer(r, STATUS_UNKNOWN_OPERATION, 0, 0, 0);
    }
}

void requests_handle(struct connection *connection, const uint8_t *message, size_t length)
{
    struct request r = {
        .server = connection->server, .connection = connection, .backtrace = message};
    if (sp_backtrace_decode(message, length, &r.backtrace_size) != STATUS_OK) {
        connection_close(connection, CLOSE_BACKTRACE, NULL);
        return;
    }
    message += r.backtrace_size;
    length -= r.backtrace_size;
    switch (wire_request_decode(message, length, &r.header)) {
    case STATUS_OK:
        r.body = message + WIRE_REQUEST_SIZE;
        r.length = length - WIRE_REQUEST_SIZE;
        dispatch(&r);
        break;
    case STATUS_VERSION:
        request_answer(&r, STATUS_VERSION, 0, WIRE_VERSION | WIRE_VERSION << 8, 0);
        break;
    default:
        connection_close(connection, CLOSE_REQUEST, "shorter than a request header");
    }
}
