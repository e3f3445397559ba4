/* The TLS filter, bytes by hand: two of them face each other, or one faces OpenSSL itself. */
#include "tls_files.h"
#include "tls_internal.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

static char reason[TLS_REASON_MAX];

TestSuite(tls_filter, .init = files_make, .fini = files_remove, .timeout = 120);

/* ---- a pair ---- */

struct pair {
    struct tls_context *contexts[2]; /* server, client */
    struct tls_filter *server, *client;
};

static struct tls_settings server_settings, client_settings;

static void pair_contexts(struct pair *p, int version)
{
    if (server_settings.cert_file == NULL)
        server_settings.cert_file = cert_path;
    if (client_settings.ca_file == NULL)
        client_settings.ca_file = ca_path;
    p->contexts[0] = tls_server_context_new(&server_settings, reason);
    cr_assert(p->contexts[0] != NULL, "%s", reason);
    p->contexts[1] = tls_client_context_new(&client_settings, reason);
    cr_assert(p->contexts[1] != NULL, "%s", reason);
    if (version != 0)
        SSL_CTX_set_max_proto_version(p->contexts[0]->ssl, version);
}

static void pair_filters(struct pair *p, const char *host)
{
    p->server = tls_filter_new(p->contexts[0], NULL);
    p->client = tls_filter_new(p->contexts[1], host);
    cr_assert(p->server != NULL && p->client != NULL);
}

static void pair_open(struct pair *p, const char *host, int version)
{
    pair_contexts(p, version);
    pair_filters(p, host);
}

static void pair_free_filters(struct pair *p)
{
    tls_filter_free(p->server);
    tls_filter_free(p->client);
}

static void pair_close(struct pair *p)
{
    pair_free_filters(p);
    tls_context_free(p->contexts[0]);
    tls_context_free(p->contexts[1]);
}

/* Takes up to `most` bytes over; how many. */
static size_t carry(struct tls_filter *from, struct tls_filter *to, size_t most)
{
    size_t length;
    const uint8_t *bytes = tls_filter_output(from, &length);
    length = length < most ? length : most;
    if (length == 0)
        return 0;
    uint8_t *room = tls_filter_room(to, length);
    cr_assert(room != NULL);
    memcpy(room, bytes, length);
    tls_filter_commit(to, length);
    tls_filter_sent(from, length);
    return length;
}

static enum tls_result read_nothing(struct tls_filter *f)
{
    uint8_t drop[16];
    size_t got;
    enum tls_result result = tls_filter_read(f, drop, sizeof(drop), &got);
    cr_assert_eq(got, 0);
    return result;
}

/* Both directions, `piece` bytes at a time, until nothing moves. */
static void handshake(struct pair *p, size_t piece)
{
    while (carry(p->client, p->server, piece) + carry(p->server, p->client, piece) > 0) {
        read_nothing(p->server);
        read_nothing(p->client);
    }
}

static size_t write_all(struct tls_filter *f, const void *bytes, size_t length)
{
    size_t taken;
    cr_assert_eq(tls_filter_write(f, bytes, length, &taken), TLS_OK);
    return taken;
}

static void expect_text(struct tls_filter *f, const char *text)
{
    char plain[256];
    size_t got;
    cr_assert_eq(tls_filter_read(f, plain, sizeof(plain), &got), TLS_OK);
    cr_assert(got == strlen(text) && memcmp(plain, text, got) == 0, "%.*s", (int)got, plain);
    cr_assert_eq(tls_filter_read(f, plain, sizeof(plain), &got), TLS_WAIT);
}

static void say(struct tls_filter *from, struct tls_filter *to, const char *text)
{
    write_all(from, text, strlen(text));
    carry(from, to, SIZE_MAX);
    expect_text(to, text);
}

static void works(const char *host, int version, size_t piece, const char *name)
{
    struct pair p;
    pair_open(&p, host, version);
    handshake(&p, piece);
    cr_assert(tls_filter_is_open(p.server) && tls_filter_is_open(p.client), "%s / %s",
              tls_filter_reason(p.server), tls_filter_reason(p.client));
    cr_assert_str_eq(tls_filter_version(p.client), name);
    say(p.client, p.server, "from the client");
    say(p.server, p.client, "from the server");
    pair_close(&p);
}

