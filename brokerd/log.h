#ifndef BROKERD_LOG_H
#define BROKERD_LOG_H

/*
 * Log lines on standard error, one write each: "2026-01-31T12:00:00.123Z warn text". The level is a
 * property of the process. The broker's one thread calls these; none of them fails or blocks on
 * anything but standard error itself.
 */
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The level from its name ("error", "warn", "info", "debug"), or -1. */
int log_level_parse(const char *name);

/* Lines above this level are dropped from now on. */
void log_set_level(enum log_level level);

/* Writes one line; a text over 1,000 bytes is cut, control bytes are shown as '?'. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* One kind of line that bad input could repeat without end. Zeroed by its owner. */
struct log_limit {
    int64_t second;   /* the one that `lines` counts */
    uint32_t lines;   /* written in it */
    uint32_t dropped; /* since the last one written */
};

/* As log_write, but at most `most` lines a second of that kind; how many were dropped since is said
 * with the next one that is written. */
void log_limited(struct log_limit *limit, uint32_t most, enum log_level level, const char *format,
                 ...) __attribute__((format(printf, 4, 5)));

#endif
