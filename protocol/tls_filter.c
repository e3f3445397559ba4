#include "buffer.h"
#include "tls_internal.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_SIZE = 16384, ALERT_OFFSET = SSL_AD_REASON_OFFSET };

struct tls_filter {
    struct tls_context *context; /* a reference */
    SSL *ssl;
    struct buffer in, out;
    enum tls_result state;       /* TLS_OK until it has ended or failed */
    bool was_told, close_is_out; /* the end; the owner heard of it, we said ours */
    char reason[TLS_REASON_MAX];
};

/* ---- the two buffers as OpenSSL sees them ---- */

static int memory_read(BIO *bio, char *out, int size)
{
    struct tls_filter *filter = BIO_get_data(bio);
    size_t waiting = buffer_length(&filter->in), n = size > 0 ? (size_t)size : 0;
    BIO_clear_retry_flags(bio);
    if (n > waiting)
        n = waiting;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, buffer_bytes(&filter->in), n);
    buffer_consume(&filter->in, n);
    if (n == waiting)
        buffer_release(&filter->in);
    return (int)n;
}

static int memory_write(BIO *bio, const char *bytes, int size)
{
    struct tls_filter *filter = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    return size > 0 && buffer_append(&filter->out, bytes, (size_t)size) ? size : -1;
}

static long memory_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_memory_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "brokerd filter");
    if (method && BIO_meth_set_read(method, memory_read) &&
        BIO_meth_set_write(method, memory_write) && BIO_meth_set_ctrl(method, memory_ctrl))
        return method;
    BIO_meth_free(method);
    return NULL;
}

/* ---- one connection ---- */

