#ifndef TESTS_IO_HARNESS_H
#define TESTS_IO_HARNESS_H

/*
 * A real I/O thread whose broker is nowhere (its link goes on trying), clients on socketpairs, and
 * the test's thread in the place of the callback threads. Everything waits with a deadline of
 * WAIT_MS and aborts with a message past it, so it serves Criterion tests and plain programs alike.
 */
#include "client.h"
#include "commands.h"
#include "frame.h"
#include "io_thread.h"
#include "ws_frame.h"
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 10000 };

#define HEAD "HTTP/1.1 101 Switching Protocols\r\n\r\n"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);      \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct peer {
    int fd; /* the browser's end */
    struct client *client;
};

static inline struct io_config harness_config(void)
{
    struct io_config config;
    io_config_init(&config);
    config.url = "ipc:///nonexistent/brokerd.sock";
    config.name = "test";
    return config;
}

static inline struct io_thread *harness_start(const struct io_config *config)
{
    char error[200];
    struct io_thread *io = io_thread_start(config, error, sizeof(error));
    if (io == NULL)
        fprintf(stderr, "%s\n", error);
    MUST(io != NULL);
    return io;
}

static inline struct peer harness_open(struct io_thread *io, struct client_options options)
{
    int pair[2];
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    options.fd = pair[0];
    options.response = HEAD;
    options.response_length = strlen(HEAD);
    struct peer peer = {.fd = pair[1], .client = client_new(io, &options, 0)};
    MUST(peer.client != NULL);
    MUST(commands_open(peer.client));
    return peer;
}

static inline struct peer harness_websocket(struct io_thread *io)
{
    return harness_open(io, (struct client_options){.protocol = CLIENT_WEBSOCKET});
}

static inline struct peer harness_sse(struct io_thread *io)
{
    return harness_open(io, (struct client_options){.protocol = CLIENT_SSE});
}

static inline void harness_leave(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    client_unref(peer->client);
}

static inline bool harness_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) == 1;
}

static inline void harness_read(int fd, void *out, size_t length)
{
    for (size_t got = 0; got < length;) {
        MUST(harness_readable(fd, WAIT_MS));
        ssize_t n = read(fd, (char *)out + got, length - got);
        if (n < 0 && errno == EAGAIN)
            continue;
        MUST(n > 0);
        got += (size_t)n;
    }
}

static inline void harness_expect(int fd, const void *bytes, size_t length)
{
    char *got = malloc(length + 1);
    MUST(got != NULL);
    harness_read(fd, got, length);
    MUST(memcmp(got, bytes, length) == 0);
    free(got);
}

static inline void harness_expect_head(int fd)
{
    harness_expect(fd, HEAD, strlen(HEAD));
}

/* Drops whatever comes before the end. */
static inline void harness_expect_end(int fd)
{
    char rest[4096];
    ssize_t n;
    do {
        MUST(harness_readable(fd, WAIT_MS));
        n = read(fd, rest, sizeof(rest));
    } while (n > 0 || (n < 0 && errno == EAGAIN));
}

static inline void harness_expect_eof(int fd)
{
    char byte;
    MUST(harness_readable(fd, WAIT_MS));
    MUST(read(fd, &byte, 1) == 0);
}

static inline void harness_send(int fd, const void *bytes, size_t length)
{
    for (size_t sent = 0; sent < length;) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        MUST(poll(&p, 1, WAIT_MS) == 1);
        ssize_t n = send(fd, (const char *)bytes + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            continue;
        MUST(n > 0);
        sent += (size_t)n;
    }
}

/* A masked frame as browsers send it; returns its size. out has 14 bytes more than the payload. */
static inline size_t harness_frame(uint8_t *out, enum ws_opcode opcode, bool fin,
                                   const void *payload, size_t length)
{
    struct ws_header header = {.fin = fin,
                               .masked = true,
                               .opcode = (uint8_t)opcode,
                               .mask = {1, 2, 3, 4},
                               .length = length};
    size_t size = ws_header_encode(out, &header);
    if (length > 0)
        memcpy(out + size, payload, length);
    ws_mask(out + size, length, header.mask);
    return size + length;
}

static inline void harness_send_frame(int fd, enum ws_opcode opcode, const void *payload,
                                      size_t length)
{
    uint8_t *frame = malloc(length + WS_HEADER_MAX);
    MUST(frame != NULL);
    harness_send(fd, frame, harness_frame(frame, opcode, true, payload, length));
    free(frame);
}

static inline void harness_send_text(int fd, const char *text)
{
    harness_send_frame(fd, WS_TEXT, text, strlen(text));
}

static inline void harness_send_close(int fd, uint16_t code)
{
    const uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    harness_send_frame(fd, WS_CLOSE, payload, sizeof(payload));
}

static inline bool harness_write(struct peer *peer, const char *text)
{
    return commands_write(peer->client,
                          client_protocol(peer->client) == CLIENT_SSE
                              ? frame_sse_event(text, strlen(text), NULL, 0, NULL, 0, -1)
                              : frame_text(text, strlen(text)));
}

/* The next callback of any client, NULL when none comes within timeout_ms. Log lines are dropped.
 * The caller frees it, after that callback's mailbox is free for the next one. */
static inline struct callback *harness_callback_within(struct io_thread *io, struct mailbox **from,
                                                       int timeout_ms)
{
    struct callback_pool *pool = io_callbacks(io);
    for (;;) {
        struct callback *c;
        struct mailbox *m = callback_pool_take(pool, &c);
        if (m == NULL) {
            uint8_t token;
            if (!harness_readable(callback_pool_fd(pool), timeout_ms))
                return NULL;
            MUST(read(callback_pool_fd(pool), &token, sizeof(token)) == sizeof(token));
            continue;
        }
        bool notice = m == io_notices(io);
        if (from != NULL)
            *from = m;
        mailbox_done(m);
        if (!notice)
            return c;
        callback_free(c);
    }
}

static inline struct callback *harness_callback(struct io_thread *io)
{
    struct callback *c = harness_callback_within(io, NULL, WAIT_MS);
    MUST(c != NULL);
    return c;
}

static inline void harness_expect_callback(struct io_thread *io, enum callback_kind kind)
{
    struct callback *c = harness_callback(io);
    if (c->kind != kind)
        fprintf(stderr, "callback %d instead of %d\n", (int)c->kind, (int)kind);
    MUST(c->kind == kind);
    callback_free(c);
}

static inline void harness_expect_message(struct io_thread *io, const char *text, bool binary)
{
    struct callback *c = harness_callback(io);
    MUST(c->kind == CALLBACK_MESSAGE);
    MUST(c->message->payload_length == strlen(text));
    MUST(memcmp(message_payload(c->message), text, strlen(text)) == 0);
    MUST(c->message->binary == binary);
    callback_free(c);
}

static inline unsigned harness_count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned count = 0;
    MUST(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

#endif
