#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level threshold = LOG_LEVEL_INFO;
static const char *const names[] = {"error", "warn", "info", "debug"};

int log_level_parse(const char *name)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

void log_set_level(enum log_level level)
{
    threshold = level;
}

static void write_line(enum log_level level, uint32_t dropped, const char *format,
                       va_list arguments) __attribute__((format(printf, 3, 0)));

static void write_line(enum log_level level, uint32_t dropped, const char *format,
                       va_list arguments)
{
    char line[1200];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &utc);
    used += (size_t)snprintf(line + used, sizeof(line) - used, ".%03ldZ %-5s ",
                             now.tv_nsec / 1000000, names[level]);
    size_t text = used;
    int length = vsnprintf(line + used, 1000, format, arguments);
    if (length > 0)
        used += (size_t)length < 1000 ? (size_t)length : 999;
    for (size_t i = text; i < used; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    if (dropped > 0)
        used += (size_t)snprintf(line + used, sizeof(line) - used - 1,
                                 " (%u more of this kind were not logged)", dropped);
    line[used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written; /* there is nowhere to complain */
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > threshold)
        return;
    va_list arguments;
    va_start(arguments, format);
    write_line(level, 0, format, arguments);
    va_end(arguments);
}

void log_limited(struct log_limit *limit, uint32_t most, enum log_level level, const char *format,
                 ...)
{
    if (level > threshold)
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    if (now.tv_sec != limit->second) {
        limit->second = now.tv_sec;
        limit->lines = 0;
    }
    if (limit->lines >= most) {
        limit->dropped++;
        return;
    }
    limit->lines++;
    va_list arguments;
    va_start(arguments, format);
    write_line(level, limit->dropped, format, arguments);
    va_end(arguments);
    limit->dropped = 0;
}
