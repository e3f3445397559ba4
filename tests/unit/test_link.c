#include "auth.h"
#include "link_fixture.h"

static void open_plain(void)
{
    fixture_open(NULL);
}

TestSuite(link, .init = open_plain, .fini = fixture_close, .timeout = 60);

static void expect_record(const struct asked *a, uint32_t n, uint8_t type, const char *channel,
                          const char *payload, uint64_t sequence)
{
    struct wire_record r = asked_record(a, n);
    cr_assert_eq(r.type, type, "record %u has type %u", n, r.type);
    cr_assert_eq(r.sequence, sequence, "record %u has sequence %llu", n,
                 (unsigned long long)r.sequence);
    cr_assert(r.channel_length == strlen(channel) &&
                  memcmp(r.channel, channel, r.channel_length) == 0,
              "record %u is for %.*s", n, r.channel_length, (const char *)r.channel);
    cr_assert(r.payload_length == strlen(payload) &&
                  memcmp(r.payload, payload, r.payload_length) == 0,
              "record %u is %.*s", n, (int)r.payload_length, (const char *)r.payload);
    cr_assert_eq(r.id, 0);
    cr_assert_eq(r.origin, type == WIRE_PUBLISH ? f.io.link->unanswered.origin : 0);
}

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

Test(link, rule_5_publishes_have_an_origin_and_a_sequence_without_holes)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    publish("a", "two");
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 2, "one SUBMIT for one turn");
    expect_record(&a, 0, WIRE_PUBLISH, "a", "one", 1);
    expect_record(&a, 1, WIRE_PUBLISH, "a", "two", 2);
    publish("a", "three");
    struct asked b = broker_next(WIRE_SUBMIT);
    expect_record(&b, 0, WIRE_PUBLISH, "a", "three", 3);
    cr_assert_gt(f.io.unanswered_bytes, 0);
    broker_ok(&a, 2);
    broker_ok(&b, 3);
    WAIT_FOR(f.io.unanswered_bytes == 0);
}

static void ends_the_link(enum status status)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    struct asked a = broker_next(WIRE_SUBMIT);
    broker_refuse(&a, status, 0);
    WAIT_FOR(f.closed);
    struct asked again = broker_attach(2, 0, 0);
    cr_assert_eq(again.attach.generation, 2, "rule 17: a newer generation");
    a = broker_next(WIRE_SUBMIT);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "one", 1);
}

Test(link, rule_5_out_of_order_ends_the_link)
{
    ends_the_link(STATUS_OUT_OF_ORDER);
}

Test(link, rule_5_not_attached_ends_the_link)
{
    ends_the_link(STATUS_NOT_ATTACHED);
}

Test(link, rule_6_a_submit_holds_publishes_or_subscriptions_in_the_callers_order)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    struct block *first = subscribe_to("a"), *second = subscribe_to("b");
    publish("a", "two");
    unsubscribe(first);
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "one", 1);
    a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 2);
    expect_record(&a, 0, WIRE_SUBSCRIBE, "a", "", 0);
    expect_record(&a, 1, WIRE_SUBSCRIBE, "b", "", 0);
    a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "two", 2);
    a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_UNSUBSCRIBE, "a", "", 0);
    block_unref(second);
}

Test(link, rule_7_what_was_not_answered_is_sent_again_in_order)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    broker_next(WIRE_SUBMIT);
    publish("a", "two");
    broker_next(WIRE_SUBMIT);
    broker_hang_up();
    publish("a", "three");
    f.head = 1;
    broker_attach(2, 0, 1); /* it took the first */
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 2);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "two", 2);
    expect_record(&a, 1, WIRE_PUBLISH, "a", "three", 3);
    broker_ok(&a, 3);
    WAIT_FOR(f.io.unanswered_bytes == 0);
    cr_assert_eq(f.io.stats.publishes_unsure, 0);
}

