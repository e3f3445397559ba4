#include "fault_server.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOTS = FAULT_CLIENTS_MAX + 1, INPUT = 65536, PAYLOAD_MAX = 8192 };

struct peer {
    int fd;
    bool open, sse, publishes;
    size_t length;
    uint8_t *input;
    char held[PAYLOAD_MAX]; /* a delivery that waits for the next one */
    size_t held_length;
};

struct server {
    const struct fault_plan *plan;
    struct fault_counts *counts;
    struct peer peer[SLOTS];
    uint64_t messages, deliveries;
};

static void send_bytes(struct peer *p, const void *bytes, size_t length)
{
    if (send(p->fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
        _exit(3);
}

static void send_payload(struct peer *p, const char *payload, size_t length)
{
    char out[PAYLOAD_MAX + 16];
    size_t at;
    if (p->sse) {
        at = (size_t)sprintf(out, "id: 1\ndata: ");
        memcpy(out + at, payload, length);
        memcpy(out + at + length, "\n\n", 2);
        send_bytes(p, out, at + length + 2);
        return;
    }
    out[0] = (char)0x81;
    if (length < 126) {
        out[1] = (char)length;
        at = 2;
    } else {
        out[1] = 126;
        out[2] = (char)(length >> 8);
        out[3] = (char)(length & 255);
        at = 4;
    }
    memcpy(out + at, payload, length);
    send_bytes(p, out, at + length);
}

static bool is_nth(const struct server *s, unsigned n)
{
    return n > 0 && s->messages > FAULTLESS && s->deliveries % n == 0;
}

static void send_held(struct server *s, struct peer *p, bool after_another)
{
    if (p->held_length == 0)
        return;
    send_payload(p, p->held, p->held_length);
    p->held_length = 0;
    s->counts->swapped += after_another;
}

static void deliver(struct server *s, struct peer *p, const char *payload, size_t length)
{
    char other[PAYLOAD_MAX];
    s->deliveries++;
    if (is_nth(s, s->plan->drop)) {
        s->counts->dropped++;
        return;
    }
    if (is_nth(s, s->plan->swap) && p->held_length == 0) {
        memcpy(p->held, payload, length);
        p->held_length = length;
        return;
    }
    send_payload(p, payload, length);
    send_held(s, p, true);
    if (is_nth(s, s->plan->duplicate)) {
        send_payload(p, payload, length);
        s->counts->duplicated++;
    }
    if (is_nth(s, s->plan->invent)) {
        memcpy(other, payload, length);
        other[2] = '7'; /* a sequence number far ahead */
        send_payload(p, other, length);
        s->counts->invented++;
    }
}

static void close_one(struct server *s)
{
    for (int i = 0; i < SLOTS; i++) {
        struct peer *p = &s->peer[i];
        if (p->open && !p->publishes) {
            close(p->fd);
            p->open = false;
            s->counts->closed++;
            return;
        }
    }
}

static void publish(struct server *s, const char *payload, size_t length)
{
    s->messages++;
    if (s->messages == s->plan->pause_at)
        nanosleep(&(struct timespec){0, FAULT_PAUSE_MS * 1000000L}, NULL);
    if (s->messages == s->plan->close_at)
        close_one(s);
    for (int i = 0; i < SLOTS; i++)
        if (s->peer[i].open && !s->peer[i].publishes)
            deliver(s, &s->peer[i], payload, length);
}

static void greet(struct peer *p)
{
    static const char ws[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    static const char sse[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n";
    p->input[p->length] = '\0';
    p->sse = strstr((char *)p->input, "text/event-stream") != NULL;
    p->publishes = strncmp((char *)p->input, "GET /pub", 8) == 0;
    p->open = true;
    p->length = 0;
    if (p->sse)
        send_bytes(p, sse, sizeof(sse) - 1);
    else
        send_bytes(p, ws, sizeof(ws) - 1);
}

/* All whole frames; the load's own are short and masked. */
static void take_frames(struct server *s, struct peer *p)
{
    size_t used = 0;
    while (p->length - used >= 6) {
        uint8_t *at = p->input + used;
        size_t length = at[1] & 127, header = 6;
        if (length == 126) {
            length = (size_t)at[2] << 8 | at[3];
            header = 8;
        }
        if (length > PAYLOAD_MAX || p->length - used < header + length)
            break;
        for (size_t i = 0; i < length; i++)
            at[header + i] ^= at[header - 4 + (i & 3)];
        if ((at[0] & 15) == 1)
            publish(s, (char *)at + header, length);
        used += header + length;
    }
    p->length -= used;
    memmove(p->input, p->input + used, p->length);
}

static void read_peer(struct server *s, struct peer *p)
{
    ssize_t n = recv(p->fd, p->input + p->length, INPUT - 1 - p->length, 0);
    if (n <= 0) {
        close(p->fd);
        p->open = false;
        p->fd = -1;
        return;
    }
    p->length += (size_t)n;
    if (p->open)
        take_frames(s, p);
    else if (memmem(p->input, p->length, "\r\n\r\n", 4) != NULL)
        greet(p);
}

static void accept_peer(struct server *s, int listener)
{
    int fd = accept(listener, NULL, NULL), one = 1;
    for (int i = 0; fd >= 0 && i < SLOTS; i++) {
        struct peer *p = &s->peer[i];
        if (p->fd >= 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        p->fd = fd;
        p->input = malloc(INPUT);
        return;
    }
    _exit(3);
}

static void serve(struct server *s, int listener)
{
    for (int i = 0; i < SLOTS; i++)
        s->peer[i].fd = -1;
    for (;;) {
        struct pollfd poll_fd[SLOTS + 1] = {{.fd = listener, .events = POLLIN}};
        for (int i = 0; i < SLOTS; i++)
            poll_fd[i + 1] = (struct pollfd){.fd = s->peer[i].fd, .events = POLLIN};
        int n = poll(poll_fd, SLOTS + 1, 100);
        if ((poll_fd[0].revents & POLLIN) != 0)
            accept_peer(s, listener);
        for (int i = 0; i < SLOTS; i++) {
            if (poll_fd[i + 1].revents != 0)
                read_peer(s, &s->peer[i]);
            else if (n == 0 && s->peer[i].open)
                send_held(s, &s->peer[i], false);
        }
    }
}

pid_t fault_server_start(const struct fault_plan *plan, struct fault_counts *counts, uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) != 0 ||
        listen(listener, 1024) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        return -1;
    *port = ntohs(address.sin_port);
    pid_t pid = fork();
    if (pid == 0) {
        static struct server server;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        server.plan = plan;
        server.counts = counts;
        serve(&server, listener);
    }
    close(listener);
    return pid;
}
