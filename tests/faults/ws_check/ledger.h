#ifndef WS_CHECK_LEDGER_H
#define WS_CHECK_LEDGER_H

/*
 * What the clients received, and what is wrong with it. A message is the 9 characters PSSSSSSSS:
 * its publisher (one hex digit) and the publisher's sequence (eight), which begins with 1. The
 * clients of one server process are a group: they must receive the same messages at the same
 * places. What groups received must fit one total order. One thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PUBLISHERS_MAX = 8,
    GROUPS_MAX = 8,
    MARK = 0xf, /* the publisher of marks, which are not counted */
    MESSAGE_LENGTH = 9,
    SEQUENCE_MAX = (1 << 24) - 1 /* a key has 8 bits for the publisher */
};

/* All that one client received. */
struct receipt {
    unsigned group;
    uint64_t messages;
    uint64_t missing; /* passed over and not come since */
    uint64_t twice;
    uint64_t late; /* behind one with a higher sequence of the same publisher */
    bool diverged; /* from the other clients of its group */
    uint32_t highest[PUBLISHERS_MAX];
    uint8_t *seen[PUBLISHERS_MAX]; /* a bit for each sequence */
    size_t seen_size[PUBLISHERS_MAX];
};

struct group {
    uint32_t *order; /* keys, as they came */
    uint64_t count, capacity;
};

/* One that came late, and what was there before it. */
struct lateness {
    unsigned publisher;
    uint32_t sequence, highest;
    uint64_t place; /* among its client's messages */
};

struct ledger {
    struct group groups[GROUPS_MAX];
    uint64_t foreign;                      /* messages that nobody published */
    struct lateness first_late, last_late; /* of all clients; sequence 0: none */
};

/* Takes one message's text. Returns the publisher, or -1 for a foreign one (counted). */
int ledger_take(struct ledger *l, struct receipt *r, const uint8_t *text, size_t length);

/* Is there one order of all messages in which each group received its own? */
bool ledger_has_total_order(const struct ledger *l);

void ledger_release(struct ledger *l);
void receipt_release(struct receipt *r);

#endif
