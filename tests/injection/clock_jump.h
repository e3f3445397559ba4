#ifndef TESTS_CLOCK_JUMP_H
#define TESTS_CLOCK_JUMP_H

/*
 * Clocks that jump, for a test and the programs that it starts: clock_jump.c stands in the place of
 * the C library's clock functions, linked into the test and preloaded (CLOCK_JUMP_LIBRARY) into
 * what it runs. Both add what stands in one mapped file. CLOCK_BOOTTIME is let be, for deadlines.
 */
#include <stdatomic.h>
#include <stdint.h>

struct clock_jump {
    _Atomic int64_t wall_s;      /* added to CLOCK_REALTIME, gettimeofday and time */
    _Atomic int64_t monotonic_s; /* added to CLOCK_MONOTONIC */
};

/* Maps the file, which may be new, into this process, and has programs that are started from now on
 * map it too. NULL: errno says why. */
struct clock_jump *clock_jump_begin(const char *path, const char *library);

#endif
