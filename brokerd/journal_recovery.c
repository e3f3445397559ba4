#include "bytes.h"
#include "journal.h"

/* One piece of the ring, checked: a filler or a message. */
struct piece {
    bool is_filler;
    uint64_t next; /* position behind it */
    struct wire_record record;
};

/* What starts at that position and ends at `end` at the latest; else what is wrong with it. */
static const char *read_piece(const struct journal *j, uint64_t at, uint64_t end, struct piece *p)
{
    uint64_t offset = at % j->size;
    uint64_t room = j->size - offset < end - at ? j->size - offset : end - at;
    const uint8_t *bytes = j->ring + offset;
    uint64_t size = room < WIRE_FILLER_SIZE ? 0 : size_align8(get_u32le(bytes));
    if (size < WIRE_FILLER_SIZE || size > room)
        return "a record of impossible size";
    p->next = at + size;
    p->is_filler = get_u32le(bytes + 4) == WIRE_FILLER;
    if (p->is_filler)
        return size == j->size - offset ? NULL : "a filler that does not reach the ring's end";
    size_t used;
    if (wire_record_decode(bytes, (size_t)size, &p->record, &used) != STATUS_OK || used != size ||
        p->record.type != WIRE_MESSAGE)
        return "a malformed record";
    if (p->record.checksum != wire_record_checksum(bytes))
        return "a record with a wrong checksum";
    if (p->record.id == 0)
        return "a record without a number";
    return NULL;
}

static void take_in(struct journal *j, struct origins *origins, uint64_t at,
                    const struct wire_record *record)
{
    j->last_id = record->id;
    journal_index_note(j, record->id, at);
    origins_note(origins, record->origin, record->sequence, record->id, false);
}

/*
 * Goes on behind the head as long as the next message lies there whole. A broker that was killed
 * between writing a record and moving the head leaves one; more of them, or a ring that looks
 * empty, mean that the head itself was damaged, and its ids must not be given out again.
 */
static void roll_forward(struct journal *j, struct origins *origins)
{
    uint64_t at = j->head;
    struct piece p;
    while (read_piece(j, at, j->tail + j->size, &p) == NULL) {
        if (!p.is_filler && p.record.id != j->last_id + 1)
            break;
        at = p.next;
        if (p.is_filler)
            continue;
        take_in(j, origins, at - size_align8(get_u32le(p.record.channel - WIRE_RECORD_SIZE)),
                &p.record);
        journal_set_head(j, at);
    }
}

bool journal_recover(struct journal *j, struct origins *origins, const char **fault)
{
    *fault = NULL;
    if (j->head < j->tail || j->head - j->tail > j->size || j->head % 8 != 0 || j->tail % 8 != 0)
        *fault = "impossible head and tail";
    struct piece p;
    for (uint64_t at = j->tail; *fault == NULL && at < j->head; at = p.next) {
        *fault = read_piece(j, at, j->head, &p);
        if (*fault != NULL || p.is_filler)
            continue;
        if (j->last_id == 0)
            j->first_id = p.record.id;
        else if (p.record.id != j->last_id + 1)
            *fault = "records that are not numbered in order";
        take_in(j, origins, at, &p.record);
    }
    if (*fault == NULL && j->last_id == 0 && j->head != 0)
        *fault = "no message in it although there were some";
    if (*fault != NULL)
        return false;
    roll_forward(j, origins);
    return true;
}
