#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

/*
 * What bench_broker and peer_broker share, so that both put the same load on their server: options,
 * worker processes, the board on which those count, the clock, the measured interval, the report.
 *
 * The parent starts the server, then subscribers, then publishers, each a process, and reads the
 * board before and after the interval. Publishers do not run ahead of the slowest subscription by
 * more than LOAD_LEAD bytes. Functions end the process with a message when something fails.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
    LOAD_OUTSTANDING = 4,    /* batches that a publisher has under way */
    LOAD_LEAD = 16 << 20,    /* bytes */
    LOAD_WORKERS_MAX = 1100, /* processes */
    LOAD_SUBSCRIPTIONS_MAX = 20000,
    LOAD_SAMPLES_MAX = 1 << 20
};

struct load_options {
    const char *program; /* of this benchmark, for messages */
    const char *server;  /* the server's program */
    const char *mode;    /* batch, window or rate */
    unsigned publishers;
    unsigned subscribers; /* connections that subscribe */
    unsigned processes;   /* that the subscribers are spread over; 0: one each */
    unsigned size, batch, channels, other_patterns;
    double warm_up, seconds, rate;
    bool json, tcp, no_journal, by_pattern;
};
extern struct load_options load_opt; /* with defaults; LOAD_OPTIONS are read into it */

/* Shared by all processes. */
struct load_board {
    _Atomic bool stop;
    _Atomic unsigned ready;
    _Atomic uint64_t published, gaps;
    struct {
        _Atomic uint64_t received;
        char pad[56];
    } subscriber[LOAD_SUBSCRIPTIONS_MAX];
    _Atomic uint32_t samples;
    uint32_t sample[LOAD_SAMPLES_MAX]; /* ns */
};
extern struct load_board *load_board;

/* What a benchmark brings. The three publishers and subscribe run in a process of their own. */
struct load_driver {
    void (*start)(void); /* sets load_server and load_address */
    void (*publish_batched)(void);
    void (*publish_window)(void);
    void (*publish_at_rate)(void);
    void (*subscribe)(unsigned first, unsigned count, bool timed); /* never returns */
    const char *server_name;                                       /* in the report */
};

extern pid_t load_server;
extern char load_dir[]; /* a temporary folder, removed at the end */
extern struct sockaddr_storage load_address;
extern socklen_t load_address_size;

_Noreturn void load_fail(const char *what); /* with errno */
_Noreturn void load_give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t load_now(void); /* ns */

/* Sets load_address: `file` in load_dir, or that port of 127.0.0.1 with tcp. */
void load_set_address(const char *file, int port);
int load_free_port(void);
void load_connect(int *fd);
void load_write(int fd, const void *bytes, size_t length);

void load_sample(uint64_t ns);
void load_wait_for_subscribers(size_t message_size);

/* Every 1/rate seconds: send(context), then drain(context) while something can be read. */
void load_at_rate(int fd, void (*send)(void *), void (*drain)(void *), void *context);

/* Reads the options; own() is asked about those that are not common and returns false for one that
 * it does not know. help ends with load_help. */
bool load_parse(int argc, char **argv, const char *help, bool (*own)(const char *, const char *));
extern const char load_help[];

/* The whole run; the exit status. */
int load_run(const struct load_driver *driver);

#endif
