#ifndef TESTS_INJECTION_NO_MEMORY_H
#define TESTS_INJECTION_NO_MEMORY_H

/*
 * Allocations that fail where the test wants it: the program is linked with --wrap, so that our own
 * code, and zlib through it, asks here, and libevent is told to. One file, one thread.
 */
#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

static long no_memory_after = -1; /* so many succeed, then it begins; -1: never */
static bool no_memory_stays;      /* then all fail, else only one */
static bool no_memory_happened;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static inline bool no_memory_now(void)
{
    if (no_memory_after < 0 || no_memory_after-- > 0)
        return false;
    no_memory_after = no_memory_stays ? 0 : -1;
    no_memory_happened = true;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return no_memory_now() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return no_memory_now() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return no_memory_now() ? NULL : __real_realloc(old, size);
}

/* Before anything of libevent is called. */
static inline void no_memory_of_libevent(void)
{
    event_set_mem_functions(__wrap_malloc, __wrap_realloc, free);
}

static inline void no_memory_begin(long after, bool stays)
{
    no_memory_after = after;
    no_memory_stays = stays;
    no_memory_happened = false;
}

/* For what the test itself needs in between; the result is for no_memory_resume. */
static inline long no_memory_pause(void)
{
    long after = no_memory_after;
    no_memory_after = -1;
    return after;
}

static inline void no_memory_resume(long after)
{
    no_memory_after = after;
}

/* Whether an allocation failed since. */
static inline bool no_memory_end(void)
{
    no_memory_after = -1;
    return no_memory_happened;
}

#endif
