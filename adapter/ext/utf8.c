#include "utf8.h"
#include "bytes.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

static size_t ascii_prefix(const uint8_t *p, size_t length)
{
    size_t i = 0;

    for (; length - i >= 32; i += 32) {
        uint64_t any =
            get_u64le(p + i) | get_u64le(p + i + 8) | get_u64le(p + i + 16) | get_u64le(p + i + 24);
        if (any & HIGH_BITS)
            break;
    }
    for (; length - i >= 8; i += 8) {
        uint64_t high = get_u64le(p + i) & HIGH_BITS;
        if (high != 0)
            return i + (size_t)__builtin_ctzll(high) / 8;
    }
    while (i < length && p[i] < 0x80)
        i++;
    return i;
}

static inline bool is_continuation(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

/* Length of the whole valid character of two bytes or more that p begins with, or 0. */
static inline size_t long_character(const uint8_t *p, size_t length)
{
    uint8_t lead = p[0];

    if (lead < 0xC2 || lead > 0xF4 || length < 2 || !is_continuation(p[1]))
        return 0;
    if (lead < 0xE0)
        return 2;
    if (length < 3 || !is_continuation(p[2]))
        return 0;
    if (lead < 0xF0)
        return (lead == 0xE0 && p[1] < 0xA0) || (lead == 0xED && p[1] > 0x9F) ? 0 : 3;
    if (length < 4 || !is_continuation(p[3]))
        return 0;
    return (lead == 0xF0 && p[1] < 0x90) || (lead == 0xF4 && p[1] > 0x8F) ? 0 : 4;
}

size_t utf8_valid_prefix(const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    size_t i = 0, size;

    while (i < length) {
        if (p[i] < 0x80) {
            i += ascii_prefix(p + i, length - i);
            continue;
        }
        size = long_character(p + i, length - i);
        if (size == 0)
            break;
        i += size;
    }
    return i;
}

bool utf8_is_valid(const void *bytes, size_t length)
{
    return utf8_valid_prefix(bytes, length) == length;
}

/* One byte; the bounds of the second byte are what excludes overlong forms, surrogates and the
 * rest. */
static bool step(struct utf8 *u, uint8_t byte)
{
    if (u->needed > 0) {
        if (byte < u->low || byte > u->high)
            return false;
        *u = (struct utf8){.needed = (uint8_t)(u->needed - 1), .low = 0x80, .high = 0xBF};
        return true;
    }
    if (byte < 0x80)
        return true;
    if (byte < 0xC2 || byte > 0xF4)
        return false;
    u->needed = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    u->low = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    u->high = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    return true;
}

bool utf8_feed(struct utf8 *u, const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    size_t i = 0;

    for (; i < length && u->needed > 0; i++)
        if (!step(u, p[i]))
            return false;
    if (i < length)
        i += utf8_valid_prefix(p + i, length - i);
    for (; i < length; i++) /* the start of a last character, or what is wrong */
        if (!step(u, p[i]))
            return false;
    return true;
}

size_t utf8_bad_length(const void *bytes, size_t length)
{
    const uint8_t *p = bytes;
    struct utf8 u = {0};
    size_t i = 0;

    while (i < length && step(&u, p[i]))
        i++;
    return i > 0 ? i : 1;
}
