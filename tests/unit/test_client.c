#include "client_fixture.h"
#include <time.h>

TestSuite(client, .init = setup, .fini = teardown, .timeout = 60);

/* Opening, writing, messages. */

Test(client, S_20_head_first_then_on_open_then_what_it_writes)
{
    struct peer p = harness_websocket(io);
    cr_assert(client_is_open(p.client));
    harness_expect_callback(io, CALLBACK_OPEN);
    cr_assert(harness_write(&p, "hello"));
    harness_expect(p.fd, HEAD "\x81\x05hello", strlen(HEAD) + 7);
    harness_leave(&p);
}

Test(client, S_37_on_open_and_on_close_when_the_browser_is_gone_already)
{
    struct peer p = harness_websocket(io);
    close(p.fd);
    p.fd = -1;
    harness_expect_callback(io, CALLBACK_OPEN);
    expect_only_close();
    cr_assert_not(client_is_open(p.client));
    harness_leave(&p);
}

Test(client, S_26_messages_come_in_order_and_with_their_kind)
{
    struct peer p = websocket();
    harness_send_text(p.fd, "one");
    harness_send_frame(p.fd, WS_BINARY, "two", 3);
    harness_send_text(p.fd, "");
    harness_expect_message(io, "one", false);
    harness_expect_message(io, "two", true);
    harness_expect_message(io, "", false);
    harness_leave(&p);
}

Test(client, split_at_every_byte_gives_the_same)
{
    uint8_t bytes[200];
    size_t length = harness_frame(bytes, WS_TEXT, false, "ab", 2);
    length += harness_frame(bytes + length, WS_PING, true, "p", 1);
    length += harness_frame(bytes + length, WS_CONTINUATION, true, "cd", 2);
    length += harness_frame(bytes + length, WS_BINARY, true, "xyz", 3);
    for (size_t cut = 1; cut < length; cut++) {
        struct peer p = websocket();
        for (size_t at = 0; at < length; at += cut)
            harness_send(p.fd, bytes + at, at + cut < length ? cut : length - at);
        harness_expect_message(io, "abcd", false);
        harness_expect_message(io, "xyz", true);
        harness_expect(p.fd, "\x8a\x01p", 3);
        harness_leave(&p);
        expect_only_close();
    }
}

Test(client, bytes_that_came_with_the_request_are_not_lost)
{
    uint8_t bytes[100];
    size_t length = harness_frame(bytes, WS_TEXT, true, "first", 5);
    size_t second = harness_frame(bytes + length, WS_TEXT, true, "second", 6);
    struct peer p = opened(harness_open(
        io, (struct client_options){.received = bytes, .received_length = length + 3}));
    harness_send(p.fd, bytes + length + 3, second - 3);
    harness_expect_message(io, "first", false);
    harness_expect_message(io, "second", false);
    harness_leave(&p);
}

Test(client, S_41_one_write_of_any_size_arrives_whole)
{
    enum { SIZE = 20 * 1024 * 1024 };
    struct peer p = websocket();
    uint8_t *data = malloc(SIZE), *got = malloc(SIZE + 10);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    cr_assert(commands_write(p.client, frame_binary(data, SIZE)));
    harness_read(p.fd, got, SIZE + 10);
    cr_assert_eq(memcmp(got, "\x82\x7f\0\0\0\0\x01\x40\0\0", 10), 0);
    cr_assert_eq(memcmp(got + 10, data, SIZE), 0);
    free(data);
    free(got);
    harness_leave(&p);
}

Test(client, S_41_many_writes_keep_their_order)
{
    struct peer p = websocket();
    char text[16];
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(text, sizeof(text), "%08u", i);
        cr_assert(harness_write(&p, text));
    }
    for (unsigned i = 0; i < 5000; i++) {
        char expected[16];
        snprintf(expected, sizeof(expected), "\x81\x08%08u", i);
        harness_expect(p.fd, expected, 10);
    }
    cr_assert_eq(stats().frames_out, 5001);
    harness_leave(&p);
}

