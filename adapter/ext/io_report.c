/* What other threads learn of the I/O thread: waiting for it, its log lines, its counters. */
#include "io_internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { LOG_LINE = 500, NOTICES_MAX = 1000, PEER_LINES = 10 };

/* Waiting for a counter to reach 0. */

static void counted_down(struct io_thread *io, uint64_t left)
{
    if (left != 0)
        return;
    pthread_mutex_lock(&io->lock);
    pthread_cond_broadcast(&io->changed);
    pthread_mutex_unlock(&io->lock);
}

void io_answered(struct io_thread *io, uint64_t bytes)
{
    counted_down(io, __atomic_sub_fetch(&io->unanswered_bytes, bytes, __ATOMIC_ACQ_REL));
}

void io_client_gone(struct io_thread *io)
{
    counted_down(io, __atomic_sub_fetch(&io->client_count, 1, __ATOMIC_ACQ_REL));
}

static bool wait_for_zero(struct io_thread *io, uint64_t *counter, unsigned timeout_ms)
{
    if (!io_is_ours(io))
        return false;
    uint64_t end = io_clock_ms() + timeout_ms;
    const struct timespec deadline = {.tv_sec = (time_t)(end / 1000),
                                      .tv_nsec = (long)(end % 1000) * 1000000};
    int error = 0;
    pthread_mutex_lock(&io->lock);
    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) != 0 && error == 0)
        error = pthread_cond_timedwait(&io->changed, &io->lock, &deadline);
    pthread_mutex_unlock(&io->lock);
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE) == 0;
}

bool io_wait_clients(struct io_thread *io, unsigned timeout_ms)
{
    return wait_for_zero(io, &io->client_count, timeout_ms);
}

bool io_wait_published(struct io_thread *io, unsigned timeout_ms)
{
    return wait_for_zero(io, &io->unanswered_bytes, timeout_ms);
}

static void log_line(struct io_thread *io, enum log_level level, const char *format,
                     va_list arguments)
{
    char line[LOG_LINE + 1];
    int length = vsnprintf(line, sizeof(line), format, arguments);
    if (length < 0 || io->notices == NULL || mailbox_length(io->notices) > NOTICES_MAX)
        return;
    size_t size = (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1;
    struct message *message = message_new(NULL, 0, line, size, false, 0);
    if (message == NULL)
        return;
    mailbox_post(io->notices, CALLBACK_LOG, NULL, message, (uint64_t)level, 0);
    callback_pool_dispatch(io->callbacks);
}

void io_log(struct io_thread *io, enum log_level level, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line(io, level, format, arguments);
    va_end(arguments);
}

void io_log_seldom(struct io_thread *io, uint64_t *logged, enum log_level level, const char *format,
                   ...)
{
    uint64_t now = io_clock_ms() / 1000 + 1; /* never the 0 of the start */
    va_list arguments;
    if (__atomic_exchange_n(logged, now, __ATOMIC_RELAXED) == now)
        return;
    va_start(arguments, format);
    log_line(io, level, format, arguments);
    va_end(arguments);
}

void io_log_peer(struct io_thread *io, const char *format, ...)
{
    va_list arguments;
    if (io->peer_lines >= PEER_LINES) {
        io->peer_lines_dropped++;
        return;
    }
    io->peer_lines++;
    va_start(arguments, format);
    log_line(io, LOG_LEVEL_INFO, format, arguments);
    va_end(arguments);
}

void io_log_peers_tick(struct io_thread *io)
{
    unsigned dropped = io->peer_lines_dropped;
    io->peer_lines = io->peer_lines_dropped = 0;
    if (dropped > 0)
        io_log(io, LOG_LEVEL_INFO, "%u more lines about clients were left out", dropped);
}

void io_stats(struct io_thread *io, struct io_stats *stats)
{
    const uint64_t *from = (const uint64_t *)&io->stats;
    uint64_t *to = (uint64_t *)stats;
    *stats = (struct io_stats){0};
    /* All members but the last are 64-bit counters that others add to while we read. */
    for (size_t i = 0; i < offsetof(struct io_stats, connected) / sizeof(*to); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    stats->connected = __atomic_load_n(&io->stats.connected, __ATOMIC_RELAXED);
    stats->clients = __atomic_load_n(&io->client_count, __ATOMIC_RELAXED);
    stats->unanswered_bytes = __atomic_load_n(&io->unanswered_bytes, __ATOMIC_RELAXED);
    if (io_is_ours(io))
        stats->blocks_dropped = callback_pool_dropped(io->callbacks);
}
