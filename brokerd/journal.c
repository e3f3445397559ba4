#include "journal.h"

#include "bytes.h"
#include "crc32c.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

uint64_t journal_new_epoch(void)
{
    uint64_t epoch = 0;
    while (epoch == 0)
        if (getrandom(&epoch, sizeof(epoch), 0) != (ssize_t)sizeof(epoch))
            epoch = 0;
    return epoch;
}

static void begin_to_touch(struct journal *j)
{
    j->touched = j->head - j->head % JOURNAL_TOUCH;
    j->untouched = j->size;
}

bool journal_prepare(struct journal *j, struct journal_header *mapping)
{
    j->header = mapping;
    j->ring = (uint8_t *)mapping + JOURNAL_HEADER_SIZE;
    j->size = mapping->size;
    j->head = atomic_load(&mapping->head);
    j->tail = atomic_load(&mapping->tail);
    j->offset = j->head % j->size;
    j->lap = j->head - j->offset;
    begin_to_touch(j);
    j->last_id = 0;
    j->first_id = 1;
    j->slack = j->size / 64 < 65536 ? j->size / 64 : 65536;
    j->record_max = j->size / 4 < UINT32_MAX ? (uint32_t)(j->size / 4) & ~7u : UINT32_MAX & ~7u;
    j->index_size = j->size / WIRE_RECORD_SIZE / JOURNAL_INDEX_STEP + 2;
    j->index = calloc(j->index_size, sizeof(*j->index));
    return j->index != NULL;
}

bool journal_open_memory(struct journal *j, uint64_t size)
{
    *j = (struct journal){.fd = -1};
    size = (size + 4095) & ~(uint64_t)4095;
    void *mapping = mmap(NULL, size + JOURNAL_HEADER_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return false;
    struct journal_header *header = mapping;
    header->size = size;
    header->epoch = journal_new_epoch();
    return journal_prepare(j, header);
}

uint32_t journal_record_size(const struct journal *j, uint64_t position)
{
    return (uint32_t)size_align8(get_u32le(journal_at(j, position)));
}

void journal_index_note(struct journal *j, uint64_t id, uint64_t position)
{
    if (id % JOURNAL_INDEX_STEP == 0)
        j->index[id / JOURNAL_INDEX_STEP % j->index_size] = position;
}

/* The first indexed record at or behind `wanted`, if it is not far behind: so the tail can be moved
 * on without a look at the old records, which are cold. */
static bool jump(struct journal *j, uint64_t wanted)
{
    uint64_t id = j->first_id + JOURNAL_INDEX_STEP - j->first_id % JOURNAL_INDEX_STEP;
    for (; id <= j->last_id; id += JOURNAL_INDEX_STEP) {
        uint64_t position = j->index[id / JOURNAL_INDEX_STEP % j->index_size];
        if (position > wanted + j->slack)
            return false;
        if (position < wanted)
            continue;
        j->tail = position;
        j->first_id = id;
        return true;
    }
    return false;
}

static void walk(struct journal *j, uint64_t wanted)
{
    while (j->tail < wanted && j->tail < j->head) {
        const uint8_t *record = journal_at(j, j->tail);
        if (record[4] != WIRE_FILLER)
            j->first_id++;
        j->tail += size_align8(get_u32le(record));
    }
}

/* The next pages of the ring are mapped, some at a time: a fault for each one costs twice as much.
 * A kernel that does not know how (before 5.14) takes the faults. */
static void touch(struct journal *j)
{
    uint64_t offset = j->touched % j->size, rest = j->size - offset;
    uint64_t length = rest < JOURNAL_TOUCH ? rest : JOURNAL_TOUCH;
    madvise(j->ring + offset, length, MADV_POPULATE_WRITE);
    j->touched += length;
    j->untouched -= length < j->untouched ? length : j->untouched;
}

/* The tail leaves the records that `size` bytes at the head will overwrite. */
static void make_room(struct journal *j, uint64_t size)
{
    while (j->untouched > 0 && j->head + size > j->touched)
        touch(j);
    if (j->head + size - j->tail <= j->size)
        return;
    uint64_t wanted = j->head + size + j->slack - j->size;
    if (!jump(j, wanted))
        walk(j, wanted);
    atomic_store_explicit(&j->header->tail, j->tail, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst); /* before a byte there is overwritten */
}

void journal_set_head(struct journal *j, uint64_t head)
{
    j->head = head;
    j->offset = head % j->size;
    j->lap = head - j->offset;
    begin_to_touch(j);
    atomic_store_explicit(&j->header->head, head, memory_order_release);
}

static void move_head(struct journal *j, uint64_t size)
{
    j->head += size;
    j->offset += size;
    if (j->offset == j->size) {
        j->offset = 0;
        j->lap = j->head;
    }
    atomic_store_explicit(&j->header->head, j->head, memory_order_release);
}

/* Where the next record of that size goes. */
static uint8_t *reserve(struct journal *j, uint32_t size)
{
    uint64_t rest = j->size - j->offset;
    if (size > rest) {
        make_room(j, rest);
        uint8_t *filler = j->ring + j->offset;
        put_u32le(filler, (uint32_t)rest);
        put_u32le(filler + 4, WIRE_FILLER);
        move_head(j, rest);
    }
    make_room(j, size);
    return j->ring + j->offset;
}

/*
 * The header is changed in registers and the checksum taken from the source: loads that follow
 * narrower stores to the same place would stall, once for each message.
 */
static void copy_stamped(uint8_t *out, const uint8_t *publish, uint32_t size, uint64_t id,
                         uint32_t engine)
{
    enum { WORDS = WIRE_RECORD_SIZE / 8 };
    const uint64_t kept = 0xffff0000ffffffff; /* size and channel length of the first word */
    uint64_t header[WORDS];
    memcpy(header, publish, sizeof(header));
    header[0] = (header[0] & (kept | (uint64_t)WIRE_BINARY << 40)) | (uint64_t)WIRE_MESSAGE << 32;
    header[1] = id;
    header[4] = (uint64_t)engine << 32;
    uint32_t checksum = crc32c(0, header, sizeof(header));
    checksum =
        crc32c(checksum, publish + sizeof(header), (uint32_t)header[0] - (uint32_t)sizeof(header));
    header[4] |= checksum;
    memcpy(out, header, sizeof(header));
    memcpy(out + sizeof(header), publish + sizeof(header), size - sizeof(header));
}

uint64_t journal_append(struct journal *j, const uint8_t *publish, uint32_t size, uint32_t engine)
{
    enum { AHEAD = 1536, LINE = 64 };
    uint8_t *out = reserve(j, size);
    if (j->offset + AHEAD + LINE < j->size) { /* the ring is larger than the caches */
        __builtin_prefetch(out + AHEAD, 1);
        __builtin_prefetch(out + AHEAD + LINE, 1);
    }
    uint64_t position = j->head;
    copy_stamped(out, publish, size, ++j->last_id, engine);
    journal_index_note(j, j->last_id, position);
    move_head(j, size);
    return position;
}

uint64_t journal_find(const struct journal *j, uint64_t id)
{
    uint64_t start = id - id % JOURNAL_INDEX_STEP;
    uint64_t at = j->tail, next = j->first_id;
    if (start >= j->first_id && start > 0) {
        at = j->index[start / JOURNAL_INDEX_STEP % j->index_size];
        next = start;
    }
    for (;;) {
        bool filler = journal_at(j, at)[4] == WIRE_FILLER;
        if (!filler && next == id)
            return at;
        next += !filler;
        at += journal_record_size(j, at);
    }
}