Test(tls_filter, tls_1_3_and_1_2_work_whole_and_byte_by_byte)
{
    works("broker.test", 0, SIZE_MAX, "TLSv1.3");
    works("broker.test", TLS1_2_VERSION, SIZE_MAX, "TLSv1.2");
    works("broker.test", 0, 1, "TLSv1.3");
    works("broker.test", TLS1_2_VERSION, 1, "TLSv1.2");
}

Test(tls_filter, an_address_is_checked_as_an_address)
{
    works("127.0.0.1", 0, SIZE_MAX, "TLSv1.3");
    works("::1", 0, SIZE_MAX, "TLSv1.3");
}

/* The bytes of the handshake cut into two at each place, in both directions. */
static void cut_handshake_everywhere(int version)
{
    struct pair p;
    pair_contexts(&p, version);
    for (size_t at = 1;; at++) {
        pair_filters(&p, "broker.test");
        size_t whole = 0, first, rest;
        do { /* of each flight first `at` bytes, then the rest */
            first = carry(p.client, p.server, at);
            read_nothing(p.server);
            rest = carry(p.client, p.server, SIZE_MAX);
            read_nothing(p.server);
            whole = first + rest > whole ? first + rest : whole;
            first = carry(p.server, p.client, at);
            read_nothing(p.client);
            rest = carry(p.server, p.client, SIZE_MAX);
            read_nothing(p.client);
            whole = first + rest > whole ? first + rest : whole;
        } while (first + rest > 0);
        handshake(&p, SIZE_MAX);
        cr_assert(tls_filter_is_open(p.server) && tls_filter_is_open(p.client), "cut at %zu", at);
        pair_free_filters(&p);
        if (at >= whole)
            break;
    }
    tls_context_free(p.contexts[0]);
    tls_context_free(p.contexts[1]);
}

Test(tls_filter, a_handshake_may_be_cut_anywhere_tls_1_3)
{
    cut_handshake_everywhere(0);
}

Test(tls_filter, a_handshake_may_be_cut_anywhere_tls_1_2)
{
    cut_handshake_everywhere(TLS1_2_VERSION);
}

Test(tls_filter, records_may_be_cut_anywhere)
{
    struct pair p;
    pair_open(&p, "broker.test", 0);
    handshake(&p, SIZE_MAX);
    for (size_t at = 0;; at++) {
        write_all(p.server, "one", 3);
        write_all(p.server, "two and", 7);
        write_all(p.server, "three", 5);
        size_t whole, used = 0, got;
        char plain[64];
        tls_filter_output(p.server, &whole);
        carry(p.server, p.client, at);
        enum tls_result result = tls_filter_read(p.client, plain, sizeof(plain), &used);
        cr_assert(result == TLS_OK || result == TLS_WAIT);
        cr_assert(!tls_filter_has_input(p.client), "half a record is no news");
        carry(p.server, p.client, SIZE_MAX);
        result = tls_filter_read(p.client, plain + used, sizeof(plain) - used, &got);
        cr_assert(used + got == 15 && memcmp(plain, "onetwo andthree", 15) == 0, "cut at %zu", at);
        if (at == whole)
            break;
    }
    pair_close(&p);
}

Test(tls_filter, plaintext_that_found_no_room_waits_without_more_from_the_socket)
{
    struct pair p;
    pair_open(&p, "broker.test", 0);
    handshake(&p, SIZE_MAX);
    write_all(p.client, "abcdefghij", 10);
    write_all(p.client, "klm", 3);
    carry(p.client, p.server, SIZE_MAX);
    char plain[16];
    size_t got, used = 0;
    while (tls_filter_has_input(p.server)) {
        cr_assert_eq(tls_filter_read(p.server, plain + used, 1, &got), TLS_OK);
        used += got;
    }
    cr_assert(used == 13 && memcmp(plain, "abcdefghijklm", 13) == 0);
    pair_close(&p);
}

Test(tls_filter, no_more_plaintext_is_taken_while_64_kib_wait_for_the_socket)
{
    struct pair p;
    pair_open(&p, "broker.test", 0);
    handshake(&p, SIZE_MAX);
    size_t size = 1 << 20, sent = 0, length, taken, got, received = 0;
    uint8_t *bytes = malloc(size), *copy = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + (i >> 8));
    while (sent < size) {
        sent += write_all(p.client, bytes + sent, size - sent);
        tls_filter_output(p.client, &length);
        cr_assert_lt(length, TLS_OUTPUT_ENOUGH + 20000);
        cr_assert(sent == size || length >= TLS_OUTPUT_ENOUGH);
        if (length >= TLS_OUTPUT_ENOUGH)
            cr_assert_eq(tls_filter_write(p.client, bytes, 1, &taken), TLS_WAIT);
        while (carry(p.client, p.server, 5000) > 0)
            while (tls_filter_read(p.server, copy + received, size - received, &got) == TLS_OK)
                received += got;
    }
    cr_assert_eq(received, size);
    cr_assert_eq(memcmp(bytes, copy, size), 0);
    free(bytes);
    free(copy);
    pair_close(&p);
}

