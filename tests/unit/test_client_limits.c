/* Slow, silent and hostile peers: what a client may hold, and for how long. */
#include "client_fixture.h"
#include <time.h>

TestSuite(client_limits, .init = setup, .fini = teardown, .timeout = 60);

static void write_until_evicted(struct peer *p)
{
    uint8_t data[10000] = {0};
    struct frame *frame = frame_binary(data, sizeof(data));
    for (int i = 0; i < 100000 && commands_write(p->client, frame_ref(frame)); i++) {
        if (i % 16 == 15)
            usleep(100); /* writing faster than the I/O thread runs would only fill its queue */
    }
    frame_unref(frame);
    cr_assert_not(client_is_open(p->client));
}

Test(client_limits, a_client_that_does_not_read_is_evicted_and_others_are_not)
{
    struct peer slow = websocket(), fine = websocket();
    write_until_evicted(&slow);
    cr_assert_eq(stats().evicted_slow, 1);
    cr_assert(harness_write(&fine, "x"));
    harness_expect(fine.fd, "\x81\x01x", 3);
    harness_expect_callback(io, CALLBACK_CLOSE);
    harness_expect_end(slow.fd);
    harness_leave(&slow);
    harness_leave(&fine);
}

Test(client_limits, an_evicted_client_that_reads_on_gets_1008_at_a_frames_end)
{
    struct peer p = websocket();
    unsigned frames = 0;
    write_until_evicted(&p);
    for (;; frames++) {
        uint8_t head[4], data[10000];
        harness_read(p.fd, head, 4);
        if (head[0] != 0x82) {
            cr_assert_eq(memcmp(head, "\x88\x0a\x03\xf0", 4), 0);
            harness_expect(p.fd, "too slow", 8);
            break;
        }
        harness_read(p.fd, data, sizeof(data));
    }
    cr_assert_lt(frames, 60, "only what was on its way, of more than 100 that were written");
    harness_expect_eof(p.fd);
    close(p.fd);
    p.fd = -1;
    expect_only_close();
    harness_leave(&p);
}

Test(client_limits, a_queue_of_tiny_frames_is_bounded_too)
{
    struct peer p = websocket();
    struct frame *frame = frame_text("x", 1);
    unsigned written = 0;
    while (commands_write(p.client, frame_ref(frame))) {
        if (++written % 16 == 15)
            usleep(10);
    }
    frame_unref(frame);
    cr_assert_lt(written, 200000, "1 MiB would hold 350,000 of 3 bytes");
    harness_expect_callback(io, CALLBACK_CLOSE);
    harness_leave(&p);
}

Test(client_limits, a_slow_event_stream_is_evicted_too)
{
    struct peer p = sse();
    write_until_evicted(&p);
    harness_expect_end(p.fd);
    expect_only_close();
    harness_leave(&p);
}

Test(client_limits, a_client_without_progress_is_evicted_though_its_queue_is_small)
{
    config.stall_seconds = 1;
    restart();
    struct peer p = websocket();
    uint8_t *data = calloc(1, 900000);
    cr_assert(commands_write(p.client, frame_binary(data, 900000)));
    free(data);
    expect_only_close();
    cr_assert_eq(stats().evicted_stalled, 1);
    harness_leave(&p);
}

/* The head of a masked text frame of 60,000 bytes; the mask changes nothing. */
static const uint8_t long_frame[] = {0x81, 0xfe, 0xea, 0x60, 0, 0, 0, 0};

Test(client_limits, a_message_that_dribbles_is_evicted)
{
    config.stall_seconds = 1;
    restart();
    struct peer p = websocket();
    harness_send(p.fd, long_frame, sizeof(long_frame));
    for (int i = 0; i < 50 && !harness_readable(p.fd, 100); i++)
        harness_send(p.fd, "x", 1);
    harness_expect(p.fd, "\x88\x0a\x03\xf0too slow", 12);
    harness_leave(&p);
    expect_only_close();
    cr_assert_eq(stats().evicted_stalled, 1);
}

Test(client_limits, half_a_header_and_pings_between_fragments_dribble_too)
{
    config.stall_seconds = 1;
    restart();
    struct peer header = websocket(), fragments = websocket();
    harness_send(header.fd, "\x81", 1);
    harness_send(fragments.fd, "\x01\x81\0\0\0\0x", 7);
    for (int i = 0; i < 50 && !harness_readable(fragments.fd, 300); i++)
        harness_send(fragments.fd, "\x8a\x80\0\0\0\0", 6);
    harness_expect(fragments.fd, "\x88\x0a\x03\xf0too slow", 12);
    harness_expect(header.fd, "\x88\x0a\x03\xf0too slow", 12);
    harness_leave(&header);
    harness_leave(&fragments);
    cr_assert(io_wait_clients(io, WAIT_MS));
    cr_assert_eq(stats().evicted_stalled, 2);
}

Test(client_limits, a_message_that_comes_steadily_has_all_the_time_it_needs)
{
    enum { PORTION = 2000, LENGTH = 60000 };
    static uint8_t portion[PORTION];
    memset(portion, 'x', PORTION);
    config.stall_seconds = 1;
    restart();
    struct peer p = websocket();
    harness_send(p.fd, long_frame, sizeof(long_frame));
    for (int sent = 0; sent < LENGTH; sent += PORTION) {
        cr_assert_not(harness_readable(p.fd, 100), "three seconds in all: it is let be");
        harness_send(p.fd, portion, PORTION);
    }
    harness_expect_callback(io, CALLBACK_MESSAGE);
    cr_assert_eq(stats().evicted_stalled, 0);
    harness_leave(&p);
    expect_only_close();
}

