/* The receiving half, RFC 6455 5 to 8: what each sequence of bytes becomes, whole, byte by byte and
 * in random portions. */
#include "bytes.h"
#include "ws_message.h"
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 1000, LOG_SIZE = 1 << 16 };

/* Frames as a client sends them. */
static uint8_t *wire;
static size_t wire_length, wire_capacity;

static void raw(const void *bytes, size_t length)
{
    while (wire_length + length > wire_capacity) {
        wire_capacity = wire_capacity > 0 ? wire_capacity * 2 : 4096;
        wire = realloc(wire, wire_capacity);
    }
    if (length > 0)
        memcpy(wire + wire_length, bytes, length);
    wire_length += length;
}

static void send_frame(unsigned first, const void *payload, size_t length)
{
    struct ws_header h = {
        .masked = true, .mask = {0x9A, 0x01, 0xC3, (uint8_t)(rand() & 0xFF)}, .length = length};
    uint8_t head[WS_HEADER_MAX];
    size_t size = ws_header_encode(head, &h), at;

    head[0] = (uint8_t)first;
    raw(head, size);
    at = wire_length;
    raw(payload, length);
    ws_mask(wire + at, length, h.mask);
}

static void sends(unsigned first, const char *payload)
{
    send_frame(first, payload, strlen(payload));
}

/* What came out: a line per event. */
static char record[LOG_SIZE];
static size_t record_length;

static bool write_down(void *context, const struct ws_event *e)
{
    static const char *const names[] = {"text", "binary", "ping", "pong", "close", "failure"};
    int n;

    (void)context;
    n = snprintf(record + record_length, LOG_SIZE - record_length, "%s ", names[e->kind]);
    record_length += (size_t)n;
    if (e->kind >= WS_EVENT_CLOSE)
        record_length +=
            (size_t)snprintf(record + record_length, LOG_SIZE - record_length, "%u ", e->code);
    if (e->kind != WS_EVENT_FAILURE && e->length > 0 && e->length < LOG_SIZE - record_length) {
        memcpy(record + record_length, e->data, e->length);
        record_length += e->length;
    }
    record[record_length++] = '\n';
    record[record_length] = '\0';
    return true;
}

/* Feeds the wire in portions: 0 whole, 1 byte by byte, else random; each portion in memory of its
 * own so that a sanitizer sees every step outside. */
static void feed(size_t limit, const struct ws_deflate_terms *terms, unsigned portions)
{
    struct ws_receiver r;
    size_t at = 0;

    record_length = 0;
    record[0] = '\0';
    ws_receiver_init(&r, limit, terms);
    while (at < wire_length) {
        size_t left = wire_length - at, n = left;
        uint8_t *copy;
        if (portions == 1)
            n = 1;
        else if (portions > 1)
            n = 1 + (size_t)rand() % (left < portions ? left : portions);
        copy = malloc(n);
        memcpy(copy, wire + at, n);
        cr_assert_eq(ws_receiver_feed(&r, copy, n, write_down, NULL), n);
        free(copy);
        at += n;
    }
    if (r.kind == 0 && !r.in_frame) { /* idle: owns nothing */
        cr_assert_null(r.message.bytes);
        cr_assert_null(r.control);
        cr_assert(r.inflater == NULL || r.terms.client_takeover);
    }
    ws_receiver_release(&r);
}

static void expect_with(size_t limit, const struct ws_deflate_terms *terms, const char *expected)
{
    feed(limit, terms, 0);
    cr_assert_str_eq(record, expected, "whole");
    feed(limit, terms, 1);
    cr_assert_str_eq(record, expected, "byte by byte");
    for (int round = 0; round < 40; round++) {
        feed(limit, terms, 2u + (unsigned)rand() % 40);
        cr_assert_str_eq(record, expected, "random portions");
    }
    wire_length = 0;
}

static void expect(const char *expected)
{
    expect_with(LIMIT, NULL, expected);
}

Test(ws_message, rfc6455_5_6_messages)
{
    sends(0x81, "Hello");
    sends(0x82, "\x80\xFF");
    sends(0x81, "");
    sends(0x82, "");
    sends(0x81, "\xCE\xBA\xE1\xBD\xB9\xF0\x9F\x98\x80");
    expect("text Hello\nbinary \x80\xFF\ntext \nbinary \n"
           "text \xCE\xBA\xE1\xBD\xB9\xF0\x9F\x98\x80\n");
}

