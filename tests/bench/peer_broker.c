/*
 * Load on Redis and NATS, the same work as bench_broker puts on brokerd, with a client of the same
 * kind: blocking sockets, their protocol spoken raw, each publisher and subscriber a process,
 * batches of the same size, the same lead over the slowest subscriber, the same figures. See
 * --help.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { OUTSTANDING = 4, WORKERS_MAX = 1100, SAMPLES_MAX = 1 << 20, IN_SIZE = 1 << 20 };

static struct {
    const char *peer, *server, *mode;
    unsigned publishers, subscribers, size, batch;
    double seconds, rate;
    bool json, tcp;
} opt = {.peer = "redis",
         .mode = "batch",
         .publishers = 1,
         .subscribers = 1,
         .size = 64,
         .batch = 65536,
         .seconds = 3,
         .rate = 1000};

/* Shared by all processes. */
static struct board {
    _Atomic bool stop;
    _Atomic unsigned ready;
    _Atomic uint64_t published, gaps;
    struct {
        _Atomic uint64_t received;
        char pad[56];
    } subscriber[WORKERS_MAX];
    _Atomic uint32_t samples;
    uint32_t sample[SAMPLES_MAX]; /* ns */
} * board;

static bool nats;
static struct sockaddr_storage address;
static socklen_t address_size;
static pid_t server, workers[WORKERS_MAX];
static unsigned worker_count;
static char dir[] = "/tmp/brokerd-peer-XXXXXX";

static void fail(const char *what)
{
    fprintf(stderr, "peer_broker: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the server ---- */

static double server_cpu(void)
{
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(server, &clock) != 0 || clock_gettime(clock, &used) != 0)
        fail("the server's CPU clock");
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static long server_peak_kib(void)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", server);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

static int free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &size) != 0)
        fail("no free port");
    close(fd);
    return ntohs(in.sin_port);
}

static void set_address(int port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&address;
    struct sockaddr_un *un = (struct sockaddr_un *)&address;
    if (opt.tcp) {
        *in = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        address_size = sizeof(*in);
    } else {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%s/r.sock", dir);
        address_size = sizeof(*un);
    }
}

