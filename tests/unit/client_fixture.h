#ifndef TESTS_CLIENT_FIXTURE_H
#define TESTS_CLIENT_FIXTURE_H

/* An I/O thread of its own for each test, and browsers that were let in. Header only; for one
 * program. */
#include "io_harness.h"
#include "io_internal.h"
#include <criterion/criterion.h>

static struct io_thread *io;
static struct io_config config;

static inline void setup(void)
{
    config = harness_config();
    io = harness_start(&config);
}

static inline void restart(void)
{
    io_thread_stop(io);
    io = harness_start(&config);
}

static inline void teardown(void)
{
    io_thread_stop(io);
}

static inline struct peer opened(struct peer peer)
{
    harness_expect_head(peer.fd);
    harness_expect_callback(io, CALLBACK_OPEN);
    return peer;
}

static inline struct peer websocket(void)
{
    return opened(harness_websocket(io));
}

static inline struct peer sse(void)
{
    return opened(harness_sse(io));
}

static inline void expect_only_close(void)
{
    harness_expect_callback(io, CALLBACK_CLOSE);
    cr_assert_null(harness_callback_within(io, NULL, 50), "nothing comes after on_close");
}

static inline struct io_stats stats(void)
{
    struct io_stats s;
    io_stats(io, &s);
    return s;
}

#endif
