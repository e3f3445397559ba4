#include "bytes.h"
#include "requests.h"
#include "server.h"

/* What ended sessions still have is counted, but not against who comes back: it leaves first. */
static void make_room(const struct session *s, size_t length)
{
    const struct peer_account *account = s->connection->account;
    while (!TAILQ_EMPTY(&s->server->leaving) &&
           !(peers_may_take(s->server, account, PEER_SUBSCRIPTIONS, 1) &&
             peers_may_take(s->server, account, PEER_BYTES, length)))
        session_end_step(s->server);
}

/* One subscription more of that name's length. */
static bool hold(struct session *s, size_t length)
{
    struct connection *c = s->connection;
    make_room(s, length);
    if (!peers_take(s->server, c->account, PEER_SUBSCRIPTIONS, 1, c->peer))
        return false;
    if (peers_take(s->server, c->account, PEER_BYTES, length, c->peer))
        return true;
    peers_give(c->account, PEER_SUBSCRIPTIONS, 1);
    return false;
}

static enum status subscribe(struct session *s, const struct wire_record *record)
{
    struct subscription *subscription;
    bool created;
    if (s->name_bytes + record->channel_length > NAMES_MAX) {
        static struct log_limit limit;
        log_limited(&limit, 1, LOG_LEVEL_WARN,
                    "a subscription of %s is refused: its session's names take 64 MiB",
                    s->connection->peer);
        return STATUS_FULL;
    }
    enum status status = subscriptions_subscribe(
        s->server->subscriptions, record->channel, record->channel_length,
        (record->flags & WIRE_PATTERN) != 0, &s->subscriber, s, &subscription, &created);
    if (status != STATUS_OK || !created)
        return status;
    if (!hold(s, record->channel_length)) {
        subscriptions_remove(s->server->subscriptions, subscription);
        return STATUS_FULL;
    }
    s->name_bytes += record->channel_length;
    if (s->engine_hash == 0)
        engines_note_interest(s->server, subscription->key);
    return STATUS_OK;
}

static void remove_one(struct session *s, struct subscription *subscription, bool lingers)
{
    s->name_bytes -= subscription->key->length;
    peers_give(s->connection->account, PEER_SUBSCRIPTIONS, 1);
    peers_give(s->connection->account, PEER_BYTES, subscription->key->length);
    if (s->engine_hash == 0)
        engines_note_leaving(s->server, subscription->key, lingers);
    subscriptions_remove(s->server->subscriptions, subscription);
}

static void unsubscribe(struct session *s, const struct wire_record *record)
{
    struct subscription *subscription =
        subscriptions_find(s->server->subscriptions, record->channel, record->channel_length,
                           (record->flags & WIRE_PATTERN) != 0, &s->subscriber);
    if (subscription != NULL)
        remove_one(s, subscription, false);
}

bool unsubscribe_some(struct session *s, uint32_t count, bool lingers)
{
    for (; count > 0 && s->subscriber.first != NULL; count--)
        remove_one(s, s->subscriber.first, lingers);
    return s->subscriber.first == NULL;
}

enum status subscribe_records(struct session *s, const uint8_t *records, size_t length,
                              uint32_t count, uint32_t *done)
{
    for (*done = 0; *done < count; ++*done) {
        struct wire_record record;
        size_t used;
        enum status status = STATUS_OK;
        if (wire_record_decode(records, length, &record, &used) != STATUS_OK)
            return STATUS_MALFORMED;
        if (record.type == WIRE_SUBSCRIBE)
            status = subscribe(s, &record);
        else if (record.type == WIRE_UNSUBSCRIBE)
            unsubscribe(s, &record);
        else
            return STATUS_MALFORMED;
        if (status != STATUS_OK)
            return status;
        records += used;
        length -= used;
    }
    return length == 0 ? STATUS_OK : STATUS_MALFORMED;
}

void subscribe_handle(const struct request *r)
{
    if (r->session == NULL) {
        request_answer(r, STATUS_NOT_ATTACHED, 0, 0, 0);
        return;
    }
    uint32_t done;
    enum status status =
        subscribe_records(r->session, r->body, r->length, r->header.records, &done);
    request_answer(r, status, 0, done, done);
    if (status == STATUS_MALFORMED)
        connection_close_after_replies(r->connection, CLOSE_REQUEST);
    else if (status == STATUS_CHANNEL_LENGTH)
        connection_close_after_replies(r->connection, CLOSE_CHANNEL);
}
