#ifndef WS_LOAD_MESSAGE_H
#define WS_LOAD_MESSAGE_H

/*
 * The load's own messages: '@', the sequence number and the time of sending (CLOCK_MONOTONIC, ns)
 * as 16 hexadecimal digits each, then padding. Text, so that every server and event stream can
 * carry it, and found wherever in a payload it stands, so that a server may wrap it (Action Cable
 * puts it into JSON).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MESSAGE_SIZE_MIN = 33 };

/* Writes size bytes (at least MESSAGE_SIZE_MIN). */
void message_write(char *out, size_t size, uint64_t sequence, uint64_t sent_at);

/* Finds a message in a payload. False when there is none: the server's own talk. */
bool message_find(const uint8_t *payload, size_t length, uint64_t *sequence, uint64_t *sent_at);

uint64_t now_ns(void);

/*
 * What one subscriber has received, checked against what was sent: all sequence numbers from the
 * first, each once, in order.
 */
struct receipt {
    uint64_t next; /* the sequence number expected now */
    uint64_t seen; /* bit i: next - 1 - i was received */
};

/* What went wrong, summed over all subscribers. */
struct faults {
    uint64_t lost;       /* never came, or not before the run's end */
    uint64_t duplicated; /* came again */
    uint64_t reordered;  /* came after a later one */
    uint64_t foreign;    /* a sequence number that was never sent */
};

/*
 * Notes one delivery. Returns how many sequence numbers are now accounted for that were not before:
 * 1 in a right run; 1 + n when n were skipped (they count as lost until they come); 0 for a
 * duplicate or a late one. One that comes after more than 63 later ones is taken for a duplicate.
 */
uint64_t receipt_note(struct receipt *r, uint64_t sequence, struct faults *faults);

#endif
