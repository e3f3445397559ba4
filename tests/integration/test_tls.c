/* tls+tcp as the broker speaks it, and everybody whom it refuses there. */
#include "tls_harness.h"

TestSuite(tls, .init = start, .fini = end, .timeout = 120);

/* ---- it works ---- */

static void joins_publishes_and_is_delivered(int version)
{
    static uint64_t origin = 100;
    pid_t pid;
    struct peer p = tls_peer(version, &pid);
    peer_join(&p, 9, "x");
    cr_assert_eq(peer_publish(&p, 9, ++origin, 1, "x", "hello").reply.records, 1);
    struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
    struct wire_record record;
    cr_assert(answer_record(&a, &record) && record_is(&record, "x", "hello"));
    tls_peer_close(&p, pid);
}

Test(tls, tls_1_3_and_1_2_are_spoken)
{
    joins_publishes_and_is_delivered(0);
    joins_publishes_and_is_delivered(TLS1_2_VERSION);
}

Test(tls, large_messages_pass_both_ways)
{
    pid_t pid;
    struct peer p = tls_peer(0, &pid);
    peer_join(&p, 9, "x");
    size_t size = 5 << 20;
    uint8_t *payload = malloc(size);
    for (size_t i = 0; i < size; i++)
        payload[i] = (uint8_t)(i * 31 + (i >> 12));
    struct body body = {0};
    body_publish(&body, 7, 1, "x", payload, size);
    cr_assert_eq(peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &body).reply.status, STATUS_OK);
    struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
    struct wire_record record;
    cr_assert(answer_record(&a, &record));
    cr_assert(record.payload_length == size && memcmp(record.payload, payload, size) == 0);
    free(payload);
    tls_peer_close(&p, pid);
}

/* Nothing more is encrypted for it, others keep their pace, and it gets everything afterwards. */
Test(tls, a_peer_that_stops_reading_holds_nobody_up)
{
    enum { MESSAGES = 400 };
    static char payload[50000];
    pid_t pid;
    struct peer p = tls_peer(0, &pid);
    peer_join(&p, 9, "x");
    uint32_t credits[2] = {peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL),
                           peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL)};
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
    kill(pid, SIGSTOP);
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        struct body body = {0};
        put_u64le(payload, i);
        body_publish(&body, 7, i, "x", payload, sizeof(payload));
        cr_assert_eq(peer_ask(&witness, WIRE_SUBMIT, 0, 0, 0, &body).reply.status, STATUS_OK);
        body_reset(&body);
    }
    kill(pid, SIGCONT);
    uint64_t next = 1;
    for (int i = 0; next <= MESSAGES; i++) {
        struct answer a =
            i < 2 ? peer_answer(&p, credits[i]) : peer_ask(&p, WIRE_FETCH, 0, 9, next - 1, NULL);
        struct wire_record record;
        while (answer_record(&a, &record))
            cr_assert_eq(get_u64le(record.payload), next++);
    }
    tls_peer_close(&p, pid);
}

/* What the filter still holds makes no socket readable. */
Test(tls, a_request_in_the_same_record_as_the_end_of_a_long_one_is_seen)
{
    pid_t pid;
    struct peer p = tls_peer(0, &pid);
    size_t size = 3 << 19, at, body = 4 + WIRE_REQUEST_SIZE + wire_record_size(1, size);
    uint8_t *bytes = calloc(1, body + 256), *payload = calloc(1, size);
    const struct wire_request submit = {
        .version = WIRE_VERSION, .operation = WIRE_SUBMIT, .records = 1};
    const struct wire_request ping = {
        .version = WIRE_VERSION, .operation = WIRE_QUERY, .flags = WIRE_PING};
    at = sp_prefix_encode(bytes, SP_TCP, body);
    put_u32be(bytes + at, 0x80000001);
    wire_request_encode(bytes + at + 4, &submit);
    wire_record_encode(bytes + at + 4 + WIRE_REQUEST_SIZE,
                       &(struct wire_record){.type = WIRE_PUBLISH,
                                             .origin = 7,
                                             .sequence = 1,
                                             .channel = (const uint8_t *)"x",
                                             .channel_length = 1,
                                             .payload = payload,
                                             .payload_length = size});
    at += body;
    at += sp_prefix_encode(bytes + at, SP_TCP, 4 + WIRE_REQUEST_SIZE);
    put_u32be(bytes + at, 0x80000002);
    wire_request_encode(bytes + at + 4, &ping);
    write_all(p.fd, bytes, at + 4 + WIRE_REQUEST_SIZE);
    cr_assert_eq(peer_answer(&p, 0x80000001).reply.status, STATUS_OK);
    cr_assert_eq(peer_answer(&p, 0x80000002).reply.status, STATUS_OK);
    free(payload);
    free(bytes);
    tls_peer_close(&p, pid);
}

