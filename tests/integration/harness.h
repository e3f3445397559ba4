#ifndef TESTS_INTEGRATION_HARNESS_H
#define TESTS_INTEGRATION_HARNESS_H

/*
 * A real brokerd process in a directory of its own, and peers that speak to it byte by byte over a
 * blocking socket. Everything waits for an event with a deadline (DEADLINE_MS) and fails the test
 * past it. A broker dies with the test that started it. Header only, since each test file is one
 * program.
 */
#include "buffer.h"
#include "bytes.h"
#include "sp.h"
#include "wire.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A test's process ends with its test: only the broker, a program of its own, is looked at for
 * leaks. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

enum { DEADLINE_MS = 20000, BROKER_ARGUMENTS_MAX = 24 };

static inline int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now); /* the others jump in some tests */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A port of 127.0.0.1 that nobody has at the moment. */
static inline int free_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(fd, (struct sockaddr *)&any, size) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&any, &size) == 0);
    close(fd);
    return ntohs(any.sin_port);
}

/* ---- the broker ---- */

struct broker {
    pid_t pid;
    char dir[64];
    char path[100]; /* of the ipc socket */
    char log[100];
    const char *arguments[BROKER_ARGUMENTS_MAX]; /* besides --listen and --ready-fd */
};

/* A fresh directory; nothing runs yet. arguments: a NULL-terminated list, kept for every start. */
static inline void broker_prepare(struct broker *b, const char *const *arguments)
{
    *b = (struct broker){.pid = 0};
    strcpy(b->dir, "/tmp/brokerd-test-XXXXXX");
    cr_assert(mkdtemp(b->dir) != NULL);
    snprintf(b->path, sizeof(b->path), "%s/b.sock", b->dir);
    snprintf(b->log, sizeof(b->log), "%s/log", b->dir);
    for (int i = 0; arguments != NULL && arguments[i] != NULL; i++)
        b->arguments[i] = arguments[i];
}

static inline void broker_exec(const struct broker *b, int ready)
{
    char url[128], fd[16];
    const char *argv[BROKER_ARGUMENTS_MAX + 8] = {BROKERD_PROGRAM, "--listen", url, "--ready-fd",
                                                  fd};
    snprintf(url, sizeof(url), "ipc://%s", b->path);
    snprintf(fd, sizeof(fd), "%d", ready);
    for (int i = 0; b->arguments[i] != NULL; i++)
        argv[5 + i] = b->arguments[i];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 2);
    fcntl(ready, F_SETFD, 0);
    execv(BROKERD_PROGRAM, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Starts it and waits until it listens; false: it ended before (its exit status is in *status). */
static inline bool broker_try(struct broker *b, int *status)
{
    int ready[2];
    cr_assert(pipe2(ready, O_CLOEXEC) == 0);
    b->pid = fork();
    cr_assert(b->pid >= 0);
    if (b->pid == 0)
        broker_exec(b, ready[1]);
    close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    cr_assert(poll(&p, 1, DEADLINE_MS) == 1, "brokerd did not become ready");
    char byte;
    bool listens = read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (!listens) {
        cr_assert(waitpid(b->pid, status, 0) == b->pid);
        b->pid = 0;
    }
    return listens;
}

static inline void broker_run(struct broker *b)
{
    int status;
    cr_assert(broker_try(b, &status), "brokerd ended at once");
}

static inline void broker_start(struct broker *b, const char *const *arguments)
{
    broker_prepare(b, arguments);
    broker_run(b);
}

/* Waits for its end; the wait status. */
static inline int broker_wait(struct broker *b)
{
    int64_t until = now_ms() + DEADLINE_MS;
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(b->pid, &status, WNOHANG)) == 0 && now_ms() < until)
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    cr_assert(ended == b->pid, "brokerd did not end");
    b->pid = 0;
    return status;
}

static inline int broker_signal(struct broker *b, int number)
{
    kill(b->pid, number);
    return broker_wait(b);
}

