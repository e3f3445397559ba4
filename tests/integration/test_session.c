/* Sessions as the bytes show them: ATTACH, SUBMIT, FETCH, fan-out, links that replace one another.
 */
#include "harness.h"

static struct broker b;

static void start(void)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
}
static void end(void)
{
    broker_end(&b);
}

TestSuite(session, .init = start, .fini = end, .timeout = 120);

/* Fetches with a credit parked and returns the first record of the batch. */
static struct wire_record fetch_one(struct peer *p, uint64_t session, struct answer *a)
{
    struct wire_record record;
    *a = peer_ask(p, WIRE_FETCH, 0, session, 0, NULL);
    cr_assert(a->reply.status == STATUS_OK);
    cr_assert(answer_record(a, &record), "an empty batch");
    return record;
}

Test(session, a_message_reaches_every_session_that_wants_it_once)
{
    struct peer publisher = peer_open(&b), exact = peer_open(&b), both = peer_open(&b),
                other = peer_open(&b);
    struct answer a;
    peer_join(&publisher, 1, NULL);
    peer_join(&exact, 2, "news.de");
    peer_join(&both, 3, "news.*");
    struct body more = {0};
    body_name(&more, WIRE_SUBSCRIBE, "news.de", false);
    cr_assert(peer_ask(&both, WIRE_SUBMIT, 0, 3, 0, &more).reply.status == STATUS_OK);
    peer_join(&other, 4, "weather");
    a = peer_publish(&publisher, 1, 77, 1, "news.de", "hello");
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.value, 1);
    cr_assert_eq(a.reply.records, 2, "sessions reached");
    struct wire_record record = fetch_one(&exact, 2, &a);
    cr_assert(record_is(&record, "news.de", "hello"));
    cr_assert_eq(record.type, WIRE_MESSAGE);
    cr_assert_eq(record.id, 1);
    cr_assert_eq(record.origin, 77);
    cr_assert_eq(a.reply.value, 1, "the position");
    record = fetch_one(&both, 3, &a);
    cr_assert(!answer_record(&a, &record), "queued twice for two subscriptions");
    /* the other one gets only what comes next */
    peer_publish(&publisher, 1, 77, 2, "weather", "rain");
    record = fetch_one(&other, 4, &a);
    cr_assert(record_is(&record, "weather", "rain"));
}

Test(session, parked_fetch_is_answered_when_a_message_comes_rule_6)
{
    struct peer p = peer_open(&b);
    struct answer a;
    peer_join(&p, 9, "self");
    uint32_t fetch = peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    a = peer_publish(&p, 9, 5, 1, "self", "own"); /* the reply comes before the batch */
    cr_assert_eq(a.reply.head, 1);
    struct wire_record record;
    a = peer_answer(&p, fetch);
    cr_assert(answer_record(&a, &record) && record_is(&record, "self", "own"));
}

Test(session, rule_6_subscribe_then_publish_sees_its_own_message)
{
    struct peer p = peer_open(&b);
    struct answer a;
    peer_join(&p, 9, NULL);
    struct body subscribe = {0}, publish = {0};
    body_name(&subscribe, WIRE_SUBSCRIBE, "x", false);
    body_publish(&publish, 4, 1, "x", "y", 1);
    uint32_t first = peer_request(&p, WIRE_SUBMIT, 0, 9, 0, &subscribe);
    uint32_t second = peer_request(&p, WIRE_SUBMIT, 0, 9, 0, &publish);
    uint32_t third = peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    cr_assert_eq(peer_answer(&p, first).reply.head, 0, "the label is below the message's id");
    peer_answer(&p, second);
    a = peer_answer(&p, third);
    cr_assert_eq(a.reply.records, 1);
}

Test(session, unsubscribed_gets_no_more)
{
    struct peer p = peer_open(&b);
    struct answer a;
    peer_join(&p, 9, "x");
    struct body gone = {0};
    body_name(&gone, WIRE_UNSUBSCRIBE, "x", false);
    cr_assert_eq(peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &gone).reply.status, STATUS_OK);
    a = peer_publish(&p, 0, 4, 1, "x", "y");
    cr_assert_eq(a.reply.records, 0);
}

