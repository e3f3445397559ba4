#ifndef TESTS_CTL_HARNESS_H
#define TESTS_CTL_HARNESS_H

/*
 * brokerctl run from a shell beside a real broker, in that broker's temporary directory.
 */
#include "harness.h"
#include <stdarg.h>

/* The broker under test. */
static struct broker b;

/* What the last run printed, and its exit status. */
static struct result {
    int status;
    char out[1 << 16], err[4096];
} ctl;

static inline void slurp(const char *name, char *text, size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", b.dir, name);
    int fd = open(path, O_RDONLY);
    ssize_t length = fd >= 0 ? read(fd, text, size - 1) : 0;
    text[length > 0 ? length : 0] = 0;
    if (fd >= 0)
        close(fd);
}

static inline void run(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line for the shell in which `brokerctl` asks the broker under test; what it did is in ctl. */
static inline void run(const char *format, ...)
{
    char line[1024], command[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    snprintf(command, sizeof(command),
             "cd %s && brokerctl() { BROKERD_URL=${url-ipc://%s} %s \"$@\"; } && { %s; } "
             ">out 2>err </dev/null",
             b.dir, b.path, BROKERCTL_PROGRAM, line);
    int status = system(command);
    ctl.status = WEXITSTATUS(status);
    slurp("out", ctl.out, sizeof(ctl.out));
    slurp("err", ctl.err, sizeof(ctl.err));
}

static inline void expect_status(int status)
{
    cr_assert_eq(ctl.status, status, "exit status %d, not %d; it said: %s%s", ctl.status, status,
                 ctl.out, ctl.err);
}

/* It failed with that status and one line that has all these texts. */
static inline void expect_failure(int status, ...)
{
    expect_status(status);
    cr_assert(strncmp(ctl.err, "brokerctl: ", 11) == 0, "%s", ctl.err);
    cr_assert_eq(strchr(ctl.err, '\n'), ctl.err + strlen(ctl.err) - 1, "one line, not: %s",
                 ctl.err);
    va_list texts;
    va_start(texts, status);
    for (const char *text; (text = va_arg(texts, const char *)) != NULL;)
        cr_assert(strstr(ctl.err, text) != NULL, "\"%s\" is not in: %s", text, ctl.err);
    va_end(texts);
}

static inline void expect_output(const char *text)
{
    expect_status(0);
    cr_assert_str_eq(ctl.out, text);
}

/* A brokerctl that goes on in the background, its output in the files out2 and err2. */
static inline pid_t start_in_background(const char *options)
{
    char command[512];
    snprintf(command, sizeof(command), "cd %s && exec %s --url ipc://%s %s >out2 2>err2", b.dir,
             BROKERCTL_PROGRAM, b.path, options);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static inline void wait_for_text(const char *name, const char *text)
{
    static char all[1 << 16];
    int64_t until = now_ms() + DEADLINE_MS;
    do {
        slurp(name, all, sizeof(all));
        if (strstr(all, text) != NULL)
            return;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    } while (now_ms() < until);
    cr_assert_fail("%s has no \"%s\"; it is:\n%s", name, text, all);
}

static inline void stop(pid_t pid)
{
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

/* Of a suite whose broker is open to everybody. */
static inline void start(void)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
}

static inline void end(void)
{
    broker_end(&b);
}

#endif