/* Ends it in order, which must work, and removes its directory. */
static inline void broker_end(struct broker *b)
{
    if (b->pid != 0) {
        int status = broker_signal(b, SIGTERM);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "brokerd ended with status %x",
                  (unsigned)status);
    }
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", b->dir);
    cr_assert(system(command) == 0);
}

/* Waits until the log has that text. */
static inline void broker_log_has(const struct broker *b, const char *text)
{
    int64_t until = now_ms() + DEADLINE_MS;
    static char all[4 << 20];
    do {
        int fd = open(b->log, O_RDONLY);
        ssize_t length = fd >= 0 ? read(fd, all, sizeof(all) - 1) : 0;
        if (fd >= 0)
            close(fd);
        all[length > 0 ? length : 0] = 0;
        if (strstr(all, text) != NULL)
            return;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    } while (now_ms() < until);
    cr_assert_fail("the log has no \"%s\"; it is:\n%s", text, all);
}

/* How many lines of the log have both texts. */
static inline int broker_log_count(const struct broker *b, const char *text, const char *other)
{
    static char line[4096];
    int count = 0;
    FILE *file = fopen(b->log, "re");
    cr_assert(file != NULL);
    while (fgets(line, sizeof(line), file) != NULL)
        count += strstr(line, text) != NULL && strstr(line, other) != NULL;
    fclose(file);
    return count;
}

/* ---- a peer ---- */

struct peer {
    int fd;
    enum sp_transport transport;
    uint32_t next_id;
    uint64_t epoch; /* of the last reply */
    uint8_t *bytes; /* the last message */
    size_t length;
    bool holds; /* requests stand in `held` until peer_let_go */
    struct buffer held;
};

static inline void peer_close(struct peer *p)
{
    close(p->fd);
    free(p->bytes);
    *p = (struct peer){.fd = -1};
}

/* A connected socket that has said nothing. */
static inline int peer_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0);
    cr_assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connect: %s",
              strerror(errno));
    return fd;
}

static inline void write_all(int fd, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length > 0) {
        ssize_t n = send(fd, at, length, MSG_NOSIGNAL);
        cr_assert(n > 0, "send: %s", strerror(errno));
        at += n;
        length -= (size_t)n;
    }
}