Test(client, S_29_pending_counts_what_the_kernel_has_not_and_on_drained_follows)
{
    enum { SIZE = 800 * 1024 };
    struct peer p = opened(harness_open(io, (struct client_options){.wants_drained = true}));
    uint8_t *data = calloc(1, SIZE);
    cr_assert_eq(client_pending(p.client), 0);
    cr_assert(commands_write(p.client, frame_binary(data, SIZE)));
    cr_assert(harness_write(&p, "x"));
    cr_assert_eq(client_pending(p.client), 2);
    cr_assert_null(harness_callback_within(io, NULL, 100));
    uint8_t *got = malloc(SIZE + 13);
    harness_read(p.fd, got, SIZE + 10 + 3);
    harness_expect_callback(io, CALLBACK_DRAINED);
    cr_assert_eq(client_pending(p.client), 0);
    client_set_wants_drained(p.client, false);
    cr_assert(harness_write(&p, "y"));
    harness_expect(p.fd, "\x81\x01y", 3);
    cr_assert_null(harness_callback_within(io, NULL, 50));
    free(data);
    free(got);
    harness_leave(&p);
}

/* Control frames and the closing handshake. */

Test(client, RFC_6455_5_5_2_a_ping_is_answered_with_its_data)
{
    struct peer p = websocket();
    harness_send_frame(p.fd, WS_PING, "abc", 3);
    harness_expect(p.fd,
                   "\x8a\x03"
                   "abc",
                   5);
    harness_leave(&p);
}

Test(client, RFC_6455_5_5_3_a_flood_of_pings_is_answered_for_the_latest_only)
{
    enum { PINGS = 20000 };
    struct peer p = websocket();
    uint8_t *flood = malloc(PINGS * 16);
    size_t length = 0;
    char number[16];
    for (unsigned i = 1; i <= PINGS; i++) {
        snprintf(number, sizeof(number), "%08u", i);
        length += harness_frame(flood + length, WS_PING, true, number, 8);
    }
    harness_send(p.fd, flood, length);
    unsigned pongs = 0;
    do {
        harness_expect(p.fd, "\x8a\x08", 2);
        harness_read(p.fd, number, 8);
        number[8] = 0;
        pongs++;
    } while (atoi(number) != PINGS);
    cr_assert_lt(pongs, PINGS / 100);
    free(flood);
    harness_leave(&p);
}

/* The half of the message that stands behind the last ping is more than a socket keeps. */
Test(client, at_most_one_pong_stands_in_the_queue)
{
    enum { SIZE = 4000000, PART = 200000, PARTS = SIZE / PART };
    config.max_pending = 4 * SIZE;
    restart();
    struct peer p = websocket();
    uint8_t *data = calloc(1, SIZE);
    unsigned pongs = 0;
    cr_assert(commands_write(p.client, frame_binary(data, SIZE)));
    harness_expect(p.fd, "\x82\x7f\0\0\0\0\0\x3d\x09\0", 10);
    for (unsigned i = 0; i < PARTS / 2; i++) {
        harness_send_frame(p.fd, WS_PING, i < PARTS / 2 - 1 ? "p" : "z", 1);
        harness_send_text(p.fd, "the ping is read");
        harness_expect_message(io, "the ping is read", false);
        harness_read(p.fd, data, PART);
    }
    harness_read(p.fd, data, SIZE - PARTS / 2 * PART);
    do {
        harness_read(p.fd, data, 3);
        pongs++;
    } while (data[2] != 'z');
    cr_assert_leq(pongs, 2, "one in the queue and the latest behind it, not %u", pongs);
    free(data);
    harness_leave(&p);
}

Test(client, RFC_6455_5_5_1_the_peers_close_is_echoed_and_then_the_end)
{
    struct peer p = websocket();
    harness_send_text(p.fd, "last");
    harness_send_close(p.fd, 4321);
    harness_expect(p.fd, "\x88\x02\x10\xe1", 4);
    harness_expect_eof(p.fd);
    harness_expect_message(io, "last", false);
    expect_only_close();
    cr_assert_not(client_is_open(p.client));
    cr_assert_eq(client_pending(p.client), -1);
    cr_assert_not(harness_write(&p, "late"), "S-43");
    harness_leave(&p);
}

