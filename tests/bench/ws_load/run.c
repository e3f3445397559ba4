#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 256, IDLE_FIRST = 50 };
#define SECOND UINT64_C(1000000000)

void load_init(struct load *load, const struct options *options)
{
    memset(load, 0, sizeof(*load));
    load->options = options;
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->client = calloc(options->clients + IDLE_FIRST, sizeof(*load->client));
    load->buffer = malloc(READ_BUFFER_SIZE);
    load->ring = read_ring_new();
    load->publisher.fd = load->command_pipe = -1;
    load->priming = true;
    if (load->epoll < 0 || load->client == NULL || load->buffer == NULL)
        abort();
}

void load_release(struct load *load)
{
    for (unsigned i = 0; i < load->opened; i++)
        client_close(load, &load->client[i]);
    if (load->publisher.fd >= 0)
        client_close(load, &load->publisher);
    if (load->command_pipe >= 0)
        close(load->command_pipe);
    close(load->epoll);
    free(load->client);
    free(load->buffer);
    read_ring_free(load->ring);
    free(load->out);
}

bool load_fail(struct load *load, const char *format, ...)
{
    va_list arguments;
    if (load->problem[0] != '\0')
        return false;
    va_start(arguments, format);
    vsnprintf(load->problem, sizeof(load->problem), format, arguments);
    va_end(arguments);
    for (char *c = load->problem; *c != '\0'; c++)
        if (*c < ' ' || *c == '"' || *c == '\\')
            *c = ' ';
    return false;
}

bool load_turn(struct load *load, uint64_t timeout_ns)
{
    struct epoll_event event[EVENTS_MAX];
    struct timespec timeout = {(time_t)(timeout_ns / SECOND), (long)(timeout_ns % SECOND)};
    int n = epoll_pwait2(load->epoll, event, EVENTS_MAX, &timeout, NULL);
    if (n < 0 && errno != EINTR)
        return load_fail(load, "epoll: %s", strerror(errno));
    struct client *readable[READ_ALL_MOST];
    unsigned count = 0;
    for (int i = 0; i < n; i++) {
        struct client *c = event[i].data.ptr;
        if (event[i].events != EPOLLIN || c->state != CLIENT_READY || c->held_length > 0)
            client_handle(load, c, event[i].events);
        else
            readable[count++] = c;
        if (count == READ_ALL_MOST || i == n - 1) {
            clients_read(load, readable, count);
            count = 0;
        }
    }
    return true;
}

/* ---- receiving ---- */

static void account(struct load *load, uint64_t sequence)
{
    uint32_t *arrived = &load->arrived[sequence % (2 * WINDOW_MAX)];
    load->accounted++;
    ++*arrived;
    while (load->completed < load->sent &&
           load->arrived[load->completed % (2 * WINDOW_MAX)] >= load->options->clients)
        load->completed++;
}

static void prime(struct load *load, struct client *c, uint64_t sequence)
{
    c->receipt.next = sequence + 1;
    if (++load->arrived[sequence % (2 * WINDOW_MAX)] < load->options->clients)
        return;
    load->priming = false;
    load->base = load->completed = sequence + 1;
    for (uint64_t later = load->base; later < load->sent;
         later++) /* some clients have these already */
        load->accounted += load->arrived[later % (2 * WINDOW_MAX)];
}

static void echo(struct load *load, struct client *c)
{
    char text[65536];
    size_t size = load->options->size;
    message_write(text, size, c->receipt.next, now_ns());
    load->sent++;
    if (!client_send(c, 1, text, size))
        load_fail(load, "send: %s", strerror(errno));
}

void load_deliver(struct load *load, struct client *c, uint64_t sequence, uint64_t sent_at,
                  uint64_t now)
{
    bool is_echo = load->options->mode == MODE_ECHO;
    if (c->is_publisher)
        return;
    if (load->priming && !is_echo) {
        if (sequence < load->sent)
            prime(load, c, sequence);
        return;
    }
    if (is_echo ? sequence > c->receipt.next : sequence >= load->sent) {
        load->faults.foreign++;
        return;
    }
    if (load->measuring)
        histogram_add(&load->latency, now > sent_at ? now - sent_at : 0);
    load->deliveries++;
    if (!is_echo)
        for (uint64_t first = c->receipt.next; first <= sequence; first++)
            account(load, first);
    if (receipt_note(&c->receipt, sequence, &load->faults) > 0 && is_echo)
        echo(load, c);
}

