#include "message.h"
#include <string.h>
#include <time.h>

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void write_hex(char *out, uint64_t value)
{
    for (int i = 15; i >= 0; i--, value >>= 4)
        out[i] = "0123456789abcdef"[value & 15];
}

static bool read_hex(const uint8_t *in, uint64_t *value)
{
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) {
        unsigned c = in[i], digit = c - '0' < 10 ? c - '0' : c - 'a' < 6 ? c - 'a' + 10 : 16;
        if (digit == 16)
            return false;
        v = v << 4 | digit;
    }
    *value = v;
    return true;
}

void message_write(char *out, size_t size, uint64_t sequence, uint64_t sent_at)
{
    out[0] = '@';
    write_hex(out + 1, sequence);
    write_hex(out + 17, sent_at);
    memset(out + MESSAGE_SIZE_MIN, 'x', size - MESSAGE_SIZE_MIN);
}

bool message_find(const uint8_t *payload, size_t length, uint64_t *sequence, uint64_t *sent_at)
{
    const uint8_t *at = memchr(payload, '@', length);
    return at != NULL && (size_t)(payload + length - at) >= MESSAGE_SIZE_MIN &&
           read_hex(at + 1, sequence) && read_hex(at + 17, sent_at);
}

uint64_t receipt_note(struct receipt *r, uint64_t sequence, struct faults *faults)
{
    if (sequence >= r->next) {
        uint64_t skipped = sequence - r->next;
        faults->lost += skipped;
        r->seen = skipped < 63 ? r->seen << (skipped + 1) | 1 : 1;
        r->next = sequence + 1;
        return skipped + 1;
    }
    uint64_t age = r->next - 1 - sequence;
    if (age < 64 && (r->seen >> age & 1) == 0) {
        r->seen |= UINT64_C(1) << age;
        faults->lost--;
        faults->reordered++;
    } else {
        faults->duplicated++;
    }
    return 0;
}