Test(session, request_for_a_session_of_another_connection_gets_not_attached_and_is_not_executed)
{
    struct peer owner = peer_open(&b), stranger = peer_open(&b);
    peer_join(&owner, 9, "x");
    cr_assert_eq(peer_publish(&stranger, 9, 5, 1, "x", "y").reply.status, STATUS_NOT_ATTACHED);
    cr_assert_eq(peer_ask(&stranger, WIRE_FETCH, 0, 9, 0, NULL).reply.status, STATUS_NOT_ATTACHED);
    cr_assert_eq(peer_ask(&stranger, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.head, 0);
}

Test(session, unknown_version_is_answered_with_the_range_and_unknown_operation_refused)
{
    struct peer p = peer_open(&b);
    uint32_t id = p.next_id++;
    peer_send(&p, id, &(struct wire_request){.version = 9, .operation = WIRE_FETCH}, NULL, 0, NULL);
    struct answer a = peer_answer(&p, id);
    cr_assert_eq(a.reply.status, STATUS_VERSION);
    cr_assert_eq(a.reply.value & 0xffff, 0x0101);
    cr_assert_eq(peer_ask(&p, 99, 0, 0, 0, NULL).reply.status, STATUS_UNKNOWN_OPERATION);
}

Test(session, backtrace_of_devices_is_echoed)
{
    struct peer p = peer_open(&b);
    uint8_t message[SP_PREFIX_MAX + 12 + WIRE_REQUEST_SIZE], reply[9 + 12 + WIRE_REPLY_SIZE];
    size_t at = sp_prefix_encode(message, SP_IPC, 12 + WIRE_REQUEST_SIZE);
    put_u32be(message + at, 0x00000007);
    put_u32be(message + at + 4, 0x01020304);
    put_u32be(message + at + 8, 0x80000042);
    wire_request_encode(message + at + 12,
                        &(struct wire_request){.version = WIRE_VERSION, .operation = 99});
    write_all(p.fd, message, sizeof(message));
    cr_assert(read_all(p.fd, reply, sizeof(reply)));
    cr_assert_arr_eq(reply + 9, message + at, 12);
}

Test(session, rule_17_newer_generation_ends_the_older_link_and_lower_is_refused)
{
    struct peer old = peer_open(&b), fresh = peer_open(&b), late = peer_open(&b);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false);
    struct attaching attach = {.session = 9, .generation = 5};
    cr_assert_eq(peer_attach(&old, &attach, &list).reply.status, STATUS_OK);
    attach.generation = 6;
    cr_assert_eq(peer_attach(&fresh, &attach, &list).reply.status, STATUS_OK);
    expect_closed(old.fd);
    attach.generation = 5;
    struct answer a = peer_attach(&late, &attach, &list);
    cr_assert_eq(a.reply.status, STATUS_STALE);
    cr_assert_eq(a.reply.value, 6);
    a = peer_publish(&late, 0, 4, 1, "x", "y");
    cr_assert_eq(a.reply.records, 1, "the refused ATTACH hurt the session");
    broker_log_has(&b, "a newer link of the same process took over");
}

Test(session, rule_17_equal_generation_is_answered_again)
{
    struct peer p = peer_open(&b);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false);
    struct attaching attach = {.session = 9, .generation = 1};
    cr_assert_eq(peer_attach(&p, &attach, &list).reply.status, STATUS_OK);
    uint32_t fetch = peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    cr_assert_eq(peer_attach(&p, &attach, &list).reply.status, STATUS_OK);
    peer_publish(&p, 0, 4, 1, "x", "y");
    cr_assert_eq(peer_answer(&p, fetch).reply.records, 1);
}

Test(session, rule_17_session_ends_with_its_link)
{
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    peer_close(&p);
    broker_log_has(&b, "ended with its link");
    cr_assert_eq(peer_publish(&other, 0, 4, 1, "x", "y").reply.records, 0);
}

