/* The link's connection: what it sends, its credits, its limits, and what it makes of refusals. */
#include "link_fixture.h"

static void open_plain(void)
{
    fixture_open(NULL);
}

TestSuite(link, .init = open_plain, .fini = fixture_close, .timeout = 60);

Test(link, the_exact_bytes_of_hello_and_attach)
{
    struct block *b = subscribe_to("chat");
    link_start(f.io.link);
    broker_accept(1);
    uint8_t wanted[9 + 4 + 24 + 56 + 48] = {1, 0, 0, 0, 0, 0, 0, 0, 132, 0x80, 0, 0, 1};
    uint8_t *request = wanted + 13, *attach = request + 24, *record = attach + 56;
    request[0] = 1; /* version */
    request[1] = 1; /* ATTACH */
    request[4] = 1; /* one record */
    put_u64le(request + 8, f.io.link->session);
    attach[0] = 1; /* generation */
    put_u64le(attach + 16, f.io.link->unanswered.origin);
    WAIT_FOR(has_message());
    const uint8_t *sent = buffer_bytes(&f.in);
    cr_assert_eq(buffer_length(&f.in), sizeof(wanted));
    cr_assert_eq(memcmp(sent, wanted, 13 + 24 + 32), 0);
    cr_assert_eq(get_u32le(sent + 37 + 32), (uint32_t)getpid());
    cr_assert_eq(memcmp(sent + 37 + 48, "worker\0\0", 8), 0);
    record[0] = 44; /* size without padding */
    record[4] = 1;  /* SUBSCRIBE */
    record[6] = 4;
    memcpy(record + 40, "chat", 4);
    cr_assert_eq(memcmp(sent + 93, record, 48), 0);
    block_unref(b);
}

static unsigned fetches_that_came(void)
{
    unsigned count = 0;
    for (; has_message(); count++)
        credits[count] = broker_next(WIRE_FETCH);
    return count;
}

Test(link, eight_credits_are_parked_and_refilled_when_half_are_used)
{
    link_start(f.io.link);
    broker_accept(1);
    struct asked a = broker_next(WIRE_ATTACH);
    f.head = 0;
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(has_message());
    cr_assert_eq(fetches_that_came(), 8);
    struct batch_bytes empty = {.records = 0};
    for (int i = 0; i < 4; i++)
        broker_batch(&credits[i], &empty, 0);
    WAIT_FOR(has_message());
    cr_assert_eq(fetches_that_came(), 4);
}

/* Each of the credits is answered with the next message; returns its id. */
static uint64_t answer_all(const struct asked *asked, unsigned count, uint64_t id,
                           const char *payload)
{
    for (unsigned i = 0; i < count; i++) {
        struct batch_bytes b = {.length = 0};
        batch_message(&b, ++id, "a", payload);
        broker_batch(&asked[i], &b, id);
    }
    return id;
}

Test(link, while_batches_are_small_more_credits_are_parked)
{
    enum { FEW = LINK_CREDITS / 2, MORE = LINK_SMALL_CREDITS - FEW };
    static char large[WIRE_SMALL_BATCH + 1];
    struct asked more[MORE];
    memset(large, 'l', sizeof(large) - 1);
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    uint64_t id = answer_all(credits, FEW, 0, "small");
    for (int i = 0; i < MORE; i++)
        more[i] = broker_next(WIRE_FETCH);
    answer_all(more, MORE, id, large);
    WAIT_FOR(has_message());
    cr_assert_eq(fetches_that_came(), LINK_CREDITS - FEW);
}

Test(link, a_credit_is_refilled_20_ms_after_the_last_batch)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes empty = {.records = 0};
    uint64_t before = io_clock_ms();
    broker_batch(&credits[3], &empty, 0);
    broker_next(WIRE_FETCH);
    cr_assert_geq(io_clock_ms() - before, LINK_REFILL_MS - 1);
}

Test(link, nobody_listens_and_then_somebody_does)
{
    event_free(f.accepting);
    close(f.listener);
    unlink(f.path);
    publish("a", "patient");
    link_start(f.io.link);
    WAIT_FOR(f.io.link->generation >= 3);
    listen_at_path();
    broker_attach(1, 0, 0);
    struct asked a = broker_next(WIRE_SUBMIT);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "patient", 1);
}

Test(link, detach_says_so_and_does_not_come_back)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    link_detach(f.io.link);
    broker_next(WIRE_DETACH);
    WAIT_FOR(f.closed);
    cr_assert_eq(f.io.link->state, LINK_IDLE);
    cr_assert(!event_pending(f.io.link->timer, EV_TIMEOUT, NULL));
}

Test(link, the_window_of_submits_is_bounded_and_what_waits_gathers)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct asked first = {0};
    for (unsigned i = 0; i < LINK_SUBMITS; i++) {
        publish("a", "x");
        struct asked a = broker_next(WIRE_SUBMIT);
        if (i == 0)
            first = a;
    }
    for (unsigned i = 0; i < 100; i++)
        publish("a", "y");
    link_flush(f.io.link);
    cr_assert_eq(f.io.link->submit_count, LINK_SUBMITS);
    broker_ok(&first, 1);
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 100);
}

Test(link, a_submit_of_publishes_has_at_most_256_kib)
{
    static char payload[100001];
    memset(payload, 'x', 100000);
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    for (int i = 0; i < 6; i++)
        publish("a", payload);
    uint64_t sequence = 1;
    while (sequence <= 6) {
        struct asked a = broker_next(WIRE_SUBMIT);
        cr_assert_leq(a.length, (size_t)LINK_SUBMIT_SIZE);
        for (uint32_t n = 0; n < a.header.records; n++)
            expect_record(&a, n, WIRE_PUBLISH, "a", payload, sequence++);
    }
}

