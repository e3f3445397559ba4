#include "bytes.h"
#include "journal.h"

/* Takes the record at that position into account, or says what is wrong with it. */
static bool scan_record(struct journal *j, struct origins *origins, uint64_t at, uint64_t *next,
                        const char **fault)
{
    uint64_t offset = at % j->size;
    uint64_t room = j->size - offset < j->head - at ? j->size - offset : j->head - at;
    const uint8_t *bytes = j->ring + offset;
    uint64_t size = room < 8 ? 0 : size_align8(get_u32le(bytes));
    if (size < 8 || size > room) {
        *fault = "a record of impossible size";
        return false;
    }
    *next = at + size;
    if (bytes[4] == WIRE_FILLER) {
        if (size == j->size - offset)
            return true;
        *fault = "a filler that does not reach the ring's end";
        return false;
    }
    struct wire_record record;
    size_t used;
    if (wire_record_decode(bytes, (size_t)size, &record, &used) != STATUS_OK || used != size ||
        record.type != WIRE_MESSAGE) {
        *fault = "a malformed record";
        return false;
    }
    if (record.checksum != wire_record_checksum(bytes)) {
        *fault = "a record with a wrong checksum";
        return false;
    }
    if (j->last_id == 0)
        j->first_id = record.id;
    else if (record.id != j->last_id + 1)
        *fault = "records that are not numbered in order";
    if (record.id == 0)
        *fault = "a record without a number";
    if (*fault != NULL)
        return false;
    j->last_id = record.id;
    journal_index_note(j, record.id, at);
    origins_note(origins, record.origin, record.sequence, record.id, false);
    return true;
}

bool journal_recover(struct journal *j, struct origins *origins, const char **fault)
{
    *fault = NULL;
    if (j->head < j->tail || j->head - j->tail > j->size || j->head % 8 != 0 || j->tail % 8 != 0) {
        *fault = "impossible head and tail";
        return false;
    }
    uint64_t at = j->tail, next = at;
    for (; at < j->head; at = next)
        if (!scan_record(j, origins, at, &next, fault))
            return false;
    return true;
}