Test(session, rule_9_list_in_parts_delivers_nothing_before_the_last)
{
    struct peer p = peer_open(&b), other = peer_open(&b);
    struct body first = {0}, second = {0};
    body_name(&first, WIRE_SUBSCRIBE, "x", false);
    body_name(&second, WIRE_SUBSCRIBE, "z", false);
    struct attaching attach = {.session = 9, .generation = 1, .flags = WIRE_MORE};
    cr_assert_eq(peer_attach(&p, &attach, &first).reply.status, STATUS_OK);
    uint32_t fetch = peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    peer_publish(&other, 0, 4, 1, "x", "early");
    attach.flags = 0;
    struct answer a = peer_attach(&p, &attach, &second);
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.head, 1);
    peer_publish(&other, 0, 4, 2, "x", "later");
    a = peer_answer(&p, fetch);
    struct wire_record record;
    cr_assert(answer_record(&a, &record));
    cr_assert(record_is(&record, "x", "later"));
    cr_assert_eq(peer_publish(&other, 0, 4, 3, "z", "too").reply.records, 1);
}

Test(session, malformed_pattern_is_refused_and_says_which)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, NULL);
    struct body names = {0};
    body_name(&names, WIRE_SUBSCRIBE, "good*", true);
    body_name(&names, WIRE_SUBSCRIBE, "bad[", true);
    struct answer a = peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &names);
    cr_assert_eq(a.reply.status, STATUS_PATTERN);
    cr_assert_eq(a.reply.value, 1);
}

Test(session, detach_ends_it)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    uint32_t fetch = peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    uint32_t detach = peer_request(&p, WIRE_DETACH, 0, 9, 0, NULL);
    cr_assert_eq(peer_answer(&p, fetch).reply.status, STATUS_GOING_AWAY);
    cr_assert_eq(peer_answer(&p, detach).reply.status, STATUS_OK);
    cr_assert_eq(peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL).reply.status, STATUS_NOT_ATTACHED);
}

Test(session, replayed_request_id_replaces_the_parked_one)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    struct wire_request fetch = {.version = 1, .operation = WIRE_FETCH, .session = 9};
    for (int i = 0; i < 1000; i++)
        peer_send(&p, 0x80001234, &fetch, NULL, 0, NULL);
    peer_publish(&p, 0, 4, 1, "x", "y");
    cr_assert_eq(peer_answer(&p, 0x80001234).reply.records, 1);
    cr_assert_eq(peer_publish(&p, 0, 4, 2, "x", "y").id, p.next_id - 1, "no second credit");
}

Test(session, rule_19_heartbeat_after_5_s)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    int64_t start_at = now_ms();
    struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
    cr_assert_eq(a.reply.records, 0);
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert(now_ms() - start_at >= 4400 && now_ms() - start_at <= 7000);
}

/* Their position is what the session has, not what waits. */
Test(session, more_than_eight_credits_are_for_small_batches_and_returned_before_a_large_one)
{
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    uint32_t first = 0;
    for (int i = 0; i < 12; i++) {
        uint32_t id = peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
        first = i == 0 ? id : first;
    }
    cr_assert_eq(peer_publish(&other, 0, 7, 1, "x", "small").reply.value, 1);
    cr_assert_eq(peer_answer(&p, first).reply.records, 1);
    static char payload[1000];
    struct body many = {0};
    for (uint64_t i = 2; i <= 11; i++)
        body_publish(&many, 7, i, "x", payload, sizeof(payload));
    cr_assert_eq(peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &many).reply.value, 11);
    for (uint32_t i = 1; i <= 3; i++) {
        struct answer empty = peer_answer(&p, first + i);
        cr_assert_eq(empty.reply.records, 0);
        cr_assert_eq(empty.reply.status, STATUS_OK);
        cr_assert_eq(empty.reply.value, 1);
    }
    struct answer large = peer_answer(&p, first + 4);
    cr_assert_eq(large.reply.records, 10);
    cr_assert_eq(large.reply.value, 11);
    cr_assert_eq(peer_publish(&other, 0, 7, 12, "x", "small").reply.value, 12);
    cr_assert_eq(peer_answer(&p, first + 5).reply.records, 1);
    body_reset(&many);
}

