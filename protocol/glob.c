#include "glob.h"
#include "glob_element.h"
#include <string.h>

size_t glob_class_length(const uint8_t *pattern, size_t length)
{
    size_t at = 1;

    if (at < length && pattern[at] == '^')
        at++;
    else if (at < length && pattern[at] == ']')
        return 0;
    while (at < length) {
        size_t left = length - at;
        if (left >= 2 && pattern[at] == '\\')
            at += 2;
        else if (pattern[at] == ']')
            return at + 1;
        else if (left >= 3 && pattern[at + 1] == '-')
            at += 3;
        else
            at++;
    }
    return 0;
}

enum status glob_check(const void *pattern, size_t length)
{
    const uint8_t *at = pattern;

    if (length > CHANNEL_LENGTH_MAX)
        return STATUS_CHANNEL_LENGTH;
    while (length > 0) {
        size_t step = glob_element_length(at, length);
        if (step == 0)
            return STATUS_PATTERN;
        at += step;
        length -= step;
    }
    return STATUS_OK;
}

/* Is the byte in the class at pattern[0] == '['? *used: the class's length. */
static bool class_has(const uint8_t *pattern, size_t length, uint8_t byte, size_t *used)
{
    size_t at = 1;
    bool negated = length > 1 && pattern[1] == '^', has = false;

    at += negated;
    while (at < length && pattern[at] != ']') {
        size_t left = length - at;
        if (left >= 2 && pattern[at] == '\\') {
            has |= pattern[at + 1] == byte;
            at += 2;
        } else if (left >= 3 && pattern[at + 1] == '-') {
            uint8_t low = pattern[at], high = pattern[at + 2];
            has |= low <= high ? low <= byte && byte <= high : high <= byte && byte <= low;
            at += 3;
        } else {
            has |= pattern[at] == byte;
            at++;
        }
    }
    *used = at + 1;
    return has != negated;
}

bool glob_element_matches(const uint8_t *pattern, size_t length, uint8_t byte, size_t *used)
{
    *used = 1;
    switch (*pattern) {
    case '?':
        return true;
    case '[':
        return class_has(pattern, length, byte, used);
    case '\\':
        if (length > 1) {
            *used = 2;
            return pattern[1] == byte;
        }
        return byte == '\\';
    default:
        return *pattern == byte;
    }
}

/* Matches elements, none of them a star, at a fixed place: *pattern and *channel move past what
 * matched, up to the next star or the end of the pattern. */
static bool match_here(const uint8_t **pattern, const uint8_t *pattern_end, const uint8_t **channel,
                       const uint8_t *channel_end)
{
    const uint8_t *p = *pattern, *c = *channel;
    size_t used;

    while (p < pattern_end && *p != '*') {
        if (c == channel_end || !glob_element_matches(p, (size_t)(pattern_end - p), *c, &used))
            return false;
        p += used;
        c++;
    }
    *pattern = p;
    *channel = c;
    return true;
}

/* Walks to the next star or the end. *count: elements on the way; *plain: all stand for
 * themselves. */
static const uint8_t *segment_end_of(const uint8_t *p, const uint8_t *end, size_t *count,
                                     bool *plain)
{
    *count = 0;
    *plain = true;
    for (; p < end && *p != '*'; ++*count) {
        *plain &= *p != '?' && *p != '[' && *p != '\\';
        p += glob_element_length(p, (size_t)(end - p));
    }
    return p;
}

/* The last star of a pattern that begins with one; *count: elements behind it. */
static const uint8_t *last_star_of(const uint8_t *p, const uint8_t *end, size_t *count)
{
    const uint8_t *star = p;
    size_t length = (size_t)(end - p);
    bool ignored;

    if (memchr(p, '[', length) == NULL && memchr(p, '\\', length) == NULL) {
        star = memrchr(p, '*', length);
        *count = (size_t)(end - star) - 1;
        return star;
    }
    while (p < end) {
        star = p;
        p = segment_end_of(p + 1, end, count, &ignored);
    }
    return star;
}

bool glob_match(const void *pattern, size_t pattern_length, const void *channel,
                size_t channel_length)
{
    const uint8_t *p = pattern, *p_end = p + pattern_length;
    const uint8_t *c = channel, *c_end = c + channel_length;
    const uint8_t *star, *tail, *place;
    size_t count = 0;
    bool plain;

    if (!match_here(&p, p_end, &c, c_end))
        return false;
    if (p == p_end)
        return c == c_end;
    star = last_star_of(p, p_end, &count);
    if ((size_t)(c_end - c) < count)
        return false;
    tail = star + 1;
    c_end -= count;
    place = c_end;
    if (!match_here(&tail, p_end, &place, c_end + count))
        return false;
    /* Between the first and the last star the leftmost place is always good enough. */
    while (p < star) {
        const uint8_t *segment = p + 1;
        p = segment_end_of(segment, star, &count, &plain);
        if (count == 0)
            continue;
        if (plain)
            c = glob_search_text(segment, count, c, c_end);
        else
            c = glob_search(segment, p, count, c, c_end);
        if (c == NULL)
            return false;
    }
    return true;
}