Test(link, rule_7_what_was_sent_is_not_sent_again_in_another_epoch)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    broker_next(WIRE_SUBMIT);
    broker_hang_up();
    publish("a", "two");
    f.epoch++;
    broker_attach(2, WIRE_NEW_EPOCH, 0);
    struct asked a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "two", 2);
    cr_assert_eq(f.io.stats.publishes_unsure, 1);
    broker_ok(&a, 1);
    WAIT_FOR(f.io.unanswered_bytes == 0);
}

Test(link, rule_7_the_room_comes_back_without_an_answer_when_it_is_unsure)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    broker_next(WIRE_SUBMIT);
    broker_hang_up();
    f.epoch++;
    broker_attach(2, WIRE_NEW_EPOCH, 0);
    WAIT_FOR(f.io.unanswered_bytes == 0);
}

Test(link, rule_8_unsure_drops_what_was_sent_and_keeps_what_was_not)
{
    f.head = 500;
    link_start(f.io.link);
    struct asked a = broker_attach(1, 0, 0);
    cr_assert_eq(a.attach.unanswered, 0);
    cr_assert_eq(a.attach.epoch, 0);
    publish("a", "one");
    broker_next(WIRE_SUBMIT);
    broker_hang_up();
    publish("a", "two");
    broker_accept(2);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.attach.unanswered, 501, "one more than the head at the first sending");
    cr_assert_eq(a.attach.epoch, EPOCH);
    f.head = 9000;
    broker_attach_ok(&a, WIRE_UNSURE, 0);
    broker_take_credits();
    a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_PUBLISH, "a", "two", 2);
    cr_assert_eq(f.io.stats.publishes_unsure, 1);
}

Test(link, rule_8_a_head_of_0_is_not_taken_for_none)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "one");
    broker_next(WIRE_SUBMIT);
    broker_hang_up();
    broker_accept(2);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.attach.unanswered, 1);
}

Test(link, rule_9_what_changes_after_the_attach_was_written_comes_after_its_reply)
{
    struct block *first = subscribe_to("first");
    link_start(f.io.link);
    broker_accept(1);
    WAIT_FOR(has_message());
    struct block *second = subscribe_to("second");
    unsubscribe(first);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_SUBSCRIBE, "first", "", 0);
    cr_assert_eq(buffer_length(&f.in), 0);
    broker_attach_ok(&a, 0, 0);
    broker_take_credits();
    a = broker_next(WIRE_SUBMIT);
    cr_assert_eq(a.header.records, 2);
    expect_record(&a, 0, WIRE_SUBSCRIBE, "second", "", 0);
    expect_record(&a, 1, WIRE_UNSUBSCRIBE, "first", "", 0);
    block_unref(second);
}

static void subscribe_many(struct block **blocks, unsigned n)
{
    char name[201];
    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%0200u", i);
        blocks[i] = subscribe_to(name);
    }
}

Test(link, rule_9_a_long_list_comes_in_parts_and_a_lost_link_discards_it)
{
    enum { NAMES = 12000 };
    static struct block *blocks[NAMES];
    subscribe_many(blocks, NAMES);
    link_start(f.io.link);
    broker_accept(1);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.flags, WIRE_MORE);
    broker_ok(&a, 0);
    broker_next(WIRE_ATTACH);
    broker_hang_up();
    broker_accept(2);
    unsigned parts = 0, names = 0;
    do {
        a = broker_next(WIRE_ATTACH);
        cr_assert_leq(a.length + WIRE_REQUEST_SIZE, (size_t)WIRE_ATTACH_PART_SIZE);
        cr_assert_eq(a.attach.generation, 2);
        cr_assert_eq(buffer_length(&f.in), 0, "the next part waits for the reply");
        names += a.header.records;
        parts++;
        if (a.header.flags & WIRE_MORE)
            broker_ok(&a, 0);
    } while (a.header.flags & WIRE_MORE);
    cr_assert_eq(names, NAMES);
    cr_assert_eq(parts, 3);
    f.head = 40;
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(link_is_attached(f.io.link));
    char name[201];
    snprintf(name, sizeof(name), "%0200u", NAMES / 2);
    cr_assert_eq(subscriptions_key(hub_table(f.io.hub), name, 200, false)->label, 40);
    for (unsigned i = 0; i < NAMES; i++)
        block_unref(blocks[i]);
}

