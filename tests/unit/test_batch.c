/*
 * When batches go out, turn by turn of a broker in this process: at once as a rule; together while
 * much comes in for a session.
 */
#define IN_PROCESS_HERE
#include "../fuzz/in_process.h"
#include "bytes.h"
#include "wire.h"
#include <criterion/criterion.h>

enum { MUCH = 80000, LITTLE = 100, SESSION = 1 };

static struct options options = {
    .journal_size = 8 << 20, .no_journal = true, .max_message = 200000, .ready_fd = -1};
static int publisher, subscriber;
static uint64_t sequence;
static uint8_t bytes[1 << 20];
static size_t length;

static void begin(uint8_t operation, uint64_t session, uint32_t records)
{
    static uint32_t id;
    length = SP_PREFIX_MAX + 4;
    put_u32be(bytes + SP_PREFIX_MAX, 0x80000000u | ++id);
    wire_request_encode(bytes + length, &(struct wire_request){.version = WIRE_VERSION,
                                                               .operation = operation,
                                                               .session = session,
                                                               .records = records});
    length += WIRE_REQUEST_SIZE;
}

static void add(struct wire_record record, const char *channel)
{
    record.channel = (const uint8_t *)channel;
    record.channel_length = (uint16_t)strlen(channel);
    wire_record_encode(bytes + length, &record);
    length += wire_record_size(record.channel_length, record.payload_length);
}

static void finish(int fd)
{
    sp_prefix_encode(bytes, SP_IPC, length - SP_PREFIX_MAX);
    cr_assert_eq(send(fd, bytes, length, MSG_NOSIGNAL), (ssize_t)length);
}

static int open_peer(void)
{
    int fd = in_process_connect(SP_IPC);
    sp_hello_encode(bytes, SP_REQ);
    cr_assert_eq(send(fd, bytes, SP_HELLO_SIZE, 0), SP_HELLO_SIZE);
    in_process_settle();
    return fd;
}

static void park_fetch(void)
{
    begin(WIRE_FETCH, SESSION, 0);
    finish(subscriber);
    in_process_settle();
}

/* What has come, in bytes; it is thrown away. */
static size_t received(int fd)
{
    static uint8_t all[1 << 20];
    ssize_t n = recv(fd, all, sizeof(all), 0);
    return n > 0 ? (size_t)n : 0;
}

/* Sends one message each to a and b, of so many bytes (0: none). */
static void publish(size_t to_a, size_t to_b)
{
    static const uint8_t payload[MUCH];
    struct wire_record record = {.type = WIRE_PUBLISH, .origin = 7, .payload = payload};
    begin(WIRE_SUBMIT, 0, (uint32_t)(to_a > 0) + (uint32_t)(to_b > 0));
    if (to_a > 0) {
        record.sequence = ++sequence;
        record.payload_length = to_a;
        add(record, "a");
    }
    if (to_b > 0) {
        record.sequence = ++sequence;
        record.payload_length = to_b;
        add(record, "b");
    }
    finish(publisher);
}

/* What the subscriber, who wants a, is sent in one turn. */
static size_t turn(void)
{
    server_turn(&in_process, false);
    return received(subscriber);
}

static void start(void)
{
    struct wire_attach block = {
        .generation = 1, .name = (const uint8_t *)"test", .name_length = 4, .pid = 1};
    in_process_start(&options);
    publisher = open_peer();
    subscriber = open_peer();
    begin(WIRE_ATTACH, SESSION, 1);
    wire_attach_encode(bytes + length, &block);
    length += wire_attach_size(&block);
    add((struct wire_record){.type = WIRE_SUBSCRIBE}, "a");
    finish(subscriber);
    in_process_settle();
    park_fetch();
    park_fetch();
    cr_assert_gt(received(subscriber), 0);
}

static void end(void)
{
    close(publisher);
    close(subscriber);
    server_close(&in_process);
}

TestSuite(batch, .init = start, .fini = end, .timeout = 60);

Test(batch, a_little_goes_out_in_the_turn_that_brought_it)
{
    publish(LITTLE, 0);
    cr_assert_gt(turn(), LITTLE);
}

Test(batch, much_waits_for_the_next_turn_and_no_longer_when_that_brings_nothing)
{
    for (int round = 0; round < 2; round++) {
        publish(MUCH, 0);
        cr_assert_eq(turn(), 0);
        cr_assert_gt(turn(), MUCH);
        park_fetch();
    }
}

Test(batch, as_long_as_much_comes_in_two_batches_go_out_together)
{
    for (int i = 0; i < 3; i++) {
        publish(MUCH, 0);
        cr_assert_eq(turn(), 0, "in turn %d", i + 1);
    }
    publish(MUCH, 0);
    cr_assert_gt(turn(), 2 * MUCH);
}

Test(batch, a_little_does_not_wait_for_what_comes_in_for_others)
{
    publish(LITTLE, MUCH);
    cr_assert_gt(turn(), LITTLE);
}

Test(batch, much_does_not_wait_again_for_what_comes_in_for_others)
{
    publish(MUCH, 0);
    cr_assert_eq(turn(), 0);
    publish(0, MUCH);
    cr_assert_gt(turn(), MUCH);
}

Test(batch, what_waited_for_credits_goes_out_with_them)
{
    for (int i = 0; i < 2; i++) {
        publish(LITTLE, 0);
        cr_assert_gt(turn(), LITTLE);
    }
    publish(MUCH, 0);
    in_process_settle();
    for (int i = 0; i < 2; i++) {
        begin(WIRE_FETCH, SESSION, 0);
        finish(subscriber);
    }
    cr_assert_gt(turn(), MUCH);
}

Test(batch, a_session_with_one_credit_is_not_kept_waiting)
{
    publish(LITTLE, 0);
    cr_assert_gt(turn(), LITTLE);
    publish(MUCH, 0);
    cr_assert_gt(turn(), MUCH);
}
