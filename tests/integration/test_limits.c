/* Bad input and limits: one connection ends with a logged reason, everyone else goes on. */
#include "harness.h"
#include <sys/resource.h>

static struct broker b;
static struct peer witness; /* must not notice anything */

static void start(void)
{
    broker_start(&b, (const char *[]){"--no-journal", "--log-level", "debug", NULL});
    witness = peer_open(&b);
    peer_join(&witness, 1000, "witness");
}

static void end(void)
{
    static uint64_t sequence;
    struct answer a = peer_publish(&witness, 1000, 99, ++sequence, "witness", "still here");
    cr_assert_eq(a.reply.records, 1);
    a = peer_ask(&witness, WIRE_FETCH, 0, 1000, 0, NULL);
    cr_assert_eq(a.reply.records, 1);
    broker_end(&b);
}

TestSuite(limits, .init = start, .fini = end, .timeout = 120);

static void send_and_expect_closed(const void *bytes, size_t length, const char *reason)
{
    int fd = peer_socket(b.path);
    write_all(fd, bytes, length);
    expect_closed(fd);
    close(fd);
    broker_log_has(&b, reason);
}

Test(limits, garbage)
{
    send_and_expect_closed("GET / HTTP/1.1\r\n\r\n", 18, "does not speak SP REQ");
}

Test(limits, hello_of_another_protocol)
{
    send_and_expect_closed("\0SP\0\0\x10\0\0", 8, "does not speak SP REQ");
}

Test(limits, half_a_hello_ends_after_5_s)
{
    int64_t start_at = now_ms();
    send_and_expect_closed("\0SP", 3, "no complete SP hello within 5 s");
    cr_assert(now_ms() - start_at >= 4400 && now_ms() - start_at < 8000);
}

Test(limits, length_of_2_to_the_63)
{
    send_and_expect_closed("\0SP\0\0\x30\0\0\x01\x80\0\0\0\0\0\0\0", 17,
                           "SP message longer than the broker takes");
}

Test(limits, wrong_ipc_prefix)
{
    send_and_expect_closed("\0SP\0\0\x30\0\0\x02\0\0\0\0\0\0\0\x08", 17,
                           "malformed SP message prefix");
}

Test(limits, no_request_id)
{
    send_and_expect_closed("\0SP\0\0\x30\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0\x01", 21,
                           "malformed SP request header");
}

Test(limits, request_shorter_than_its_header)
{
    send_and_expect_closed("\0SP\0\0\x30\0\0\x01\0\0\0\0\0\0\0\x06\x80\0\0\x01\x01\x04", 23,
                           "malformed request");
}

Test(limits, channel_of_70000_bytes_is_answered_and_ends_the_connection)
{
    struct peer p = peer_open(&b);
    char *channel = malloc(70001);
    memset(channel, 'c', 70000);
    channel[70000] = 0;
    struct body body = {0}; /* the length field has 16 bits: 4,464 of them are left */
    body_publish(&body, 7, 1, "x", channel, 70000);
    put_u16le(buffer_bytes(&body.bytes) + 6, (uint16_t)70000);
    struct answer a = peer_ask(&p, WIRE_SUBMIT, 0, 0, 0, &body);
    cr_assert_eq(a.reply.status, STATUS_CHANNEL_LENGTH);
    cr_assert_eq(a.reply.head, 0);
    expect_closed(p.fd);
    broker_log_has(&b, "channel name longer than 4096 bytes");
    free(channel);
}

Test(limits, malformed_records_are_answered_and_end_the_connection)
{
    struct body body = {0};
    body_publish(&body, 7, 1, "x", "y", 1);
    const struct {
        size_t at;
        uint32_t value;
    } faults[] = {{0, 0xffffffff}, {0, 0}, {0, 12}, {0, 5000}, {16, 0}};
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        struct peer p = peer_open(&b);
        uint8_t good[8];
        memcpy(good, buffer_bytes(&body.bytes) + faults[i].at, 8);
        put_u64le(buffer_bytes(&body.bytes) + faults[i].at, faults[i].value);
        struct answer a = peer_ask(&p, WIRE_SUBMIT, 0, 0, 0, &body);
        cr_assert_eq(a.reply.status, STATUS_MALFORMED);
        expect_closed(p.fd);
        memcpy(buffer_bytes(&body.bytes) + faults[i].at, good, 8);
        peer_close(&p);
    }
}

Test(limits, a_submit_that_mixes_publishes_and_subscriptions_is_refused_rule_6)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    struct body body = {0};
    body_publish(&body, 7, 1, "x", "y", 1);
    body_name(&body, WIRE_SUBSCRIBE, "z", false);
    struct answer a = peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &body);
    cr_assert_eq(a.reply.status, STATUS_MALFORMED);
    cr_assert_eq(a.reply.head, 0, "half of it was taken");
}

