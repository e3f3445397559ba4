#ifndef PROTOCOL_TLS_FILTER_H
#define PROTOCOL_TLS_FILTER_H

/*
 * TLS 1.2 and 1.3 as a byte filter over OpenSSL with memory on its other side: what came from the
 * socket goes in, plaintext comes out; plaintext goes in, what is for the socket comes out. No I/O,
 * no clock: whoever holds the socket moves the bytes, and gives a handshake its time-out.
 *
 * Limits: input is what the owner asks room for, at most TLS_INPUT_MAX; no plaintext is taken while
 * TLS_OUTPUT_ENOUGH bytes or more wait for the socket, and a peer that makes us answer without
 * reading the answers fails the filter at TLS_OUTPUT_MAX. Renegotiation, compression, early data,
 * session tickets and resumption are off. A filter that waits owns no buffers of its own, and
 * OpenSSL's are given back too.
 *
 * A context, and the filters of it, may be used by one thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TLS_INPUT_MAX = 512 * 1024,
    TLS_OUTPUT_ENOUGH = 64 * 1024,
    TLS_OUTPUT_MAX = 512 * 1024,
    TLS_REASON_MAX = 256
};

/* Files in PEM form. */
struct tls_settings {
    const char *ca_file;   /* who may have signed the peer's certificate. NULL: a client believes
                              the system's authorities, a server asks for no certificate */
    const char *cert_file; /* the own certificate, then those between it and its authority. NULL:
                              none (a server needs one) */
    const char *key_file;  /* its private key; NULL: it is in cert_file */
    const char *crl_file;  /* revocation lists (RFC 5280 section 5), of each authority in a peer's
                              chain a valid one. NULL: a revoked certificate is as good as another */
};

struct tls_context;
struct tls_filter;

/* Reads the files. NULL with a reason, which names the file, in reason[TLS_REASON_MAX]. */
struct tls_context *tls_server_context_new(const struct tls_settings *settings, char *reason);
struct tls_context *tls_client_context_new(const struct tls_settings *settings, char *reason);

/* The owner's part ends; filters that are still there keep what they need of it. NULL is nothing.
 */
void tls_context_free(struct tls_context *context);

/* Seconds until the own certificate ends (below 0: it has ended); INT64_MAX without one. */
int64_t tls_context_seconds_left(const struct tls_context *context);

/* Seconds until the first of the revocation lists ends, after which every peer is refused;
 * INT64_MAX without one. */
int64_t tls_context_crl_seconds_left(const struct tls_context *context);

/* One connection. host: the name or the numeric address that a server's certificate must be for;
 * NULL on the server's side. NULL when memory is out. A client's first bytes wait as output. */
struct tls_filter *tls_filter_new(struct tls_context *context, const char *host);

/* NULL is nothing. */
void tls_filter_free(struct tls_filter *filter);

enum tls_result {
    TLS_OK,
    TLS_WAIT,  /* reading: more input is needed; writing: output must go first, or the handshake */
    TLS_END,   /* the peer said that it sends no more (close_notify) */
    TLS_FAILED /* for good: tls_filter_reason tells why; output may hold an alert to send */
};

/* Room for up to size bytes from the socket, then how many came. NULL: past the limit or out of
 * memory. What was given stays until tls_filter_read has used it. */
uint8_t *tls_filter_room(struct tls_filter *filter, size_t size);
void tls_filter_commit(struct tls_filter *filter, size_t size);

/* Carries the handshake on, then decrypts up to size bytes: TLS_OK with *got > 0, and *got 0
 * otherwise. Call it again as long as tls_filter_has_input. */
enum tls_result tls_filter_read(struct tls_filter *filter, void *plain, size_t size, size_t *got);

/* Would tls_filter_read have something to say without more from the socket? */
bool tls_filter_has_input(const struct tls_filter *filter);

/* Encrypts what fits of size bytes: TLS_OK with *taken > 0. Many small pieces belong into one call,
 * since each call makes a record. */
enum tls_result tls_filter_write(struct tls_filter *filter, const void *plain, size_t size,
                                 size_t *taken);

/* What waits for the socket; valid until the next call. Then how much of it was sent. */
const uint8_t *tls_filter_output(const struct tls_filter *filter, size_t *length);
void tls_filter_sent(struct tls_filter *filter, size_t size);

/* Is the handshake done? (Before that nothing is encrypted.) */
bool tls_filter_is_open(const struct tls_filter *filter);

/* Adds close_notify to the output, once, if there was a handshake and no failure. */
void tls_filter_close(struct tls_filter *filter);

/* Why it failed, in words for a log line; "" before that. */
const char *tls_filter_reason(const struct tls_filter *filter);

/* "TLSv1.3" or "TLSv1.2" once the handshake is done. */
const char *tls_filter_version(const struct tls_filter *filter);

/* Do these bytes, the first that a peer sent, look like TLS? (For the log line of a plain socket.)
 */
bool tls_looks_like(const void *bytes, size_t length);

#endif
