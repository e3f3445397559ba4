/*
 * Load on Redis and NATS, the same work as bench_broker puts on brokerd, with a client of the same
 * kind: blocking sockets, their protocol spoken raw. See --help, and load/load.h.
 */
#include "load/load.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { IN_SIZE = 1 << 20 };

static const char *peer = "redis";
static bool nats;

/* ---- the server ---- */

static void exec_server(int port)
{
    char number[16], path[64];
    int null = open("/dev/null", O_WRONLY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(null, 1);
    snprintf(number, sizeof(number), "%d", load_opt.tcp ? port : 0);
    snprintf(path, sizeof(path), "%s/r.sock", load_dir);
    if (nats)
        execlp(load_opt.server, load_opt.server, "-a", "127.0.0.1", "-p", number, "-l", "/dev/null",
               NULL);
    else /* no persistence, and no subscriber dropped for being slow */
        execlp(load_opt.server, load_opt.server, "--port", number, "--bind", "127.0.0.1",
               "--unixsocket", path, "--dir", load_dir, "--save", "", "--appendonly", "no",
               "--client-output-buffer-limit", "pubsub 0 0 0", NULL);
    load_fail(load_opt.server);
}

static void start(void)
{
    int port = load_free_port();
    load_set_address("r.sock", port);
    load_server = fork();
    if (load_server == 0)
        exec_server(port);
    for (uint64_t end = load_now() + 10000000000u; load_now() < end;) {
        int fd = socket(load_address.ss_family, SOCK_STREAM, 0);
        bool there = connect(fd, (struct sockaddr *)&load_address, load_address_size) == 0;
        close(fd);
        if (there)
            return;
        if (waitpid(load_server, NULL, WNOHANG) == load_server)
            break;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    load_give_up("the server did not start");
}

/* ---- one connection ---- */

struct link {
    int fd;
    size_t start, end; /* what was read and not used yet */
    char in[IN_SIZE];
};

static void read_more(struct link *l)
{
    if (l->start > 0) {
        memmove(l->in, l->in + l->start, l->end - l->start);
        l->end -= l->start;
        l->start = 0;
    }
    ssize_t n = recv(l->fd, l->in + l->end, sizeof(l->in) - l->end, 0);
    if (n <= 0)
        load_fail("recv");
    l->end += (size_t)n;
}

/* Uses up one line. */
static void next_line(struct link *l)
{
    char *end;
    while ((end = memchr(l->in + l->start, '\n', l->end - l->start)) == NULL)
        read_more(l);
    if (l->in[l->start] == '-')
        load_give_up("the server answered: %.*s", (int)(end - l->in - (long)l->start),
                     l->in + l->start);
    l->start = (size_t)(end - l->in) + 1;
}

static struct link *link_open(bool verbose)
{
    char text[128];
    struct link *l = malloc(sizeof(*l));
    l->start = l->end = 0;
    load_connect(&l->fd);
    if (nats) {
        snprintf(text, sizeof(text), "CONNECT {\"verbose\":%s,\"pedantic\":false}\r\nPING\r\n",
                 verbose ? "true" : "false");
        next_line(l); /* INFO */
        load_write(l->fd, text, strlen(text));
        for (int lines = verbose ? 2 : 1; lines > 0; lines--)
            next_line(l); /* +OK, PONG */
    }
    return l;
}

static void subscribe_link(struct link *l)
{
    const char *text = nats ? "SUB c0 1\r\nPING\r\n" : "*2\r\n$9\r\nSUBSCRIBE\r\n$2\r\nc0\r\n";
    load_write(l->fd, text, strlen(text));
    for (int lines = nats ? 1 : 6; lines > 0; lines--)
        next_line(l);
}

/* ---- the workers ---- */

struct batch {
    char *bytes;
    size_t length, message_size, payload_at; /* within a message */
    unsigned messages;
    uint64_t sequence;
};

static void batch_make(struct batch *b, size_t bytes)
{
    char head[128];
    int n = snprintf(head, sizeof(head),
                     nats ? "PUB c0 %u\r\n" : "*3\r\n$7\r\nPUBLISH\r\n$2\r\nc0\r\n$%u\r\n",
                     load_opt.size);
    b->payload_at = (size_t)n;
    b->message_size = (size_t)n + load_opt.size + 2;
    b->messages = (unsigned)(bytes / b->message_size) + 1;
    b->length = b->messages * b->message_size;
    b->bytes = calloc(1, b->length);
    b->sequence = 1;
    for (unsigned i = 0; i < b->messages; i++) {
        char *at = b->bytes + i * b->message_size;
        memcpy(at, head, (size_t)n);
        memcpy(at + b->message_size - 2, "\r\n", 2);
    }
}

/* The payload begins with the sequence number and, when wanted, the time of sending. */
static void batch_send(const struct link *l, struct batch *b, bool timed)
{
    char *at = b->bytes + b->payload_at;
    for (unsigned i = 0; i < b->messages; i++, at += b->message_size) {
        memcpy(at, &b->sequence, 8);
        b->sequence++;
        if (timed) {
            uint64_t now = load_now();
            memcpy(at + 8, &now, 8);
        }
    }
    load_write(l->fd, b->bytes, b->length);
}

static void publish_batched(void)
{
    struct link *l = link_open(false);
    struct batch b;
    batch_make(&b, load_opt.batch);
    unsigned unanswered = 0;
    load_board->ready++;
    while (!load_board->stop) {
        while (!nats && unanswered > (LOAD_OUTSTANDING - 1) * b.messages) {
            char *at = l->in + l->start, *end;
            while ((end = memchr(at, '\n', (size_t)(l->in + l->end - at))) != NULL) {
                at = end + 1;
                unanswered--;
            }
            l->start = (size_t)(at - l->in);
            if (unanswered > (LOAD_OUTSTANDING - 1) * b.messages)
                read_more(l);
        }
        load_wait_for_subscribers(b.message_size);
        batch_send(l, &b, false);
        unanswered += b.messages;
        load_board->published += b.messages;
    }
}

static void subscribe(unsigned number, unsigned count, bool timed)
{
    (void)count; /* one process each */
    char head[128];
    int head_size = snprintf(
        head, sizeof(head), nats ? "MSG c0 1 %u\r\n" : "*3\r\n$7\r\nmessage\r\n$2\r\nc0\r\n$%u\r\n",
        load_opt.size);
    size_t size = (size_t)head_size + load_opt.size + 2;
    uint64_t last = 0, sequence, sent_at;
    struct link *l = link_open(false);
    subscribe_link(l);
    load_board->ready++;
    for (;;) {
        uint64_t received = 0;
        for (; l->end - l->start >= size; l->start += size, received++) {
            const char *at = l->in + l->start;
            if (memcmp(at, head, (size_t)head_size) != 0)
                load_give_up("unexpected: %.40s", at);
            memcpy(&sequence, at + head_size, 8);
            if (load_opt.publishers == 1 && sequence != last + 1)
                load_board->gaps++;
            last = sequence;
            if (timed) {
                memcpy(&sent_at, at + head_size + 8, 8);
                load_sample(load_now() - sent_at);
            }
        }
        load_board->subscriber[number].received += received;
        read_more(l);
    }
}

/* One request, then its answer. */
static void publish_window(void)
{
    struct link *l = link_open(true);
    struct batch b;
    batch_make(&b, 0);
    load_board->ready++;
    while (!load_board->stop) {
        uint64_t start = load_now();
        batch_send(l, &b, false);
        next_line(l);
        load_sample(load_now() - start);
        load_board->published++;
    }
}

struct paced {
    struct link *link;
    struct batch batch;
};

static void send_timed(void *context)
{
    struct paced *p = context;
    batch_send(p->link, &p->batch, true);
}

static void drain_answers(void *context)
{
    struct paced *p = context;
    read_more(p->link);
    p->link->start = p->link->end = 0;
}

static void publish_at_rate(void)
{
    struct paced p = {.link = link_open(false)};
    batch_make(&p.batch, 0);
    load_board->ready++;
    load_at_rate(p.link->fd, send_timed, drain_answers, &p);
}

/* ---- the run ---- */

static const char help[] =
    "Usage: peer_broker [option ...]\n"
    "  --peer P         redis (over a unix socket, with --tcp over tcp) or nats (tcp) (default "
    "redis)\n";

static bool own_option(const char *option, const char *value)
{
    if (value == NULL || strcmp(option, "--peer") != 0)
        return false;
    peer = value;
    return true;
}

int main(int argc, char **argv)
{
    load_opt.program = "peer_broker";
    if (!load_parse(argc, argv, help, own_option))
        return 2;
    nats = strcmp(peer, "nats") == 0;
    if ((!nats && strcmp(peer, "redis") != 0) || load_opt.size >= IN_SIZE / 2 ||
        load_opt.processes > 0)
        load_give_up("--peer is redis or nats, --size below %d, --processes is not for peers",
                     IN_SIZE / 2);
    load_opt.tcp = load_opt.tcp || nats;
    if (load_opt.server == NULL)
        load_opt.server = nats ? "nats-server" : "redis-server";
    return load_run(&(struct load_driver){.start = start,
                                          .publish_batched = publish_batched,
                                          .publish_window = publish_window,
                                          .publish_at_rate = publish_at_rate,
                                          .subscribe = subscribe,
                                          .server_name = peer});
}
