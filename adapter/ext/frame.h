#ifndef ADAPTER_FRAME_H
#define ADAPTER_FRAME_H

/*
 * Bytes that are ready for the socket: one WebSocket frame (RFC 6455 5.2, unmasked, final) or one
 * SSE event. Immutable, built once, shared by reference by every client that gets it, freed by the
 * last. The counter is atomic: references may be taken and dropped on any thread. The builders may
 * run on any thread; they copy what they are given and return a frame with one reference, the
 * caller's, or NULL when memory is out.
 */
#include "ws_deflate.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
    uint32_t references; /* atomic; only frame_ref and frame_unref touch it */
    uint32_t count;      /* WebSocket frames, events or other pieces in it: 1, or a run's */
    size_t length;       /* bytes */
    uint8_t bytes[];
};

/* One more reference to the same frame; returns f. */
struct frame *frame_ref(struct frame *f);

/* Gives one reference back; the last frees. NULL is allowed. */
void frame_unref(struct frame *f);

/* A whole message. The text must be valid UTF-8 (utf8.h); who builds it knows or checks. data may
 * be NULL when length is 0. */
struct frame *frame_text(const void *data, size_t length);
struct frame *frame_binary(const void *data, size_t length);

/* A whole message for peers that agreed on permessage-deflate with server_bits of at least the
 * deflater's: compressed (RSV1), or plain when compressing does not make it smaller. */
struct frame *frame_deflated(struct ws_deflater *d, bool binary, const void *data, size_t length);

/* The bytes of several, which stay the caller's, one behind the other: what is sent together anyway
 * is then one piece for each client. */
struct frame *frame_joined(struct frame *const *frames, unsigned count);

/* Control frames; what is longer than 125 bytes is cut off there. */
struct frame *frame_ping(const void *data, size_t length);
struct frame *frame_pong(const void *data, size_t length);

/* A close frame with that code and reason (UTF-8, cut to 123 bytes before a character, NULL when
 * length is 0). Code WS_CLOSE_NO_CODE (1005): an empty close frame, the answer to an empty one. */
struct frame *frame_close(uint16_t code, const char *reason, size_t length);

/* Copies bytes as they are: a response head, say. */
struct frame *frame_raw(const void *data, size_t length);

/* One SSE event (sse.h): data in lines of its own, invalid UTF-8 replaced. event and id: NULL for
 * none, and both must pass sse_field_is_valid (else NULL is returned). retry: milliseconds,
 * negative for none. */
struct frame *frame_sse_event(const void *data, size_t length, const char *event,
                              size_t event_length, const char *id, size_t id_length, int64_t retry);

/* An SSE comment, which receivers ignore: the keep-alive. length 0: a bare colon. */
struct frame *frame_sse_comment(const void *text, size_t length);

#endif
