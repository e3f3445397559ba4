#ifndef TESTS_UNIT_LINK_FIXTURE_H
#define TESTS_UNIT_LINK_FIXTURE_H

/*
 * A real link, hub and mailbox on a loop of the test's own, and the broker played by the test: a
 * unix socket in a temporary directory whose connections are read on the same loop. Everything
 * waits for an event with a deadline. Header only, since each test file is one program.
 */
#include "bytes.h"
#include "hub_internal.h"
#include "io_internal.h"
#include "link_internal.h"
#include "sp.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIXTURE_DEADLINE_MS = 20000 };
#define EPOCH 0x1122334455667788u

struct fixture {
    struct io_thread io;
    char dir[64], path[100], url[120];
    int listener, fd; /* fd: the latest connection, -1 when it was closed */
    unsigned connections;
    struct event *accepting, *reading, *deadline;
    struct buffer in; /* what the link sent on the latest connection */
    bool closed;      /* the link closed it */
    uint64_t epoch, head;
};

static struct fixture f;

struct asked { /* one request as it came; the pointers last until the next */
    uint32_t id;
    struct wire_request header;
    const uint8_t *body;
    size_t length;
    struct wire_attach attach; /* of an ATTACH */
    const uint8_t *records;
    size_t records_length;
};

static inline void on_readable(evutil_socket_t fd, short what, void *context)
{
    (void)what, (void)context;
    uint8_t *room = buffer_reserve(&f.in, 65536);
    ssize_t n = room == NULL ? 0 : recv(fd, room, 65536, MSG_DONTWAIT); /* 0: it hangs up */
    if (n > 0)
        buffer_commit(&f.in, (size_t)n);
    else if (n == 0 || errno != EAGAIN) {
        f.closed = true;
        event_del(f.reading);
    }
}

static inline void broker_hang_up(void)
{
    if (f.reading)
        event_free(f.reading);
    if (f.fd >= 0)
        close(f.fd);
    f.reading = NULL;
    f.fd = -1;
}

static inline void on_connection(evutil_socket_t fd, short what, void *context)
{
    (void)what, (void)context;
    broker_hang_up();
    f.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(f.fd, 0);
    f.connections++;
    f.closed = false;
    buffer_release(&f.in);
    f.reading = event_new(f.io.base, f.fd, EV_READ | EV_PERSIST, on_readable, NULL);
    if (f.reading == NULL || event_add(f.reading, NULL) != 0)
        broker_hang_up(); /* where a test lets memory fail */
}

static inline void on_deadline(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    cr_assert(false, "not before the deadline: %s", (const char *)context);
}

static inline void one_turn(void)
{
    event_base_loop(f.io.base, EVLOOP_ONCE);
    f.io.now_ms = io_clock_ms();
    link_flush(f.io.link);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        const struct timeval limit_ = {.tv_sec = FIXTURE_DEADLINE_MS / 1000};                      \
        struct event *deadline_ = evtimer_new(f.io.base, on_deadline, #condition);                 \
        event_add(deadline_, &limit_);                                                             \
        link_flush(f.io.link);                                                                     \
        while (!(condition))                                                                       \
            one_turn();                                                                            \
        event_free(deadline_);                                                                     \
    } while (0)

static inline void listen_at_path(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, f.path, sizeof(f.path));
    unlink(f.path);
    f.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(f.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(f.listener, 16), 0);
    f.accepting = event_new(f.io.base, f.listener, EV_READ | EV_PERSIST, on_connection, NULL);
    event_add(f.accepting, NULL);
}

/* secret: the configured secret's text, or NULL. */
static inline void fixture_open(const char *secret)
{
    memset(&f, 0, sizeof(f));
    f.fd = -1;
    f.epoch = EPOCH;
    buffer_init(&f.in, SIZE_MAX);
    strcpy(f.dir, "/tmp/brokerd-link-XXXXXX");
    cr_assert(mkdtemp(f.dir));
    snprintf(f.path, sizeof(f.path), "%s/b.sock", f.dir);
    snprintf(f.url, sizeof(f.url), "ipc://%s", f.path);
    io_config_init(&f.io.config);
    f.io.config.url = f.url;
    f.io.config.name = "worker";
    f.io.generation = io_generation();
    if (secret) {
        static char file[100];
        snprintf(file, sizeof(file), "%s/secret", f.dir);
        int fd = open(file, O_WRONLY | O_CREAT | O_EXCL, 0600);
        cr_assert_eq(write(fd, secret, strlen(secret)), (ssize_t)strlen(secret));
        close(fd);
        f.io.config.secret_file = file;
    }
    f.io.base = event_base_new();
    pthread_mutex_init(&f.io.lock, NULL);
    pthread_cond_init(&f.io.changed, NULL);
    f.io.callbacks = callback_pool_new(f.io.config.block_buffer);
    f.io.notices = mailbox_new(f.io.callbacks, 0);
    f.io.hub = hub_new(&f.io);
    f.io.link = link_new(&f.io);
    cr_assert(f.io.hub && f.io.link && f.io.notices);
    listen_at_path();
}