static void exec_server(int port)
{
    char number[16], path[64];
    int null = open("/dev/null", O_WRONLY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(null, 1);
    snprintf(number, sizeof(number), "%d", opt.tcp ? port : 0);
    snprintf(path, sizeof(path), "%s/r.sock", dir);
    if (nats)
        execlp(opt.server, opt.server, "-a", "127.0.0.1", "-p", number, "-l", "/dev/null", NULL);
    else /* no persistence, and no subscriber dropped for being slow */
        execlp(opt.server, opt.server, "--port", number, "--bind", "127.0.0.1", "--unixsocket",
               path, "--dir", dir, "--save", "", "--appendonly", "no",
               "--client-output-buffer-limit", "pubsub 0 0 0", NULL);
    fail(opt.server);
}

static void start_server(void)
{
    int port = free_port();
    if (mkdtemp(dir) == NULL)
        fail("mkdtemp");
    set_address(port);
    server = fork();
    if (server == 0)
        exec_server(port);
    for (uint64_t end = now_ns() + 10000000000u; now_ns() < end;) {
        int fd = socket(address.ss_family, SOCK_STREAM, 0);
        bool there = connect(fd, (struct sockaddr *)&address, address_size) == 0;
        close(fd);
        if (there)
            return;
        if (waitpid(server, NULL, WNOHANG) == server)
            break;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    fail("the server did not start");
}

/* Also on the way out after an error. */
static void stop_all(void)
{
    char path[64];
    static pid_t owner;
    if (owner == 0) {
        owner = getpid();
        return;
    }
    if (owner != getpid())
        return;
    for (unsigned i = 0; i < worker_count; i++) {
        kill(workers[i], SIGKILL);
        waitpid(workers[i], NULL, 0);
    }
    if (server > 0) {
        kill(server, SIGTERM);
        waitpid(server, NULL, 0);
    }
    snprintf(path, sizeof(path), "%s/r.sock", dir);
    unlink(path);
    rmdir(dir);
}

/* ---- one connection ---- */

struct link {
    int fd;
    size_t start, end; /* what was read and not used yet */
    char in[IN_SIZE];
};

static void write_all(const struct link *l, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(l->fd, bytes, length, MSG_NOSIGNAL);
        if (n <= 0)
            fail("send");
        bytes += n;
        length -= (size_t)n;
    }
}

static void read_more(struct link *l)
{
    if (l->start > 0) {
        memmove(l->in, l->in + l->start, l->end - l->start);
        l->end -= l->start;
        l->start = 0;
    }
    ssize_t n = recv(l->fd, l->in + l->end, sizeof(l->in) - l->end, 0);
    if (n <= 0)
        fail("recv");
    l->end += (size_t)n;
}

/* Uses up one line. */
static void next_line(struct link *l)
{
    char *end;
    while ((end = memchr(l->in + l->start, '\n', l->end - l->start)) == NULL)
        read_more(l);
    if (l->in[l->start] == '-') {
        fprintf(stderr, "peer_broker: the server answered: %.*s\n",
                (int)(end - l->in - (long)l->start), l->in + l->start);
        exit(1);
    }
    l->start = (size_t)(end - l->in) + 1;
}

static struct link *link_open(bool verbose)
{
    char text[128];
    struct link *l = malloc(sizeof(*l));
    int one = 1;
    *l = (struct link){.fd = socket(address.ss_family, SOCK_STREAM, 0)};
    if (connect(l->fd, (struct sockaddr *)&address, address_size) != 0)
        fail("connect");
    if (opt.tcp)
        setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (nats) {
        snprintf(text, sizeof(text), "CONNECT {\"verbose\":%s,\"pedantic\":false}\r\nPING\r\n",
                 verbose ? "true" : "false");
        next_line(l); /* INFO */
        write_all(l, text, strlen(text));
        for (int lines = verbose ? 2 : 1; lines > 0; lines--)
            next_line(l); /* +OK, PONG */
    }
    return l;
}

static void subscribe(struct link *l)
{
    const char *text = nats ? "SUB c0 1\r\nPING\r\n" : "*2\r\n$9\r\nSUBSCRIBE\r\n$2\r\nc0\r\n";
    write_all(l, text, strlen(text));
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
    int n =
        snprintf(head, sizeof(head),
                 nats ? "PUB c0 %u\r\n" : "*3\r\n$7\r\nPUBLISH\r\n$2\r\nc0\r\n$%u\r\n", opt.size);
    b->payload_at = (size_t)n;
    b->message_size = (size_t)n + opt.size + 2;
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
            uint64_t now = now_ns();
            memcpy(at + 8, &now, 8);
        }
    }
    write_all(l, b->bytes, b->length);
}

