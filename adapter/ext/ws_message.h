#ifndef ADAPTER_WS_MESSAGE_H
#define ADAPTER_WS_MESSAGE_H

/*
 * The receiving half of a WebSocket connection, server side: bytes in, events out. It holds the
 * peer to all of RFC 6455 5 to 8: masking, reserved bits and opcodes, control frames,
 * fragmentation, lengths, close codes, UTF-8 as it arrives (8.1), and RFC 7692 when it was agreed.
 *
 * An idle receiver owns no memory but the struct itself (and, if the peer may keep its compression
 * context, its inflater). A message that lies whole in one portion is delivered from where it lies;
 * one that comes in pieces is gathered in a buffer that never holds more than max_message bytes
 * and grows only as they arrive.
 *
 * One thread at a time.
 */
#include "buffer.h"
#include "utf8.h"
#include "ws_deflate.h"
#include "ws_frame.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ws_event_kind {
    WS_EVENT_TEXT,   /* a whole message, valid UTF-8 */
    WS_EVENT_BINARY, /* a whole message */
    WS_EVENT_PING,   /* answer with frame_pong(data, length) */
    WS_EVENT_PONG,
    WS_EVENT_CLOSE,  /* code (1005: none was given), data: the peer's reason; answer with the same
                        code */
    WS_EVENT_FAILURE /* the peer broke the rules: close with code, data: a static text for the log
                      */
};

struct ws_event {
    enum ws_event_kind kind;
    uint16_t code;       /* CLOSE and FAILURE */
    const uint8_t *data; /* valid during the callback; may be NULL when length is 0 */
    size_t length;
};

/*
 * Called for each event, in wire order. True: go on. False: stop here; ws_receiver_feed then
 * returns at once and does not touch the receiver again, so the callback may have released it (and
 * freed what it stands in), or it may only want a pause: the receiver's state is complete before
 * every call, and feeding the bytes that were not used continues it. data stays valid until the
 * callback returns in either case. The callback must not feed the same receiver.
 */
typedef bool ws_event_function(void *context, const struct ws_event *event);

struct ws_receiver {
    struct buffer message;         /* the message under way, if it did not come in one piece */
    struct ws_inflater *inflater;  /* NULL unless needed */
    uint8_t *control;              /* WS_CONTROL_MAX bytes while a control frame is under way */
    uint64_t left;                 /* payload bytes of the frame under way that have not come */
    struct utf8 utf8;              /* of the text message under way */
    uint8_t mask[4];               /* of the frame under way, turned to its next byte */
    uint8_t header[WS_HEADER_MAX]; /* the header under way */
    uint8_t header_length;         /* bytes of it that are there */
    uint8_t control_length;        /* bytes in control */
    uint8_t frame;                 /* opcode of the frame under way */
    uint8_t kind;                  /* WS_TEXT or WS_BINARY while a message is under way, else 0 */
    struct ws_deflate_terms terms;
    bool deflate;    /* terms hold */
    bool compressed; /* the message under way is */
    bool inflating;  /* and some of its bytes came */
    bool in_frame;   /* between a frame's header and its last byte */
    bool fin;        /* of the frame under way */
    bool ended;      /* a close frame came or the peer failed: nothing more is read */
};

/* Makes *r a receiver at the start of a connection, just behind the handshake. max_message: bytes
 * of one message, after inflating; more is a FAILURE 1009, before it is buffered. terms: what was
 * agreed about compression (copied), NULL for none. Allocates nothing, cannot fail. */
void ws_receiver_init(struct ws_receiver *r, size_t max_message,
                      const struct ws_deflate_terms *terms);

/* Gives all memory back; allowed inside the callback that then returns false. *r may not be fed
 * again. */
void ws_receiver_release(struct ws_receiver *r);

/*
 * The next bytes of the connection, in portions of any size; they are changed (unmasked in place),
 * and those that were used are garbage afterwards. Returns how many were used: length, or less when
 * the callback returned false. After CLOSE or FAILURE, which come at most once and last, everything
 * is used up without an event. Out of memory is a FAILURE with code 1011.
 */
size_t ws_receiver_feed(struct ws_receiver *r, uint8_t *bytes, size_t length,
                        ws_event_function *on_event, void *context);

#endif
