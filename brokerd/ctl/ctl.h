#ifndef BROKERCTL_CTL_H
#define BROKERCTL_CTL_H

/*
 * brokerctl: the broker from a shell. One thread, one request at a time, over libnng's req0. Errors
 * are one line on standard error: what failed, why, what to do. Exit status: 0 done, 1 refused,
 * unreachable or unknown (the line says which), 2 usage.
 */
#include <stdbool.h>
#include <stddef.h>

enum { CTL_DONE = 0, CTL_FAILED = 1, CTL_USAGE = 2 };
enum { CTL_BENCH_WORKERS_MAX = 256 };

struct ctl_options {
    const char *url;         /* --url, else BROKERD_URL, else the application's own socket */
    const char *secret_file; /* NULL: none */
    const char *ca_file, *crl_file, *cert_file, *key_file; /* of tls+tcp; NULL: ctl_tls.h */
    unsigned timeout_ms;
    bool json, lines, binary, verbose;
    unsigned publishers, subscribers; /* bench: processes, at most CTL_BENCH_WORKERS_MAX each */
    size_t size;                      /* bench: bytes of a message */
    double rate, seconds;             /* bench: messages a second of all, 0 as many as go */
    int count;                        /* operands behind the command's name */
    char **arguments;                 /* the operands */
};

/* Each runs one command and returns the exit status. */
int cmd_publish(const struct ctl_options *options);
int cmd_subscribe(const struct ctl_options *options);
int cmd_ping(const struct ctl_options *options);
int cmd_stats(const struct ctl_options *options);
int cmd_sessions(const struct ctl_options *options);
int cmd_channels(const struct ctl_options *options);
int cmd_engines(const struct ctl_options *options);
int cmd_engine(const struct ctl_options *options);
int cmd_bench(const struct ctl_options *options);

/* Prints "brokerctl: " and the line to standard error; returns CTL_FAILED / CTL_USAGE. */
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int ctl_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