Test(limits, ten_thousand_connections_opened_and_closed_at_once)
{
    for (int i = 0; i < 10000; i++)
        close(peer_socket(b.path));
    struct peer p = peer_open(&b);
    struct answer a = peer_publish(&p, 0, 7, 1, "x", "y");
    cr_assert_eq(a.reply.status, STATUS_OK);
}

Test(limits, more_than_64_requests_outstanding)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    for (int i = 0; i < 65; i++)
        peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    expect_closed(p.fd);
    broker_log_has(&b, "more than 64 requests are outstanding");
}

Test(limits, more_than_1_mib_of_unread_replies)
{
    struct peer p = peer_open(&b);
    struct wire_request query = {
        .version = WIRE_VERSION, .operation = WIRE_QUERY, .flags = WIRE_STATS};
    uint8_t message[9 + 4 + WIRE_REQUEST_SIZE];
    size_t at = sp_prefix_encode(message, SP_IPC, 4 + WIRE_REQUEST_SIZE);
    put_u32be(message + at, 0x80000001);
    wire_request_encode(message + at + 4, &query);
    while (send(p.fd, message, sizeof(message), MSG_NOSIGNAL) == (ssize_t)sizeof(message))
        ;
    cr_assert(errno == EPIPE || errno == ECONNRESET);
    broker_log_has(&b, "more than 1 MiB of replies were not read");
}

Test(limits, silence_of_15_s_rule_19)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    int64_t start_at = now_ms();
    expect_closed(p.fd);
    cr_assert(now_ms() - start_at >= 14000 && now_ms() - start_at < 19000);
    broker_log_has(&b, "silent for 15 s");
    peer_close(&witness); /* it was silent too */
    witness = peer_open(&b);
    peer_join(&witness, 1000, "witness");
}

Test(limits, emfile_does_not_spin_and_recovers)
{
    struct broker small;
    broker_prepare(&small, (const char *[]){"--no-journal", NULL});
    broker_run(&small);
    prlimit(small.pid, RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = 40, .rlim_max = 40}, NULL);
    struct peer one = peer_open(&small);
    int extra[60];
    for (int i = 0; i < 60; i++)
        extra[i] = peer_socket(small.path);
    broker_log_has(&small, "cannot accept on");
    char path[64], text[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/schedstat", small.pid);
    unsigned long long cpu[2];
    for (int i = 0; i < 2; i++) {
        int fd = open(path, O_RDONLY);
        cr_assert(read(fd, text, sizeof(text) - 1) > 0);
        close(fd);
        cpu[i] = strtoull(text, NULL, 10);
        /* a second of answered pings: the broker works while it cannot accept */
        int64_t until = now_ms() + 1000;
        while (i == 0 && now_ms() < until) {
            peer_ask(&one, WIRE_QUERY, WIRE_PING, 0, 0, NULL);
            nanosleep(&(struct timespec){0, 50000000}, NULL);
        }
    }
    cr_assert_lt(cpu[1] - cpu[0], 300000000ull, "it spins");
    for (int i = 0; i < 60; i++)
        close(extra[i]);
    struct peer p = peer_open(&small);
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
    broker_end(&small);
}

#define MARKS "????????????????????????????????????????????????????????????????????????????????"

/* 64 weak patterns of one session, all different from those of the others. */
static struct answer attach_weak(struct peer *p, uint64_t session, int count)
{
    struct body list = {0};
    char pattern[120];
    for (int i = 0; i < count; i++) {
        snprintf(pattern, sizeof(pattern), "*%.*s*", (int)session + 10,
                 MARKS); /* longer than what the witness hears */
        snprintf(pattern + strlen(pattern), 16, "%.*s*[%c-~]", i / 32, "???", '!' + i % 32);
        body_name(&list, WIRE_SUBSCRIBE, pattern, true);
    }
    struct attaching attach = {.session = session, .generation = 1};
    struct answer a = peer_attach(p, &attach, &list);
    body_reset(&list);
    return a;
}

Test(limits, weak_patterns_are_refused_past_64_of_a_session_and_4096_of_all)
{
    static struct peer peers[66];
    peers[65] = peer_open(&b);
    cr_assert_eq(attach_weak(&peers[65], 66, 65).reply.status, STATUS_WEAK_PATTERN,
                 "one more than a session may have");
    for (uint64_t i = 0; i < 64; i++) {
        peers[i] = peer_open(&b);
        cr_assert_eq(attach_weak(&peers[i], i + 1, 64).reply.status, STATUS_OK, "session %u",
                     (unsigned)i);
    }
    peers[64] = peer_open(&b);
    cr_assert_eq(attach_weak(&peers[64], 65, 1).reply.status, STATUS_WEAK_PATTERN,
                 "one more than all may have");
    struct body strong = {0};
    body_name(&strong, WIRE_SUBSCRIBE, "strong:*", true);
    cr_assert_eq(peer_ask(&peers[1], WIRE_SUBMIT, 0, 2, 0, &strong).reply.status, STATUS_OK,
                 "others are taken");
    body_reset(&strong);
}