Test(session, a_batch_is_at_most_128_kib)
{
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    struct body many = {0};
    static char payload[1000];
    for (uint64_t i = 1; i <= 1000; i++)
        body_publish(&many, 4, i, "x", payload, sizeof(payload));
    cr_assert_eq(peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &many).reply.value, 1000);
    uint64_t last = 0;
    while (last < 1000) {
        struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
        cr_assert_leq(a.length, WIRE_BATCH_SIZE);
        struct wire_record record;
        while (answer_record(&a, &record)) {
            cr_assert_eq(record.id, last + 1);
            last = record.id;
        }
        cr_assert_eq(a.reply.value, last);
    }
}

Test(session, one_large_message_over_the_batch_size_and_over_the_limit)
{
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    static char payload[(8 << 20) + 1];
    memset(payload, 'x', sizeof(payload));
    struct body large = {0}, larger = {0};
    body_publish(&large, 4, 1, "x", payload, 8 << 20);
    body_publish(&larger, 4, 2, "x", payload, (8 << 20) + 1);
    cr_assert_eq(peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &large).reply.status, STATUS_OK);
    cr_assert_eq(peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &larger).reply.status, STATUS_TOO_LARGE);
    struct answer a;
    struct wire_record record = fetch_one(&p, 9, &a);
    cr_assert_eq(record.payload_length, 8u << 20);
    cr_assert_arr_eq(record.payload, payload, 8 << 20);
    cr_assert_eq(record.checksum, wire_record_checksum(record.channel - WIRE_RECORD_SIZE));
}

Test(session, message_that_arrives_one_byte_at_a_time)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    struct body body = {0};
    body_publish(&body, 4, 1, "x", "y", 1);
    uint8_t message[256];
    size_t length = 4 + WIRE_REQUEST_SIZE + buffer_length(&body.bytes);
    size_t at = sp_prefix_encode(message, SP_IPC, length);
    put_u32be(message + at, 0x80005555);
    wire_request_encode(
        message + at + 4,
        &(struct wire_request){.version = 1, .operation = WIRE_SUBMIT, .records = 1, .session = 9});
    memcpy(message + at + 28, buffer_bytes(&body.bytes), buffer_length(&body.bytes));
    for (size_t i = 0; i < at + length; i++)
        write_all(p.fd, message + i, 1);
    cr_assert_eq(peer_answer(&p, 0x80005555).reply.records, 1);
}

Test(session, query_tables)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "news.*");
    struct answer a = peer_ask(&p, WIRE_QUERY, WIRE_STATS, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "\nsessions\t1\n", 12) != NULL);
    a = peer_ask(&p, WIRE_QUERY, WIRE_SESSIONS, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "0000000000000009\tmember\ttest\t", 29) != NULL);
    a = peer_ask(&p, WIRE_QUERY, WIRE_CHANNELS, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "pattern\tnews.*\t1\n", 17) != NULL);
    struct body filter = {0};
    body_name(&filter, WIRE_SUBSCRIBE, "weather*", true);
    a = peer_ask(&p, WIRE_QUERY, WIRE_CHANNELS, 0, 0, &filter);
    cr_assert(memmem(a.bytes, a.length, "news", 4) == NULL);
    a = peer_ask(&p, WIRE_QUERY, WIRE_ENGINES, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "name\t", 5) != NULL);
    a = peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "version\t", 8) != NULL);
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, 77, 0, 0, NULL).reply.status, STATUS_UNKNOWN_OPERATION);
}

static unsigned long channels_of(struct answer a)
{
    const char *row = memmem(a.bytes, a.length, "\nchannels\t", 10);
    cr_assert(row != NULL);
    return strtoul(row + 10, NULL, 10);
}