Test(ws_message, rfc6455_5_4_fragments_with_control_frames_between)
{
    sends(0x01, "Hel");
    sends(0x89, "are you there");
    sends(0x00, "");
    sends(0x8A, "");
    sends(0x80, "lo");
    sends(0x02, "");
    sends(0x00, "a");
    sends(0x80, "");
    sends(0x81, "x");
    expect("ping are you there\npong \ntext Hello\nbinary a\ntext x\n");
    sends(0x01, "");
    sends(0x80, "");
    expect("text \n");
}

Test(ws_message, rfc6455_5_4_fragment_order)
{
    sends(0x80, "continues nothing");
    expect("failure 1002 \n");
    sends(0x00, "continues nothing");
    expect("failure 1002 \n");
    sends(0x01, "a");
    sends(0x81, "b");
    expect("failure 1002 \n");
    sends(0x01, "a");
    sends(0x80, "b");
    sends(0x80, "c");
    expect("text ab\nfailure 1002 \n");
}

Test(ws_message, rfc6455_5_1_unmasked_frame)
{
    raw("\x81\x05Hello", 7);
    expect("failure 1002 \n");
    raw("\x89\x00", 2);
    expect("failure 1002 \n");
    raw("\x81\x7E", 2); /* known at the second byte */
    expect("failure 1002 \n");
}

Test(ws_message, rfc6455_5_2_reserved_bits_and_opcodes)
{
    for (unsigned first = 0; first < 256; first++) {
        unsigned opcode = first & 15;
        if (!(first & 0x70) && (opcode <= 2 || (opcode >= 8 && opcode <= 10 && first & 0x80)))
            continue;
        sends(0x81, "before");
        sends(first, "x");
        sends(0x81, "after");
        expect("text before\nfailure 1002 \n");
    }
}

Test(ws_message, rfc6455_5_5_control_frames)
{
    char payload[127], expected[300];

    memset(payload, 'p', sizeof(payload));
    send_frame(0x89, payload, 125);
    send_frame(0x8A, payload, 125);
    snprintf(expected, sizeof(expected), "ping %.125s\npong %.125s\n", payload, payload);
    expect(expected);
    send_frame(0x89, payload, 126);
    expect("failure 1002 \n");
    sends(0x09, "x");
    expect("failure 1002 \n");
    sends(0x8A, "never asked for");
    expect("pong never asked for\n");
}

Test(ws_message, rfc6455_5_2_lengths)
{
    raw("\x82\xFE\x00\x05", 4);
    expect("failure 1002 \n");
    raw("\x82\xFF\0\0\0\0\0\0\x01\x00", 10);
    expect("failure 1002 \n");
    raw("\x82\xFF\x80\0\0\0\0\0\0\0", 10);
    expect("failure 1002 \n");
}

static void send_close(unsigned code, const char *reason)
{
    uint8_t payload[200];

    put_u16be(payload, (uint16_t)code);
    memcpy(payload + 2, reason, strlen(reason));
    send_frame(0x88, payload, 2 + strlen(reason));
}

Test(ws_message, rfc6455_7_4_every_close_code)
{
    char expected[64];

    for (unsigned code = 0; code < 5100; code++) {
        wire_length = 0;
        send_close(code, "bye");
        sends(0x81, "after");
        snprintf(expected, sizeof(expected), "close %u bye\n", code);
        feed(LIMIT, NULL, code & 1);
        cr_assert_str_eq(record, ws_close_code_is_valid(code) ? expected : "failure 1002 \n");
    }
}

Test(ws_message, rfc6455_5_5_1_close_frames)
{
    sends(0x88, "");
    sends(0x89, "nothing is read behind a close");
    raw("\xFF\xFF\xFF", 3);
    expect("close 1005 \n");
    sends(0x88, "\x03");
    expect("failure 1002 \n");
    send_close(1000, "");
    expect("close 1000 \n");
    send_close(1001, "\xE2\x82\xAC");
    expect("close 1001 \xE2\x82\xAC\n");
    send_close(1000, "\xE2\x82");
    expect("failure 1007 \n");
    sends(0x01, "cut off");
    send_close(1000, "bye");
    expect("close 1000 bye\n");
}

