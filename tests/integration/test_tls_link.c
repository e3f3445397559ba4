/* tls+tcp between the adapter's link and the real broker, and what the link refuses. */
#include "commands.h"
#include "io_thread.h"
#include "tls_harness.h"

TestSuite(tls_link, .init = start, .fini = end, .timeout = 120);

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

Test(tls_link, the_link_speaks_it)
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

Test(tls_link, the_link_refuses_an_unknown_authority_and_recovers_when_the_right_one_comes)
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

Test(tls_link, the_link_refuses_the_system_s_authorities_as_they_do_not_know_the_certificate)
{
    struct process p;
    struct io_config config = link_config(tls_url, NULL, NULL);
    process_start(&p, &config);
    complains(&p, "its certificate is refused: unable to get local issuer certificate");
    io_thread_stop(p.io);
}

Test(tls_link, the_link_names_a_missing_file)
{
    struct process p;
    struct io_config config = link_config(tls_url, "/nowhere/ca.pem", NULL);
    process_start(&p, &config);
    complains(&p, "the CA file /nowhere/ca.pem: No such file or directory");
    io_thread_stop(p.io);
}

Test(tls_link, the_link_refuses_a_plain_broker)
{
    char url[64];
    struct process p;
    snprintf(url, sizeof(url), "tls+tcp://localhost:%d", tcp_port);
    struct io_config config = link_config(url, ca_path, NULL);
    process_start(&p, &config);
    complains(&p, "TLS failed: it does not speak TLS");
    io_thread_stop(p.io);
}

Test(tls_link, a_plain_link_to_a_tls_broker_is_told_what_to_change)
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
    prepare("DNS:elsewhere.test", 30 * 86400, NULL, NULL);
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
    prepare("DNS:localhost", -60, NULL, NULL);
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
    prepare("DNS:localhost", 30 * 86400, ca_path, NULL);
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

static char crl_path[120];

static void start_with_revoked(long seconds)
{
    prepare("DNS:localhost", 30 * 86400, ca_path, crl_path);
    snprintf(crl_path, sizeof(crl_path), "%s/crl.pem", b.dir);
    revocation_list_write(crl_path, &ca, 0, seconds, false);
    run();
}

static void start_with_list(void)
{
    start_with_revoked(3600);
}

Test(tls_revoked, who_is_revoked_does_not_come_in_again, .init = start_with_list, .fini = end,
     .timeout = 60)
{
    char own[120], others[120];
    snprintf(own, sizeof(own), "%s/own.pem", b.dir);
    snprintf(others, sizeof(others), "%s/others.pem", b.dir);
    long serial = identity_write(own, "DNS:worker", 3600, &ca);
    identity_write(others, "DNS:other", 3600, &ca);
    struct process before, after, other;
    struct io_config config = link_config(tls_url, ca_path, own);
    process_start(&before, &config);
    connects(&before);
    revocation_list_write(crl_path, &ca, serial, 3600, false);
    kill(b.pid, SIGHUP);
    broker_log_has(&b, "read the certificate again");
    process_start(&after, &config);
    complains(&after, "TLS failed: it refused: ");
    broker_log_has(&b, "TLS failed: its certificate is refused: certificate revoked");
    config = link_config(tls_url, ca_path, others);
    process_start(&other, &config);
    connects(&other);
    round_trip(&other, 5);
    round_trip(&before, 5); /* who is in stays */
    io_thread_stop(after.io);
    io_thread_stop(other.io);
    io_thread_stop(before.io);
}

static void start_with_old_list(void)
{
    start_with_revoked(-60);
}

Test(tls_revoked, of_a_list_that_has_expired_is_warned, .init = start_with_old_list, .fini = end,
     .timeout = 60)
{
    broker_log_has(&b, "crl.pem has expired: every client is refused");
}
