/* SIGHUP: the certificate and the secret are read again, and nobody who is in notices. */
#include "auth.h"
#include "tls_harness.h"

static void hang_up(const char *line)
{
    kill(b.pid, SIGHUP);
    broker_log_has(&b, line);
}

/* The serial number of the certificate that the broker shows. */
static long shown_serial(void)
{
    struct raw r = raw_open();
    X509 *shown = SSL_get1_peer_certificate(r.ssl);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(shown));
    X509_free(shown);
    raw_close(&r);
    return serial;
}

TestSuite(reload, .init = start, .fini = end, .timeout = 60);

Test(reload, a_new_certificate_is_shown_and_open_connections_go_on)
{
    pid_t pid;
    struct peer before = tls_peer(0, &pid);
    peer_join(&before, 9, "x");
    long old = shown_serial();
    identity_write(cert_path, "DNS:localhost,IP:127.0.0.1", 60 * 86400, &ca);
    hang_up("read the certificate again");
    cr_assert_neq(shown_serial(), old);
    cr_assert_eq(peer_publish(&before, 9, 50, 1, "x", "hello").reply.records, 1);
    cr_assert_eq(peer_ask(&before, WIRE_FETCH, 0, 9, 0, NULL).reply.records, 1);
    tls_peer_close(&before, pid);
}

Test(reload, a_certificate_that_cannot_be_read_leaves_the_old_one)
{
    long old = shown_serial();
    int fd = open(cert_path, O_WRONLY | O_TRUNC);
    cr_assert(write(fd, "half a file", 11) == 11);
    close(fd);
    hang_up("goes on with the certificate that it had");
    cr_assert_eq(broker_log_count(&b, "cannot serve tls+tcp: ", cert_path), 1);
    cr_assert_eq(shown_serial(), old);
}

/* ---- the secret ---- */

static char secret_path[120];

static void write_secret(const char *text)
{
    snprintf(secret_path, sizeof(secret_path), "%s/secret", b.dir);
    int fd = open(secret_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static enum status attach_with(struct peer *p, uint64_t session, const char *secret)
{
    uint8_t bytes[512], proof[WIRE_PROOF_SIZE];
    struct wire_attach block = {.generation = 1, .name = (const uint8_t *)"test", .name_length = 4};
    struct wire_attach_reply challenge;
    struct wire_request request = {.version = 1, .operation = WIRE_ATTACH, .session = session};
    size_t used;
    wire_attach_encode(bytes, &block);
    peer_send(p, p->next_id, &request, bytes, wire_attach_size(&block), NULL);
    struct answer a = peer_answer(p, p->next_id++);
    cr_assert_eq(a.reply.status, STATUS_AUTH);
    cr_assert_eq(wire_attach_reply_decode(a.bytes, a.length, &challenge, &used), STATUS_OK);
    memset(proof, 0x5a, AUTH_NONCE_SIZE);
    cr_assert(auth_client_proof(&(struct auth_exchange){.secret = secret,
                                                        .secret_length = strlen(secret),
                                                        .nonce = challenge.proof,
                                                        .client_nonce = proof,
                                                        .name = "test",
                                                        .name_length = 4},
                                proof + AUTH_NONCE_SIZE));
    block.proof = proof;
    block.proof_length = sizeof(proof);
    wire_attach_encode(bytes, &block);
    peer_send(p, p->next_id, &request, bytes, wire_attach_size(&block), NULL);
    return peer_answer(p, p->next_id++).reply.status;
}

static void start_with_secret(void)
{
    broker_prepare(&b, (const char *[]){"--no-journal", "--secret-file", secret_path, NULL});
    write_secret("open sesame\n");
    broker_run(&b);
}

static void end_with_secret(void)
{
    broker_end(&b);
}

TestSuite(reload_secret, .init = start_with_secret, .fini = end_with_secret, .timeout = 60);

Test(reload_secret, a_new_secret_counts_for_who_comes_and_who_is_in_stays)
{
    struct peer in = peer_open(&b), late = peer_open(&b), later = peer_open(&b);
    cr_assert_eq(attach_with(&in, 1, "open sesame"), STATUS_OK);
    write_secret("open barley\n");
    hang_up("read the secret again");
    cr_assert_eq(attach_with(&late, 2, "open sesame"), STATUS_DENIED);
    cr_assert_eq(attach_with(&later, 3, "open barley"), STATUS_OK);
    cr_assert_eq(peer_publish(&in, 1, 7, 1, "x", "y").reply.status, STATUS_OK);
}

Test(reload_secret, a_file_that_is_gone_leaves_the_old_secret)
{
    unlink(secret_path);
    hang_up("goes on with the secret that it had");
    struct peer p = peer_open(&b);
    cr_assert_eq(attach_with(&p, 1, "open sesame"), STATUS_OK);
}

static void start_without(void)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
}

Test(reload_nothing, without_files_a_hangup_ends_the_broker_in_order, .init = start_without,
     .fini = end_with_secret, .timeout = 60)
{
    cr_assert_eq(broker_signal(&b, SIGHUP), 0);
    cr_assert_eq(broker_log_count(&b, "ending on signal 1", ""), 1);
}