Test(link, rule_10_the_label_is_the_head_in_the_reply_that_confirmed)
{
    struct block *listed = subscribe_to("listed");
    f.head = 10;
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct block *later = subscribe_to("later");
    struct asked a = broker_next(WIRE_SUBMIT);
    f.head = 12;
    broker_ok(&a, 1);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 11, "later", "too early");
    batch_message(&b, 12, "later", "too early");
    batch_message(&b, 13, "later", "yes");
    batch_message(&b, 14, "listed", "yes too");
    broker_batch(&credits[0], &b, 14);
    expect_callback(CALLBACK_DELIVERY, "yes");
    expect_callback(CALLBACK_DELIVERY, "yes too");
    expect_no_callback();
    block_unref(listed);
    block_unref(later);
}

Test(link, rule_10_without_a_label_nothing_is_delivered)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct block *waiting = subscribe_to("a");
    broker_next(WIRE_SUBMIT); /* not answered */
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 5, "a", "before the confirmation");
    broker_batch(&credits[0], &b, 5);
    WAIT_FOR(f.io.link->position == 5);
    expect_no_callback();
    block_unref(waiting);
}

Test(link, rule_10_a_reply_never_confirms_what_was_made_anew)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct block *block = subscribe_to("a");
    struct asked first = broker_next(WIRE_SUBMIT);
    unsubscribe(block);
    struct asked second = broker_next(WIRE_SUBMIT);
    block = subscribe_to("a");
    struct asked third = broker_next(WIRE_SUBMIT);
    f.head = 5;
    broker_ok(&first, 1);
    broker_ok(&second, 1);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 6, "a", "to the first");
    broker_batch(&credits[0], &b, 6);
    f.head = 7;
    broker_ok(&third, 1);
    b = (struct batch_bytes){.length = 0};
    batch_message(&b, 8, "a", "to the second");
    broker_batch(&credits[1], &b, 8);
    expect_callback(CALLBACK_DELIVERY, "to the second");
    expect_no_callback();
    block_unref(block);
}

Test(link, rule_10_a_subscribe_whose_reply_is_lost_is_confirmed_by_the_next_attach)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct block *block = subscribe_to("a");
    broker_next(WIRE_SUBMIT);
    broker_hang_up();
    broker_accept(2);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.records, 1);
    expect_record(&a, 0, WIRE_SUBSCRIBE, "a", "", 0);
    f.head = 30;
    broker_attach_ok(&a, 0, 0);
    broker_take_credits();
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 30, "a", "before");
    batch_message(&b, 31, "a", "after");
    broker_batch(&credits[0], &b, 31);
    expect_callback(CALLBACK_DELIVERY, "after");
    expect_no_callback();
    block_unref(block);
}

Test(link, rule_11_the_position_is_the_value_of_the_handled_batch)
{
    f.head = 3;
    link_start(f.io.link);
    struct asked a = broker_attach(1, 0, 0);
    cr_assert_eq(a.header.position, 0);
    struct batch_bytes empty = {.length = 0};
    f.head = 20;
    broker_batch(&credits[0], &empty, 17);
    WAIT_FOR(f.io.link->position == 17);
    broker_hang_up();
    a = broker_attach(2, 0, 0);
    cr_assert_eq(a.header.position, 17);
    cr_assert_eq(a.attach.epoch, EPOCH);
}

Test(link, rule_11_a_batch_that_turns_bad_moves_the_position_by_what_was_given_out)
{
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 1, "a", "one");
    batch_message(&b, 2, "a", "two");
    size_t bad = b.length;
    batch_message(&b, 3, "a", "three");
    put_u32le(b.bytes + bad, 7);
    broker_batch(&credits[0], &b, 3);
    expect_callback(CALLBACK_DELIVERY, "one");
    expect_callback(CALLBACK_DELIVERY, "two");
    struct asked a = broker_attach(2, 0, 0);
    cr_assert_eq(a.header.position, 2);
    expect_no_callback();
    block_unref(block);
}

