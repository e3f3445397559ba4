#ifndef ADAPTER_SSE_H
#define ADAPTER_SSE_H

/*
 * Text of an event stream (WHATWG HTML, 9.2.5 and 9.2.6). Whatever the payload holds, the receiver
 * sees one event: each line (ended by LF, CR or CRLF) is a `data:` line of its own and arrives with
 * LF between, so no byte of it can start a field, an event or a comment. Invalid UTF-8 becomes
 * U+FFFD. Pure, any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sse_event {
    const void *data; /* NULL only when length is 0; an empty event is dispatched with empty data */
    size_t length;
    const char *event; /* NULL: none (the receiver's "message") */
    size_t event_length;
    const char *id; /* NULL: none; empty: the receiver forgets its last event id */
    size_t id_length;
    int64_t retry; /* milliseconds; negative: none */
};

/* May this be an event name or an id? Valid UTF-8 without NUL, CR and LF. */
bool sse_field_is_valid(const char *text, size_t length);

/* Size in bytes of the event's text; 0 when it would not fit a size_t, or event or id are refused.
 */
size_t sse_event_size(const struct sse_event *event);

/* Writes exactly sse_event_size(event) bytes to out; that size must have been above 0. */
void sse_event_write(const struct sse_event *event, uint8_t *out);

/* The same for a comment: each line of text behind a colon. 0 when it would not fit a size_t. */
size_t sse_comment_size(const void *text, size_t length);
void sse_comment_write(const void *text, size_t length, uint8_t *out);

#endif
