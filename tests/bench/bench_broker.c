/*
 * Load on a real brokerd, over blocking unix or tcp sockets, speaking SP directly: what the broker
 * alone can do, with its journal and with authentication. See --help, and load/load.h.
 *
 * Publishers keep 4 SUBMITs outstanding, subscribers 8 to 24 FETCHes, as the gem's link does. A GAP
 * fails the run, so that the figure is one of deliveries; every subscriber checks that ids only
 * grow.
 */
#include "auth.h"
#include "bytes.h"
#include "load/load.h"
#include "sp.h"
#include "wire.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    BATCHES = 64, /* different SUBMITs, so that many channels have their turn */
    READ_SIZE = 256 * 1024,
    CREDITS = WIRE_FULL_CREDITS, /* FETCHes parked */
    SMALL_CREDITS = 24,          /* while batches are small */
    MESSAGE_MAX = 64 << 20,
    EVENTS = 64
};

static const char secret[] = "the secret of one benchmark";
static const char name[] = "bench";
static enum sp_transport transport = SP_IPC;

static void draw(void *out, size_t size)
{
    if (getrandom(out, size, 0) != (ssize_t)size)
        load_fail("getrandom");
}

/* ---- the server ---- */

static void write_secret(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || write(fd, secret, strlen(secret)) != (ssize_t)strlen(secret))
        load_fail(path);
    close(fd);
}

static void exec_broker(const char *url, const char *secret_file, int ready)
{
    char fd[16];
    snprintf(fd, sizeof(fd), "%d", ready);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(load_opt.server, load_opt.server, "--listen", url, "--ready-fd", fd, "--log-level",
          "warn", "--secret-file", secret_file, load_opt.no_journal ? "--no-journal" : NULL, NULL);
    load_fail(load_opt.server);
}

/* ---- one connection ---- */

struct link {
    int fd;
    uint32_t next_id;
    uint64_t session;
    unsigned parked; /* FETCHes that are not answered yet */
    unsigned small;  /* the latest so many batches were */
    uint64_t last;   /* id */
    uint8_t *in;     /* what was read and not used yet */
    size_t start, end, capacity;
};

/* At least `length` bytes at in + start. */
static void need(struct link *l, size_t length)
{
    while (l->end - l->start < length) {
        if (l->start > 0 && l->capacity - l->start < length) {
            memmove(l->in, l->in + l->start, l->end - l->start);
            l->end -= l->start;
            l->start = 0;
        }
        if (l->capacity < length) {
            l->capacity = length > MESSAGE_MAX / 2 ? MESSAGE_MAX : 2 * length;
            l->in = realloc(l->in, l->capacity);
        }
        ssize_t n = recv(l->fd, l->in + l->end, l->capacity - l->end, 0);
        if (n <= 0)
            load_fail("recv");
        l->end += (size_t)n;
    }
}

/* The next reply whatever its status: its bytes behind the header, valid until the next call. */
static const uint8_t *any_reply(struct link *l, struct wire_reply *reply, size_t *length)
{
    size_t prefix = sp_prefix_size(transport);
    uint64_t body;
    if (l->start == l->end)
        l->start = l->end = 0;
    need(l, prefix);
    if (sp_prefix_decode(l->in + l->start, prefix, transport, MESSAGE_MAX, &body) != STATUS_OK)
        load_give_up("a reply does not begin as one");
    need(l, prefix + body);
    const uint8_t *at = l->in + l->start + prefix + 4;
    *length = body - 4 - WIRE_REPLY_SIZE;
    if (wire_reply_decode(at, body - 4, reply) != STATUS_OK)
        load_give_up("a reply that is none");
    l->start += prefix + body;
    return at + WIRE_REPLY_SIZE;
}

static const uint8_t *next_reply(struct link *l, struct wire_reply *reply, size_t *length)
{
    const uint8_t *at = any_reply(l, reply, length);
    if (reply->status != STATUS_OK)
        load_give_up("the broker answered: %s", status_text(reply->status));
    return at;
}

static bool has_complete_reply(const struct link *l)
{
    uint64_t body;
    size_t have = l->end - l->start, prefix = sp_prefix_size(transport);
    return sp_prefix_decode(l->in + l->start, have, transport, MESSAGE_MAX, &body) == STATUS_OK &&
           have >= prefix + body;
}