/* Encrypted bytes that found no room in the socket are sent once there is some, though nothing else
 * is to be sent. */
Test(tls, the_last_batch_comes_whole_however_much_fits_the_socket)
{
    enum { ROUNDS = 20, STEP = 30000, CREDITS = 6 };
    static char payload[ROUNDS * STEP];
    pid_t pid;
    struct peer p = tls_peer(0, &pid);
    peer_join(&p, 9, "x");
    uint64_t sequence = 0, got = 0;
    uint32_t parked = 0;
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        for (; parked < CREDITS; parked++)
            peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
        struct answer a = {0}; /* the credits are there; one that was old may be answered empty */
        uint32_t ping = peer_request(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL);
        while (a.id != ping) {
            cr_assert(peer_next(&p, &a));
            parked -= a.id != ping;
        }
        kill(pid, SIGSTOP);
        for (uint32_t i = 0; i < CREDITS; i++) {
            struct body body = {0};
            body_publish(&body, 7, ++sequence, "x", payload, n * STEP);
            cr_assert_eq(peer_ask(&witness, WIRE_SUBMIT, 0, 0, 0, &body).reply.status, STATUS_OK);
            body_reset(&body);
        }
        kill(pid, SIGCONT);
        while (got < sequence) {
            struct wire_record record;
            cr_assert(peer_next(&p, &a));
            parked--;
            while (answer_record(&a, &record))
                got++;
        }
    }
    tls_peer_close(&p, pid);
}

Test(tls, more_than_1_mib_of_unread_replies_end_the_connection)
{
    struct raw r = raw_open();
    struct wire_request query = {
        .version = WIRE_VERSION, .operation = WIRE_QUERY, .flags = WIRE_STATS};
    uint8_t message[8 + 4 + WIRE_REQUEST_SIZE];
    size_t at = sp_prefix_encode(message, SP_TCP, 4 + WIRE_REQUEST_SIZE);
    put_u32be(message + at, 0x80000001);
    wire_request_encode(message + at + 4, &query);
    cr_assert_eq(SSL_write(r.ssl, "\0SP\0\0\x30\0\0", 8), 8);
    while (SSL_write(r.ssl, message, sizeof(message)) > 0)
        ;
    refused_with("more than 1 MiB of replies were not read");
    raw_close(&r);
}

/* ---- refused by the broker ---- */

static void says(int port, const void *bytes, size_t length, const char *text)
{
    int fd = tcp_connect(port);
    write_all(fd, bytes, length);
    expect_closed(fd);
    close(fd);
    refused_with(text);
}

Test(tls, a_plain_peer_at_the_tls_port_is_refused)
{
    says(tls_port, "\0SP\0\0\x30\0\0", 8, "TLS failed: it does not speak TLS");
}

Test(tls, a_browser_at_the_tls_port_is_refused)
{
    says(tls_port, "GET / HTTP/1.1\r\n\r\n", 18, "TLS failed: it does not speak TLS");
}

Test(tls, a_tls_peer_at_the_plain_port_is_refused)
{
    says(tcp_port, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11,
         "does not speak SP REQ: it speaks TLS, this socket does not");
}

Test(tls, half_a_client_hello_ends_after_5_s)
{
    int64_t since = now_ms();
    says(tls_port, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11,
         "no complete TLS handshake within 5 s");
    cr_assert(now_ms() - since >= 4400 && now_ms() - since < 9000);
}

Test(tls, a_handshake_of_16_mib_is_refused)
{
    static uint8_t record[5 + 16384] = {0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3};
    says(tls_port, record, sizeof(record), "TLS failed: ");
}

Test(tls, an_oversized_message_inside_tls_is_refused)
{
    pid_t pid;
    struct peer p = tls_peer(0, &pid);
    write_all(p.fd, "\x80\0\0\0\0\0\0\0", 8);
    expect_closed(p.fd);
    refused_with("SP message longer than the broker takes");
    tls_peer_close(&p, pid);
}

Test(tls, garbage_inside_tls_is_refused)
{
    pid_t pid;
    int fd = tls_bridge(0, &pid);
    write_all(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    expect_closed(fd);
    refused_with("does not speak SP REQ");
    close(fd);
    waitpid(pid, NULL, 0);
}

Test(tls, a_changed_record_is_refused)
{
    struct raw r = raw_open();
    write_all(r.fd, "\x17\x03\x03\x00\x20 this is none of our records  ..", 37);
    expect_closed(r.fd);
    refused_with("TLS failed: ");
    raw_close(&r);
}

Test(tls, two_thousand_half_open_handshakes_hold_nobody_up)
{
    for (int i = 0; i < 2000; i++) {
        int fd = tcp_connect(tls_port);
        write_all(fd, "\x16\x03\x01\x02\x00\x01", 6);
        close(fd);
    }
    joins_publishes_and_is_delivered(0);
}