static inline void fixture_close(void)
{
    link_free(f.io.link);
    hub_free(f.io.hub);
    mailbox_unref(f.io.notices);
    callback_pool_free(f.io.callbacks);
    command_queue_release(&f.io.commands);
    broker_hang_up();
    event_free(f.accepting);
    close(f.listener);
    event_base_free(f.io.base);
    buffer_release(&f.in);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", f.dir);
    cr_assert_eq(system(command), 0);
}

/* ---- the broker's part ---- */

static inline void broker_write(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length > 0) {
        ssize_t n = send(f.fd, at, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            one_turn();
            continue;
        }
        cr_assert_gt(n, 0);
        at += n;
        length -= (size_t)n;
    }
}

/* A connection with both hellos done; it must be the n-th. */
static inline void broker_accept(unsigned n)
{
    WAIT_FOR(f.connections == n && buffer_length(&f.in) >= SP_HELLO_SIZE);
    cr_assert_eq(memcmp(buffer_bytes(&f.in), "\0SP\0\0\x30\0\0", 8), 0, "the hello of a REQ");
    buffer_consume(&f.in, SP_HELLO_SIZE);
    broker_write("\0SP\0\0\x31\0\0", 8);
}

static inline bool has_message(void)
{
    return buffer_length(&f.in) >= 9 &&
           buffer_length(&f.in) - 9 >= get_u64be(buffer_bytes(&f.in) + 1);
}

static inline struct asked broker_next(uint8_t operation)
{
    static uint8_t *kept;
    struct asked a = {0};
    WAIT_FOR(has_message());
    const uint8_t *bytes = buffer_bytes(&f.in);
    cr_assert_eq(bytes[0], 1, "ipc: 01 before the length");
    size_t length = (size_t)get_u64be(bytes + 1);
    free(kept);
    kept = malloc(length);
    memcpy(kept, bytes + 9, length);
    buffer_consume(&f.in, 9 + length);
    a.id = get_u32be(kept);
    cr_assert(a.id & 0x80000000u, "the top bit of a request id");
    cr_assert_eq(wire_request_decode(kept + 4, length - 4, &a.header), STATUS_OK);
    cr_assert_eq(a.header.operation, operation, "operation %u instead of %u", a.header.operation,
                 operation);
    cr_assert_eq(a.header.session, f.io.link->session);
    a.body = a.records = kept + 4 + WIRE_REQUEST_SIZE;
    a.length = a.records_length = length - 4 - WIRE_REQUEST_SIZE;
    if (operation == WIRE_ATTACH) {
        size_t used;
        cr_assert_eq(wire_attach_decode(a.body, a.length, &a.attach, &used), STATUS_OK);
        a.records += used;
        a.records_length -= used;
    }
    return a;
}

static inline struct wire_record asked_record(const struct asked *a, uint32_t n)
{
    struct wire_record record;
    const uint8_t *at = a->records;
    size_t left = a->records_length, used = 0;
    cr_assert_lt(n, a->header.records);
    do {
        at += used;
        left -= used;
        cr_assert_eq(wire_record_decode(at, left, &record, &used), STATUS_OK);
    } while (n-- > 0);
    return record;
}

static inline void broker_reply(uint32_t id, struct wire_reply reply, const void *body,
                                size_t length)
{
    uint8_t head[9 + 4 + WIRE_REPLY_SIZE];
    reply.version = WIRE_VERSION;
    reply.epoch = f.epoch;
    reply.head = f.head;
    head[0] = 1;
    put_u64be(head + 1, 4 + WIRE_REPLY_SIZE + length);
    put_u32be(head + 9, id);
    wire_reply_encode(head + 13, &reply);
    broker_write(head, sizeof(head));
    if (length > 0)
        broker_write(body, length);
}

/* Answers the last part of an ATTACH. */
static inline void broker_attach_ok(const struct asked *a, uint8_t flags, uint64_t value)
{
    uint8_t block[WIRE_ATTACH_REPLY_SIZE];
    wire_attach_reply_encode(block, &(struct wire_attach_reply){.record_max = 1 << 20});
    broker_reply(a->id,
                 (struct wire_reply){.operation = WIRE_ATTACH, .flags = flags, .value = value},
                 block, sizeof(block));
}

static inline void broker_ok(const struct asked *a, uint64_t value)
{
    broker_reply(
        a->id, (struct wire_reply){.operation = a->header.operation, .records = 1, .value = value},
        NULL, 0);
}

static inline void broker_refuse(const struct asked *a, enum status status, uint32_t done)
{
    broker_reply(a->id,
                 (struct wire_reply){
                     .operation = a->header.operation, .status = (uint8_t)status, .records = done},
                 NULL, 0);
}

static struct asked credits[LINK_CREDITS];

static inline void broker_take_credits(void)
{
    for (int i = 0; i < LINK_CREDITS; i++)
        credits[i] = broker_next(WIRE_FETCH);
}