/* false: the peer closed. */
static inline bool read_all(int fd, void *bytes, size_t length)
{
    uint8_t *at = bytes;
    while (length > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        cr_assert(poll(&p, 1, DEADLINE_MS) == 1, "nothing came before the deadline");
        ssize_t n = recv(fd, at, length, 0);
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

/* Waits until the broker closes; what it sends before is dropped. */
static inline void expect_closed(int fd)
{
    char drop[65536];
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        cr_assert(poll(&p, 1, DEADLINE_MS) == 1, "the broker did not close the connection");
        if (recv(fd, drop, sizeof(drop), 0) <= 0)
            return;
    }
}

static inline void peer_hello(struct peer *p)
{
    uint8_t mine[SP_HELLO_SIZE], theirs[SP_HELLO_SIZE];
    sp_hello_encode(mine, SP_REQ);
    write_all(p->fd, mine, sizeof(mine));
    cr_assert(read_all(p->fd, theirs, sizeof(theirs)));
    cr_assert(sp_hello_check(theirs, sizeof(theirs), SP_REP) == STATUS_OK);
}

static inline struct peer peer_open(const struct broker *b)
{
    struct peer p = {.fd = peer_socket(b->path), .transport = SP_IPC, .next_id = 0x80000001};
    peer_hello(&p);
    return p;
}

/* ---- records going up ---- */

struct body {
    struct buffer bytes;
    uint32_t records;
};

static inline void body_add(struct body *b, const struct wire_record *record)
{
    if (b->bytes.limit == 0)
        buffer_init(&b->bytes, 64 << 20);
    size_t size = wire_record_size(record->channel_length, record->payload_length);
    uint8_t *out = buffer_reserve(&b->bytes, size);
    cr_assert(out != NULL);
    wire_record_encode(out, record);
    buffer_commit(&b->bytes, size);
    b->records++;
}

static inline void body_name(struct body *b, uint8_t type, const char *name, bool is_pattern)
{
    body_add(b, &(struct wire_record){.type = type,
                                      .flags = is_pattern ? WIRE_PATTERN : 0,
                                      .channel = (const uint8_t *)name,
                                      .channel_length = (uint16_t)strlen(name)});
}

static inline void body_publish(struct body *b, uint64_t origin, uint64_t sequence,
                                const char *channel, const void *payload, size_t length)
{
    body_add(b, &(struct wire_record){.type = WIRE_PUBLISH,
                                      .origin = origin,
                                      .sequence = sequence,
                                      .channel = (const uint8_t *)channel,
                                      .channel_length = (uint16_t)strlen(channel),
                                      .payload = payload,
                                      .payload_length = length});
}

static inline void body_reset(struct body *b)
{
    buffer_release(&b->bytes);
    b->records = 0;
}

/* ---- requests and replies ---- */

struct answer {
    uint32_t id;
    struct wire_reply reply;
    const uint8_t *bytes; /* behind the reply header; valid until the next read from this peer */
    size_t length;
};

/* Sends one request whose body has two parts (an attach block and records, say). */
static inline void peer_send(struct peer *p, uint32_t id, const struct wire_request *request,
                             const void *block, size_t block_length, const struct body *body)
{
    size_t records = body != NULL ? buffer_length(&body->bytes) : 0;
    size_t length = 4 + WIRE_REQUEST_SIZE + block_length + records;
    uint8_t *bytes = malloc(SP_PREFIX_MAX + length);
    size_t at = sp_prefix_encode(bytes, p->transport, length);
    put_u32be(bytes + at, id);
    wire_request_encode(bytes + at + 4, request);
    at += 4 + WIRE_REQUEST_SIZE;
    if (block_length > 0)
        memcpy(bytes + at, block, block_length);
    at += block_length;
    if (records > 0)
        memcpy(bytes + at, buffer_bytes(&body->bytes), records);
    at += records;
    if (p->holds) {
        cr_assert(buffer_append(&p->held, bytes, at));
    } else {
        write_all(p->fd, bytes, at);
    }
    free(bytes);
}

/* What is requested from here on reaches the broker in one piece, with peer_let_go. */
static inline void peer_hold(struct peer *p)
{
    buffer_init(&p->held, 1 << 20);
    p->holds = true;
}

static inline void peer_let_go(struct peer *p)
{
    write_all(p->fd, buffer_bytes(&p->held), buffer_length(&p->held));
    buffer_release(&p->held);
    p->holds = false;
}

static inline uint32_t peer_request(struct peer *p, uint8_t operation, uint16_t flags,
                                    uint64_t session, uint64_t position, const struct body *body)
{
    uint32_t id = p->next_id++;
    peer_send(p, id,
              &(struct wire_request){.version = WIRE_VERSION,
                                     .operation = operation,
                                     .flags = flags,
                                     .records = body != NULL ? body->records : 0,
                                     .session = session,
                                     .position = position},
              NULL, 0, body);
    return id;
}

/* The next reply; false: the broker closed. */
static inline bool peer_next(struct peer *p, struct answer *a)
{
    uint8_t prefix[SP_PREFIX_MAX];
    uint64_t length;
    if (!read_all(p->fd, prefix, sp_prefix_size(p->transport)))
        return false;
    cr_assert(sp_prefix_decode(prefix, sizeof(prefix), p->transport, 64 << 20, &length) ==
              STATUS_OK);
    p->bytes = realloc(p->bytes, length);
    if (!read_all(p->fd, p->bytes, length))
        return false;
    size_t backtrace;
    cr_assert(sp_backtrace_decode(p->bytes, length, &backtrace) == STATUS_OK);
    a->id = get_u32be(p->bytes + backtrace - 4);
    cr_assert(wire_reply_decode(p->bytes + backtrace, length - backtrace, &a->reply) == STATUS_OK);
    a->bytes = p->bytes + backtrace + WIRE_REPLY_SIZE;
    a->length = length - backtrace - WIRE_REPLY_SIZE;
    p->epoch = a->reply.epoch;
    return true;
}

/* The reply to that request, which must be the next. */
static inline struct answer peer_answer(struct peer *p, uint32_t id)
{
    struct answer a;
    cr_assert(peer_next(p, &a), "the broker closed the connection");
    cr_assert(a.id == id, "a reply to %x came, not to %x", a.id, id);
    return a;
}

static inline struct answer peer_ask(struct peer *p, uint8_t operation, uint16_t flags,
                                     uint64_t session, uint64_t position, const struct body *body)
{
    return peer_answer(p, peer_request(p, operation, flags, session, position, body));
}

struct attaching {
    uint64_t session, generation, epoch, position, origin, unanswered;
    uint16_t flags;
    const char *name;
};

static inline uint32_t peer_attach_request(struct peer *p, const struct attaching *a,
                                           const struct body *body)
{
    const char *name = a->name != NULL ? a->name : "test";
    struct wire_attach block = {.generation = a->generation,
                                .epoch = a->epoch,
                                .origin = a->origin,
                                .unanswered = a->unanswered,
                                .pid = (uint32_t)getpid(),
                                .name = (const uint8_t *)name,
                                .name_length = strlen(name)};
    uint8_t bytes[512];
    wire_attach_encode(bytes, &block);
    uint32_t id = p->next_id++;
    peer_send(p, id,
              &(struct wire_request){.version = WIRE_VERSION,
                                     .operation = WIRE_ATTACH,
                                     .flags = a->flags,
                                     .records = body != NULL ? body->records : 0,
                                     .session = a->session,
                                     .position = a->position},
              bytes, wire_attach_size(&block), body);
    return id;
}

static inline struct answer peer_attach(struct peer *p, const struct attaching *a,
                                        const struct body *body)
{
    return peer_answer(p, peer_attach_request(p, a, body));
}

/* Attaches session `id`, generation 1, with one subscription (NULL: none; a `*` makes it a
 * pattern). */
static inline struct answer peer_join(struct peer *p, uint64_t id, const char *name)
{
    struct body list = {0};
    if (name != NULL)
        body_name(&list, WIRE_SUBSCRIBE, name, strchr(name, '*') != NULL);
    struct answer a = peer_attach(p, &(struct attaching){.session = id, .generation = 1}, &list);
    cr_assert(a.reply.status == STATUS_OK, "ATTACH: %s", status_text(a.reply.status));
    body_reset(&list);
    return a;
}

/* One publish outside any session; the reply. */
static inline struct answer peer_publish(struct peer *p, uint64_t session, uint64_t origin,
                                         uint64_t sequence, const char *channel,
                                         const char *payload)
{
    struct body body = {0};
    body_publish(&body, origin, sequence, channel, payload, strlen(payload));
    struct answer a = peer_ask(p, WIRE_SUBMIT, 0, session, 0, &body);
    body_reset(&body);
    return a;
}

/* The next record of a batch; false: there is no more. */
static inline bool answer_record(struct answer *a, struct wire_record *record)
{
    size_t used;
    if (a->length == 0)
        return false;
    cr_assert(wire_record_decode(a->bytes, a->length, record, &used) == STATUS_OK);
    a->bytes += used;
    a->length -= used;
    return true;
}

static inline bool record_is(const struct wire_record *record, const char *channel,
                             const char *payload)
{
    return record->channel_length == strlen(channel) &&
           memcmp(record->channel, channel, record->channel_length) == 0 &&
           record->payload_length == strlen(payload) &&
           memcmp(record->payload, payload, record->payload_length) == 0;
}

#endif
