#ifndef BROKERD_ORIGINS_H
#define BROKERD_ORIGINS_H

/*
 * What is known of each origin of publishes: the highest sequence that was taken. A table with a
 * cap, filled by publishes and by the journal's scan; the least recently used leaves first,
 * one-shot origins before those of sessions. delivery.md, rules 5 and 8. One thread.
 */
#include <stdbool.h>
#include <stdint.h>

enum { ORIGINS_ONE_SHOT_MAX = 65536, ORIGINS_LASTING_MAX = 65536 };

struct origins; /* about 48 bytes for each origin, allocated once */

struct origins *origins_new(void); /* NULL: memory is out */
void origins_free(struct origins *o);

/* Knows nothing again. */
void origins_clear(struct origins *o);

/* The highest sequence taken of that origin; 0 when it is unknown. *id: of that message. */
uint64_t origins_known(struct origins *o, uint64_t origin, uint64_t *id);

/* Message `id` with that sequence was taken. lasting: published within a session, else one-shot. An
 * origin once called lasting stays so. */
void origins_note(struct origins *o, uint64_t origin, uint64_t sequence, uint64_t id, bool lasting);

/* The highest message id among the origins that the cap drove out; 0 for none. What the table does
 * not know about an id at or below it, it may have forgotten. */
uint64_t origins_forgotten(const struct origins *o);

uint32_t origins_count(const struct origins *o);

#endif