Test(link, rule_12_another_epoch_is_told_as_gap_before_its_messages)
{
    struct block *block = subscribe_to("a");
    f.head = 100;
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    broker_hang_up();
    f.epoch++;
    f.head = 5;
    broker_attach(2, WIRE_NEW_EPOCH, 0);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 5, "a", "older than the confirmation");
    batch_message(&b, 6, "a", "new");
    f.io.link->position = 4; /* as if the broker had sent it all the same */
    broker_batch(&credits[0], &b, 6);
    char range[60];
    snprintf(range, sizeof(range), "101..%llu", (unsigned long long)UINT64_MAX);
    expect_callback(CALLBACK_GAP, range);
    expect_callback(CALLBACK_GAP, range); /* the block's, and the process's notice */
    expect_callback(CALLBACK_DELIVERY, "new");
    expect_no_callback();
    block_unref(block);
}

Test(link, rule_12_a_position_above_the_head_is_treated_as_another_epoch)
{
    struct block *block = subscribe_to("a");
    f.head = 100;
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    broker_hang_up();
    f.head = 5;
    broker_attach(2, WIRE_NEW_EPOCH, 0);
    WAIT_FOR(f.io.link->position == 5);
    cr_assert_eq(f.io.stats.gaps, 1);
    block_unref(block);
}

Test(link, rule_14_a_gap_is_told_in_order_and_moves_the_position_in_one_step)
{
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 1, "a", "one");
    batch_add(&b, &(struct wire_record){.type = WIRE_GAP, .sequence = 2, .id = 50});
    f.head = 50;
    batch_message(&b, 51, "a", "two");
    put_u32le(b.bytes + b.length - 48, 7); /* the last record is bad */
    broker_batch(&credits[0], &b, 51);
    expect_callback(CALLBACK_DELIVERY, "one");
    expect_callback(CALLBACK_GAP, "2..50");
    expect_callback(CALLBACK_GAP, "2..50");
    struct asked a = broker_attach(2, 0, 0);
    cr_assert_eq(a.header.position, 50);
    cr_assert_eq(f.io.stats.gap_messages, 49);
    block_unref(block);
}

Test(link, rule_14_a_gap_is_not_told_to_a_subscription_that_is_younger)
{
    f.head = 60;
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    f.io.link->position = 40;
    struct batch_bytes b = {.length = 0};
    batch_add(&b, &(struct wire_record){.type = WIRE_GAP, .sequence = 41, .id = 60});
    broker_batch(&credits[0], &b, 60);
    WAIT_FOR(f.io.link->position == 60);
    expect_no_callback();
    block_unref(block);
}

Test(link, rule_19_an_attach_that_is_not_answered_times_out_after_3_s)
{
    link_start(f.io.link);
    broker_accept(1);
    broker_next(WIRE_ATTACH);
    uint64_t before = io_clock_ms();
    WAIT_FOR(f.closed);
    cr_assert_geq(io_clock_ms() - before, LINK_ATTACH_MS - 100);
    broker_attach(2, 0, 0);
}

Test(link, rule_19_silence_ends_the_connection)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    f.io.link->heard_ms -= LINK_SILENCE_MS - 200;
    event_active(f.io.link->timer, EV_TIMEOUT, 1);
    WAIT_FOR(f.closed);
    broker_attach(2, 0, 0);
}

Test(link, rule_19_going_away_asks_nothing_more_and_hears_the_rest)
{
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    publish("a", "sent");
    struct asked submit = broker_next(WIRE_SUBMIT);
    struct asked credit = credits[0];
    broker_refuse(&credit, STATUS_GOING_AWAY, 0);
    WAIT_FOR(f.io.link->state == LINK_LEAVING);
    publish("a", "waits");
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 1, "a", "sent");
    broker_batch(&credits[1], &b, 1);
    expect_callback(CALLBACK_DELIVERY, "sent");
    broker_ok(&submit, 1);
    WAIT_FOR(unanswered_count(&f.io.link->unanswered) == 1);
    cr_assert_eq(buffer_length(&f.in), 0);
    broker_hang_up();
    broker_attach(2, 0, 1);
    submit = broker_next(WIRE_SUBMIT);
    expect_record(&submit, 0, WIRE_PUBLISH, "a", "waits", 2);
    block_unref(block);
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

