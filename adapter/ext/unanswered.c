#include "unanswered.h"
#include "bytes.h"
#include "wire.h"
#include <string.h>

/* Where a record's header has its size and its sequence (docs/protocol.md, "Record"). */
enum { RECORD_SIZE_AT = 0, RECORD_SEQUENCE_AT = 24 };

static size_t record_size_at(const uint8_t *record)
{
    return size_align8(get_u32le(record + RECORD_SIZE_AT));
}

void unanswered_init(struct unanswered *u, uint64_t origin)
{
    memset(u, 0, sizeof(*u));
    buffer_init(&u->records,
                SIZE_MAX); /* the limit is the caller's reservation, see link_publish */
    u->origin = origin;
    u->first = u->cursor = u->next = 1;
}

void unanswered_release(struct unanswered *u)
{
    buffer_release(&u->records);
}

bool unanswered_append(struct unanswered *u, const void *channel, size_t channel_length,
                       const void *payload, size_t payload_length, bool binary)
{
    size_t size = wire_record_size(channel_length, payload_length);
    uint8_t *out = size ? buffer_reserve(&u->records, size) : NULL;
    if (!out)
        return false;
    struct wire_record record = {.type = WIRE_PUBLISH,
                                 .flags = binary ? WIRE_BINARY : 0,
                                 .channel_length = (uint16_t)channel_length,
                                 .origin = u->origin,
                                 .sequence = u->next,
                                 .channel = channel,
                                 .payload = payload,
                                 .payload_length = payload_length};
    wire_record_encode(out, &record);
    buffer_commit(&u->records, size);
    u->next++;
    return true;
}

const uint8_t *unanswered_peek(struct unanswered *u, size_t limit, uint64_t before, size_t *bytes,
                               uint32_t *records)
{
    const uint8_t *start = buffer_bytes(&u->records) + u->submitted_bytes;
    uint64_t end = before < u->next ? before : u->next;
    *bytes = 0;
    *records = 0;
    while (u->cursor + *records < end) {
        size_t size = record_size_at(start + *bytes);
        if (*records > 0 && *bytes + size > limit)
            break;
        *bytes += size;
        ++*records;
    }
    return *records ? start : NULL;
}

static void add_mark(struct unanswered *u, uint64_t last, uint64_t head)
{
    /* A full list keeps the older head for the new records too: that can only make the broker say
     * UNSURE too early. */
    if (u->mark_count > 0 &&
        (u->marks[u->mark_count - 1].head == head || u->mark_count == UNANSWERED_MARKS)) {
        u->marks[u->mark_count - 1].last = last;
        return;
    }
    u->marks[u->mark_count].last = last;
    u->marks[u->mark_count++].head = head;
}

uint64_t unanswered_submit(struct unanswered *u, size_t bytes, uint32_t records, uint64_t head)
{
    u->submitted_bytes += bytes;
    u->cursor += records;
    uint64_t last = u->cursor - 1;
    if (u->mark_count == 0 || u->marks[u->mark_count - 1].last < last)
        add_mark(u, last, head);
    return last;
}

void unanswered_mark_written(struct unanswered *u, uint64_t sequence)
{
    if (sequence > u->written)
        u->written = sequence;
}

static void forget_marks(struct unanswered *u)
{
    unsigned done = 0;
    while (done < u->mark_count && u->marks[done].last < u->first)
        done++;
    u->mark_count -= done;
    memmove(u->marks, u->marks + done, u->mark_count * sizeof(u->marks[0]));
}

struct unanswered_removed unanswered_answer(struct unanswered *u, uint64_t sequence)
{
    struct unanswered_removed removed = {0, 0};
    const uint8_t *start = buffer_bytes(&u->records);
    while (u->first < u->next && u->first <= sequence) {
        removed.bytes += record_size_at(start + removed.bytes);
        removed.count++;
        u->first++;
    }
    buffer_consume(&u->records, removed.bytes);
    if (u->cursor < u->first)
        u->cursor = u->first;
    u->submitted_bytes -= removed.bytes < u->submitted_bytes ? removed.bytes : u->submitted_bytes;
    forget_marks(u);
    if (u->first == u->next && u->records.capacity > 1024 * 1024)
        buffer_release(&u->records);
    return removed;
}

void unanswered_rewind(struct unanswered *u)
{
    u->cursor = u->first;
    u->submitted_bytes = 0;
    u->written = u->first - 1;
    u->mark_count = 0;
}

struct unanswered_removed unanswered_drop_written(struct unanswered *u)
{
    struct unanswered_removed removed = unanswered_answer(u, u->written);
    unanswered_rewind(u);
    return removed;
}

/* Removes record number `index` (or, with SIZE_MAX, none for its place) and what is larger than
 * max. */
static struct unanswered_removed drop(struct unanswered *u, size_t index, size_t max)
{
    struct unanswered_removed removed = {0, 0};
    uint8_t *start = buffer_bytes(&u->records);
    size_t length = buffer_length(&u->records), kept = 0, n = 0;
    for (size_t at = 0, size; at < length; at += size, n++) {
        size = record_size_at(start + at);
        if (size > max || n == index) {
            removed.count++;
            removed.bytes += size;
            continue;
        }
        if (removed.count > 0) {
            put_u64le(start + at + RECORD_SEQUENCE_AT,
                      get_u64le(start + at + RECORD_SEQUENCE_AT) - removed.count);
            memmove(start + kept, start + at, size);
        }
        kept += size;
    }
    u->records.end -= removed.bytes;
    u->next -= removed.count;
    return removed;
}

struct unanswered_removed unanswered_drop_larger(struct unanswered *u, size_t max)
{
    return drop(u, SIZE_MAX, max);
}

struct unanswered_removed unanswered_drop_first(struct unanswered *u)
{
    return drop(u, 0, SIZE_MAX);
}

uint64_t unanswered_lowest_id(const struct unanswered *u)
{
    if (u->first > u->written || u->mark_count == 0)
        return 0;
    return u->marks[0].head + 1;
}
