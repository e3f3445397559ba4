#ifndef PROTOCOL_GLOB_ELEMENT_H
#define PROTOCOL_GLOB_ELEMENT_H

/*
 * The elements of a pattern: a star, or something that stands for exactly one byte. Shared by
 * glob.c, glob_search.c and the part of the pattern index that takes patterns apart. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the class that begins at pattern[0] == '[', 0 when it does not end or is empty. */
size_t glob_class_length(const uint8_t *pattern, size_t length);

/* The bytes of such a class, one bit each. Returns its length. */
size_t glob_class_bits(const uint8_t *pattern, size_t length, uint64_t bits[4]);

/* Does the element, which is no star, stand for the byte? *used: the element's length. */
bool glob_element_matches(const uint8_t *pattern, size_t length, uint8_t byte, size_t *used);

/* Length of the element, star or not, in a pattern that has passed glob_check. */
static inline size_t glob_element_length(const uint8_t *pattern, size_t length)
{
    if (*pattern == '[')
        return glob_class_length(pattern, length);
    return *pattern == '\\' && length > 1 ? 2 : 1;
}

/*
 * Finds the leftmost place in the channel where the elements of the segment (count of them, no
 * star) match. Returns the end of that place, NULL when there is none. Time is bounded by segment
 * length x channel length / word size.
 */
const uint8_t *glob_search(const uint8_t *segment, const uint8_t *segment_end, size_t count,
                           const uint8_t *channel, const uint8_t *channel_end);

/* The same for a segment in which every byte stands for itself, not empty. */
const uint8_t *glob_search_text(const uint8_t *text, size_t length, const uint8_t *channel,
                                const uint8_t *channel_end);

#endif