/* ---- a broker that sends nonsense ends the connection and nothing else ---- */

static void expect_end_after(const void *bytes, size_t length)
{
    unsigned before = f.connections;
    broker_write(bytes, length);
    WAIT_FOR(f.closed);
    broker_attach(before + 1, 0, 0);
}

Test(link, a_hello_that_is_not_of_a_rep)
{
    link_start(f.io.link);
    WAIT_FOR(f.connections == 1);
    broker_write("HTTP/1.1", 8);
    WAIT_FOR(f.closed);
    broker_attach(2, 0, 0);
}

Test(link, garbage_lengths_and_foreign_ids)
{
    uint8_t reply[9 + 4 + WIRE_REPLY_SIZE] = {1, 0, 0, 0, 0, 0, 0, 0, 4 + WIRE_REPLY_SIZE, 0x80};
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    expect_end_after("\2\0\0\0\0\0\0\0\x24", 9);
    expect_end_after("\1\x80\0\0\0\0\0\0\0", 9);
    expect_end_after("\1\0\0\0\0\0\0\0\2ab", 11);
    expect_end_after("\1\0\0\0\0\0\0\0\4\1\2\3\4", 13);
    expect_end_after("\1\0\0\0\0\0\0\0\6\x80\0\0\1\1\1", 15);
    put_u32be(reply + 9, 0x80000000u | 0xffffff); /* never asked */
    wire_reply_encode(reply + 13,
                      &(struct wire_reply){.version = 1, .operation = WIRE_FETCH, .epoch = EPOCH});
    expect_end_after(reply, sizeof(reply));
    put_u32be(reply + 9, credits[0].id);
    reply[13] = 9; /* another version */
    expect_end_after(reply, sizeof(reply));
    reply[13] = 1;
    put_u32be(reply + 9, credits[0].id);
    put_u64le(reply + 13 + 8, EPOCH + 1);
    expect_end_after(reply, sizeof(reply));
}

Test(link, an_attach_reply_that_cannot_be_true)
{
    link_start(f.io.link);
    f.head = 10;
    broker_attach(1, 0, 0);
    broker_hang_up();
    broker_accept(2);
    struct asked a = broker_next(WIRE_ATTACH);
    broker_attach_ok(&a, 0, 1); /* a sequence that was never sent */
    WAIT_FOR(f.closed);
    broker_accept(3);
    a = broker_next(WIRE_ATTACH);
    f.head = 9; /* below what it sent, and no new epoch */
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(f.closed);
    broker_accept(4);
    a = broker_next(WIRE_ATTACH);
    broker_ok(&a, 0); /* no block */
    WAIT_FOR(f.closed);
    f.head = 10;
    broker_attach(5, 0, 0);
}

Test(link, replies_in_every_portion_of_bytes)
{
    struct block *block = subscribe_to("a");
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    struct batch_bytes b = {.length = 0};
    batch_message(&b, 1, "a", "one");
    uint8_t bytes[512];
    bytes[0] = 1;
    put_u64be(bytes + 1, 4 + WIRE_REPLY_SIZE + b.length);
    put_u32be(bytes + 9, credits[0].id);
    wire_reply_encode(bytes + 13, &(struct wire_reply){.version = 1,
                                                       .operation = WIRE_FETCH,
                                                       .epoch = EPOCH,
                                                       .records = 1,
                                                       .head = 1,
                                                       .value = 1});
    memcpy(bytes + 45, b.bytes, b.length);
    for (size_t i = 0; i < 45 + b.length; i++) {
        expect_no_callback();
        broker_write(bytes + i, 1);
        event_base_loop(f.io.base, EVLOOP_NONBLOCK);
    }
    expect_callback(CALLBACK_DELIVERY, "one");
    block_unref(block);
}

