#include "tls_internal.h"
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The oldest error says what went wrong first; the file's name says where. */
static bool refuse(char *reason, const char *what, const char *file)
{
    unsigned long code = ERR_get_error();
    const char *text = ERR_reason_error_string(code);
    if (access(file, R_OK) != 0)
        text = strerror(errno);
    snprintf(reason, TLS_REASON_MAX, "%s %s: %s", what, file, text ? text : "it cannot be used");
    ERR_clear_error();
    return false;
}

static bool refuse_openssl(char *reason)
{
    const char *text = ERR_reason_error_string(ERR_get_error());
    snprintf(reason, TLS_REASON_MAX, "TLS cannot be set up: %s", text ? text : "out of memory");
    ERR_clear_error();
    return false;
}

static bool set_rules(SSL_CTX *ssl, char *reason)
{
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_AUTO_RETRY | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    return (SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) && SSL_CTX_set_num_tickets(ssl, 0))
               ? true
               : refuse_openssl(reason);
}

static bool load_own(SSL_CTX *ssl, const struct tls_settings *settings, char *reason)
{
    const char *cert = settings->cert_file, *key = settings->key_file;
    if (!cert) {
        if (!key)
            return true;
        snprintf(reason, TLS_REASON_MAX, "the key %s has no certificate beside it", key);
        return false;
    }
    if (!key)
        key = cert;
    if (SSL_CTX_use_certificate_chain_file(ssl, cert) != 1)
        return refuse(reason, "the certificate", cert);
    if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1)
        return refuse(reason, "the private key", key);
    if (SSL_CTX_check_private_key(ssl) != 1)
        return refuse(reason, "the private key", key);
    return true;
}

static bool load_authorities(SSL_CTX *ssl, const char *file, bool is_server, char *reason)
{
    if (!file && is_server)
        return true;
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | (is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                       NULL);
    if (!file)
        return SSL_CTX_set_default_verify_paths(ssl) == 1 || refuse_openssl(reason);
    if (SSL_CTX_load_verify_file(ssl, file) != 1)
        return refuse(reason, "the CA file", file);
    if (is_server) /* tells clients of several certificates which one is meant */
        SSL_CTX_set_client_CA_list(ssl, SSL_load_client_CA_file(file));
    return true;
}

static bool load_revoked(SSL_CTX *ssl, const char *file, char *reason)
{
    if (!file)
        return true;
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
    if (!lookup)
        return refuse_openssl(reason);
    if (X509_load_crl_file(lookup, file, X509_FILETYPE_PEM) <= 0)
        return refuse(reason, "the revocation list", file);
    return X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) == 1 ||
           refuse_openssl(reason);
}

/* A key behind a passphrase must not make a daemon ask on its terminal. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out, (void)size, (void)writing, (void)context;
    return -1;
}

static struct tls_context *context_new(const struct tls_settings *settings, bool is_server,
                                       char *reason)
{
    struct tls_context *context = calloc(1, sizeof(*context));
    ERR_clear_error();
    snprintf(reason, TLS_REASON_MAX, "out of memory");
    if (!context)
        return NULL;
    context->references = 1;
    context->is_server = is_server;
    context->memory = tls_memory_method();
    context->ssl = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    if (context->ssl)
        SSL_CTX_set_default_passwd_cb(context->ssl, no_passphrase);
    if (context->memory && context->ssl && set_rules(context->ssl, reason) &&
        load_own(context->ssl, settings, reason) &&
        load_authorities(context->ssl, settings->ca_file, is_server, reason) &&
        load_revoked(context->ssl, settings->crl_file, reason)) {
        reason[0] = 0;
        ERR_clear_error();
        return context;
    }
    ERR_clear_error();
    tls_context_free(context);
    return NULL;
}

struct tls_context *tls_server_context_new(const struct tls_settings *settings, char *reason)
{
    return context_new(settings, true, reason);
}

struct tls_context *tls_client_context_new(const struct tls_settings *settings, char *reason)
{
    return context_new(settings, false, reason);
}

void tls_context_free(struct tls_context *context)
{
    if (!context || --context->references > 0)
        return;
    SSL_CTX_free(context->ssl);
    BIO_meth_free(context->memory);
    free(context);
}

static int64_t seconds_until(const ASN1_TIME *time)
{
    int days, seconds;
    if (!time || !ASN1_TIME_diff(&days, &seconds, NULL, time))
        return INT64_MAX;
    return (int64_t)days * 86400 + seconds;
}

int64_t tls_context_seconds_left(const struct tls_context *context)
{
    const X509 *own = SSL_CTX_get0_certificate(context->ssl);
    return own ? seconds_until(X509_get0_notAfter(own)) : INT64_MAX;
}

int64_t tls_context_crl_seconds_left(const struct tls_context *context)
{
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(SSL_CTX_get_cert_store(context->ssl));
    int64_t least = INT64_MAX;
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        const X509_OBJECT *object = sk_X509_OBJECT_value(objects, i);
        if (X509_OBJECT_get_type(object) != X509_LU_CRL)
            continue;
        int64_t left = seconds_until(
            X509_CRL_get0_nextUpdate(X509_OBJECT_get0_X509_CRL((X509_OBJECT *)(uintptr_t)object)));
        least = left < least ? left : least;
    }
    return least;
}