static size_t put_head(struct link *l, uint8_t *out, size_t body, uint8_t operation, uint16_t flags,
                       uint32_t records)
{
    size_t at = sp_prefix_encode(out, transport, 4 + WIRE_REQUEST_SIZE + body);
    put_u32be(out + at, l->next_id++ | 0x80000000);
    wire_request_encode(out + at + 4, &(struct wire_request){.version = WIRE_VERSION,
                                                             .operation = operation,
                                                             .flags = flags,
                                                             .records = records,
                                                             .session = l->session});
    return at + 4 + WIRE_REQUEST_SIZE;
}

static void link_open(struct link *l)
{
    uint8_t hello[SP_HELLO_SIZE];
    *l = (struct link){.capacity = READ_SIZE};
    l->in = malloc(l->capacity);
    load_connect(&l->fd);
    sp_hello_encode(hello, SP_REQ);
    load_write(l->fd, hello, sizeof(hello));
    need(l, sizeof(hello));
    l->start = l->end = 0;
    draw(&l->session, sizeof(l->session));
}

/* What is subscribed to: so many names made from a format with one %u. */
struct names {
    const char *format;
    unsigned count;
    bool are_patterns;
};

static size_t put_subscriptions(uint8_t *out, size_t room, const struct names *names,
                                unsigned *done)
{
    size_t length = 0;
    for (; *done < names->count && length + 128 < room; ++*done) {
        char text[64];
        int n = snprintf(text, sizeof(text), names->format, *done);
        struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                     .flags = names->are_patterns ? WIRE_PATTERN : 0,
                                     .channel = (const uint8_t *)text,
                                     .channel_length = (uint16_t)n};
        wire_record_encode(out + length, &record);
        length += wire_record_size((size_t)n, 0);
    }
    return length;
}

static void send_attach(struct link *l, const struct wire_attach *attach, const struct names *names)
{
    enum { PART_MAX = WIRE_ATTACH_PART_SIZE / 2 };
    uint8_t head[256], *body = malloc(PART_MAX);
    struct wire_reply reply;
    for (unsigned done = 0, last = 0; last == 0;) {
        unsigned first = done;
        wire_attach_encode(body, attach);
        size_t length = wire_attach_size(attach);
        length += put_subscriptions(body + length, PART_MAX - length, names, &done);
        last = done == names->count;
        size_t at = put_head(l, head, length, WIRE_ATTACH, last ? 0 : WIRE_MORE, done - first);
        load_write(l->fd, head, at);
        load_write(l->fd, body, length);
        next_reply(l, &reply, &length);
    }
    free(body);
}

/* Asks for the broker's nonce and answers it; a long list goes in parts. */
static void link_attach(struct link *l, const struct names *names)
{
    uint8_t out[512], proof[AUTH_NONCE_SIZE + AUTH_MAC_SIZE], nonce[AUTH_NONCE_SIZE];
    struct wire_attach attach = {
        .generation = 1, .pid = (uint32_t)getpid(), .name = (const uint8_t *)name};
    struct wire_reply reply;
    size_t length;
    attach.name_length = (uint16_t)strlen(name);
    size_t at = put_head(l, out, wire_attach_size(&attach), WIRE_ATTACH, 0, 0);
    wire_attach_encode(out + at, &attach);
    load_write(l->fd, out, at + wire_attach_size(&attach));
    const uint8_t *block = any_reply(l, &reply, &length);
    if (reply.status != STATUS_AUTH || length < WIRE_ATTACH_REPLY_SIZE + AUTH_NONCE_SIZE)
        load_give_up("the broker asked for no proof: %s", status_text(reply.status));
    memcpy(nonce, block + WIRE_ATTACH_REPLY_SIZE, sizeof(nonce));
    draw(proof, AUTH_NONCE_SIZE);
    if (!auth_client_proof(&(struct auth_exchange){.secret = secret,
                                                   .secret_length = strlen(secret),
                                                   .nonce = nonce,
                                                   .client_nonce = proof,
                                                   .name = name,
                                                   .name_length = strlen(name)},
                           proof + AUTH_NONCE_SIZE))
        load_give_up("no proof could be made");
    attach.proof = proof;
    attach.proof_length = sizeof(proof);
    send_attach(l, &attach, names);
}

static const struct names nothing = {"", 0, false};

/* ---- publishing ---- */

struct submit {
    struct link *link;
    uint8_t *bytes;
    size_t length, head;
    uint32_t records;
    uint64_t sequence;
};