Test(ws_message, rfc6455_8_1_utf8_across_fragments)
{
    sends(0x01, "\xCE\xBA\xE1");
    sends(0x00, "\xBD");
    sends(0x89, "\xFF");
    sends(0x80, "\xB9");
    expect("ping \xFF\ntext \xCE\xBA\xE1\xBD\xB9\n");
    sends(0x81, "\xCE\xBA\xE1\xBD");
    expect("failure 1007 \n");
    sends(0x01, "\xCE\xBA\xE1\xBD");
    sends(0x80, "");
    expect("failure 1007 \n");
    sends(0x81, "\xED\xA0\x80 edited");
    expect("failure 1007 \n");
    sends(0x81, "\xCE"); /* a new message starts anew */
    expect("failure 1007 \n");
    sends(0x02, "\xCE");
    sends(0x80, "\xFF");
    sends(0x81, "ok");
    expect("binary \xCE\xFF\ntext ok\n");
}

Test(ws_message, rfc6455_8_1_fails_at_the_first_bad_byte)
{
    static const uint8_t bad[] = {0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xcf, 0x83, 0xce,
                                  0xbc, 0xce, 0xb5, 0xf4, 0x90, 0x80, 0x80, 'x'};
    struct ws_receiver r;
    size_t i;

    send_frame(0x01, bad, sizeof(bad));
    ws_receiver_init(&r, LIMIT, NULL);
    record_length = 0;
    for (i = 0; i < wire_length && record_length == 0; i++)
        ws_receiver_feed(&r, wire + i, 1, write_down, NULL);
    cr_assert_str_eq(record, "failure 1007 \n");
    cr_assert_eq(i, 6 + 13, "at %zu", i);
    ws_receiver_release(&r);
    wire_length = 0;
    sends(0x01, "fine");
    send_frame(0x00, bad, 13);
    raw("\x80", 1);
    expect("failure 1007 \n");
}

Test(ws_message, limits_1009_before_it_is_buffered)
{
    uint8_t zeros[LIMIT] = {0};
    struct ws_receiver r;

    ws_receiver_init(&r, LIMIT, NULL);
    send_frame(0x82, zeros, LIMIT);
    feed(LIMIT, NULL, 0);
    cr_assert_eq(record_length, 7 + LIMIT + 1);
    wire_length = 0;
    raw("\x82\xFE\x03\xE9wxyz", 8); /* 1001: the header is enough */
    expect("failure 1009 \n");
    raw("\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFFwxyz", 14);
    expect("failure 1009 \n");
    send_frame(0x02, zeros, 600);
    send_frame(0x00, zeros, 399);
    raw("\x80\x82wxyz", 6); /* 1001 with the two of this one */
    expect("failure 1009 \n");
    ws_receiver_release(&r);
}

Test(ws_message, limits_memory_grows_with_what_came_not_with_what_was_announced)
{
    struct ws_receiver r;
    uint8_t head[15] = "\x82\xFF\0\0\0\0\x01\0\0\0wxyz";

    ws_receiver_init(&r, 1 << 24, NULL);
    cr_assert_eq(ws_receiver_feed(&r, head, 15, write_down, NULL), 15);
    cr_assert_leq(r.message.capacity, 4096);
    ws_receiver_release(&r);
}

/* Counts messages and checks that they hold one repeated byte. */
struct tally {
    size_t messages, bytes;
    bool wrong;
};

static bool count(void *context, const struct ws_event *e)
{
    struct tally *t = context;

    t->messages++;
    t->bytes += e->length;
    t->wrong = t->wrong || e->kind != WS_EVENT_TEXT || e->data[e->length - 1] != 'x';
    return true;
}

static struct tally feed_large(size_t limit, size_t portion)
{
    struct ws_receiver r;
    struct tally t = {0};
    size_t at, n;

    ws_receiver_init(&r, limit, NULL);
    for (at = 0; at < wire_length; at += n) {
        n = wire_length - at < portion ? wire_length - at : portion;
        cr_assert_eq(ws_receiver_feed(&r, wire + at, n, count, &t), n);
    }
    cr_assert_null(r.message.bytes);
    ws_receiver_release(&r);
    wire_length = 0;
    return t;
}

