/* tls+tcp: the real broker and the adapter's link, and everybody who is refused there. */
#include "../certificates.h"
#include "commands.h"
#include "harness.h"
#include "io_thread.h"
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

static struct broker b;
static struct authority ca;
static struct peer witness; /* must not notice anything */
static int tls_port, tcp_port;
static char ca_path[100], cert_path[100], tls_url[64], tcp_url[64];

static int port_free(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(fd, (struct sockaddr *)&any, size) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&any, &size) == 0);
    close(fd);
    return ntohs(any.sin_port);
}

static void prepare(const char *names, long seconds, const char *client_ca)
{
    broker_prepare(&b,
                   (const char *[]){"--no-journal", "--log-level", "debug", "--listen", tls_url,
                                    "--listen", tcp_url, "--tls-cert", cert_path,
                                    client_ca != NULL ? "--tls-client-ca" : NULL, client_ca, NULL});
    snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", b.dir);
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", b.dir);
    tls_port = port_free();
    tcp_port = port_free();
    snprintf(tls_url, sizeof(tls_url), "tls+tcp://localhost:%d", tls_port);
    snprintf(tcp_url, sizeof(tcp_url), "tcp://localhost:%d", tcp_port);
    ca = authority_make("the tests' authority");
    pem_write(ca_path, ca.certificate, NULL);
    identity_write(cert_path, names, seconds, &ca);
}

static void run(void)
{
    broker_run(&b);
    witness = peer_open(&b);
    peer_join(&witness, 1000, "witness");
}

static void start(void)
{
    prepare("DNS:localhost,IP:127.0.0.1", 30 * 86400, NULL);
    run();
}

static void end(void)
{
    struct answer a = peer_publish(&witness, 1000, 99, 1, "witness", "still here");
    cr_assert_eq(a.reply.records, 1);
    cr_assert_eq(peer_ask(&witness, WIRE_FETCH, 0, 1000, 0, NULL).reply.records, 1);
    broker_end(&b);
    X509_free(ca.certificate);
    EVP_PKEY_free(ca.key);
}

TestSuite(tls, .init = start, .fini = end, .timeout = 120);

/* ---- a peer over TLS: a process beside the test carries the bytes ---- */

static int tcp_connect(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 16384;
    /* both buffers are soon full: the broker's grows with the size of segments */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &(int){1000}, sizeof(int));
    cr_assert(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

static void carry(SSL *ssl, int fd, int plain)
{
    static char bytes[65536];
    struct pollfd polls[2] = {{.fd = fd, .events = POLLIN}, {.fd = plain, .events = POLLIN}};
    for (;;) {
        poll(polls, 2, -1);
        while (polls[0].revents != 0) {
            int n = SSL_read(ssl, bytes, sizeof(bytes));
            if (n <= 0)
                return;
            if (send(plain, bytes, (size_t)n, MSG_NOSIGNAL) != n)
                return;
            if (SSL_pending(ssl) == 0)
                break;
        }
        if (polls[1].revents != 0) {
            ssize_t n = read(plain, bytes, sizeof(bytes));
            if (n <= 0 || SSL_write(ssl, bytes, (int)n) <= 0)
                return;
        }
    }
}

/* The descriptor of the plain side; *pid the process that carries. version 0: the newest. */
static int tls_bridge(int version, pid_t *pid)
{
    int pair[2];
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    *pid = fork();
    if (*pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pair[0]);
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_load_verify_file(context, ca_path);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
        if (version != 0)
            SSL_CTX_set_max_proto_version(context, version);
        SSL *ssl = SSL_new(context);
        int fd = tcp_connect(tls_port);
        SSL_set_fd(ssl, fd);
        SSL_set1_host(ssl, "localhost");
        if (SSL_connect(ssl) == 1)
            carry(ssl, fd, pair[1]);
        _exit(0);
    }
    close(pair[1]);
    return pair[0];
}

static struct peer tls_peer(int version, pid_t *pid)
{
    struct peer p = {.fd = tls_bridge(version, pid), .transport = SP_TCP, .next_id = 0x80000001};
    peer_hello(&p);
    return p;
}

static void tls_peer_close(struct peer *p, pid_t pid)
{
    peer_close(p);
    waitpid(pid, NULL, 0);
}

/* ---- a client of OpenSSL in this process, the handshake done ---- */

struct raw {
    SSL_CTX *context;
    SSL *ssl;
    int fd;
};

static struct raw raw_open(void)
{
    struct raw r = {.context = SSL_CTX_new(TLS_client_method()), .fd = tcp_connect(tls_port)};
    signal(SIGPIPE, SIG_IGN);
    r.ssl = SSL_new(r.context);
    SSL_set_fd(r.ssl, r.fd);
    cr_assert_eq(SSL_connect(r.ssl), 1);
    return r;
}