Test(link, a_publish_larger_than_the_broker_takes_is_dropped_without_a_sequence)
{
    static char payload[(1 << 20) + 1];
    memset(payload, 'x', 1 << 20);
    publish("a", "before");
    publish("a", payload); /* the limit is not known yet */
    publish("a", "after");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 2);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "before", 1);
    expect_record(&a, 1, WIRE_PUBLISH, "a", "after", 2);
    publish("a", payload);
    publish("a", "last");
    struct asked b = broker_next(WIRE_SUBMIT);
    expect_record(&b, 0, WIRE_PUBLISH, "a", "last", 3);
    broker_ok(&a, 2);
    broker_ok(&b, 3);
    WAIT_FOR(f.io.unanswered_bytes == 0);
    cr_assert_eq(f.io.stats.publishes_refused, 2);
}

Test(link, a_publish_that_the_broker_refuses_for_good_is_found_and_left_out)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "good");
    publish("a", "bad");
    publish("a", "good too");
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 3);
    broker_refuse(&a, STATUS_TOO_LARGE, 0);
    broker_attach(2, 0, 0);
    for (uint32_t n = 0; n < 3; n++) {
        a = broker_next(WIRE_SUBMIT);
        cr_assert_eq(a.header.records, 1, "one by one");
        if (n == 0)
            broker_ok(&a, 1);
        if (n == 1)
            broker_refuse(&a, STATUS_TOO_LARGE, 0);
    }
    WAIT_FOR(f.closed);
    broker_attach(3, 0, 1);
    a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "good too", 2);
    broker_ok(&a, 2);
    WAIT_FOR(f.io.unanswered_bytes == 0);
}

Test(link, a_subscription_that_the_broker_refuses_is_left_out_of_the_next_list)
{
    struct block *blocks[3] = {subscribe_to("a"), subscribe_to("b"), subscribe_to("c")};
    link_start(f.io.link);
    broker_accept(1);
    struct asked a = broker_next(WIRE_ATTACH);
    struct wire_record r = asked_record(&a, 1);
    char refused[2] = {(char)r.channel[0], 0};
    broker_refuse(&a, STATUS_FULL, 1);
    WAIT_FOR(f.closed);
    broker_accept(2);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.records, 2);
    for (uint32_t n = 0; n < 2; n++)
        cr_assert_neq(asked_record(&a, n).channel[0], refused[0]);
    cr_assert_eq(f.io.stats.subscriptions_refused, 1);
    broker_attach_ok(&a, 0, 0);
    broker_take_credits();
    struct block *later = subscribe_to("later");
    a = broker_next(WIRE_SUBMIT);
    broker_refuse(&a, STATUS_WEAK_PATTERN, 0);
    WAIT_FOR(f.closed);
    broker_accept(3);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.records, 2);
    for (int i = 0; i < 3; i++)
        block_unref(blocks[i]);
    block_unref(later);
}

Test(link, too_many_changes_at_once_become_a_new_list)
{
    enum { NAMES = 40000 };
    static struct block *blocks[NAMES];
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    subscribe_many(blocks, NAMES); /* 10 MB of records */
    WAIT_FOR(f.closed);
    broker_accept(2);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.flags, WIRE_MORE);
    for (unsigned i = 0; i < NAMES; i++)
        block_unref(blocks[i]);
}

Test(link, messages_of_several_channels_in_a_batch_keep_their_order)
{
    static char large[HUB_RUN_BYTES / 2 + 1];
    memset(large, 'l', sizeof(large) - 1);
    struct block *a = subscribe_to("a"), *more[3]; /* one mailbox: what comes is in order */
    for (int i = 0; i < 3; i++) {
        more[i] = block_new(a->mailbox, 0);
        hub_subscribe_block(f.io.hub, more[i], i == 0 ? "c" : "ab", i == 0 ? 1 : 2, false);
    }
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 1, "a", "one");
    batch_message(&b, 2, "a", "two");
    batch_message(&b, 3, "b", "nobody's");
    batch_message(&b, 4, "c", "four");
    batch_message(&b, 5, "ab", "to two");
    batch_message(&b, 6, "a", "six");
    batch_message(&b, 7, "a", large);
    batch_message(&b, 8, "a", "eight");
    broker_batch(&credits[0], &b, 8);
    const char *const wanted[] = {"one", "two", "four", "to two", "to two", "six"};
    for (int i = 0; i < 6; i++)
        expect_callback(CALLBACK_DELIVERY, wanted[i]);
    WAIT_FOR(f.io.stats.messages_in == 8);
    cr_assert_eq(f.io.stats.deliveries, 8);
    block_unref(a);
    for (int i = 0; i < 3; i++)
        block_unref(more[i]);
}

Test(link, a_run_of_more_than_one_fan_out_takes_comes_whole)
{
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes b = {.length = 0};
    char text[16];
    for (unsigned i = 1; i <= 3 * HUB_RUN_RECORDS + 1; i++) {
        snprintf(text, sizeof(text), "%u", i);
        batch_message(&b, i, "a", text);
    }
    broker_batch(&credits[0], &b, 3 * HUB_RUN_RECORDS + 1);
    for (unsigned i = 1; i <= 3 * HUB_RUN_RECORDS + 1; i++) {
        snprintf(text, sizeof(text), "%u", i);
        expect_callback(CALLBACK_DELIVERY, text);
    }
    expect_no_callback();
    block_unref(block);
}