Test(ws_message, rfc6455_5_2_message_of_16_mib, .timeout = 60)
{
    enum { SIZE = 16 << 20 };
    uint8_t *payload = malloc(SIZE);
    static const size_t portions[] = {SIZE + 100, 65536, 1000, 17};
    struct tally t;

    memset(payload, 'x', SIZE);
    for (size_t i = 0; i < 4; i++) {
        send_frame(0x81, payload, SIZE);
        t = feed_large(SIZE, portions[i]);
        cr_assert(t.messages == 1 && t.bytes == SIZE && !t.wrong);
    }
    free(payload);
}

Test(ws_message, rfc6455_5_4_message_of_65536_fragments, .timeout = 60)
{
    struct tally t;

    for (size_t size = 1; size <= 64; size *= 64) {
        char payload[64];
        memset(payload, 'x', sizeof(payload));
        for (int i = 0; i < 65536; i++)
            send_frame(i == 0 ? 0x01 : i == 65535 ? 0x80 : 0x00, payload, size);
        t = feed_large(65536 * size, 4096);
        cr_assert(t.messages == 1 && t.bytes == 65536 * size && !t.wrong);
    }
}

/* The rule of being destroyed in one's own callback, and of pausing. */

struct stopper {
    struct ws_receiver *r;
    int events_left;
    bool destroy;
};

static bool stop(void *context, const struct ws_event *e)
{
    struct stopper *s = context;

    if (--s->events_left > 0)
        return true;
    if (s->destroy) {
        ws_receiver_release(s->r);
        memset(s->r, 0xEE, sizeof(*s->r));
        free(s->r);
    }
    write_down(NULL, e); /* data outlives the receiver until we return */
    return false;
}

static void send_all_kinds(void)
{
    wire_length = 0;
    sends(0x81, "one");
    sends(0x02, "t");
    sends(0x89, "ping");
    sends(0x8A, "pong");
    sends(0x80, "wo");
    sends(0xC1, "\xCA\x48\xCD\xC9\xC9\x07\x00"); /* compressed "Hello" in one more byte than sent */
    send_close(1000, "bye");
    sends(0x81, "never");
}

Test(ws_message, rule_destroyed_in_the_callback_of_any_event)
{
    static const char *const expected[] = {"text one\n", "ping ping\n", "pong pong\n",
                                           "binary two\n"};
    struct ws_deflate_terms terms = {.client_takeover = true, .client_bits = 15};

    for (int event = 1; event <= 5; event++)
        for (size_t portion = 1; portion < 64; portion++) {
            struct stopper s = {malloc(sizeof(struct ws_receiver)), event, true};
            bool stopped = false;
            send_all_kinds();
            record_length = 0;
            ws_receiver_init(s.r, LIMIT, &terms);
            for (size_t at = 0; at < wire_length && !stopped; at += portion) {
                size_t n = wire_length - at < portion ? wire_length - at : portion;
                cr_assert_leq(ws_receiver_feed(s.r, wire + at, n, stop, &s), n);
                stopped = s.events_left <= 0;
            }
            cr_assert(stopped);
            if (event <= 4)
                cr_assert_str_eq(record, expected[event - 1]);
        }
    wire_length = 0;
}

static bool pause_each_time(void *context, const struct ws_event *e)
{
    (void)context;
    write_down(NULL, e);
    return false;
}

Test(ws_message, rule_a_pause_continues_with_the_bytes_that_were_not_used)
{
    for (size_t portion = 1; portion < 64; portion++) {
        struct ws_receiver r;
        size_t at = 0;
        wire_length = 0;
        record_length = 0;
        sends(0x81, "one");
        sends(0x02, "t");
        sends(0x89, "ping");
        sends(0x8A, "");
        sends(0x80, "wo");
        sends(0x81, "");
        send_close(1000, "bye");
        ws_receiver_init(&r, LIMIT, NULL);
        while (at < wire_length) {
            size_t n = wire_length - at < portion ? wire_length - at : portion;
            size_t used = ws_receiver_feed(&r, wire + at, n, pause_each_time, NULL);
            cr_assert(used > 0 && used <= n);
            at += used;
        }
        cr_assert_str_eq(record, "text one\nping ping\npong \nbinary two\ntext \nclose 1000 bye\n");
        ws_receiver_release(&r);
    }
    wire_length = 0;
}

