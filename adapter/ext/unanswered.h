#ifndef ADAPTER_UNANSWERED_H
#define ADAPTER_UNANSWERED_H

/*
 * The publishes that the broker has not answered yet, in wire format, oldest first (rules 5, 7 and
 * 8). No I/O; used by the link alone, on the I/O thread.
 *
 * What was answered has left the queue; what is before `cursor` was put into a SUBMIT of the
 * present connection; what is at or below `written` was handed to the kernel entirely since the
 * last ATTACH reply, so that a broker may have taken it. Only those can be unsure. A successful
 * ATTACH in the same epoch says what was taken of them and that nothing of the older link can be
 * taken any more, so unanswered_rewind starts afresh.
 */
#include "buffer.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UNANSWERED_MARKS = 64 };

struct unanswered {
    struct buffer records;  /* PUBLISH records with origin and sequence */
    size_t submitted_bytes; /* of them, before the cursor */
    uint64_t origin;
    uint64_t first;   /* sequence of the oldest record, or of the next one when there is none */
    uint64_t cursor;  /* sequence of the first that is in no SUBMIT of this connection */
    uint64_t next;    /* sequence of the next publish */
    uint64_t written; /* highest sequence that a broker may have seen */
    unsigned mark_count;
    struct {
        uint64_t last; /* sequences up to this one ... */
        uint64_t head; /* ... were first sent when this head was known */
    } marks[UNANSWERED_MARKS];
};

/* Count and bytes (wire_record_size) of what left the queue. */
struct unanswered_removed {
    uint64_t count;
    size_t bytes;
};

void unanswered_init(struct unanswered *u, uint64_t origin);
void unanswered_release(struct unanswered *u);

static inline uint64_t unanswered_count(const struct unanswered *u)
{
    return u->next - u->first;
}
static inline bool unanswered_has_unsubmitted(const struct unanswered *u)
{
    return u->cursor != u->next;
}

/* Appends one publish with the next sequence. false: no memory, no sequence is drawn. */
bool unanswered_append(struct unanswered *u, const void *channel, size_t channel_length,
                       const void *payload, size_t payload_length, bool binary);

/* The next records to be submitted: at most `limit` bytes, but at least one record, and none of
 * sequence `before` or above. Returns their bytes (NULL: none), valid until the next call. */
const uint8_t *unanswered_peek(struct unanswered *u, size_t limit, uint64_t before, size_t *bytes,
                               uint32_t *records);

/* They are in a SUBMIT now; head: the newest broker id known. Returns the sequence of the last. */
uint64_t unanswered_submit(struct unanswered *u, size_t bytes, uint32_t records, uint64_t head);

/* The SUBMIT that ends with that sequence was handed to the kernel entirely. */
void unanswered_mark_written(struct unanswered *u, uint64_t sequence);

/* Everything up to that sequence is answered. */
struct unanswered_removed unanswered_answer(struct unanswered *u, uint64_t sequence);

/* After an ATTACH reply: what is left was taken by no broker and will be submitted (again), in
 * order. */
void unanswered_rewind(struct unanswered *u);

/* Another epoch, or UNSURE: what a broker may have seen leaves the queue. Rewinds. */
struct unanswered_removed unanswered_drop_written(struct unanswered *u);

/* Removes the records larger than max and closes the holes by numbering the later ones anew. Only
 * right after unanswered_rewind: the broker knows none of these sequences then. */
struct unanswered_removed unanswered_drop_larger(struct unanswered *u, size_t max);

/* Removes the oldest record in the same way: the broker refused it. */
struct unanswered_removed unanswered_drop_first(struct unanswered *u);

/* For ATTACH: the lowest id that the oldest which a broker may have seen can have got, 1 more than
 * the head known when it was first sent; 0: there is none. */
uint64_t unanswered_lowest_id(const struct unanswered *u);

#endif
