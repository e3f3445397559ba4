#ifndef TESTS_FUZZ_IN_PROCESS_H
#define TESTS_FUZZ_IN_PROCESS_H

/*
 * A real broker in this process, without sockets that listen: the program is its loop, and its
 * peers are pairs of sockets. Time is the program's, too: clock_gettime is the one below, for the
 * broker and for libevent, and in_process_jump moves the monotonic clocks. One file of a program
 * defines IN_PROCESS_HERE before it includes this.
 */
#include "connection.h"
#include "server.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern int64_t in_process_offset_ms;
extern struct server in_process;

#ifdef IN_PROCESS_HERE
struct server in_process;
int64_t in_process_offset_ms;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (clock != CLOCK_MONOTONIC && clock != CLOCK_MONOTONIC_COARSE)
        return result;
    now->tv_sec += in_process_offset_ms / 1000;
    now->tv_nsec += in_process_offset_ms % 1000 * 1000000;
    if (now->tv_nsec >= 1000000000) {
        now->tv_nsec -= 1000000000;
        now->tv_sec++;
    }
    return result;
}
#endif

static inline void in_process_jump(int64_t ms)
{
    in_process_offset_ms += ms;
}

/* Limits of a peer that are 0 are set out of reach: all peers here are one user. */
static inline void in_process_start(struct options *options)
{
    for (int i = 0; i < PEER_LIMITS; i++)
        if (options->peer_max[i] == 0)
            options->peer_max[i] = UINT32_MAX;
    log_set_level(LOG_LEVEL_ERROR);
    if (!server_open(&in_process, options))
        abort();
}

/* A peer's end; the other is the broker's. Its buffers are small, so that they fill. */
static inline int in_process_connect(enum sp_transport transport)
{
    static struct listen_url urls[] = {{.transport = SP_TCP}, {.transport = SP_IPC}};
    static struct listener listeners[] = {{.url = &urls[0], .name = "here"},
                                          {.url = &urls[1], .name = "here"}};
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        abort();
    connection_accept(&in_process, &listeners[transport], ends[1]);
    return ends[0];
}

/* Turns until there is nothing more to do at once. */
static inline void in_process_settle(void)
{
    for (int quiet = 0; quiet < 2;)
        quiet = server_turn(&in_process, false) ? 0 : quiet + 1;
}

#endif
