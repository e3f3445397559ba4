#ifndef ADAPTER_WS_DEFLATE_H
#define ADAPTER_WS_DEFLATE_H

/*
 * permessage-deflate (RFC 7692), the compression itself; its negotiation is in ws_handshake.h.
 *
 * The server never keeps a compression context between messages (it always answers
 * server_no_context_takeover). So a compressed message is the same bytes for every receiver: it is
 * compressed once and the frame is shared, and a connection owns no compressor. Towards the server
 * a peer may keep its context if it was agreed (client_takeover); then its inflater lives as long
 * as the connection, about 40 KiB, otherwise only while one of its messages is under way.
 *
 * Each struct is used by one thread at a time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was agreed (RFC 7692 7.1). */
struct ws_deflate_terms {
    bool client_takeover; /* the peer may refer back to its earlier messages */
    uint8_t client_bits;  /* window the peer compresses with, 8 to 15 */
    uint8_t server_bits;  /* largest window that we may compress with, 9 to 15; almost always 15 */
};

enum { WS_DEFLATE_BITS_MAX = 15 };

/* Inflating: one peer's stream of compressed messages. */
struct ws_inflater;

enum ws_inflate {
    WS_INFLATE_DONE, /* the input is used up, all its output was written */
    WS_INFLATE_FULL, /* the output is full: call again with room for the rest (there may be none) */
    WS_INFLATE_BAD,  /* not a DEFLATE stream, or the message ends within a block */
    WS_INFLATE_NO_MEMORY
};

/* bits: the peer's window. NULL when memory is out. */
struct ws_inflater *ws_inflater_new(unsigned bits);
void ws_inflater_free(struct ws_inflater *i); /* NULL is allowed */

/*
 * Inflates *length bytes at *input (both are advanced past what was used) into out, at most size
 * bytes, size > 0; *written tells how many. last: these are the last bytes of the message, the 00
 * 00 ff ff that the sender left off (RFC 7692 7.2.2) is added behind them; repeat last in each call
 * until DONE. After DONE with last the next message may follow. After BAD or NO_MEMORY only
 * ws_inflater_free.
 */
enum ws_inflate ws_inflater_run(struct ws_inflater *i, const uint8_t **input, size_t *length,
                                bool last, uint8_t *out, size_t size, size_t *written);

/* Compressing whole messages, each by itself. One deflater serves all connections of a thread; it
 * owns about 260 KiB (bits 15) and an output buffer of the largest message so far, up to 64 KiB
 * kept. */
struct ws_deflater;

/* bits: the window, 9 to 15; receivers whose terms have fewer server_bits cannot read the result
 * (send them uncompressed frames, which is always allowed). NULL when memory is out. */
struct ws_deflater *ws_deflater_new(unsigned bits);
void ws_deflater_free(struct ws_deflater *d); /* NULL is allowed */

/*
 * Compresses one message (RFC 7692 7.2.1, the tail removed). *out points to *out_length bytes that
 * belong to the deflater and last until its next call. False when compressing does not make it
 * smaller, or memory is out: send it uncompressed. frame_deflated does all of this.
 */
bool ws_deflater_compress(struct ws_deflater *d, const void *data, size_t length,
                          const uint8_t **out, size_t *out_length);

#endif
