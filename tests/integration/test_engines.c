/* Engines over the socket: they are told all interest, and do not hear themselves. */
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

TestSuite(engines, .init = start, .fini = end, .timeout = 60);

static void engine_join(struct peer *p, uint64_t session, const char *name, const char *wants)
{
    struct body list = {0};
    if (wants != NULL)
        body_name(&list, WIRE_SUBSCRIBE, wants, true);
    struct attaching attach = {
        .session = session, .generation = 1, .flags = WIRE_ENGINE, .name = name};
    cr_assert_eq(peer_attach(p, &attach, &list).reply.status, STATUS_OK);
    body_reset(&list);
}

/* The next record that the engine is told, heartbeats aside. */
static void expect(struct peer *p, uint64_t session, uint8_t type, const char *name)
{
    struct answer a;
    struct wire_record record;
    int64_t until = now_ms() + DEADLINE_MS;
    do
        a = peer_ask(p, WIRE_FETCH, 0, session, 0, NULL);
    while (a.reply.records == 0 && now_ms() < until);
    cr_assert_eq(a.reply.records, 1);
    cr_assert(answer_record(&a, &record));
    cr_assert_eq(record.type, type, "type %u", record.type);
    cr_assert(record.channel_length == strlen(name) &&
                  memcmp(record.channel, name, strlen(name)) == 0,
              "about %.*s", record.channel_length, (const char *)record.channel);
}

static void submit_name(struct peer *p, uint64_t session, uint8_t type, const char *name)
{
    struct body body = {0};
    body_name(&body, type, name, strchr(name, '*') != NULL);
    cr_assert_eq(peer_ask(p, WIRE_SUBMIT, 0, session, 0, &body).reply.status, STATUS_OK);
    body_reset(&body);
}

Test(engines, present_and_future_interest_and_its_end)
{
    struct peer member = peer_open(&b), second = peer_open(&b), engine = peer_open(&b);
    peer_join(&member, 1, "present");
    peer_join(&second, 2, "present");
    engine_join(&engine, 9, "redis", NULL);
    expect(&engine, 9, WIRE_INTEREST, "present");
    submit_name(&member, 1, WIRE_SUBSCRIBE, "future*");
    expect(&engine, 9, WIRE_INTEREST, "future*");
    submit_name(&member, 1, WIRE_UNSUBSCRIBE, "present"); /* the second still wants it */
    submit_name(&member, 1, WIRE_UNSUBSCRIBE, "future*");
    expect(&engine, 9, WIRE_NO_INTEREST, "future*");
}

Test(engines, reset_tells_all_again)
{
    struct peer member = peer_open(&b), engine = peer_open(&b), ctl = peer_open(&b);
    peer_join(&member, 1, "x");
    engine_join(&engine, 9, "redis", NULL);
    expect(&engine, 9, WIRE_INTEREST, "x");
    cr_assert_eq(peer_ask(&engine, WIRE_RESET, 0, 9, 0, NULL).reply.status, STATUS_OK);
    expect(&engine, 9, WIRE_INTEREST, "x");
    struct body named = {0}, unknown = {0};
    body_name(&named, WIRE_SUBSCRIBE, "redis", false);
    body_name(&unknown, WIRE_SUBSCRIBE, "nats", false);
    cr_assert_eq(peer_ask(&ctl, WIRE_RESET, 0, 0, 0, &named).reply.status, STATUS_OK);
    expect(&engine, 9, WIRE_INTEREST, "x");
    cr_assert_eq(peer_ask(&ctl, WIRE_RESET, 0, 0, 0, &unknown).reply.status, STATUS_UNKNOWN_NAME);
    cr_assert_eq(peer_ask(&ctl, WIRE_DETACH, 0, 0, 0, &named).reply.status, STATUS_OK);
    cr_assert_eq(peer_ask(&engine, WIRE_FETCH, 0, 9, 0, NULL).reply.status, STATUS_NOT_ATTACHED);
}

Test(engines, rule_18_does_not_hear_its_own_messages_live_or_from_the_ring)
{
    struct peer member = peer_open(&b), engine = peer_open(&b);
    peer_join(&member, 1, "x");
    engine_join(&engine, 9, "redis", "*");
    expect(&engine, 9, WIRE_INTEREST, "x");
    cr_assert_eq(peer_publish(&engine, 9, 7, 1, "x", "own").reply.records, 1, "the member alone");
    peer_publish(&member, 1, 8, 1, "x", "foreign");
    expect(&engine, 9, WIRE_MESSAGE, "x");
    uint64_t epoch = engine.epoch;
    peer_close(&engine);
    engine = peer_open(&b);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "*", true);
    struct attaching attach = {.session = 9,
                               .generation = 2,
                               .flags = WIRE_ENGINE,
                               .name = "redis",
                               .epoch = epoch,
                               .position = 0};
    cr_assert_eq(peer_attach(&engine, &attach, &list).reply.status, STATUS_OK);
    struct wire_record record;
    uint64_t seen = 0, position = 0;
    while (position < 2) {
        struct answer a = peer_ask(&engine, WIRE_FETCH, 0, 9, 0, NULL);
        position = a.reply.value;
        while (answer_record(&a, &record))
            if (record.type == WIRE_MESSAGE) {
                cr_assert_eq(record.id, 2);
                seen++;
            }
    }
    cr_assert_eq(seen, 1);
}