static void raw_close(struct raw *r)
{
    close(r->fd);
    SSL_free(r->ssl);
    SSL_CTX_free(r->context);
}

/* Refused by the broker: one line that names the peer. */
static void refused_with(const char *text)
{
    broker_log_has(&b, text);
    cr_assert_eq(broker_log_count(&b, text, "tcp peer 127.0.0.1 port "), 1);
    cr_assert_eq(broker_log_count(&b, " warn ", " ended: "), 1);
}

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
    static char payload[60000];
    pid_t pid;
    struct peer p = tls_peer(0, &pid);
    peer_join(&p, 9, "x");
    uint64_t sequence = 0, got = 0;
    uint32_t parked = 0;
    for (uint32_t n = 1; n <= 20; n++) {
        for (; parked < n; parked++)
            peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
        struct answer a = {0}; /* the credits are there; one that was old may be answered empty */
        uint32_t ping = peer_request(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL);
        while (a.id != ping) {
            cr_assert(peer_next(&p, &a));
            parked -= a.id != ping;
        }
        kill(pid, SIGSTOP);
        for (uint32_t i = 0; i < n; i++) {
            struct body body = {0};
            body_publish(&body, 7, ++sequence, "x", payload, sizeof(payload));
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

/* ---- the adapter's link ---- */

struct process {
    struct io_thread *io;
    char lines[8192]; /* of its log at level warn or worse */
    unsigned deliveries;
};

static struct io_config link_config(const char *url, const char *authorities, const char *identity)
{
    struct io_config config;
    io_config_init(&config);
    config.url = url;
    config.name = "test";
    config.ca_file = authorities;
    config.cert_file = identity;
    return config;
}

static void process_start(struct process *p, const struct io_config *config)
{
    char error[200];
    *p = (struct process){.io = io_thread_start(config, error, sizeof(error))};
    cr_assert(p->io != NULL, "%s", error);
}

static void process_collect(struct process *p)
{
    struct callback *c;
    struct mailbox *m;
    struct pollfd wait = {.fd = callback_pool_fd(io_callbacks(p->io)), .events = POLLIN};
    uint8_t token;
    poll(&wait, 1, 5);
    if (wait.revents != 0 && read(wait.fd, &token, sizeof(token)) < 0)
        return;
    while ((m = callback_pool_take(io_callbacks(p->io), &c)) != NULL) {
        if (c->kind == CALLBACK_LOG && c->first >= LOG_LEVEL_WARN) {
            size_t used = strlen(p->lines);
            snprintf(p->lines + used, sizeof(p->lines) - used, "%.*s\n",
                     (int)c->message->payload_length, (const char *)message_payload(c->message));
        }
        p->deliveries += c->kind == CALLBACK_DELIVERY;
        callback_free(c);
        mailbox_done(m);
    }
}

static bool is_connected(const struct process *p)
{
    struct io_stats stats;
    io_stats(p->io, &stats);
    return stats.connected;
}

/* Its one complaint, though it went on trying. */
static void complains(struct process *p, const char *text)
{
    int64_t until = now_ms() + DEADLINE_MS, more;
    while (p->lines[0] == 0 && now_ms() < until)
        process_collect(p);
    for (more = now_ms() + 700; now_ms() < more;)
        process_collect(p);
    cr_assert(strstr(p->lines, text) != NULL, "\"%s\" instead of \"%s\"", p->lines, text);
    cr_assert(strstr(p->lines, "localhost") != NULL, "it names the place: %s", p->lines);
    cr_assert(strchr(p->lines, '\n') == p->lines + strlen(p->lines) - 1, "one line: %s", p->lines);
    cr_assert(!is_connected(p));
}

static void connects(struct process *p)
{
    int64_t until = now_ms() + DEADLINE_MS;
    while (!is_connected(p) && now_ms() < until)
        process_collect(p);
    cr_assert(is_connected(p), "no link: %s", p->lines);
}

static void round_trip(struct process *p, size_t size)
{
    struct mailbox *m = mailbox_new(io_callbacks(p->io), 0);
    struct block *block = block_new(m, 0);
    mailbox_unref(m);
    char *payload = calloc(1, size);
    unsigned before = p->deliveries;
    int64_t until = now_ms() + DEADLINE_MS;
    cr_assert(commands_subscribe_block(p->io, block, "news", 4, false));
    cr_assert(commands_publish(p->io, "news", 4, payload, size, true));
    while (p->deliveries == before && now_ms() < until)
        process_collect(p);
    cr_assert_eq(p->deliveries, before + 1, "%s", p->lines);
    commands_unsubscribe_block(p->io, block);
    free(payload);
    block_unref(block);
}

Test(tls, the_link_speaks_it)
{
    struct process p;
    struct io_config config = link_config(tls_url, ca_path, NULL);
    process_start(&p, &config);
    connects(&p);
    round_trip(&p, 5);
    round_trip(&p, 6 << 20);
    io_thread_stop(p.io);
    cr_assert_eq(p.lines[0], 0, "%s", p.lines);
    cr_assert_eq(broker_log_count(&b, " warn ", ""), 0);
}

Test(tls, the_link_refuses_an_unknown_authority_and_recovers_when_the_right_one_comes)
{
    char other[120];
    snprintf(other, sizeof(other), "%s/other.pem", b.dir);
    struct authority foreign = authority_make("somebody else");
    pem_write(other, foreign.certificate, NULL);
    struct process p;
    struct io_config config = link_config(tls_url, other, NULL);
    process_start(&p, &config);
    complains(&p, "TLS failed: its certificate is refused: unable to get local issuer certificate");
    broker_log_has(&b, "TLS failed: it refused: tlsv1 alert unknown ca");
    pem_write(other, ca.certificate, NULL);
    connects(&p);
    round_trip(&p, 5);
    io_thread_stop(p.io);
}

Test(tls, the_link_refuses_the_system_s_authorities_as_they_do_not_know_the_certificate)
{
    struct process p;
    struct io_config config = link_config(tls_url, NULL, NULL);
    process_start(&p, &config);
    complains(&p, "its certificate is refused: unable to get local issuer certificate");
    io_thread_stop(p.io);
}

Test(tls, the_link_names_a_missing_file)
{
    struct process p;
    struct io_config config = link_config(tls_url, "/nowhere/ca.pem", NULL);
    process_start(&p, &config);
    complains(&p, "the CA file /nowhere/ca.pem: No such file or directory");
    io_thread_stop(p.io);
}

Test(tls, the_link_refuses_a_plain_broker)
{
    char url[64];
    struct process p;
    snprintf(url, sizeof(url), "tls+tcp://localhost:%d", tcp_port);
    struct io_config config = link_config(url, ca_path, NULL);
    process_start(&p, &config);
    complains(&p, "TLS failed: it does not speak TLS");
    io_thread_stop(p.io);
}

Test(tls, a_plain_link_to_a_tls_broker_is_told_what_to_change)
{
    char url[64];
    struct process p;
    snprintf(url, sizeof(url), "tcp://localhost:%d", tls_port);
    struct io_config config = link_config(url, NULL, NULL);
    process_start(&p, &config);
    complains(&p, "wants a URL with tls+tcp://");
    io_thread_stop(p.io);
}

static void start_with_wrong_host(void)
{
    prepare("DNS:elsewhere.test", 30 * 86400, NULL);
    run();
}

Test(tls_wrong_host, the_link_refuses_it, .init = start_with_wrong_host, .fini = end, .timeout = 60)
{
    struct process p;
    struct io_config config = link_config(tls_url, ca_path, NULL);
    process_start(&p, &config);
    complains(&p, "TLS failed: its certificate is refused: hostname mismatch");
    io_thread_stop(p.io);
}

static void start_expired(void)
{
    prepare("DNS:localhost", -60, NULL);
    run();
}

Test(tls_expired, the_link_refuses_it, .init = start_expired, .fini = end, .timeout = 60)
{
    struct process p;
    struct io_config config = link_config(tls_url, ca_path, NULL);
    broker_log_has(&b, "cert.pem has expired: clients will refuse it");
    process_start(&p, &config);
    complains(&p, "TLS failed: its certificate is refused: certificate has expired");
    io_thread_stop(p.io);
    broker_log_has(&b, "TLS failed: it refused: ");
}

static void start_with_client_ca(void)
{
    prepare("DNS:localhost", 30 * 86400, ca_path);
    run();
}

TestSuite(tls_client, .init = start_with_client_ca, .fini = end, .timeout = 60);

Test(tls_client, a_certificate_of_the_authority_is_let_in)
{
    char own[120];
    snprintf(own, sizeof(own), "%s/own.pem", b.dir);
    identity_write(own, "DNS:worker", 3600, &ca);
    struct process p;
    struct io_config config = link_config(tls_url, ca_path, own);
    process_start(&p, &config);
    connects(&p);
    round_trip(&p, 5);
    io_thread_stop(p.io);
}

Test(tls_client, without_a_certificate_nobody_is_let_in)
{
    struct process p;
    struct io_config config = link_config(tls_url, ca_path, NULL);
    process_start(&p, &config);
    complains(&p, "TLS failed: it refused: ");
    io_thread_stop(p.io);
    broker_log_has(&b, "TLS failed: peer did not return a certificate");
}
