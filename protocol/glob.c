#include "glob.h"
#include "glob_element.h"

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
        size_t step = 1;
        if (*at == '[')
            step = glob_class_length(at, length);
        else if (*at == '\\' && length > 1)
            step = 2;
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

/* Does one element that is not a star match the byte? *used: the element's length. */
static bool element_matches(const uint8_t *pattern, size_t length, uint8_t byte, size_t *used)
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

bool glob_match(const void *pattern, size_t pattern_length, const void *channel,
                size_t channel_length)
{
    const uint8_t *p = pattern, *p_end = p + pattern_length, *p_star = NULL;
    const uint8_t *c = channel, *c_end = c + channel_length, *c_star = NULL;
    size_t used;

    /* The leftmost place where the text between two stars fits is always good enough, so only the
     * last star is ever gone back to: quadratic at worst. */
    for (;;) {
        if (p < p_end && *p == '*') {
            p_star = ++p;
            c_star = c;
        } else if (p < p_end && c < c_end && element_matches(p, (size_t)(p_end - p), *c, &used)) {
            p += used;
            c++;
        } else if (p == p_end && c == c_end) {
            return true;
        } else if (p_star != NULL && c_star < c_end) {
            p = p_star;
            c = ++c_star;
        } else {
            return false;
        }
    }
}