static bool keep_pointer(void *context, const struct ws_event *e)
{
    *(const uint8_t **)context = e->data;
    return true;
}

Test(ws_message, a_message_in_one_portion_is_delivered_where_it_lies)
{
    struct ws_receiver r;
    const uint8_t *data = NULL;

    sends(0x81, "Hello");
    ws_receiver_init(&r, LIMIT, NULL);
    ws_receiver_feed(&r, wire, wire_length, keep_pointer, &data);
    cr_assert_eq(data, wire + 6);
    ws_receiver_release(&r);
    wire_length = 0;
}

/* permessage-deflate */

static const struct ws_deflate_terms with_takeover = {true, 15, 15};
static const struct ws_deflate_terms without_takeover = {false, 15, 15};

#define COMPRESSED(first, bytes) send_frame(first, bytes, sizeof(bytes) - 1)

Test(ws_message, rfc7692_7_2_3_examples)
{
    COMPRESSED(0xC1, "\xF2\x48\xCD\xC9\xC9\x07\x00");
    COMPRESSED(0x41, "\xF2\x48\xCD");
    sends(0x89, "between");
    COMPRESSED(0x80, "\xC9\xC9\x07\x00");
    COMPRESSED(0xC1, "\x00\x05\x00\xFA\xFF\x48\x65\x6C\x6C\x6F\x00"); /* stored block */
    COMPRESSED(0xC1, "\xF3\x48\xCD\xC9\xC9\x07\x00\x00");             /* BFINAL */
    COMPRESSED(0xC1, "\xF3\x48\xCD\xC9\xC9\x07\x00");                 /* and nothing behind it */
    COMPRESSED(0xC1, "\xF2\x48\x05\x00\x00\x00\xFF\xFF\xCA\xC9\xC9\x07\x00"); /* two blocks */
    COMPRESSED(0xC1, "\x00");
    COMPRESSED(0xC1, "\x02\x00");
    COMPRESSED(0xC1, "");
    sends(0x81, "plain");
    expect_with(LIMIT, &without_takeover,
                "text Hello\nping between\ntext Hello\ntext Hello\ntext Hello\ntext Hello\n"
                "text Hello\ntext \ntext \ntext \ntext plain\n");
}

Test(ws_message, rfc7692_7_2_3_2_context_takeover)
{
    COMPRESSED(0xC1, "\xF2\x48\xCD\xC9\xC9\x07\x00");
    sends(0x81, "plain");
    COMPRESSED(0xC1, "\xF2\x00\x11\x00\x00");
    expect_with(LIMIT, &with_takeover, "text Hello\ntext plain\ntext Hello\n");
    COMPRESSED(0xC1, "\xF3\x48\xCD\xC9\xC9\x07\x00\x00"); /* also across BFINAL */
    COMPRESSED(0xC1, "\xF2\x00\x11\x00\x00");
    expect_with(LIMIT, &with_takeover, "text Hello\ntext Hello\n");
    COMPRESSED(0xC1, "\xF2\x48\xCD\xC9\xC9\x07\x00");
    COMPRESSED(0xC1, "\xF2\x00\x11\x00\x00"); /* refers to what was to be forgotten */
    expect_with(LIMIT, &without_takeover, "text Hello\nfailure 1007 \n");
}

Test(ws_message, rfc7692_6_rsv1_where_it_must_not_be)
{
    COMPRESSED(0xC1, "\xF2\x48\xCD\xC9\xC9\x07\x00");
    expect("failure 1002 \n");
    COMPRESSED(0x41, "\xF2\x48\xCD");
    COMPRESSED(0xC0, "\xC9\xC9\x07\x00");
    expect_with(LIMIT, &with_takeover, "failure 1002 \n");
    COMPRESSED(0xC9, "\x00");
    expect_with(LIMIT, &with_takeover, "failure 1002 \n");
}