/* The number-th of several, whose records are spread over all channels. */
static void submit_make(struct submit *s, struct link *l, uint32_t records, uint64_t origin,
                        unsigned number)
{
    uint8_t *payload = calloc(1, load_opt.size);
    *s = (struct submit){.link = l, .records = records, .sequence = 1};
    s->head = sp_prefix_size(transport) + 4 + WIRE_REQUEST_SIZE;
    s->bytes = malloc(s->head + records * wire_record_size(16, load_opt.size));
    s->length = s->head;
    for (uint32_t i = 0; i < records; i++) {
        char text[32];
        uint64_t spread = ((uint64_t)number * records + i) * 2654435761u; /* prime */
        int n = snprintf(text, sizeof(text), "c%u", (unsigned)(spread % load_opt.channels));
        struct wire_record record = {.type = WIRE_PUBLISH,
                                     .flags = WIRE_BINARY,
                                     .origin = origin,
                                     .channel = (const uint8_t *)text,
                                     .channel_length = (uint16_t)n,
                                     .payload = payload,
                                     .payload_length = load_opt.size};
        wire_record_encode(s->bytes + s->length, &record);
        s->length += wire_record_size((size_t)n, load_opt.size);
    }
    free(payload);
}

static void submit_send(struct submit *s, uint16_t flags)
{
    put_head(s->link, s->bytes, s->length - s->head, WIRE_SUBMIT, flags, s->records);
    uint8_t *at = s->bytes + s->head;
    for (uint32_t i = 0; i < s->records; i++, at += size_align8(get_u32le(at)))
        put_u64le(at + 24, s->sequence++);
    load_write(s->link->fd, s->bytes, s->length);
}

static uint64_t publisher_open(struct link *l)
{
    uint64_t origin;
    draw(&origin, sizeof(origin));
    link_open(l);
    link_attach(l, &nothing);
    return origin;
}

static void publish_batched(void)
{
    static struct submit set[BATCHES];
    struct link l;
    struct wire_reply reply;
    size_t length;
    uint64_t origin = publisher_open(&l), sequence = 1;
    unsigned batches = load_opt.channels > 1 ? BATCHES : 1, outstanding = 0;
    uint32_t records = (uint32_t)(load_opt.batch / wire_record_size(2, load_opt.size)) + 1;
    for (unsigned i = 0; i < batches; i++)
        submit_make(&set[i], &l, records, origin, i);
    load_board->ready++;
    for (unsigned turn = 0; !load_board->stop; turn++) {
        struct submit *s = &set[turn % batches];
        for (; outstanding == LOAD_OUTSTANDING; outstanding--)
            next_reply(&l, &reply, &length);
        load_wait_for_subscribers(s->length / s->records);
        s->sequence = sequence;
        submit_send(s, 0);
        sequence = s->sequence;
        outstanding++;
        load_board->published += s->records;
    }
}

/* One request, then its answer. */
static void publish_window(void)
{
    struct link l;
    struct submit s;
    struct wire_reply reply;
    size_t length;
    submit_make(&s, &l, 1, publisher_open(&l), 0);
    load_board->ready++;
    while (!load_board->stop) {
        uint64_t start = load_now();
        submit_send(&s, WIRE_ANSWER_FIRST);
        next_reply(&l, &reply, &length);
        load_sample(load_now() - start);
        load_board->published++;
    }
}

/* The payload begins with the time of sending. */
static void send_timed(void *submit)
{
    struct submit *s = submit;
    put_u64le(s->bytes + s->head + WIRE_RECORD_SIZE + 2, load_now());
    submit_send(s, 0);
}

static void drain_replies(void *submit)
{
    struct submit *s = submit;
    struct wire_reply reply;
    size_t length;
    do
        next_reply(s->link, &reply, &length);
    while (has_complete_reply(s->link));
}

static void publish_at_rate(void)
{
    struct link l;
    struct submit s;
    submit_make(&s, &l, 1, publisher_open(&l), 0);
    load_board->ready++;
    load_at_rate(l.fd, send_timed, drain_replies, &s);
}

/* ---- subscribing ---- */

static void fetch(struct link *l, unsigned wanted)
{
    uint8_t out[SMALL_CREDITS * 64];
    size_t at = 0;
    for (; l->parked < wanted; l->parked++)
        at += put_head(l, out + at, 0, WIRE_FETCH, 0, 0);
    load_write(l->fd, out, at);
}