/* The n-th connection, attached; its credits are in `credits`. Returns the ATTACH (its pointers are
 * stale). */
static inline struct asked broker_attach(unsigned n, uint8_t flags, uint64_t value)
{
    broker_accept(n);
    struct asked a = broker_next(WIRE_ATTACH);
    broker_attach_ok(&a, flags, value);
    broker_take_credits();
    return a;
}

/* ---- batches ---- */

struct batch_bytes {
    uint8_t bytes[65536];
    size_t length;
    uint32_t records;
};

static inline void batch_add(struct batch_bytes *b, const struct wire_record *record)
{
    wire_record_encode(b->bytes + b->length, record);
    b->length += wire_record_size(record->channel_length, record->payload_length);
    b->records++;
}

static inline void batch_message(struct batch_bytes *b, uint64_t id, const char *channel,
                                 const char *payload)
{
    batch_add(b, &(struct wire_record){.type = WIRE_MESSAGE,
                                       .id = id,
                                       .origin = 7,
                                       .sequence = id,
                                       .channel = (const uint8_t *)channel,
                                       .channel_length = (uint16_t)strlen(channel),
                                       .payload = (const uint8_t *)payload,
                                       .payload_length = strlen(payload)});
    if (id > f.head)
        f.head = id;
}

static inline void broker_batch(const struct asked *credit, const struct batch_bytes *b,
                                uint64_t position)
{
    broker_reply(
        credit->id,
        (struct wire_reply){.operation = WIRE_FETCH, .records = b->records, .value = position},
        b->bytes, b->length);
}

/* ---- the process's part ---- */

/* A block outside any client, subscribed. */
static inline struct block *subscribe_to(const char *name)
{
    struct mailbox *mailbox = mailbox_new(f.io.callbacks, 0);
    struct block *block = block_new(mailbox, 0);
    mailbox_unref(mailbox);
    hub_subscribe_block(f.io.hub, block, name, strlen(name), false);
    return block;
}

static inline void unsubscribe(struct block *block)
{
    hub_unsubscribe_block(f.io.hub, block);
    block_unref(block);
}

static inline void publish(const char *channel, const char *payload)
{
    f.io.unanswered_bytes += wire_record_size(strlen(channel), strlen(payload));
    link_publish(f.io.link, channel, strlen(channel), payload, strlen(payload), false);
}

/* The oldest callback that is not a log line; its text or kind is in *text. */
static inline bool next_callback(enum callback_kind *kind, char text[200])
{
    struct callback *c;
    struct mailbox *m;
    while ((m = callback_pool_take(f.io.callbacks, &c))) {
        bool found = c->kind != CALLBACK_LOG;
        if (found) {
            *kind = c->kind;
            text[0] = 0;
            if (c->message)
                snprintf(text, 200, "%.*s", (int)c->message->payload_length,
                         (const char *)message_payload(c->message));
            else
                snprintf(text, 200, "%llu..%llu", (unsigned long long)c->first,
                         (unsigned long long)c->last);
        }
        callback_free(c);
        mailbox_done(m);
        if (found)
            return true;
    }
    return false;
}

static inline void expect_callback(enum callback_kind wanted, const char *wanted_text)
{
    enum callback_kind kind = CALLBACK_LOG;
    static char text[200];
    WAIT_FOR(next_callback(&kind, text));
    cr_assert_eq(kind, wanted, "callback %d (%s) instead of %d (%s)", kind, text, wanted,
                 wanted_text);
    cr_assert_str_eq(text, wanted_text);
}

static inline void expect_no_callback(void)
{
    enum callback_kind kind = CALLBACK_LOG;
    char text[200];
    cr_assert(!next_callback(&kind, text), "callback %d (%s)", kind, text);
}

static inline void subscribe_many(struct block **blocks, unsigned n)
{
    char name[201];
    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%0200u", i);
        blocks[i] = subscribe_to(name);
    }
}

/* ---- what was asked ---- */

static inline void expect_record(const struct asked *a, uint32_t n, uint8_t type,
                                 const char *channel, const char *payload, uint64_t sequence)
{
    struct wire_record r = asked_record(a, n);
    cr_assert_eq(r.type, type, "record %u has type %u", n, r.type);
    cr_assert_eq(r.sequence, sequence, "record %u has sequence %llu", n,
                 (unsigned long long)r.sequence);
    cr_assert(r.channel_length == strlen(channel) &&
                  memcmp(r.channel, channel, r.channel_length) == 0,
              "record %u is for %.*s", n, r.channel_length, (const char *)r.channel);
    cr_assert(r.payload_length == strlen(payload) &&
                  memcmp(r.payload, payload, r.payload_length) == 0,
              "record %u is %.*s", n, (int)r.payload_length, (const char *)r.payload);
    cr_assert_eq(r.id, 0);
    cr_assert_eq(r.origin, type == WIRE_PUBLISH ? f.io.link->unanswered.origin : 0);
}

#endif