Test(tls_filter, close_notify_ends_after_the_last_bytes)
{
    struct pair p;
    pair_open(&p, "broker.test", 0);
    handshake(&p, SIZE_MAX);
    write_all(p.server, "bye", 3);
    tls_filter_close(p.server);
    tls_filter_close(p.server); /* twice is nothing */
    carry(p.server, p.client, SIZE_MAX);
    char plain[16];
    size_t got;
    cr_assert_eq(tls_filter_read(p.client, plain, sizeof(plain), &got), TLS_OK);
    cr_assert_eq(got, 3);
    cr_assert(tls_filter_has_input(p.client), "the end is still to be told");
    cr_assert_eq(read_nothing(p.client), TLS_END);
    cr_assert(!tls_filter_has_input(p.client));
    pair_close(&p);
}

/* ---- refusals ---- */

static void refused(const char *host, const char *clients_reason, const char *servers_reason)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct pair p;
        pair_open(&p, host, version);
        handshake(&p, SIZE_MAX);
        cr_assert(!tls_filter_is_open(p.client));
        cr_assert(strstr(tls_filter_reason(p.client), clients_reason) != NULL, "%s",
                  tls_filter_reason(p.client));
        cr_assert(strstr(tls_filter_reason(p.server), servers_reason) != NULL, "%s",
                  tls_filter_reason(p.server));
        size_t n;
        cr_assert_eq(tls_filter_write(p.client, "x", 1, &n), TLS_FAILED);
        cr_assert_eq(read_nothing(p.client), TLS_FAILED, "it stays failed");
        pair_close(&p);
    }
}

Test(tls_filter, a_wrong_host_name_is_refused)
{
    refused("other.test", "its certificate is refused: hostname mismatch", "it refused:");
}

Test(tls_filter, a_wrong_address_is_refused)
{
    refused("127.0.0.2", "its certificate is refused: IP address mismatch", "it refused:");
}

Test(tls_filter, an_expired_certificate_is_refused)
{
    identity_write(in_dir("old.pem"), "DNS:broker.test", -60, &ca);
    server_settings.cert_file = path;
    refused("broker.test", "its certificate is refused: certificate has expired", "it refused:");
}

Test(tls_filter, a_revoked_certificate_is_refused)
{
    long serial = identity_write(in_dir("revoked.pem"), "DNS:broker.test", 3600, &ca);
    char list[96];
    server_settings.cert_file = path;
    strcpy(list, path);
    strcat(list, ".crl");
    client_settings.crl_file = list;
    revocation_list_write(list, &ca, serial, 3600, false);
    refused("broker.test", "its certificate is refused: certificate revoked", "it refused:");
    revocation_list_write(list, &ca, serial, -60, false);
    refused("broker.test", "its certificate is refused: CRL has expired", "it refused:");
    struct authority other = authority_make("somebody else");
    revocation_list_write(list, &other, 0, 3600, false);
    authority_free(&other);
    refused("broker.test", "its certificate is refused: unable to get certificate CRL",
            "it refused:");
}

Test(tls_filter, a_certificate_that_the_list_does_not_name_is_taken)
{
    char list[96];
    strcpy(list, in_dir("crl.pem"));
    client_settings.crl_file = list;
    revocation_list_write(list, &ca, 987654321, 3600, false);
    struct pair p;
    pair_open(&p, "broker.test", 0);
    handshake(&p, SIZE_MAX);
    cr_assert(tls_filter_is_open(p.client), "%s", tls_filter_reason(p.client));
    pair_close(&p);
}

Test(tls_filter, a_certificate_of_an_unknown_authority_is_refused)
{
    struct authority other = authority_make("somebody else");
    identity_write(in_dir("foreign.pem"), "DNS:broker.test", 3600, &other);
    authority_free(&other);
    server_settings.cert_file = path;
    refused("broker.test", "its certificate is refused: unable to get local issuer certificate",
            "it refused:");
}