/* ---- authentication ---- */

static void open_secret(void)
{
    fixture_open("open sesame\n");
}

TestSuite(link_secret, .init = open_secret, .fini = fixture_close, .timeout = 60);

static const uint8_t NONCE[AUTH_NONCE_SIZE] = "the broker's nonce, 32 bytes lo";

static void reply_with_block(const struct asked *a, enum status status, const uint8_t *proof)
{
    uint8_t bytes[128];
    struct wire_attach_reply block = {.record_max = 1 << 20, .proof = proof, .proof_length = 32};
    wire_attach_reply_encode(bytes, &block);
    broker_reply(a->id, (struct wire_reply){.operation = WIRE_ATTACH, .status = (uint8_t)status},
                 bytes, wire_attach_reply_size(&block));
}

static struct auth_exchange exchange_of(const struct asked *a)
{
    return (struct auth_exchange){.secret = "open sesame",
                                  .secret_length = 11,
                                  .nonce = NONCE,
                                  .client_nonce = a->attach.proof,
                                  .name = "worker",
                                  .name_length = 6};
}

/* Up to the ATTACH that carries the proof, which must be right and come before any name. */
static struct asked expect_proof(unsigned connection)
{
    uint8_t wanted[AUTH_MAC_SIZE];
    broker_accept(connection);
    struct asked a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.attach.proof_length, 0);
    cr_assert_eq(a.header.records, 0);
    cr_assert_eq(a.header.flags, WIRE_MORE);
    reply_with_block(&a, STATUS_AUTH, NONCE);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.records, 0);
    cr_assert_eq(a.header.flags, WIRE_MORE);
    cr_assert_eq(a.attach.proof_length, WIRE_PROOF_SIZE);
    struct auth_exchange exchange = exchange_of(&a);
    cr_assert(auth_client_proof(&exchange, wanted));
    cr_assert_eq(memcmp(a.attach.proof + 32, wanted, 32), 0);
    return a;
}

Test(link_secret, both_sides_prove_it_before_any_channel_is_named)
{
    struct block *block = subscribe_to("secret channel");
    uint8_t proof[AUTH_MAC_SIZE];
    link_start(f.io.link);
    struct asked a = expect_proof(1);
    struct auth_exchange exchange = exchange_of(&a);
    cr_assert(auth_server_proof(&exchange, proof));
    reply_with_block(&a, STATUS_OK, proof);
    a = broker_next(WIRE_ATTACH);
    cr_assert_eq(a.header.flags, 0);
    cr_assert_eq(a.attach.proof_length, 0);
    expect_record(&a, 0, WIRE_SUBSCRIBE, "secret channel", "", 0);
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(link_is_attached(f.io.link));
    cr_assert_null(f.io.link->secret);
    block_unref(block);
}

Test(link_secret, a_broker_that_does_not_know_it_is_left)
{
    uint8_t proof[AUTH_MAC_SIZE];
    link_start(f.io.link);
    struct asked a = expect_proof(1);
    struct auth_exchange exchange = exchange_of(&a);
    cr_assert(auth_client_proof(&exchange, proof)); /* reflects what it got */
    reply_with_block(&a, STATUS_OK, proof);
    WAIT_FOR(f.closed);
    broker_accept(2); /* does not ask at all */
    a = broker_next(WIRE_ATTACH);
    broker_attach_ok(&a, 0, 0);
    WAIT_FOR(f.closed);
    a = expect_proof(3); /* asks twice */
    reply_with_block(&a, STATUS_AUTH, NONCE);
    WAIT_FOR(f.closed);
}

Test(link, a_broker_that_wants_a_secret_when_there_is_none)
{
    link_start(f.io.link);
    broker_accept(1);
    struct asked a = broker_next(WIRE_ATTACH);
    reply_with_block(&a, STATUS_AUTH, NONCE);
    WAIT_FOR(f.closed);
    broker_attach(2, 0, 0);
}