Test(client, RFC_6455_5_5_1_an_empty_close_is_answered_with_an_empty_one)
{
    struct peer p = websocket();
    harness_send_frame(p.fd, WS_CLOSE, NULL, 0);
    harness_expect(p.fd, "\x88\x00", 2);
    harness_expect_eof(p.fd);
    expect_only_close();
    harness_leave(&p);
}

Test(client, a_peer_that_closes_and_shuts_its_side_still_gets_everything)
{
    struct peer p = websocket();
    uint8_t *got = calloc(1, 600008);
    cr_assert(commands_write(p.client, frame_binary(got, 600000)));
    harness_expect(p.fd, "\x82\x7f", 2);
    harness_send_close(p.fd, 1000);
    shutdown(p.fd, SHUT_WR);
    harness_read(p.fd, got, 600008);
    harness_expect(p.fd, "\x88\x02\x03\xe8", 4);
    harness_expect_eof(p.fd);
    expect_only_close();
    free(got);
    harness_leave(&p);
}

Test(client, S_47_close_comes_after_what_was_written_and_waits_for_the_peer)
{
    struct peer p = websocket();
    cr_assert(harness_write(&p, "data"));
    commands_close(p.client, 1000);
    cr_assert_not(client_is_open(p.client), "S-50: at once");
    cr_assert_eq(client_pending(p.client), -1);
    cr_assert_not(harness_write(&p, "late"));
    commands_close(p.client, 1000);
    harness_expect(p.fd,
                   "\x81\x04"
                   "data\x88\x02\x03\xe8",
                   10);
    harness_send_text(p.fd, "crossed");
    cr_assert_null(harness_callback_within(io, NULL, 50), "closed for the application");
    cr_assert_not(harness_readable(p.fd, 0), "the peer's close is waited for");
    harness_send_close(p.fd, 1000);
    harness_expect_eof(p.fd);
    expect_only_close();
    harness_leave(&p);
}

Test(client, RFC_6455_7_1_1_a_closing_handshake_that_nobody_answers_is_bounded)
{
    struct peer p = websocket();
    commands_close(p.client, 1001);
    harness_expect(p.fd, "\x88\x02\x03\xe9", 4);
    harness_expect_eof(p.fd);
    expect_only_close();
    cr_assert(io_wait_clients(io, WAIT_MS));
    harness_leave(&p);
}

static void expect_failure(struct peer *p, const char *close_head)
{
    uint8_t head[4];
    harness_read(p->fd, head, 4);
    cr_assert_eq(head[0], 0x88);
    cr_assert_eq(memcmp(head + 2, close_head, 2), 0);
    char reason[128];
    harness_read(p->fd, reason, (size_t)head[1] - 2);
    harness_expect_eof(p->fd);
    cr_assert_not(client_is_open(p->client));
    cr_assert_eq(stats().protocol_errors, 1);
    close(p->fd);
    p->fd = -1;
    expect_only_close();
    harness_leave(p);
}

Test(client, RFC_6455_5_1_an_unmasked_frame_ends_the_connection_with_1002)
{
    struct peer p = websocket();
    harness_send(p.fd, "\x81\x01x", 3);
    expect_failure(&p, "\x03\xea");
}

Test(client, RFC_6455_8_1_bad_UTF_8_ends_the_connection_with_1007)
{
    struct peer p = websocket();
    harness_send_frame(p.fd, WS_TEXT, "\xff", 1);
    expect_failure(&p, "\x03\xef");
}

Test(client, a_message_over_the_limit_ends_the_connection_with_1009_before_it_has_come)
{
    struct peer p = websocket();
    uint8_t header[WS_HEADER_MAX];
    struct ws_header h = {
        .fin = true, .masked = true, .opcode = WS_BINARY, .length = config.max_message + 1};
    harness_send(p.fd, header, ws_header_encode(header, &h));
    expect_failure(&p, "\x03\xf1");
}