Test(tls_filter, a_self_signed_certificate_is_refused)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *own = certificate_make(key, "broker.test", "DNS:broker.test", 3600, NULL);
    pem_write(in_dir("own.pem"), own, key);
    X509_free(own);
    EVP_PKEY_free(key);
    server_settings.cert_file = path;
    refused("broker.test", "its certificate is refused: self-signed certificate", "it refused:");
}

Test(tls_filter, a_server_with_an_authority_wants_a_certificate_of_it)
{
    char other[96];
    server_settings.ca_file = ca_path;
    client_settings.cert_file = cert_path;
    works("broker.test", 0, SIZE_MAX, "TLSv1.3");
    works("broker.test", TLS1_2_VERSION, SIZE_MAX, "TLSv1.2");
    client_settings.cert_file = NULL;
    for (int i = 0; i < 2; i++) {
        struct pair p;
        pair_open(&p, "broker.test", 0);
        handshake(&p, SIZE_MAX);
        cr_assert(!tls_filter_is_open(p.server));
        cr_assert(strstr(tls_filter_reason(p.server),
                         i == 0 ? "peer did not return a certificate"
                                : "its certificate is refused: unable to get local issuer"),
                  "%s", tls_filter_reason(p.server));
        cr_assert(strstr(tls_filter_reason(p.client), "it refused: "), "%s",
                  tls_filter_reason(p.client));
        pair_close(&p);
        struct authority foreign = authority_make("somebody else");
        strcpy(other, in_dir("foreign.pem"));
        identity_write(other, "DNS:client", 3600, &foreign);
        authority_free(&foreign);
        client_settings.cert_file = other;
    }
}

/* Bytes of a peer that is no TLS filter. */
static const char *fed(struct tls_filter *f, const void *bytes, size_t length)
{
    memcpy(tls_filter_room(f, length), bytes, length);
    tls_filter_commit(f, length);
    cr_assert_eq(read_nothing(f), TLS_FAILED);
    return tls_filter_reason(f);
}

Test(tls_filter, a_peer_without_tls_is_told_as_that)
{
    static const char hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    struct pair p;
    pair_open(&p, "broker.test", 0);
    cr_assert_str_eq(fed(p.server, hello, 8), "it does not speak TLS");
    cr_assert_str_eq(fed(p.client, hello, 8), "it does not speak TLS");
    pair_free_filters(&p);
    pair_filters(&p, "broker.test");
    cr_assert_str_eq(fed(p.server, "GET / HTTP/1.1\r\n\r\n", 18), "it does not speak TLS");
    pair_close(&p);
}

Test(tls_filter, a_changed_byte_of_a_record_fails_and_gives_nothing)
{
    struct pair p;
    pair_contexts(&p, 0);
    for (size_t at = 0, whole = 1; at < whole; at++) {
        pair_filters(&p, "broker.test");
        handshake(&p, SIZE_MAX);
        write_all(p.client, "hello", 5);
        const uint8_t *bytes = tls_filter_output(p.client, &whole);
        uint8_t copy[64];
        memcpy(copy, bytes, whole);
        copy[at] ^= 1;
        memcpy(tls_filter_room(p.server, whole), copy, whole);
        tls_filter_commit(p.server, whole);
        enum tls_result result = read_nothing(p.server);
        /* a length that grew waits for the rest */
        cr_assert(result == TLS_FAILED || (result == TLS_WAIT && (at == 3 || at == 4)), "byte %zu",
                  at);
        pair_free_filters(&p);
    }
    tls_context_free(p.contexts[0]);
    tls_context_free(p.contexts[1]);
}