Test(engines, of_one_name_are_one_engine_in_two_processes)
{
    struct peer member = peer_open(&b), first = peer_open(&b), second = peer_open(&b),
                other = peer_open(&b), ctl = peer_open(&b);
    peer_join(&member, 1, "x");
    engine_join(&first, 8, "bus", "*");
    engine_join(&second, 9, "bus", "*");
    engine_join(&other, 10, "other", "*");
    expect(&first, 8, WIRE_INTEREST, "x");
    expect(&second, 9, WIRE_INTEREST, "x");
    expect(&other, 10, WIRE_INTEREST, "x");
    cr_assert_eq(peer_publish(&first, 8, 7, 1, "x", "theirs").reply.records, 2,
                 "the member and the engine of another name (rule 18)");
    expect(&other, 10, WIRE_MESSAGE, "x");

    struct body named = {0};
    body_name(&named, WIRE_SUBSCRIBE, "bus", false);
    struct answer a = peer_ask(&ctl, WIRE_RESET, 0, 0, 0, &named);
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.value, 2);
    expect(&first, 8, WIRE_INTEREST, "x");
    expect(&second, 9, WIRE_INTEREST, "x");
    a = peer_ask(&ctl, WIRE_DETACH, 0, 0, 0, &named);
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.value, 2);
    cr_assert_eq(peer_ask(&first, WIRE_FETCH, 0, 8, 0, NULL).reply.status, STATUS_NOT_ATTACHED);
    cr_assert_eq(peer_ask(&second, WIRE_FETCH, 0, 9, 0, NULL).reply.status, STATUS_NOT_ATTACHED);
    cr_assert_eq(peer_ask(&ctl, WIRE_DETACH, 0, 0, 0, &named).reply.status, STATUS_UNKNOWN_NAME);
    body_reset(&named);
    submit_name(&member, 1, WIRE_SUBSCRIBE, "y");
    expect(&other, 10, WIRE_INTEREST, "y");
}

Test(engines, rule_17_interest_lingers_5_s_after_a_cut)
{
    struct peer member = peer_open(&b), engine = peer_open(&b);
    engine_join(&engine, 9, "redis", NULL);
    peer_join(&member, 1, "x");
    expect(&engine, 9, WIRE_INTEREST, "x");
    peer_close(&member);
    broker_log_has(&b, "ended with its link");
    member = peer_open(&b); /* back in time: nothing is told */
    peer_join(&member, 1, "x");
    submit_name(&member, 1, WIRE_SUBSCRIBE, "y");
    expect(&engine, 9, WIRE_INTEREST, "y");
    int64_t cut = now_ms();
    peer_close(&member);
    struct answer a;
    struct wire_record record;
    unsigned told = 0;
    while (told < 2) {
        a = peer_ask(&engine, WIRE_FETCH, 0, 9, 0, NULL);
        while (answer_record(&a, &record)) {
            cr_assert_eq(record.type, WIRE_NO_INTEREST);
            told++;
        }
    }
    cr_assert(now_ms() - cut >= 4000 && now_ms() - cut < 9000);
    peer_join(&engine, 10, NULL);
    a = peer_ask(&engine, WIRE_QUERY, WIRE_CHANNELS, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "\tx\t", 3) == NULL, "the key is kept for ever");
}

/* What it subscribed to as a member would be counted as interest for ever. */
Test(engines, an_attach_that_is_repeated_in_another_role_is_refused)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 77, "a");
    struct answer a = peer_attach(
        &p, &(struct attaching){.session = 77, .generation = 1, .flags = WIRE_ENGINE}, NULL);
    cr_assert_eq(a.reply.status, STATUS_MALFORMED);
    expect_closed(p.fd);
    peer_close(&p);
}

/* libnng repeats a request after some time without an answer, maybe one that is on its way. */
Test(engines, a_fetch_that_is_repeated_when_it_was_answered_swallows_no_interest)
{
    struct peer member = peer_open(&b), engine = peer_open(&b);
    peer_join(&member, 1, NULL);
    struct attaching attach = {
        .session = 9, .generation = 1, .flags = WIRE_ENGINE | WIRE_SIMPLE, .name = "lines"};
    cr_assert_eq(peer_attach(&engine, &attach, NULL).reply.status, STATUS_OK);
    uint32_t id = peer_request(&engine, WIRE_FETCH, 0, 9, 0, NULL);
    submit_name(&member, 1, WIRE_SUBSCRIBE, "one");
    cr_assert_eq(peer_answer(&engine, id).reply.records, 1);
    engine.next_id = id;
    peer_request(&engine, WIRE_FETCH, 0, 9, 0, NULL);
    struct answer again = peer_answer(&engine, id);
    struct wire_record record;
    cr_assert(answer_record(&again, &record));
    cr_assert(record.channel_length == 3 && memcmp(record.channel, "one", 3) == 0,
              "the same again, for one who has not got it");
    submit_name(&member, 1, WIRE_SUBSCRIBE, "two");
    expect(&engine, 9, WIRE_INTEREST, "two");
}

Test(engines, query_lists_them)
{
    struct peer engine = peer_open(&b);
    engine_join(&engine, 9, "redis", NULL);
    struct answer a = peer_ask(&engine, WIRE_QUERY, WIRE_ENGINES, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "\nredis\t0000000000000009\t", 24) != NULL);
}