static void subscribe_to(struct peer *p, uint64_t session, unsigned count)
{
    struct body body = {0};
    char name[16];
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        body_name(&body, WIRE_SUBSCRIBE, name, false);
    }
    cr_assert_eq(peer_ask(p, WIRE_SUBMIT, 0, session, 0, &body).reply.records, count);
    body_reset(&body);
}

static void wait_for_channels(struct peer *p, unsigned long count)
{
    int64_t until = now_ms() + DEADLINE_MS;
    while (channels_of(peer_ask(p, WIRE_QUERY, WIRE_STATS, 0, 0, NULL)) != count)
        cr_assert_lt(now_ms(), until);
}

Test(session, very_many_subscriptions_leave_by_and_by_and_nobody_waits_for_them)
{
    enum { MANY = 20000 };
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, NULL);
    subscribe_to(&p, 9, MANY);
    peer_hold(&p);
    uint32_t detach = peer_request(&p, WIRE_DETACH, 0, 9, 0, NULL);
    uint32_t stats = peer_request(&p, WIRE_QUERY, WIRE_STATS, 0, 0, NULL);
    peer_let_go(&p);
    cr_assert_eq(peer_answer(&p, detach).reply.status, STATUS_OK);
    unsigned long left = channels_of(peer_answer(&p, stats));
    cr_assert(left > 0 && left < MANY, "%lu left", left);
    cr_assert_eq(peer_publish(&other, 0, 7, 1, "c1", "x").reply.records, 0, "it is gone");
    wait_for_channels(&other, 0);
    /* with the link; and who comes back meanwhile has its own */
    peer_join(&p, 9, NULL);
    subscribe_to(&p, 9, MANY);
    peer_close(&p);
    for (uint64_t n = 1; peer_publish(&other, 0, 8, n, "c1", "x").reply.records != 0; n++)
        ;
    p = peer_open(&b);
    peer_join(&p, 9, "c1");
    cr_assert_eq(peer_publish(&other, 0, 9, 1, "c1", "x").reply.records, 1);
    wait_for_channels(&other, 1);
    cr_assert_eq(peer_publish(&other, 0, 10, 1, "c1", "x").reply.records, 1);
}

/* A list of a million names must not hold the broker up when a newer link brings another. */
Test(session, rule_17_very_many_subscriptions_of_the_older_link_leave_by_and_by)
{
    enum { MANY = 20000 };
    struct peer old = peer_open(&b), fresh = peer_open(&b), other = peer_open(&b);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "c1", false);
    body_name(&list, WIRE_SUBSCRIBE, "own", false);
    struct attaching attach = {.session = 9, .generation = 1, .origin = 77};
    cr_assert_eq(peer_attach(&old, &attach, NULL).reply.status, STATUS_OK);
    subscribe_to(&old, 9, MANY);
    cr_assert_eq(peer_publish(&old, 9, 77, 1, "x", "x").reply.status, STATUS_OK);
    attach.generation = 2;
    peer_hold(&fresh);
    uint32_t attached = peer_attach_request(&fresh, &attach, &list);
    uint32_t stats = peer_request(&fresh, WIRE_QUERY, WIRE_STATS, 0, 0, NULL);
    peer_let_go(&fresh);
    struct answer a = peer_answer(&fresh, attached);
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.value, 1, "what it published is known");
    unsigned long left = channels_of(peer_answer(&fresh, stats));
    cr_assert(left > 2 && left < MANY, "%lu left", left);
    expect_closed(old.fd);
    cr_assert_eq(peer_publish(&other, 0, 7, 1, "c1", "x").reply.records, 1, "the new list counts");
    cr_assert_eq(peer_publish(&other, 0, 8, 1, "c2", "x").reply.records, 0, "the old one does not");
    wait_for_channels(&other, 2);
    cr_assert_eq(peer_publish(&other, 0, 9, 1, "c1", "x").reply.records, 1);
    cr_assert_eq(peer_publish(&fresh, 9, 77, 1, "own", "again").reply.value, a.reply.head);
    body_reset(&list);
}
