/*
 * What one delivery costs the I/O thread: a message to CLIENTS browsers, once as single messages
 * (one sendmsg for each client and message) and once in bursts (the frames of a turn leave in one
 * sendmsg).
 *
 *   bench_fanout [clients] [burst] [payload bytes] [tcp|unix]
 */
#include "../unit/io_harness.h"
#include "client_internal.h"
#include "io_internal.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <time.h>

extern char HUB_DIRECT_AUTO;

static struct io_thread *io;
static int epoll_fd;

static double cpu_of_io_thread(void)
{
    clockid_t clock;
    struct timespec t;
    MUST(pthread_getcpuclockid(io->thread, &clock) == 0);
    MUST(clock_gettime(clock, &t) == 0);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void make_pair(bool tcp, int pair[2])
{
    if (!tcp) {
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
        return;
    }
    static int listener = -1;
    static struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    if (listener < 0) {
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        MUST((listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        MUST(bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 1) == 0);
        MUST(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    }
    MUST((pair[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    MUST(connect(pair[1], (struct sockaddr *)&address, size) == 0);
    MUST((pair[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
}

static void *read_everything(void *argument)
{
    static char buffer[256 * 1024];
    struct epoll_event events[64];
    (void)argument;
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 64, -1);
        for (int i = 0; i < n; i++)
            if (recv(events[i].data.fd, buffer, sizeof(buffer), MSG_DONTWAIT) == 0)
                return NULL;
    }
}

static void open_clients(unsigned clients, bool tcp)
{
    for (unsigned i = 0; i < clients; i++) {
        int pair[2];
        make_pair(tcp, pair);
        struct client_options options = {
            .fd = pair[0], .response = HEAD, .response_length = strlen(HEAD)};
        struct client *c = client_new(io, &options, 0);
        MUST(c != NULL && commands_open(c));
        commands_subscribe_client(c, "news", 4, false, NULL, &HUB_DIRECT_AUTO);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = pair[1]};
        MUST(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pair[1], &event) == 0);
    }
}

static void wait_for_frames(uint64_t frames)
{
    struct io_stats stats;
    for (;;) {
        io_stats(io, &stats);
        MUST(stats.evicted_slow == 0);
        if (stats.frames_out >= frames)
            return;
        usleep(200);
    }
}

static void measure(const char *name, unsigned clients, unsigned rounds, unsigned burst,
                    const void *payload, size_t size)
{
    struct io_stats before, after;
    io_stats(io, &before);
    double cpu = cpu_of_io_thread();
    for (unsigned r = 1; r <= rounds; r++) {
        for (unsigned i = 0; i < burst; i++)
            MUST(commands_publish_local(io, "news", 4, payload, size, false));
        wait_for_frames(before.frames_out + (uint64_t)clients * burst * r);
    }
    cpu = cpu_of_io_thread() - cpu;
    io_stats(io, &after);
    double deliveries = (double)clients * burst * rounds;
    printf("%s: %.3f us of CPU per delivery, %.1f deliveries per system call\n", name,
           cpu * 1e6 / deliveries, deliveries / (double)(after.flushes - before.flushes));
}

int main(int argc, char **argv)
{
    unsigned clients = argc > 1 ? (unsigned)atoi(argv[1]) : 1000;
    unsigned burst = argc > 2 ? (unsigned)atoi(argv[2]) : 50;
    size_t size = argc > 3 ? (size_t)atoi(argv[3]) : 100;
    bool tcp = argc <= 4 || strcmp(argv[4], "unix") != 0;
    struct io_config config = harness_config();
    config.max_pending = 64 * 1024 * 1024;
    char *payload = malloc(size + 1);
    MUST(payload != NULL);
    memset(payload, 'x', size);
    io = harness_start(&config);
    MUST((epoll_fd = epoll_create1(EPOLL_CLOEXEC)) >= 0);
    open_clients(clients, tcp);
    pthread_t reader;
    MUST(pthread_create(&reader, NULL, read_everything, NULL) == 0);
    wait_for_frames(clients);
    printf("%u clients (%s), %zu bytes, %zu bytes a client\n", clients, tcp ? "tcp" : "unix", size,
           sizeof(struct client));
    measure("one message a turn", clients, 200, 1, payload, size);
    measure("bursts", clients, 40, burst, payload, size);
    io_thread_stop(io); /* ends the reader too: every stream ends */
    pthread_join(reader, NULL);
    free(payload);
    return 0;
}
