#ifndef PROTOCOL_GLOB_H
#define PROTOCOL_GLOB_H

/*
 * Glob patterns as Redis has them, on bytes, case-sensitive: `*` any bytes (also none), `?` one
 * byte,
 * `[abc]`, `[a-z]`, `[^a]` one byte of a class, `\x` the byte x itself. Differences from Redis: a
 * `[` without `]` and an empty class `[]` are refused. Details: docs/patterns.md. Pure, any thread.
 */
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHANNEL_LENGTH_MAX = 4096 }; /* bytes; the limit of channels and of patterns */

/* STATUS_OK, STATUS_PATTERN (malformed class) or STATUS_CHANNEL_LENGTH. */
enum status glob_check(const void *pattern, size_t length);

/* Does the pattern match the whole channel? The pattern must have passed glob_check. Time is
 * bounded by pattern length x channel length / word size; there is no exponential case. */
bool glob_match(const void *pattern, size_t pattern_length, const void *channel,
                size_t channel_length);

#endif
