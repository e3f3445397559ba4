/* The rules of delivery (docs/guarantees.md) as the link keeps them. */
#include "link_fixture.h"

static void open_plain(void)
{
    fixture_open(NULL);
}

TestSuite(link_rules, .init = open_plain, .fini = fixture_close, .timeout = 60);

Test(link_rules, rule_5_publishes_have_an_origin_and_a_sequence_without_holes)
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

Test(link_rules, rule_5_out_of_order_ends_the_link)
{
    ends_the_link(STATUS_OUT_OF_ORDER);
}

Test(link_rules, rule_5_not_attached_ends_the_link)
{
    ends_the_link(STATUS_NOT_ATTACHED);
}

Test(link_rules, rule_6_a_submit_holds_publishes_or_subscriptions_in_the_callers_order)
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

Test(link_rules, rule_7_what_was_not_answered_is_sent_again_in_order)
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

Test(link_rules, rule_7_what_was_sent_is_not_sent_again_in_another_epoch)
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

Test(link_rules, rule_7_the_room_comes_back_without_an_answer_when_it_is_unsure)
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

Test(link_rules, rule_8_unsure_drops_what_was_sent_and_keeps_what_was_not)
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

Test(link_rules, rule_8_a_head_of_0_is_not_taken_for_none)
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

Test(link_rules, rule_9_what_changes_after_the_attach_was_written_comes_after_its_reply)
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

Test(link_rules, rule_9_a_long_list_comes_in_parts_and_a_lost_link_discards_it)
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

Test(link_rules, rule_10_the_label_is_the_head_in_the_reply_that_confirmed)
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

Test(link_rules, rule_10_without_a_label_nothing_is_delivered)
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

Test(link_rules, rule_10_a_reply_never_confirms_what_was_made_anew)
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

Test(link_rules, rule_10_a_subscribe_whose_reply_is_lost_is_confirmed_by_the_next_attach)
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

Test(link_rules, rule_11_the_position_is_the_value_of_the_handled_batch)
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

Test(link_rules, rule_11_a_batch_that_turns_bad_moves_the_position_by_what_was_given_out)
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

Test(link_rules, rule_12_another_epoch_is_told_as_gap_before_its_messages)
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

Test(link_rules, rule_12_a_position_above_the_head_is_treated_as_another_epoch)
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

Test(link_rules, rule_14_a_gap_is_told_in_order_and_moves_the_position_in_one_step)
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

Test(link_rules, rule_14_a_gap_is_not_told_to_a_subscription_that_is_younger)
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

Test(link_rules, rule_19_an_attach_that_is_not_answered_times_out_after_3_s)
{
    link_start(f.io.link);
    broker_accept(1);
    broker_next(WIRE_ATTACH);
    uint64_t before = io_clock_ms();
    WAIT_FOR(f.closed);
    cr_assert_geq(io_clock_ms() - before, LINK_ATTACH_MS - 100);
    broker_attach(2, 0, 0);
}

Test(link_rules, rule_19_silence_ends_the_connection)
{
    link_start(f.io.link);
    broker_attach(1, 0, 0);
    f.io.link->heard_ms -= LINK_SILENCE_MS - 200;
    event_active(f.io.link->timer, EV_TIMEOUT, 1);
    WAIT_FOR(f.closed);
    broker_attach(2, 0, 0);
}

Test(link_rules, rule_19_going_away_asks_nothing_more_and_hears_the_rest)
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