Test(client, a_peer_that_goes_on_sending_after_its_fault_still_gets_the_close_frame)
{
    struct peer p = websocket();
    uint8_t junk[60000] = {0};
    harness_send(p.fd, "\x81\x01x", 3);
    harness_send(p.fd, junk, sizeof(junk));
    harness_send(p.fd, junk, sizeof(junk));
    expect_failure(&p, "\x03\xea");
}

Test(client, S_23_what_an_event_stream_sends_is_dropped)
{
    struct peer p = sse();
    uint8_t junk[100000] = {0x81, 0x85};
    harness_send(p.fd, junk, sizeof(junk));
    cr_assert(harness_write(&p, "a"));
    harness_expect(p.fd, "data: a\n\n", 9);
    cr_assert_null(harness_callback_within(io, NULL, 50));
    harness_leave(&p);
    expect_only_close();
}

Test(client, S_47_an_event_stream_ends_after_what_was_written)
{
    struct peer p = sse();
    harness_send(p.fd, "unread", 6);
    cr_assert(harness_write(&p, "a"));
    commands_close(p.client, 1000);
    harness_expect(p.fd, "data: a\n\n", 9);
    harness_expect_eof(p.fd);
    expect_only_close();
    harness_leave(&p);
}

/* Subscriptions, shutdown, stop. */

Test(client, P_7_a_local_publish_goes_straight_to_its_subscribers)
{
    extern char HUB_DIRECT_AUTO;
    struct peer ws = websocket(), stream = sse(), other = websocket();
    cr_assert(commands_subscribe_client(ws.client, "a", 1, false, NULL, &HUB_DIRECT_AUTO));
    cr_assert(commands_subscribe_client(stream.client, "a", 1, false, NULL, &HUB_DIRECT_AUTO));
    cr_assert(commands_subscribe_client(other.client, "b", 1, false, NULL, &HUB_DIRECT_AUTO));
    cr_assert(commands_publish_local(io, "a", 1, "hi", 2, false));
    harness_expect(ws.fd, "\x81\x02hi", 4);
    harness_expect(stream.fd, "data: hi\n\n", 10);
    cr_assert_not(harness_readable(other.fd, 0));
    cr_assert(commands_unsubscribe_client(ws.client, "a", 1, false));
    cr_assert(commands_publish_local(io, "a", 1, "ho", 2, false));
    harness_expect(stream.fd, "data: ho\n\n", 10);
    cr_assert_not(harness_readable(ws.fd, 0));
    harness_leave(&ws);
    harness_leave(&stream);
    harness_leave(&other);
}

Test(client, a_client_evicted_in_the_middle_of_a_delivery_harms_nobody)
{
    extern char HUB_DIRECT_AUTO;
    enum { PEERS = 6 };
    struct peer peers[PEERS];
    uint8_t *data = calloc(1, 300000);
    for (int i = 0; i < PEERS; i++) {
        peers[i] = websocket();
        commands_subscribe_client(peers[i].client, "a", 1, false, NULL, &HUB_DIRECT_AUTO);
        commands_subscribe_client(peers[i].client, "*", 1, true, NULL, &HUB_DIRECT_AUTO);
    }
    for (int i = 0; i < 20; i++)
        commands_publish_local(io, "a", 1, data, 300000, true);
    for (int i = 0; i < PEERS; i++)
        harness_expect_callback(io, CALLBACK_CLOSE);
    cr_assert_eq(stats().evicted_slow, PEERS);
    cr_assert(io_wait_clients(io, WAIT_MS));
    for (int i = 0; i < PEERS; i++)
        harness_leave(&peers[i]);
    free(data);
}

Test(client, P_10_subscriptions_end_with_the_client)
{
    struct peer p = websocket();
    cr_assert(commands_subscribe_client(p.client, "a", 1, false, NULL, NULL));
    cr_assert(commands_subscribe_client(p.client, "a*", 2, true, NULL, NULL));
    cr_assert(harness_write(&p, "x"));
    harness_expect(p.fd, "\x81\x01x", 3);
    while (stats().channels != 1 || stats().patterns != 1)
        usleep(1000);
    harness_leave(&p);
    expect_only_close();
    while (stats().channels != 0 || stats().patterns != 0)
        usleep(1000);
}