/* ---- sending ---- */

/* Fills the window, or sends what is due: the time of sending is the time at which it was due, so
 * that a server that is late is not spared the wait. Returns how long nothing is to be sent. */
static uint64_t send_due(struct load *load, uint64_t start, uint64_t *count)
{
    const struct options *o = load->options;
    uint64_t now = now_ns(), wait = SECOND / 10;
    if (o->window > 0) {
        while (load->sent - load->completed < o->window && load->problem[0] == '\0')
            load_publish(load, now_ns());
    } else {
        uint64_t due = start + (uint64_t)((double)*count * 1e9 / o->rate);
        while (due <= now && load->problem[0] == '\0') {
            load_publish(load, due);
            ++*count;
            due = start + (uint64_t)((double)*count * 1e9 / o->rate);
        }
        wait = due - now < wait ? due - now : wait;
        if (load->sent - load->completed > WINDOW_MAX)
            load_fail(load, "the server is %d messages behind the rate", WINDOW_MAX);
    }
    load_publish_flush(load);
    return wait;
}

static bool send_for(struct load *load, double seconds, const char *what)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), count = 0;
    uint64_t last_change = start, deliveries = load->deliveries;
    for (uint64_t now = start; now < end; now = now_ns()) {
        uint64_t wait = SECOND / 10;
        if (load->options->mode == MODE_BROADCAST)
            wait = send_due(load, start, &count);
        if (!load_turn(load, wait) || load->problem[0] != '\0')
            return false;
        if (load->deliveries != deliveries) {
            deliveries = load->deliveries;
            last_change = now;
        } else if (now - last_change > SECOND / 2 && load->options->mode == MODE_BROADCAST &&
                   load->options->window > 0) { /* at a rate others come anyway */
            if (load->sent - load->completed > load->options->window + STALL_SECONDS)
                break;
            load_publish(load, now); /* a message that got lost shows when a later one comes */
            last_change = now;
        }
        progress(load, what, now - start, end - start);
    }
    return true;
}

/* Subscriptions may still be under way when the handshake is answered: messages are sent, one each
 * 20 ms, until one has reached every client. From the next one on all are checked. */
static bool prime_all(struct load *load)
{
    uint64_t start = now_ns();
    while (load->priming) {
        load_publish(load, now_ns());
        load_publish_flush(load);
        for (uint64_t until = now_ns() + SECOND / 50; load->priming && now_ns() < until;)
            if (!load_turn(load, SECOND / 1000) || load->problem[0] != '\0')
                return false;
        if (now_ns() - start > STALL_SECONDS * SECOND)
            return load_fail(load, "none of the first %llu messages reached all clients",
                             (unsigned long long)load->sent);
    }
    return true;
}

/* Waits for what is under way; what does not come is lost. */
static void drain(struct load *load)
{
    bool is_echo = load->options->mode == MODE_ECHO;
    uint64_t due = is_echo ? 0 : (load->sent - load->base) * load->options->clients;
    uint64_t last_change = now_ns(), accounted = load->accounted;
    while (load->accounted < due && now_ns() - last_change < 3 * SECOND) {
        if (!load_turn(load, SECOND / 10) || !load_publish_flush(load))
            break;
        if (load->accounted != accounted)
            last_change = now_ns();
        accounted = load->accounted;
    }
    if (!is_echo)
        for (unsigned i = 0; i < load->options->clients; i++)
            load->faults.lost += load->sent - load->client[i].receipt.next;
}

/* ---- modes ---- */

static void measure(struct load *load, struct result *r)
{
    const struct process_tree *server = &load->options->server;
    uint64_t sent = load->sent, deliveries = load->deliveries, cpu = process_tree_cpu(server);
    uint64_t own = process_own_cpu(), start = now_ns();
    histogram_clear(&load->latency);
    load->measuring = true;
    send_for(load, load->options->seconds, "measuring");
    load->measuring = false;
    uint64_t cpu_end = process_tree_cpu(server);
    cpu = cpu_end > cpu ? cpu_end - cpu : 0;
    own = process_own_cpu() - own;
    r->seconds = (double)(now_ns() - start) / 1e9;
    r->messages = load->sent - sent;
    r->deliveries = load->deliveries - deliveries;
    if (r->deliveries > 0) {
        r->server_cpu_us = (double)cpu / 1e3 / (double)r->deliveries;
        r->own_cpu_us = (double)own / 1e3 / (double)r->deliveries;
    }
    r->server_cpu_share = (double)cpu / 1e9 / r->seconds;
    r->server_peak_kib = process_tree_peak(server);
}