Test(client_limits, back_pressure_a_full_mailbox_stops_reading_until_it_has_room)
{
    enum { MESSAGES = 3000 };
    struct peer p = websocket();
    uint8_t *bytes = malloc(MESSAGES * 14);
    size_t length = 0;
    char text[16];
    for (unsigned i = 0; i < MESSAGES; i++) {
        snprintf(text, sizeof(text), "%08u", i);
        length += harness_frame(bytes + length, WS_TEXT, true, text, 8);
    }
    harness_send(p.fd, bytes, length);
    time_t begin = time(NULL);
    for (unsigned i = 0; i < MESSAGES; i++) {
        snprintf(text, sizeof(text), "%08u", i);
        harness_expect_message(io, text, false);
        cr_assert_leq(mailbox_length(client_mailbox(p.client)), config.mailbox_limit);
    }
    cr_assert_leq(time(NULL) - begin, 15, "it reads on when there is room, not with the next tick");
    free(bytes);
    harness_leave(&p);
    expect_only_close();
}

Test(client_limits, back_pressure_what_was_held_back_stays_before_what_comes_after_a_close)
{
    enum { MESSAGES = 500 };
    struct peer p = websocket();
    uint8_t bytes[MESSAGES * 14], *data = calloc(1, 400010);
    size_t length = 0;
    for (unsigned i = 0; i < MESSAGES; i++)
        length += harness_frame(bytes + length, WS_TEXT, true, "message", 7);
    cr_assert(commands_write(p.client, frame_binary(data, 400000)));
    harness_expect(p.fd, "\x82\x7f", 2); /* the rest fills the socket */
    harness_send(p.fd, bytes, length - 1);
    while (mailbox_length(client_mailbox(p.client)) < config.mailbox_limit)
        usleep(1000);
    commands_close(p.client, 1000);
    harness_send(p.fd, bytes + length - 1, 1);
    harness_send_close(p.fd, 1000);
    while (client_pending(p.client) != -1)
        usleep(1000);
    usleep(20000); /* time to read it in the wrong order */
    harness_read(p.fd, data, 400008);
    harness_expect(p.fd, "\x88\x02\x03\xe8", 4);
    harness_expect_eof(p.fd);
    cr_assert_eq(stats().protocol_errors, 0);
    free(data);
    harness_leave(&p);
}

Test(client_limits, back_pressure_a_client_that_does_not_read_is_not_read)
{
    struct peer p = websocket();
    uint8_t *data = calloc(1, 1000000);
    cr_assert(commands_write(p.client, frame_binary(data, 1000000)));
    while (!harness_readable(p.fd, 1000))
        ;
    usleep(50000);
    harness_send_text(p.fd, "unheard");
    cr_assert_null(harness_callback_within(io, NULL, 100));
    uint8_t *got = malloc(1000010);
    harness_read(p.fd, got, 1000010);
    harness_expect_message(io, "unheard", false);
    free(data);
    free(got);
    harness_leave(&p);
}

/* Takes notices until so many lines came or are told to have been left out. */
static unsigned count_fault_lines(unsigned wanted, unsigned *came)
{
    unsigned left_out = 0;
    *came = 0;
    for (uint64_t end = io_clock_ms() + WAIT_MS;
         *came + left_out < wanted && io_clock_ms() < end;) {
        struct callback *c;
        struct mailbox *m = callback_pool_take(io_callbacks(io), &c);
        if (m == NULL) {
            usleep(1000);
            continue;
        }
        mailbox_done(m);
        if (c->kind == CALLBACK_LOG) {
            char line[200] = {0};
            size_t length = c->message->payload_length;
            memcpy(line, message_payload(c->message), length < 199 ? length : 199);
            *came += strncmp(line, "a WebSocket is closed with", 26) == 0;
            if (strstr(line, "more lines about clients") != NULL)
                left_out += (unsigned)atoi(line);
        }
        callback_free(c);
    }
    return *came + left_out;
}

Test(client_limits, lines_that_peers_cause_are_limited_and_what_is_left_out_is_counted)
{
    enum { PEERS = 100 };
    struct peer peers[PEERS];
    unsigned came;
    for (int i = 0; i < PEERS; i++) {
        peers[i] = harness_websocket(io);
        harness_send(peers[i].fd, "\x81\x01x", 3);
    }
    cr_assert_eq(count_fault_lines(PEERS, &came), PEERS);
    cr_assert_leq(came, 50, "ticks may have come between");
    for (int i = 0; i < PEERS; i++)
        harness_leave(&peers[i]);
}

Test(client_limits, S_66_a_silent_peer_is_pinged_and_closed_without_a_pong)
{
    config.ping_seconds = 1;
    config.pong_seconds = 1;
    restart();
    struct peer p = websocket();
    cr_assert_eq(client_timeout(p.client), 1);
    harness_expect(p.fd, "\x89\x00", 2);
    harness_send_frame(p.fd, WS_PONG, NULL, 0);
    harness_expect(p.fd, "\x89\x00", 2);
    harness_expect_eof(p.fd);
    expect_only_close();
    cr_assert_eq(stats().ping_timeouts, 1);
    harness_leave(&p);
}

Test(client_limits, S_66_an_event_stream_gets_a_comment)
{
    struct peer p = sse();
    commands_set_timeout(p.client, 1);
    cr_assert_eq(client_timeout(p.client), 1);
    char colon;
    harness_read(p.fd, &colon, 1);
    cr_assert_eq(colon, ':');
    harness_leave(&p);
}

/* SSE. */