static void wait_for_subscribers(const struct batch *b)
{
    uint64_t lead = 16u << 20;
    while (opt.subscribers > 0 && !board->stop) {
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < opt.subscribers; i++) {
            uint64_t received = board->subscriber[i].received;
            least = received < least ? received : least;
        }
        if ((board->published - least) * b->message_size < lead)
            return;
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

static void publisher_batched(void)
{
    struct link *l = link_open(false);
    struct batch b;
    batch_make(&b, opt.batch);
    unsigned unanswered = 0;
    board->ready++;
    while (!board->stop) {
        while (!nats && unanswered > (OUTSTANDING - 1) * b.messages) {
            char *at = l->in + l->start, *end;
            while ((end = memchr(at, '\n', (size_t)(l->in + l->end - at))) != NULL) {
                at = end + 1;
                unanswered--;
            }
            l->start = (size_t)(at - l->in);
            if (unanswered > (OUTSTANDING - 1) * b.messages)
                read_more(l);
        }
        wait_for_subscribers(&b);
        batch_send(l, &b, false);
        unanswered += b.messages;
        board->published += b.messages;
    }
    exit(0);
}

static void note_sample(uint64_t ns)
{
    uint32_t i = board->samples++;
    if (i < SAMPLES_MAX)
        board->sample[i] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void subscriber(unsigned number, bool timed)
{
    char head[128];
    int head_size =
        snprintf(head, sizeof(head),
                 nats ? "MSG c0 1 %u\r\n" : "*3\r\n$7\r\nmessage\r\n$2\r\nc0\r\n$%u\r\n", opt.size);
    size_t size = (size_t)head_size + opt.size + 2;
    uint64_t last = 0, sequence, sent_at;
    struct link *l = link_open(false);
    subscribe(l);
    board->ready++;
    for (;;) {
        uint64_t received = 0;
        for (; l->end - l->start >= size; l->start += size, received++) {
            const char *at = l->in + l->start;
            if (memcmp(at, head, (size_t)head_size) != 0) {
                fprintf(stderr, "peer_broker: unexpected: %.40s\n", at);
                exit(1);
            }
            memcpy(&sequence, at + head_size, 8);
            if (opt.publishers == 1 && sequence != last + 1)
                board->gaps++;
            last = sequence;
            if (timed) {
                memcpy(&sent_at, at + head_size + 8, 8);
                note_sample(now_ns() - sent_at);
            }
        }
        board->subscriber[number].received += received;
        read_more(l);
    }
}

/* One request, then its answer. */
static void publisher_window(void)
{
    struct link *l = link_open(true);
    struct batch b;
    batch_make(&b, 0);
    board->ready++;
    while (!board->stop) {
        uint64_t start = now_ns();
        batch_send(l, &b, false);
        next_line(l);
        note_sample(now_ns() - start);
        board->published++;
    }
    exit(0);
}

/* One message each 1/rate seconds. */
static void publisher_rate(void)
{
    struct link *l = link_open(false);
    struct batch b;
    batch_make(&b, 0);
    board->ready++;
    uint64_t step = (uint64_t)(1e9 / opt.rate), next = now_ns() + step;
    for (; !board->stop; next += step) {
        struct timespec until = {(time_t)(next / 1000000000), (long)(next % 1000000000)};
        struct pollfd p = {.fd = l->fd, .events = POLLIN};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        batch_send(l, &b, true);
        board->published++;
        while (poll(&p, 1, 0) == 1) {
            read_more(l);
            l->start = l->end = 0;
        }
    }
    exit(0);
}

/* ---- the run ---- */

static void spawn(void (*run)(void), unsigned number, bool timed)
{
    pid_t pid = fork();
    if (pid < 0)
        fail("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (run != NULL)
            run();
        subscriber(number, timed);
    }
    workers[worker_count++] = pid;
}

static void wait_ready(unsigned count)
{
    while (board->ready < count) {
        for (unsigned i = 0; i < worker_count; i++)
            if (waitpid(workers[i], NULL, WNOHANG) == workers[i])
                fail("a worker ended early");
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t received(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < opt.subscribers; i++)
        sum += board->subscriber[i].received;
    return sum;
}

static double percentile(const uint32_t *sample, uint32_t count, double p)
{
    return count == 0 ? 0 : sample[(uint32_t)((count - 1) * p)] / 1000.0;
}

static void report(double elapsed, uint64_t published, uint64_t delivered, double cpu)
{
    uint32_t n = board->samples < SAMPLES_MAX ? board->samples : SAMPLES_MAX;
    uint32_t *sample = malloc(((size_t)n + 1) * sizeof(*sample));
    memcpy(sample, board->sample, n * sizeof(*sample));
    qsort(sample, n, sizeof(*sample), compare);
    static const char *const formats[] = {
        [true] =
            "{\"peer\":\"%s\",\"mode\":\"%s\",\"transport\":\"%s\",\"size\":%u,\"publishers\":%u,"
            "\"subscribers\":%u,\"seconds\":%.3f,\"messages_per_second\":%.0f,"
            "\"deliveries_per_second\":%.0f,\"broker_cpu_seconds_per_million\":%.4f,"
            "\"broker_peak_rss_kib\":%ld,\"latency_us\":{\"samples\":%u,\"p50\":%.1f,\"p90\":%.1f,"
            "\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f},\"gaps\":%llu}\n",
        [false] =
            "%s %s over %s, %u bytes, %u -> %u, %.1f s: %.0f messages/s, %.0f deliveries/s, server "
            "CPU %.4f s per million, peak %ld KiB; latency (us) of %u: p50 %.1f p90 %.1f p99 %.1f "
            "p99.9 %.1f max %.1f; gaps %llu\n"};
    printf(formats[opt.json], opt.peer, opt.mode, opt.tcp ? "tcp" : "unix", opt.size,
           opt.publishers, opt.subscribers, elapsed, (double)published / elapsed,
           (double)delivered / elapsed, published > 0 ? cpu / ((double)published / 1e6) : 0,
           server_peak_kib(), n, percentile(sample, n, 0.5), percentile(sample, n, 0.9),
           percentile(sample, n, 0.99), percentile(sample, n, 0.999), percentile(sample, n, 1),
           (unsigned long long)board->gaps);
    free(sample);
}

static int run(void)
{
    bool batched = strcmp(opt.mode, "batch") == 0, window = strcmp(opt.mode, "window") == 0;
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        fail("mmap");
    stop_all(); /* notes who may */
    atexit(stop_all);
    start_server();
    for (unsigned i = 0; i < opt.subscribers; i++)
        spawn(NULL, i, !batched && !window);
    wait_ready(opt.subscribers);
    for (unsigned i = 0; i < opt.publishers; i++)
        spawn(batched ? publisher_batched : window ? publisher_window : publisher_rate, 0, false);
    wait_ready(opt.subscribers + opt.publishers);
    nanosleep(&(struct timespec){0, 300000000}, NULL); /* not part of the figure */
    board->samples = 0;
    uint64_t start = now_ns(), published = board->published, delivered = received();
    double cpu = server_cpu();
    struct timespec length = {(time_t)opt.seconds,
                              (long)((opt.seconds - (double)(time_t)opt.seconds) * 1e9)};
    nanosleep(&length, NULL);
    cpu = server_cpu() - cpu;
    published = board->published - published;
    delivered = received() - delivered;
    report((double)(now_ns() - start) / 1e9, published, delivered, cpu);
    return board->gaps == 0 ? 0 : 1;
}

static const char help[] =
    "Usage: peer_broker [option ...]\n"
    "  --peer P         redis (over a unix socket, with --tcp over tcp) or nats (tcp) (default "
    "redis)\n"
    "  --server PATH    its program (default redis-server or nats-server, from PATH)\n"
    "  --mode M         batch: as many messages as go; window: one request and its answer at a\n"
    "                   time; rate: one-way latency at --rate messages a second (default batch)\n"
    "  --publishers N   processes that publish (default 1)\n"
    "  --subscribers N  processes that subscribe (default 1)\n"
    "  --size N         bytes of a payload (default 64, at least 16)\n"
    "  --batch N        bytes that are written at a time (default 65536)\n"
    "  --rate N         default 1000\n"
    "  --seconds S      default 3\n"
    "  --tcp            over tcp instead of a unix socket\n"
    "  --json           one JSON object\n";

static bool check_options(void)
{
    nats = strcmp(opt.peer, "nats") == 0;
    opt.tcp = opt.tcp || nats;
    if (opt.server == NULL)
        opt.server = nats ? "nats-server" : "redis-server";
    return (nats || strcmp(opt.peer, "redis") == 0) &&
           (strcmp(opt.mode, "batch") == 0 || strcmp(opt.mode, "window") == 0 ||
            strcmp(opt.mode, "rate") == 0) &&
           opt.publishers + opt.subscribers <= WORKERS_MAX && opt.size >= 16 &&
           opt.size < IN_SIZE / 2 && opt.rate > 0;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"peer", 1, 0, 'k'},
                                          {"server", 1, 0, 'B'},
                                          {"mode", 1, 0, 'm'},
                                          {"publishers", 1, 0, 'p'},
                                          {"size", 1, 0, 'z'},
                                          {"batch", 1, 0, 'b'},
                                          {"rate", 1, 0, 'r'},
                                          {"subscribers", 1, 0, 's'},
                                          {"tcp", 0, 0, 'T'},
                                          {"json", 0, 0, 'j'},
                                          {"seconds", 1, 0, 't'},
                                          {"help", 0, 0, 'h'},
                                          {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        unsigned number = optarg != NULL ? (unsigned)strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'k':
            opt.peer = optarg;
            break;
        case 'B':
            opt.server = optarg;
            break;
        case 'm':
            opt.mode = optarg;
            break;
        case 'p':
            opt.publishers = number;
            break;
        case 's':
            opt.subscribers = number;
            break;
        case 'z':
            opt.size = number;
            break;
        case 'b':
            opt.batch = number;
            break;
        case 'r':
            opt.rate = atof(optarg);
            break;
        case 't':
            opt.seconds = atof(optarg);
            break;
        case 'T':
            opt.tcp = true;
            break;
        case 'j':
            opt.json = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs(help, stderr);
            return 2;
        }
    }
    if (!check_options()) {
        fputs(help, stderr);
        return 2;
    }
    return run();
}
