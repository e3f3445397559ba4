/* Holds: whatever lies in the file, recovery ends; what it takes over is whole, numbered without
 * holes and can be found, appended to and walked. */
#include "bytes.h"
#include "fuzz.h"
#include "journal.h"

enum { RING = 8192 };

static struct {
    struct journal_header header;
    uint8_t rest[JOURNAL_HEADER_SIZE - sizeof(struct journal_header)];
    uint8_t ring[RING];
} file;

static void make_file(struct input *in)
{
    uint64_t lap = take(in, 1) % 4 * RING;
    uint64_t tail = take(in, 2), length = take(in, 2), options = take(in, 1);
    memset(&file, 0, sizeof(file));
    file.header.size = RING;
    file.header.epoch = 1;
    if (options & 1) { /* places that are possible */
        tail = tail % RING & ~(uint64_t)7;
        length = length % (RING + 1) & ~(uint64_t)7;
    }
    atomic_store(&file.header.tail, lap + tail);
    atomic_store(&file.header.head, lap + tail + length);
    size_t bytes = in->left < RING ? in->left : RING;
    for (size_t i = 0; i < bytes; i++)
        file.ring[(tail + i) % RING] = in->at[i];
    if (options & 2) { /* else hardly any record gets past its checksum */
        uint64_t id = 1 + take(in, 2);
        uint64_t offset = tail % RING;
        while (offset + WIRE_RECORD_SIZE <= RING) {
            struct wire_record record;
            size_t used;
            uint8_t *at = file.ring + offset;
            if (wire_record_decode(at, RING - offset, &record, &used) != STATUS_OK)
                break;
            if (record.type != WIRE_FILLER)
                wire_record_stamp(at, id++, record.engine);
            offset = (offset + used) % RING;
            if (offset == tail % RING)
                break;
        }
    }
}

static void check_whole(const struct journal *j)
{
    uint64_t id = j->first_id, at = j->tail;
    while (at < j->head) {
        struct wire_record record;
        size_t used;
        const uint8_t *bytes = journal_at(j, at);
        check(wire_record_decode(bytes, RING - at % RING, &record, &used) == STATUS_OK);
        check(used == journal_record_size(j, at));
        if (record.type != WIRE_FILLER) {
            check(record.type == WIRE_MESSAGE && record.id == id);
            check(record.checksum == wire_record_checksum(bytes));
            check(journal_find(j, id) == at);
            id++;
        }
        at += used;
    }
    check(at == j->head && id == j->last_id + 1 && j->head - j->tail <= RING);
    check(j->head == atomic_load(&j->header->head) && j->tail == atomic_load(&j->header->tail));
}

static void append_some(struct journal *j)
{
    uint8_t publish[512], payload[400] = {0};
    for (unsigned i = 0; i < 60 && j->last_id < UINT64_MAX - 100; i++) {
        struct wire_record record = {.type = WIRE_PUBLISH,
                                     .origin = 9,
                                     .sequence = i + 1,
                                     .channel = (const uint8_t *)"c",
                                     .channel_length = 1,
                                     .payload = payload,
                                     .payload_length = i * 7 % sizeof(payload)};
        wire_record_encode(publish, &record);
        journal_append(j, publish, (uint32_t)wire_record_size(1, record.payload_length), 0);
        check_whole(j);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct origins *origins;
    struct input in = {data, size};
    struct journal j = {.fd = -1};
    const char *fault = NULL;
    if (origins == NULL)
        origins = origins_new();
    check(origins != NULL);
    make_file(&in);
    check(journal_prepare(&j, &file.header));
    if (journal_recover(&j, origins, &fault)) {
        check_whole(&j);
        if (j.last_id < UINT64_MAX - 100)
            append_some(&j);
    } else {
        check(fault != NULL);
    }
    free(j.index);
    return 0;
}