static bool start_command(struct load *load)
{
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return load_fail(load, "pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipes[0], 0);
        execl("/bin/sh", "sh", "-c", load->options->publish_command, NULL);
        _exit(127);
    }
    close(pipes[0]);
    load->command_pipe = pipes[1];
    return pid > 0 && fcntl(pipes[1], F_SETFL, O_NONBLOCK) == 0;
}

static bool run_broadcast(struct load *load, struct result *r)
{
    if (load->options->publish_command != NULL ? !start_command(load) : !load_open_publisher(load))
        return false;
    if (!prime_all(load) || !send_for(load, load->options->warm_up, "warming up"))
        return false;
    measure(load, r);
    drain(load);
    return load->problem[0] == '\0';
}

static bool run_echo(struct load *load, struct result *r)
{
    for (unsigned i = 0; i < load->options->clients; i++)
        echo(load, &load->client[i]);
    if (!send_for(load, load->options->warm_up, "warming up"))
        return false;
    measure(load, r);
    return load->problem[0] == '\0';
}

/* One HTTP request on a connection of its own, while the clients are served. The body's first line.
 */
static bool probe(struct load *load, char *answer, size_t room)
{
    const struct options *o = load->options;
    char request[512], reply[8192] = "";
    size_t length = 0;
    if (o->probe == NULL)
        return true;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        connect(fd, (const struct sockaddr *)&o->url.address, sizeof(o->url.address)) != 0)
        return load_fail(load, "probe: %s", strerror(errno));
    int n =
        snprintf(request, sizeof(request),
                 "GET %.256s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", o->probe);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    send(fd, request, (size_t)n, MSG_NOSIGNAL);
    for (uint64_t end = now_ns() + 60 * SECOND; now_ns() < end && length < sizeof(reply) - 1;) {
        ssize_t got = recv(fd, reply + length, sizeof(reply) - 1 - length, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            break;
        length += got > 0 ? (size_t)got : 0;
        load_turn(load, SECOND / 100);
    }
    close(fd);
    const char *body = strstr(reply, "\r\n\r\n");
    if (strncmp(reply, "HTTP/1.1 200", 12) != 0 || body == NULL)
        return load_fail(load, "probe: the server answered: %.60s", reply);
    snprintf(answer, room, "%.*s", (int)strcspn(body + 4, "\r\n"), body + 4);
    return true;
}

static bool settle(struct load *load)
{
    for (uint64_t end = now_ns() + SECOND; now_ns() < end;)
        if (!load_turn(load, SECOND / 10))
            return false;
    return true;
}

/* Some clients come first, so that what the server sets up once is not counted. */
static bool run_idle(struct load *load, struct result *r)
{
    const struct options *o = load->options;
    if (!load_open(load, IDLE_FIRST) || !settle(load) ||
        !probe(load, r->probe_before, sizeof(r->probe_before)) || !settle(load))
        return false;
    r->memory_before_kib = process_tree_pss(&o->server);
    if (!load_open(load, IDLE_FIRST + o->clients) || !settle(load) ||
        !probe(load, r->probe_after, sizeof(r->probe_after)) || !settle(load))
        return false;
    r->memory_after_kib = process_tree_pss(&o->server);
    r->memory_per_client =
        ((double)r->memory_after_kib - (double)r->memory_before_kib) * 1024 / (double)o->clients;
    r->server_peak_kib = process_tree_peak(&o->server);
    return true;
}

bool load_run(struct load *load, struct result *r)
{
    uint64_t start = now_ns();
    if (load->options->mode == MODE_IDLE)
        return run_idle(load, r);
    if (!load_open(load, load->options->clients))
        return false;
    r->open_seconds = (double)(now_ns() - start) / 1e9;
    return load->options->mode == MODE_ECHO ? run_echo(load, r) : run_broadcast(load, r);
}