static void take_records(struct link *l, const uint8_t *at, size_t length, bool timed)
{
    const uint8_t *end = at + length;
    for (; at < end; at += size_align8(get_u32le(at))) {
        uint64_t id = get_u64le(at + 8);
        if (at[4] == WIRE_GAP || id <= l->last)
            load_board->gaps++;
        l->last = id;
        if (timed)
            load_sample(load_now() - get_u64le(at + WIRE_RECORD_SIZE + 2));
    }
}

/* One reply at least, and the others that came with it. FETCHes go out again when half of those for
 * large batches are used up, and more while batches are small, as the adapter's link does it. */
static void receive(struct link *l, unsigned number, bool timed)
{
    do {
        struct wire_reply reply;
        size_t length;
        const uint8_t *records = next_reply(l, &reply, &length);
        take_records(l, records, length, timed);
        load_board->subscriber[number].received += reply.records;
        l->small = length <= WIRE_SMALL_BATCH ? l->small + 1 : 0;
        l->parked--;
    } while (has_complete_reply(l));
    if (l->parked <= CREDITS / 2)
        fetch(l, l->small >= CREDITS / 2 ? SMALL_CREDITS : CREDITS);
}

static void subscriber_open(struct link *l)
{
    link_open(l);
    link_attach(l, &(struct names){load_opt.by_pattern ? "c%u*" : "c%u", load_opt.channels,
                                   load_opt.by_pattern});
    fetch(l, CREDITS);
    load_board->ready++;
}

static void subscribe(unsigned first, unsigned count, bool timed)
{
    struct link *links = calloc(count, sizeof(*links));
    struct epoll_event events[EVENTS];
    int set = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < count; i++) {
        subscriber_open(&links[i]);
        epoll_ctl(set, EPOLL_CTL_ADD, links[i].fd,
                  &(struct epoll_event){.events = EPOLLIN, .data.u32 = i});
    }
    while (count == 1) /* a system call less for each batch */
        receive(&links[0], first, timed);
    for (;;) {
        int n = epoll_wait(set, events, EVENTS, -1);
        for (int i = 0; i < n; i++)
            receive(&links[events[i].data.u32], first + events[i].data.u32, timed);
    }
}

/* ---- the run ---- */

static struct link others;

static void start(void)
{
    int ready[2], port = load_free_port();
    char url[128], secret_file[64], byte;
    load_set_address("b.sock", port);
    transport = load_opt.tcp ? SP_TCP : SP_IPC;
    if (load_opt.tcp)
        snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
    else
        snprintf(url, sizeof(url), "ipc://%s/b.sock", load_dir);
    snprintf(secret_file, sizeof(secret_file), "%s/secret", load_dir);
    write_secret(secret_file);
    if (pipe(ready) != 0)
        load_fail("pipe");
    load_server = fork();
    if (load_server == 0)
        exec_broker(url, secret_file, ready[1]);
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        load_give_up("%s did not start", load_opt.server);
    close(ready[0]);
    if (load_opt.other_patterns > 0) { /* a session of the parent's, which never fetches */
        link_open(&others);
        link_attach(&others, &(struct names){"room:%u:*", load_opt.other_patterns, true});
    }
}

static bool own_option(const char *option, const char *value)
{
    if (value == NULL) {
        load_opt.by_pattern |= strcmp(option, "--patterns") == 0;
        load_opt.no_journal |= strcmp(option, "--no-journal") == 0;
        return strcmp(option, "--patterns") == 0 || strcmp(option, "--no-journal") == 0;
    }
    unsigned *number = strcmp(option, "--channels") == 0         ? &load_opt.channels
                       : strcmp(option, "--other-patterns") == 0 ? &load_opt.other_patterns
                                                                 : NULL;
    if (number != NULL)
        *number = (unsigned)strtoul(value, NULL, 10);
    return number != NULL;
}

static const char help[] =
    "Usage: bench_broker [option ...]\n"
    "  --channels N     channels used, all subscribed by all (default 1)\n"
    "  --patterns       subscribe by pattern\n"
    "  --other-patterns N  patterns of another session that match nothing published (default 0)\n"
    "  --no-journal     the broker keeps its ring in anonymous memory\n";

int main(int argc, char **argv)
{
    load_opt.program = "bench_broker";
    load_opt.server = BROKERD_PROGRAM;
    if (!load_parse(argc, argv, help, own_option))
        return 2;
    return load_run(&(struct load_driver){.start = start,
                                          .publish_batched = publish_batched,
                                          .publish_window = publish_window,
                                          .publish_at_rate = publish_at_rate,
                                          .subscribe = subscribe,
                                          .server_name = "brokerd"});
}