static bool expect_host(SSL *ssl, const char *host)
{
    struct in6_addr numeric;
    bool is_numeric =
        inet_pton(AF_INET, host, &numeric) == 1 || inet_pton(AF_INET6, host, &numeric) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (is_numeric)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

static bool prepare(struct tls_filter *filter, const struct tls_context *context, const char *host)
{
    filter->ssl = SSL_new(context->ssl);
    BIO *bio = BIO_new(context->memory);
    if (!filter->ssl || !bio) {
        BIO_free(bio);
        return false;
    }
    BIO_set_data(bio, filter);
    BIO_set_init(bio, 1);
    SSL_set_bio(filter->ssl, bio, bio);
    if (context->is_server) {
        SSL_set_accept_state(filter->ssl);
        return true;
    }
    SSL_set_connect_state(filter->ssl);
    if (!host || !expect_host(filter->ssl, host))
        return false;
    SSL_do_handshake(filter->ssl);
    return buffer_length(&filter->out) > 0;
}

struct tls_filter *tls_filter_new(struct tls_context *context, const char *host)
{
    struct tls_filter *filter = calloc(1, sizeof(*filter));
    if (!filter)
        return NULL;
    filter->context = context;
    context->references++;
    buffer_init(&filter->in, TLS_INPUT_MAX);
    buffer_init(&filter->out, TLS_OUTPUT_MAX);
    ERR_clear_error();
    if (prepare(filter, context, host))
        return filter;
    ERR_clear_error();
    tls_filter_free(filter);
    return NULL;
}

void tls_filter_free(struct tls_filter *filter)
{
    if (!filter)
        return;
    SSL_free(filter->ssl);
    tls_context_free(filter->context);
    buffer_release(&filter->in);
    buffer_release(&filter->out);
    free(filter);
}

uint8_t *tls_filter_room(struct tls_filter *filter, size_t size)
{
    return buffer_reserve(&filter->in, size);
}

void tls_filter_commit(struct tls_filter *filter, size_t size)
{
    buffer_commit(&filter->in, size);
}

/* ---- failing ---- */

/* What the peer sent was no TLS at all. */
static bool is_plain(int reason)
{
    return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
           reason == SSL_R_HTTPS_PROXY_REQUEST || reason == SSL_R_UNKNOWN_PROTOCOL ||
           reason == SSL_R_BAD_RECORD_TYPE;
}

static void describe(struct tls_filter *filter)
{
    unsigned long code = ERR_peek_error();
    const char *text = ERR_reason_error_string(code);
    long verified = SSL_get_verify_result(filter->ssl);
    int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
    bool at_start = !SSL_is_init_finished(filter->ssl);
    if (buffer_length(&filter->out) >= TLS_OUTPUT_MAX - RECORD_SIZE)
        snprintf(filter->reason, TLS_REASON_MAX,
                 "it makes us answer and does not read the answers");
    else if (reason >= ALERT_OFFSET)
        snprintf(filter->reason, TLS_REASON_MAX, "it refused: %s", text ? text : "unknown alert");
    else if (at_start && verified != X509_V_OK)
        snprintf(filter->reason, TLS_REASON_MAX, "its certificate is refused: %s",
                 X509_verify_cert_error_string(verified));
    else if (at_start && is_plain(reason))
        snprintf(filter->reason, TLS_REASON_MAX, "it does not speak TLS");
    else
        snprintf(filter->reason, TLS_REASON_MAX, "%s", text ? text : "out of memory");
}

/* After a call that gave no bytes. */
static enum tls_result outcome(struct tls_filter *filter, int result)
{
    int error = SSL_get_error(filter->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return TLS_WAIT;
    filter->state = error == SSL_ERROR_ZERO_RETURN ? TLS_END : TLS_FAILED;
    if (filter->state == TLS_FAILED)
        describe(filter);
    ERR_clear_error();
    buffer_release(&filter->in);
    return filter->state;
}

/* ---- bytes ---- */

enum tls_result tls_filter_read(struct tls_filter *filter, void *plain, size_t size, size_t *got)
{
    *got = 0;
    enum tls_result result = filter->state;
    ERR_clear_error();
    while (result == TLS_OK && *got < size) {
        size_t n = 0;
        int done = SSL_read_ex(filter->ssl, (uint8_t *)plain + *got, size - *got, &n);
        if (done)
            *got += n;
        else
            result = outcome(filter, done);
    }
    if (*got > 0 || result == TLS_OK) /* the latter: no room was given */
        return *got > 0 ? TLS_OK : TLS_WAIT;
    filter->was_told = result == TLS_END || result == TLS_FAILED;
    return result;
}

bool tls_filter_has_input(const struct tls_filter *filter)
{
    if (filter->state != TLS_OK)
        return !filter->was_told;
    return buffer_length(&filter->in) > 0 || SSL_pending(filter->ssl) > 0;
}

enum tls_result tls_filter_write(struct tls_filter *filter, const void *plain, size_t size,
                                 size_t *taken)
{
    *taken = 0;
    if (filter->state == TLS_FAILED)
        return TLS_FAILED;
    if (!SSL_is_init_finished(filter->ssl))
        return TLS_WAIT;
    ERR_clear_error();
    while (*taken < size && buffer_length(&filter->out) < TLS_OUTPUT_ENOUGH) {
        size_t n = 0, piece = size - *taken < RECORD_SIZE ? size - *taken : RECORD_SIZE;
        int done = SSL_write_ex(filter->ssl, (const uint8_t *)plain + *taken, piece, &n);
        if (!done)
            return outcome(filter, done);
        *taken += n;
    }
    return *taken > 0 ? TLS_OK : TLS_WAIT;
}

const uint8_t *tls_filter_output(const struct tls_filter *filter, size_t *length)
{
    *length = buffer_length(&filter->out);
    return buffer_bytes(&filter->out);
}

void tls_filter_sent(struct tls_filter *filter, size_t size)
{
    buffer_consume(&filter->out, size);
    if (buffer_length(&filter->out) == 0)
        buffer_release(&filter->out);
}

bool tls_filter_is_open(const struct tls_filter *filter)
{
    return filter->state != TLS_FAILED && SSL_is_init_finished(filter->ssl);
}

void tls_filter_close(struct tls_filter *filter)
{
    if (filter->close_is_out || !tls_filter_is_open(filter))
        return;
    filter->close_is_out = true;
    ERR_clear_error();
    SSL_shutdown(filter->ssl);
    ERR_clear_error();
}

const char *tls_filter_reason(const struct tls_filter *filter)
{
    return filter->reason;
}

const char *tls_filter_version(const struct tls_filter *filter)
{
    return SSL_get_version(filter->ssl);
}

bool tls_looks_like(const void *bytes, size_t length)
{
    const uint8_t *at = bytes; /* a handshake or an alert of version 3.x */
    return length >= 2 && (at[0] == 0x16 || at[0] == 0x15) && at[1] == 3;
}
