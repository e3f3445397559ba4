#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

/* What the targets share: the entry, a check that ends the run, and numbers taken from the input.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void check(bool holds)
{
    if (!holds)
        abort();
}

struct input {
    const uint8_t *at;
    size_t left;
};

/* Up to 8 bytes as a number, little-endian; zeroes behind the end. */
static inline uint64_t take(struct input *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes && in->left > 0; i++, in->at++, in->left--)
        value |= (uint64_t)*in->at << (8 * i);
    return value;
}

/* A copy of that many bytes (fewer at the end) in memory of its own, so that a read past them is
 * seen. To be freed. */
static inline uint8_t *take_copy(struct input *in, size_t wanted, size_t *length)
{
    *length = wanted < in->left ? wanted : in->left;
    uint8_t *copy = malloc(*length > 0 ? *length : 1);
    check(copy != NULL);
    memcpy(copy, in->at, *length);
    in->at += *length;
    in->left -= *length;
    return copy;
}

#endif
