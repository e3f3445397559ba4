#ifndef BROKERD_JOURNAL_H
#define BROKERD_JOURNAL_H

/*
 * The journal: a ring of fixed size that holds the newest messages, each once, in wire format
 * (protocol/wire.h). Places in it are *positions*: 64-bit byte counts that only grow; a position's
 * offset in the ring is the position modulo the size. Records lie in [tail, head), each at a
 * multiple of 8 and never split: the unused end of the ring is a FILLER record. Records are
 * numbered by the broker id, consecutively. delivery.md, rules 1 to 4.
 *
 * The ring lies in a mapping behind one header page, shared with a file (journal_file.c) or
 * anonymous. One thread. Memory: size + one page + 8 bytes for each 10,240 of the ring.
 */
#include "origins.h"
#include "wire.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JOURNAL_HEADER_SIZE = 4096,
    JOURNAL_FORMAT = 1,
    JOURNAL_INDEX_STEP = 256, /* every so manieth id is in the sparse index */
    JOURNAL_SIZE_MIN = 64 * 1024,
    JOURNAL_TOUCH = 16 * 1024 /* bytes of the ring that are mapped at a time */
};

/* The first page of the file. Written by one process; read again only by recovery. */
struct journal_header {
    char magic[8]; /* JOURNAL_MAGIC, written last when the file is made */
    uint32_t format;
    uint32_t clean; /* 1 when the file was closed in order */
    uint64_t epoch; /* random, drawn when the file is made, never 0 */
    char boot[40];  /* the kernel's boot id: a mapping does not survive the machine */
    uint64_t size;  /* of the ring */
    _Atomic uint64_t head, tail;
};

struct journal {
    struct journal_header *header;
    uint8_t *ring;
    uint64_t size;
    uint64_t head, tail; /* as in the header */
    uint64_t offset;     /* head modulo size */
    uint64_t lap;        /* the largest multiple of size up to head: what lies before it in the ring
                            is not before it in memory */
    uint64_t touched;    /* pages of the ring are mapped up to this position */
    uint64_t untouched;  /* bytes left to map: one lap, from where it was opened */
    uint64_t last_id;    /* newest, 0 before the first */
    uint64_t first_id;   /* oldest that is held; last_id + 1 when there is none */
    uint64_t slack;      /* the tail is moved on by this much more than needed */
    uint64_t *index;     /* position of id n * JOURNAL_INDEX_STEP at [n modulo index_size] */
    uint64_t index_size;
    uint32_t record_max; /* bytes with padding; a quarter of the ring at the most (rule 4) */
    int fd;              /* of the file, -1 for anonymous memory */
};

/* A ring in anonymous memory. size is rounded up to whole pages. false: memory is out. */
bool journal_open_memory(struct journal *j, uint64_t size);

/*
 * A ring in the file `path`, made when there is none, else taken over with all its records: each
 * origin's highest sequence goes to origins. A file that cannot be used is moved aside with one log
 * line and a new one made. size: for a new file; an existing one keeps its own (logged when it
 * differs). false: refused, logged (another broker has it, no space, no memory, no right); a file
 * that was there is then left as it is.
 */
bool journal_open_file(struct journal *j, const char *path, uint64_t size, struct origins *origins);

/* Marks a file clean and gives everything back. */
void journal_close(struct journal *j);

/*
 * Takes one encoded PUBLISH of size bytes (with padding, at most record_max) in: it is copied to
 * the head as a MESSAGE with the next id, the engine it came from, and its checksum. Its id is
 * last_id then. The tail moves past what is overwritten before anything is. Returns its position.
 */
uint64_t journal_append(struct journal *j, const uint8_t *publish, uint32_t size, uint32_t engine);

/* The bytes at a position that is in [tail, head). */
static inline uint8_t *journal_at(const struct journal *j, uint64_t position)
{
    return j->ring + position % j->size;
}

/* Bytes of the record (or filler) that starts there, with padding. */
uint32_t journal_record_size(const struct journal *j, uint64_t position);

/* The position of the record with that id, which is between first_id and last_id. */
uint64_t journal_find(const struct journal *j, uint64_t id);

/* Shared by the files journal_*.c only. */
#define JOURNAL_MAGIC "brokerdJ"
bool journal_prepare(struct journal *j, struct journal_header *mapping);
bool journal_recover(struct journal *j, struct origins *origins, const char **fault);
void journal_set_head(struct journal *j, uint64_t head);
void journal_index_note(struct journal *j, uint64_t id, uint64_t position);
uint64_t journal_new_epoch(void);

#endif
