#ifndef TESTS_TLS_HARNESS_H
#define TESTS_TLS_HARNESS_H

/*
 * A broker that listens on tls+tcp and tcp with a certificate made on the spot, a witness on ipc
 * who must not notice anything of what is done to it, and peers that speak TLS. Header only.
 */
#include "../certificates.h"
#include "harness.h"
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

static struct broker b;
static struct authority ca;
static struct peer witness; /* must not notice anything */
static int tls_port, tcp_port;
static char ca_path[100], cert_path[100], tls_url[64], tcp_url[64];

/* client_ca, client_crl: NULL, or which paths the broker is given for its clients. */
static inline void prepare(const char *names, long seconds, const char *client_ca,
                           const char *client_crl)
{
    broker_prepare(&b, (const char *[]){"--no-journal", "--log-level", "debug", "--listen", tls_url,
                                        "--listen", tcp_url, "--tls-cert", cert_path,
                                        client_ca != NULL ? "--tls-client-ca" : NULL, client_ca,
                                        client_crl != NULL ? "--tls-client-crl" : NULL, client_crl,
                                        NULL});
    snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", b.dir);
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", b.dir);
    tls_port = free_port();
    tcp_port = free_port();
    snprintf(tls_url, sizeof(tls_url), "tls+tcp://localhost:%d", tls_port);
    snprintf(tcp_url, sizeof(tcp_url), "tcp://localhost:%d", tcp_port);
    ca = authority_make("the tests' authority");
    pem_write(ca_path, ca.certificate, NULL);
    identity_write(cert_path, names, seconds, &ca);
}

static inline void run(void)
{
    broker_run(&b);
    witness = peer_open(&b);
    peer_join(&witness, 1000, "witness");
}

static inline void start(void)
{
    prepare("DNS:localhost,IP:127.0.0.1", 30 * 86400, NULL, NULL);
    run();
}

static inline void end(void)
{
    struct answer a = peer_publish(&witness, 1000, 99, 1, "witness", "still here");
    cr_assert_eq(a.reply.records, 1);
    cr_assert_eq(peer_ask(&witness, WIRE_FETCH, 0, 1000, 0, NULL).reply.records, 1);
    broker_end(&b);
    X509_free(ca.certificate);
    EVP_PKEY_free(ca.key);
}

/* ---- a peer over TLS: a process beside the test carries the bytes ---- */

static inline int tcp_connect(int port)
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

static inline void carry(SSL *ssl, int fd, int plain)
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
static inline int tls_bridge(int version, pid_t *pid)
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

static inline struct peer tls_peer(int version, pid_t *pid)
{
    struct peer p = {.fd = tls_bridge(version, pid), .transport = SP_TCP, .next_id = 0x80000001};
    peer_hello(&p);
    return p;
}

static inline void tls_peer_close(struct peer *p, pid_t pid)
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

static inline struct raw raw_open(void)
{
    struct raw r = {.context = SSL_CTX_new(TLS_client_method()), .fd = tcp_connect(tls_port)};
    signal(SIGPIPE, SIG_IGN);
    r.ssl = SSL_new(r.context);
    SSL_set_fd(r.ssl, r.fd);
    cr_assert_eq(SSL_connect(r.ssl), 1);
    return r;
}

static inline void raw_close(struct raw *r)
{
    close(r->fd);
    SSL_free(r->ssl);
    SSL_CTX_free(r->context);
}

/* Refused by the broker: one line that names the peer. */
static inline void refused_with(const char *text)
{
    broker_log_has(&b, text);
    cr_assert_eq(broker_log_count(&b, text, "tcp peer 127.0.0.1 port "), 1);
    cr_assert_eq(broker_log_count(&b, " warn ", " ended: "), 1);
}

#endif