Test(client, P_12_a_closed_client_cannot_subscribe)
{
    struct peer p = websocket();
    commands_close(p.client, 1000);
    cr_assert_not(commands_subscribe_client(p.client, "a", 1, false, NULL, NULL));
    harness_leave(&p);
}

Test(client, S_30_shutdown_is_told_to_everyone_and_who_comes_later_is_closed_with_1001)
{
    struct peer a = websocket(), b = sse();
    cr_assert(commands_shutdown(io));
    harness_expect_callback(io, CALLBACK_SHUTDOWN);
    harness_expect_callback(io, CALLBACK_SHUTDOWN);
    cr_assert_not(io_wait_clients(io, 20));
    struct peer late = opened(harness_websocket(io));
    harness_expect(late.fd, "\x88\x02\x03\xe9", 4);
    close(late.fd);
    late.fd = -1;
    expect_only_close();
    commands_close(a.client, 1001);
    commands_close(b.client, 1001);
    harness_expect(a.fd, "\x88\x02\x03\xe9", 4);
    harness_send_close(a.fd, 1001);
    cr_assert(io_wait_clients(io, WAIT_MS));
    harness_leave(&a);
    harness_leave(&b);
    harness_leave(&late);
}

Test(client, stop_tells_1001_and_gives_every_descriptor_back)
{
    io_thread_stop(io);
    unsigned before = harness_count_descriptors();
    io = harness_start(&config);
    struct peer peers[50];
    for (int i = 0; i < 50; i++)
        peers[i] = i % 2 ? websocket() : sse();
    io_thread_stop(io);
    harness_expect(peers[1].fd, "\x88", 1);
    harness_expect_end(peers[1].fd);
    harness_expect_eof(peers[0].fd);
    for (int i = 0; i < 50; i++) {
        cr_assert_not(client_is_open(peers[i].client));
        cr_assert_not(harness_write(&peers[i], "x"));
        harness_leave(&peers[i]);
    }
    cr_assert_eq(harness_count_descriptors(), before);
    io = harness_start(&config);
}

Test(client, clients_that_come_and_go_leave_nothing_behind)
{
    struct peer warm = websocket();
    unsigned before = harness_count_descriptors();
    for (int i = 0; i < 500; i++) {
        struct peer p = websocket();
        harness_leave(&p);
        expect_only_close();
    }
    cr_assert_eq(harness_count_descriptors(), before);
    cr_assert_eq(stats().clients, 1);
    harness_leave(&warm);
}

Test(client, publishing_is_refused_when_the_buffer_is_full)
{
    uint8_t *data = calloc(1, 1000000);
    unsigned accepted = 0;
    while (commands_publish(io, "a", 1, data, 1000000, true))
        accepted++;
    cr_assert_eq(accepted, config.publish_buffer / 1000048);
    cr_assert_eq(stats().publishes_refused, 1);
    cr_assert_not(io_wait_published(io, 20));
    free(data);
}

Test(client, subscribing_past_64_mib_of_names_is_refused_counted_and_logged_once)
{
    char name[4096];
    uint64_t full = 64 << 20;
    memset(name, 'x', sizeof(name));
    __atomic_store_n(&io->names_bytes, full, __ATOMIC_RELAXED);
    struct mailbox *m = mailbox_new(io_callbacks(io), 0);
    struct block *block = block_new(m, 0);
    size_t before = mailbox_length(io_notices(io));
    for (int i = 0; i < 100; i++)
        cr_assert_not(commands_subscribe_block(io, block, name, sizeof(name), false));
    cr_assert_eq(stats().subscriptions_refused, 100);
    cr_assert_leq(mailbox_length(io_notices(io)) - before, 2, "at most one line a second");
    __atomic_store_n(&io->names_bytes, 0, __ATOMIC_RELAXED);
    block_unref(block);
    mailbox_unref(m);
}
