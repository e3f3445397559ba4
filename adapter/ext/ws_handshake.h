#ifndef ADAPTER_WS_HANDSHAKE_H
#define ADAPTER_WS_HANDSHAKE_H

/*
 * What an HTTP request asks for: a WebSocket (RFC 6455 4.2), an event stream, or neither; and the
 * values of the answer. Header values are given as they stand in the request, several of one name
 * joined by commas as Rack does. Pure, any thread.
 */
#include "ws_deflate.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A header's value; bytes NULL: the request does not have it. */
struct ws_text {
    const char *bytes;
    size_t length;
};

struct ws_request {
    struct ws_text method; /* REQUEST_METHOD */
    struct ws_text
        server_protocol; /* SERVER_PROTOCOL, "HTTP/1.1"; absent: not known, taken as right */
    struct ws_text http_version; /* HTTP_VERSION, the same; Puma 5.6 tells 1.0 only here */
    struct ws_text host;
    struct ws_text upgrade;
    struct ws_text connection;
    struct ws_text version;    /* Sec-WebSocket-Version */
    struct ws_text key;        /* Sec-WebSocket-Key */
    struct ws_text extensions; /* Sec-WebSocket-Extensions; only its form is checked here */
};

enum ws_verdict {
    WS_NOT_WEBSOCKET, /* an ordinary request: no GET, or not both tokens */
    WS_UPGRADE,
    WS_BAD_VERSION, /* answer 426 with Sec-WebSocket-Version: 13 */
    WS_BAD_REQUEST  /* answer 400 */
};

/* Judges the request (RFC 6455 4.2.1). *reason is a static text in the last two cases, else NULL.
 */
enum ws_verdict ws_request_check(const struct ws_request *request, const char **reason);

enum { WS_ACCEPT_SIZE = 28 };

/* Sec-WebSocket-Accept for a key that ws_request_check let pass (RFC 6455 4.2.2, 5.4). Surrounding
 * blanks of the key do not count. No NUL is written. False only when OpenSSL refuses SHA-1. */
bool ws_accept(struct ws_text key, char out[WS_ACCEPT_SIZE]);

/* Is token an element of the comma-separated list? Any case. */
bool ws_list_has(struct ws_text list, const char *token);

/* Was that subprotocol offered in Sec-WebSocket-Protocol (RFC 6455 4.2.2, 5.5)? Case counts. */
bool ws_protocol_offered(struct ws_text offered, const char *protocol, size_t length);

enum { WS_DEFLATE_RESPONSE_MAX = 160 };

/*
 * Answers the first acceptable permessage-deflate offer in Sec-WebSocket-Extensions (RFC
 * 7692 5.1, 7.1). True: *terms is what was agreed, response (NUL-terminated) is the value of the
 * response's Sec-WebSocket-Extensions. False: no such offer, send no such header. allow_takeover:
 * the peer may keep its compression context between messages if it wants to, for about 40 KiB per
 * connection; false makes it start each message anew. server_no_context_takeover is always in the
 * answer. An offer with an unknown, repeated or ill-valued parameter, or with
 * server_max_window_bits=8 (zlib has no such window), is declined and the next one tried.
 */
bool ws_deflate_negotiate(struct ws_text extensions, bool allow_takeover,
                          struct ws_deflate_terms *terms, char response[WS_DEFLATE_RESPONSE_MAX]);

/* Does an Accept header list text/event-stream, in any case, with q > 0 (RFC 9110 12.5.1)? A range
 * with a star, or an absent header, does not ask for an event stream. The method is the caller's to
 * check. */
bool sse_accepts(struct ws_text accept);

#endif