Test(ws_message, rfc7692_bad_streams)
{
    COMPRESSED(0xC1, "\xFF\xFF");
    expect_with(LIMIT, &with_takeover, "failure 1007 \n");
    COMPRESSED(0xC2, "\xF2\x48\xCD"); /* ends within a block */
    expect_with(LIMIT, &with_takeover, "failure 1007 \n");
    COMPRESSED(0xC2, "\x00\x10\x00\xEF\xFF\x48"); /* ends within a stored block */
    expect_with(LIMIT, &with_takeover, "failure 1007 \n");
    COMPRESSED(0xC1, "\x00\x02\x00\xFD\xFF\xC3\x28\x00"); /* inflates to invalid UTF-8 */
    expect_with(LIMIT, &with_takeover, "failure 1007 \n");
    COMPRESSED(0xC1, "\x00\x01\x00\xFE\xFF\xC3\x00"); /* to half a character */
    expect_with(LIMIT, &with_takeover, "failure 1007 \n");
    COMPRESSED(0xC2, "\x00\x02\x00\xFD\xFF\xC3\x28\x00");
    expect_with(LIMIT, &with_takeover, "binary \xC3(\n");
}

/* Compresses a run of zeros without using the deflater under test's receiver. */
static void send_zeros(unsigned first, size_t length)
{
    struct ws_deflater *d = ws_deflater_new(15);
    uint8_t *zeros = calloc(1, length);
    const uint8_t *out;
    size_t out_length;

    cr_assert(ws_deflater_compress(d, zeros, length, &out, &out_length));
    send_frame(first, out, out_length);
    free(zeros);
    ws_deflater_free(d);
}

static bool count_zeros(void *context, const struct ws_event *e)
{
    *(size_t *)context = e->kind == WS_EVENT_BINARY ? e->length : e->code;
    return true;
}

Test(ws_message, limits_count_inflated_bytes_a_bomb_is_1009)
{
    static const size_t lengths[] = {999, 1000, 1001, 5000, 50 << 20};

    for (size_t i = 0; i < 5; i++) {
        struct ws_receiver r;
        size_t result = 0;
        send_zeros(0xC2, lengths[i]);
        ws_receiver_init(&r, LIMIT, &with_takeover);
        ws_receiver_feed(&r, wire, wire_length, count_zeros, &result);
        cr_assert_eq(result, lengths[i] <= LIMIT ? lengths[i] : 1009, "%zu", lengths[i]);
        cr_assert_leq(r.message.capacity, 2 * LIMIT);
        ws_receiver_release(&r);
        wire_length = 0;
    }
}

Test(ws_message, random_conversations_in_random_portions_become_the_same_events, .timeout = 120)
{
    static char expected[LOG_SIZE];
    struct ws_deflater *d = ws_deflater_new(15);

    srand(7);
    for (int round = 0; round < 3000; round++) {
        int frames = 1 + rand() % 12;
        wire_length = 0;
        while (frames-- > 0) {
            static const uint8_t firsts[] = {0x81, 0x82, 0x01, 0x02, 0x00, 0x80,
                                             0x89, 0x8A, 0xC1, 0xC2, 0x41, 0x88};
            char payload[300];
            size_t length = (size_t)rand() % (rand() % 4 ? 20 : sizeof(payload));
            unsigned first = firsts[(size_t)rand() % (rand() % 8 ? 11 : sizeof(firsts))];
            const uint8_t *out = (uint8_t *)payload;
            for (size_t i = 0; i < length; i++)
                payload[i] = (char)("abc\xC3\xA9"[rand() % (rand() % 3 ? 3 : 5)]);
            if (first & 8 && length > 125)
                length = 125;
            if (first & 0x40 && !ws_deflater_compress(d, payload, length, &out, &length))
                continue;
            send_frame(first, out, length);
        }
        if (rand() % 4 == 0 && wire_length > 0)
            wire[(size_t)rand() % wire_length] ^= (uint8_t)(1 << rand() % 8);
        feed(LIMIT, &without_takeover, 0);
        memcpy(expected, record, record_length + 1);
        for (unsigned portions = 1; portions < 5; portions++) {
            feed(LIMIT, &without_takeover, portions);
            cr_assert_str_eq(record, expected);
        }
    }
    ws_deflater_free(d);
}