Test(tls_filter, old_versions_are_refused)
{
    struct pair p;
    pair_contexts(&p, 0);
    SSL_CTX_set_min_proto_version(p.contexts[1]->ssl, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(p.contexts[1]->ssl, TLS1_1_VERSION);
    SSL_CTX_set_security_level(p.contexts[1]->ssl, 0);
    p.server = tls_filter_new(p.contexts[0], NULL);
    p.client = tls_filter_new(p.contexts[1], "broker.test");
    handshake(&p, SIZE_MAX);
    cr_assert(strstr(tls_filter_reason(p.server), "unsupported protocol"), "%s",
              tls_filter_reason(p.server));
    pair_close(&p);
}

/* ---- OpenSSL itself as a client that misbehaves ---- */

struct raw {
    SSL_CTX *context;
    SSL *ssl;
    BIO *in, *out;
};

static void raw_open(struct raw *r, int version)
{
    r->context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(r->context, version);
    r->ssl = SSL_new(r->context);
    r->in = BIO_new(BIO_s_mem());
    r->out = BIO_new(BIO_s_mem());
    SSL_set_bio(r->ssl, r->in, r->out);
    SSL_set_connect_state(r->ssl);
}

static void raw_close(struct raw *r)
{
    SSL_free(r->ssl);
    SSL_CTX_free(r->context);
}

/* Moves what the raw client wrote to the filter and, unless it does not read, back. */
static enum tls_result raw_turn(struct raw *r, struct tls_filter *server, bool reads)
{
    char *bytes;
    long length = BIO_get_mem_data(r->out, &bytes);
    if (length > 0) {
        memcpy(tls_filter_room(server, (size_t)length), bytes, (size_t)length);
        tls_filter_commit(server, (size_t)length);
        BIO_reset(r->out);
    }
    enum tls_result result = read_nothing(server);
    size_t waiting;
    const uint8_t *answer = tls_filter_output(server, &waiting);
    if (reads && waiting > 0) {
        BIO_write(r->in, answer, (int)waiting);
        tls_filter_sent(server, waiting);
    }
    return result;
}

static void raw_handshake(struct raw *r, struct tls_filter *server)
{
    for (int i = 0; i < 6; i++) {
        SSL_do_handshake(r->ssl);
        raw_turn(r, server, true);
    }
    cr_assert(SSL_is_init_finished(r->ssl) && tls_filter_is_open(server));
}

Test(tls_filter, renegotiation_is_refused_and_harmless)
{
    struct pair p;
    struct raw r;
    pair_contexts(&p, TLS1_2_VERSION);
    p.server = tls_filter_new(p.contexts[0], NULL);
    raw_open(&r, TLS1_2_VERSION);
    raw_handshake(&r, p.server);
    cr_assert(SSL_renegotiate(r.ssl));
    SSL_do_handshake(r.ssl);
    cr_assert_neq(raw_turn(&r, p.server, true), TLS_OK);
    char drop[16];
    cr_assert_leq(SSL_read(r.ssl, drop, sizeof(drop)), 0);
    cr_assert_eq(ERR_GET_REASON(ERR_peek_error()), SSL_R_NO_RENEGOTIATION);
    tls_filter_free(p.server);
    tls_context_free(p.contexts[0]);
    tls_context_free(p.contexts[1]);
    raw_close(&r);
}

/* OpenSSL refuses some of these by itself today, so that no peer would show who else does. */
Test(tls_filter, what_is_off_is_off_on_both_sides)
{
    struct pair p;
    pair_contexts(&p, 0);
    const uint64_t off = SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(SSL_CTX_get_options(p.contexts[i]->ssl) & off, off);
        cr_assert_eq(SSL_CTX_get_session_cache_mode(p.contexts[i]->ssl), SSL_SESS_CACHE_OFF);
        cr_assert_eq(SSL_CTX_get_num_tickets(p.contexts[i]->ssl), 0);
        cr_assert_eq(SSL_CTX_get_min_proto_version(p.contexts[i]->ssl), TLS1_2_VERSION);
        tls_context_free(p.contexts[i]);
    }
}

Test(tls_filter, a_peer_that_asks_for_keys_and_does_not_read_is_bounded)
{
    struct pair p;
    struct raw r;
    pair_contexts(&p, 0);
    p.server = tls_filter_new(p.contexts[0], NULL);
    raw_open(&r, TLS1_3_VERSION);
    raw_handshake(&r, p.server);
    enum tls_result result = TLS_WAIT;
    size_t waiting = 0;
    for (int i = 0; i < 30000 && result == TLS_WAIT; i++) {
        if (!SSL_key_update(r.ssl, SSL_KEY_UPDATE_REQUESTED) || SSL_do_handshake(r.ssl) != 1)
            break;
        result = raw_turn(&r, p.server, false);
        tls_filter_output(p.server, &waiting);
        cr_assert_leq(waiting, TLS_OUTPUT_MAX);
    }
    cr_assert_eq(result, TLS_FAILED, "%zu bytes wait", waiting);
    cr_assert(strstr(tls_filter_reason(p.server), "does not read the answers") != NULL, "%s",
              tls_filter_reason(p.server));
    tls_filter_free(p.server);
    tls_context_free(p.contexts[0]);
    tls_context_free(p.contexts[1]);
    raw_close(&r);
}
