#ifndef PROTOCOL_TLS_INTERNAL_H
#define PROTOCOL_TLS_INTERNAL_H

/* What tls_context.c (files, rules) and tls_filter.c (bytes) share. */
#include "tls_filter.h"
#include <openssl/ssl.h>

struct tls_context {
    unsigned references; /* its owner's, and one of each filter */
    SSL_CTX *ssl;
    BIO_METHOD *memory; /* the filter's two buffers as a BIO; outlives every SSL that uses it */
    bool is_server;
};

/* The BIO whose data is a struct tls_filter. NULL: out of memory. */
BIO_METHOD *tls_memory_method(void);

#endif
