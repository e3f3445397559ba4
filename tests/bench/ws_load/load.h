#ifndef WS_LOAD_LOAD_H
#define WS_LOAD_LOAD_H

/*
 * The load program: N clients and one publisher in one thread on one epoll instance. Everything
 * hangs on struct load. It uses nothing of the code under test, so that an error there cannot hide
 * itself here.
 */
#include "histogram.h"
#include "message.h"
#include "process.h"
#include "read_ring.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    READ_BUFFER_SIZE = 512 * 1024,
    HELD_MAX = 16 << 20,         /* bytes of an incomplete frame or line */
    CLIENTS_PER_ADDRESS = 25000, /* local ports of one source address, with a margin */
    OPENING_AT_A_TIME = 100,     /* below any listen backlog */
    WINDOW_MAX = 1 << 15,        /* messages in flight */
    STALL_SECONDS = 10           /* without any progress: the run is over */
};

/* ws://host:port/path or sse://host:port/path; the host an IPv4 address. */
struct endpoint {
    struct sockaddr_in address;
    bool sse;
    char path[512];
};

bool endpoint_parse(struct endpoint *endpoint, const char *url);

enum mode { MODE_BROADCAST, MODE_ECHO, MODE_IDLE };

struct options {
    enum mode mode;
    struct endpoint url;
    struct endpoint publish_url; /* where the publisher connects, unless publish_command is set */
    const char *publish_command; /* a shell command that publishes each line of its input */
    const char
        *publish_format; /* what stands around a published message: text with one %s, or NULL */
    const char *send_on_open; /* a client's first message, or NULL */
    const char *send_after;   /* it is sent when this text has come, or NULL: at once */
    const char *ready_when; /* a client is ready when it has received this text, or NULL: at once */
    const char *origin;     /* the Origin header, or NULL */
    const char *subprotocol; /* Sec-WebSocket-Protocol, or NULL */
    const char *probe; /* idle: a path asked for by HTTP before each reading of memory, or NULL */
    unsigned clients;
    unsigned window; /* messages in flight; 0: a fixed rate */
    double rate;     /* messages a second */
    size_t size;     /* bytes of a message */
    double warm_up, seconds;
    struct process_tree server;
    bool json, quiet;
};

enum client_state {
    CLIENT_CONNECTING,
    CLIENT_HANDSHAKE,
    CLIENT_GREETED,
    CLIENT_READY,
    CLIENT_CLOSED
};

struct client {
    int fd;
    uint8_t state;                 /* enum client_state */
    bool sse, is_publisher, asked; /* asked: send_on_open was sent */
    uint32_t held_length;
    uint8_t *held; /* an incomplete frame or line, from malloc; NULL when there is none */
    struct receipt receipt;
};

struct load {
    const struct options *options;
    int epoll;
    struct client *client; /* options->clients (idle: and IDLE_FIRST) of them, then the publisher */
    unsigned opened, ready, closed; /* of the clients */
    uint8_t *buffer;                /* READ_BUFFER_SIZE, shared by all reads */
    struct read_ring *ring;         /* or NULL */

    struct client publisher;
    int command_pipe; /* or -1 */
    uint8_t *out;     /* the publisher's bytes that the kernel did not take yet */
    size_t out_length, out_capacity;
    bool out_armed;

    uint64_t sent;                    /* messages; also the next sequence number */
    uint64_t completed;               /* messages that all clients are done with */
    uint64_t base;                    /* the first sequence number that is checked */
    bool priming;                     /* the clients' subscriptions are still being made */
    uint32_t arrived[2 * WINDOW_MAX]; /* by sequence number: clients that are done with it */

    bool measuring;
    uint64_t deliveries; /* all that came since priming */
    uint64_t accounted;  /* deliveries that came or are known to be missing, since priming */
    struct faults faults;
    struct histogram latency;
    char problem[256]; /* why the run failed, or "" */
};

/* What a run gave. */
struct result {
    double seconds, open_seconds;
    uint64_t messages, deliveries;
    double server_cpu_us, own_cpu_us; /* per delivery */
    double server_cpu_share;          /* processors used by the server */
    uint64_t server_peak_kib;
    double memory_per_client; /* idle: bytes of PSS growth */
    uint64_t memory_before_kib, memory_after_kib;
    char probe_before[64], probe_after[64];
};

/* main parts; each returns false with load->problem set when the run cannot go on */
void load_init(struct load *load, const struct options *options);
void load_release(struct load *load);
bool load_fail(struct load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* connect.c: opens clients up to `count` and waits until they are ready. */
bool load_open(struct load *load, unsigned count);
bool load_open_publisher(struct load *load);
void client_handle(struct load *load, struct client *client, uint32_t events);
void client_close(struct load *load, struct client *client);

/* receive.c: reads what came and hands each message to load_deliver; false when the peer closed or
 * sent what is no right frame. */
bool client_read(struct load *load, struct client *client);
/* The same for several at once, at most READ_ALL_MOST, that hold nothing; closes those that are
 * over. */
void clients_read(struct load *load, struct client **clients, unsigned count);
/* Sends one masked text message, or pong. A client's socket always has room for what we send. */
bool client_send(struct client *client, uint8_t opcode, const char *text, size_t length);
size_t frame_encode(uint8_t *out, uint8_t opcode, const char *text, size_t length);

/* publish.c */
bool load_publish(struct load *load, uint64_t sent_at);
bool load_publish_flush(struct load *load);

/* run.c */
void load_deliver(struct load *load, struct client *client, uint64_t sequence, uint64_t sent_at,
                  uint64_t now);
/* Waits at most timeout_ns for events and handles them. */
bool load_turn(struct load *load, uint64_t timeout_ns);
bool load_run(struct load *load, struct result *result);

/* report.c */
void report(const struct load *load, const struct result *result);
void progress(const struct load *load, const char *what, uint64_t done, uint64_t of);
bool is_clean(const struct load *load);

/* self_test.c: 0 when every fault of the deliberately faulty server was counted right. */
int self_test(void);

#endif
