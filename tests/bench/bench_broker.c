/*
 * Load on a real brokerd, over blocking unix or tcp sockets, speaking SP directly: what the broker
 * alone can do. Each publisher and subscriber is a process. Prints messages/s, deliveries/s, the
 * broker's CPU time for each million of published messages, and latency percentiles. See --help.
 *
 * Throughput: publishers keep 4 SUBMITs of about 64 KiB outstanding, subscribers 4 FETCHes.
 * Publishers do not run ahead of the slowest subscriber by more than a quarter of the journal, so
 * that nothing is lost and the figure is one of deliveries; a GAP fails the run. Every subscriber
 * checks that ids only grow.
 */
#include "bytes.h"
#include "sp.h"
#include "wire.h"
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    OUTSTANDING = 4,
    BATCHES = 64,
    WORKERS_MAX = 1100,
    SAMPLES_MAX = 1 << 20,
    MESSAGE_MAX = 64 << 20
};

struct options {
    const char *broker, *mode;
    unsigned publishers, subscribers, size, batch, channels, patterns;
    double seconds, rate;
    bool json, tcp, no_journal;
} opt = {.broker = NULL,
         .mode = NULL,
         .publishers = 1,
         .subscribers = 1,
         .size = 64,
         .batch = 65536,
         .channels = 1,
         .seconds = 3,
         .rate = 1000};

/* Shared by all processes. */
struct board {
    _Atomic bool stop;
    _Atomic unsigned ready;
    _Atomic uint64_t published, gaps;
    _Atomic uint64_t bytes_published;
    struct {
        _Atomic uint64_t received;
        char pad[56];
    } subscriber[WORKERS_MAX];
    _Atomic uint32_t samples;
    uint32_t sample[SAMPLES_MAX]; /* ns */
} * board;

static struct sockaddr_storage address;
static socklen_t address_size;
static enum sp_transport transport = SP_IPC;
static pid_t broker;
static char dir[] = "/tmp/brokerd-bench-XXXXXX";

static void fail(const char *what)
{
    fprintf(stderr, "bench_broker: %s: %s\n", what, strerror(errno));
    _exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* CPU time of the broker in seconds. */
static double broker_cpu(void)
{
    char path[64], text[64] = "";
    snprintf(path, sizeof(path), "/proc/%d/schedstat", broker);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        fail(path);
    close(fd);
    return (double)strtoull(text, NULL, 10) / 1e9;
}

static long broker_rss_kib(void)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", broker);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

static void start_broker(void)
{
    int ready[2];
    char url[128], fd[16], byte;
    if (mkdtemp(dir) == NULL || pipe(ready) != 0)
        fail("start");
    int port = 20000 + getpid() % 20000;
    if (opt.tcp)
        snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
    else
        snprintf(url, sizeof(url), "ipc://%s/b.sock", dir);
    snprintf(fd, sizeof(fd), "%d", ready[1]);
    broker = fork();
    if (broker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(opt.broker, opt.broker, "--listen", url, "--ready-fd", fd, "--log-level", "warn",
              opt.no_journal ? "--no-journal" : NULL, NULL);
        fail(opt.broker);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1) {
        fprintf(stderr, "bench_broker: %s did not start\n", opt.broker);
        exit(1);
    }
    close(ready[0]);
    if (opt.tcp) {
        struct sockaddr_in *in = (struct sockaddr_in *)&address;
        *in = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        address_size = sizeof(*in);
        transport = SP_TCP;
    } else {
        struct sockaddr_un *un = (struct sockaddr_un *)&address;
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%s/b.sock", dir);
        address_size = sizeof(*un);
    }
}

static void stop_broker(void)
{
    char command[128];
    kill(broker, SIGTERM);
    waitpid(broker, NULL, 0);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    if (system(command) != 0)
        fail(command);
}

/* ---- one connection ---- */

struct link {
    int fd;
    uint32_t next_id;
    uint64_t session;
    uint8_t *in; /* what was read and not used yet */
    size_t start, end, capacity;
};

static void write_all(const struct link *l, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = send(l->fd, at, length, MSG_NOSIGNAL);
        if (n <= 0)
            fail("send");
        at += n;
        length -= (size_t)n;
    }
}

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
            fail("recv");
        l->end += (size_t)n;
    }
}

/* The next reply: its bytes behind the backtrace, valid until the next call. */
static const uint8_t *next_reply(struct link *l, struct wire_reply *reply, size_t *length)
{
    size_t prefix = sp_prefix_size(transport);
    uint64_t body;
    if (l->start == l->end)
        l->start = l->end = 0;
    need(l, prefix);
    if (sp_prefix_decode(l->in + l->start, prefix, transport, MESSAGE_MAX, &body) != STATUS_OK)
        fail("prefix");
    need(l, prefix + body);
    const uint8_t *at = l->in + l->start + prefix + 4;
    *length = body - 4 - WIRE_REPLY_SIZE;
    if (wire_reply_decode(at, body - 4, reply) != STATUS_OK || reply->status != STATUS_OK) {
        fprintf(stderr, "bench_broker: the broker answered: %s\n", status_text(reply->status));
        _exit(1);
    }
    l->start += prefix + body;
    return at + WIRE_REPLY_SIZE;
}

static bool has_complete_reply(const struct link *l)
{
    uint64_t body;
    size_t have = l->end - l->start, prefix = sp_prefix_size(transport);
    return sp_prefix_decode(l->in + l->start, have, transport, MESSAGE_MAX, &body) == STATUS_OK &&
           have >= prefix + body;
}

static size_t put_head(struct link *l, uint8_t *out, size_t body, uint8_t operation,
                       uint32_t records, uint64_t session)
{
    size_t at = sp_prefix_encode(out, transport, 4 + WIRE_REQUEST_SIZE + body);
    put_u32be(out + at, l->next_id++ | 0x80000000);
    wire_request_encode(out + at + 4, &(struct wire_request){.version = WIRE_VERSION,
                                                             .operation = operation,
                                                             .records = records,
                                                             .session = session});
    return at + 4 + WIRE_REQUEST_SIZE;
}

static void link_open(struct link *l)
{
    uint8_t hello[SP_HELLO_SIZE];
    *l = (struct link){.fd = socket(address.ss_family, SOCK_STREAM, 0), .capacity = 1 << 20};
    l->in = malloc(l->capacity);
    if (connect(l->fd, (struct sockaddr *)&address, address_size) != 0)
        fail("connect");
    int one = 1;
    if (transport == SP_TCP)
        setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    sp_hello_encode(hello, SP_REQ);
    write_all(l, hello, sizeof(hello));
    need(l, sizeof(hello));
    l->start = l->end = 0;
}

/* subscribes: `channels` names c0, c1 ... or patterns cN*; 0 none. A long list goes in parts. */
static void link_attach(struct link *l, unsigned channels)
{
    enum { PART_MAX = WIRE_ATTACH_PART_SIZE / 2, RECORD_MAX = 128 };
    struct wire_attach attach = {
        .generation = 1, .name = (const uint8_t *)"bench", .name_length = 5};
    attach.pid = (uint32_t)getpid();
    uint8_t *out = malloc(256), *body = malloc(PART_MAX + RECORD_MAX);
    if (getrandom(&l->session, 8, 0) != 8)
        fail("getrandom");
    for (unsigned done = 0, last = 0; last == 0;) {
        unsigned first = done;
        wire_attach_encode(body, &attach);
        size_t length = wire_attach_size(&attach);
        for (; done < channels && length < PART_MAX; done++) {
            char name[32];
            int n = snprintf(name, sizeof(name), "c%u%s", done, opt.patterns ? "*" : "");
            struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                         .flags = opt.patterns ? WIRE_PATTERN : 0,
                                         .channel = (const uint8_t *)name,
                                         .channel_length = (uint16_t)n};
            wire_record_encode(body + length, &record);
            length += wire_record_size((size_t)n, 0);
        }
        last = done == channels;
        size_t at = put_head(l, out, length, WIRE_ATTACH, done - first, l->session);
        put_u16le(out + at - WIRE_REQUEST_SIZE + 2, last ? 0 : WIRE_MORE);
        write_all(l, out, at);
        write_all(l, body, length);
        struct wire_reply reply;
        next_reply(l, &reply, &length);
    }
    free(out);
    free(body);
}

/* ---- the workers ---- */

struct submit {
    uint8_t *bytes;
    size_t length, head, record_size;
    uint32_t records;
    uint64_t sequence;
};

/* The number-th of several, whose records are spread over all channels. */
static void submit_make_of(struct submit *s, uint32_t records, uint64_t origin, unsigned number)
{
    uint8_t *payload = calloc(1, opt.size);
    s->records = records;
    s->head = sp_prefix_size(transport) + 4 + WIRE_REQUEST_SIZE;
    s->bytes = malloc(s->head + records * wire_record_size(16, opt.size));
    s->length = s->head;
    s->sequence = 1;
    for (uint32_t i = 0; i < records; i++) {
        char name[32];
        uint64_t spread = ((uint64_t)number * records + i) * 2654435761u; /* prime */
        int n = snprintf(name, sizeof(name), "c%u", (unsigned)(spread % opt.channels));
        struct wire_record record = {.type = WIRE_PUBLISH,
                                     .flags = WIRE_BINARY,
                                     .origin = origin,
                                     .channel = (const uint8_t *)name,
                                     .channel_length = (uint16_t)n,
                                     .payload = payload,
                                     .payload_length = opt.size};
        wire_record_encode(s->bytes + s->length, &record);
        s->length += wire_record_size((size_t)n, opt.size);
    }
    free(payload);
}

static void submit_make(struct submit *s, uint32_t records)
{
    uint64_t origin = 0;
    if (getrandom(&origin, 8, 0) != 8)
        fail("getrandom");
    submit_make_of(s, records, origin, 0);
}

static void submit_send(struct link *l, struct submit *s)
{
    put_head(l, s->bytes, s->length - s->head, WIRE_SUBMIT, s->records, l->session);
    uint8_t *at = s->bytes + s->head;
    for (uint32_t i = 0; i < s->records; i++, at += size_align8(get_u32le(at)))
        put_u64le(at + 24, s->sequence++);
    write_all(l, s->bytes, s->length);
}

static void publisher_batched(void)
{
    struct link l;
    static struct submit set[BATCHES];
    unsigned batches = opt.channels > 1 ? BATCHES : 1;
    uint64_t origin = 0, sequence = 1;
    link_open(&l);
    link_attach(&l, 0);
    if (getrandom(&origin, 8, 0) != 8)
        fail("getrandom");
    for (unsigned i = 0; i < batches; i++)
        submit_make_of(&set[i], (uint32_t)(opt.batch / wire_record_size(2, opt.size)) + 1, origin,
                       i);
    uint64_t lead = 16u << 20;
    unsigned outstanding = 0;
    board->ready++;
    for (unsigned turn = 0; !board->stop; turn++) {
        struct submit *s = &set[turn % batches];
        while (outstanding == OUTSTANDING) {
            struct wire_reply reply;
            size_t length;
            next_reply(&l, &reply, &length);
            outstanding--;
        }
        for (;;) {
            uint64_t least = UINT64_MAX;
            for (unsigned i = 0; i < opt.subscribers; i++) {
                uint64_t received = board->subscriber[i].received;
                least = received < least ? received : least;
            }
            if (opt.subscribers == 0 || board->stop ||
                (board->published - least) * (s->length / s->records) < lead)
                break;
            nanosleep(&(struct timespec){0, 20000}, NULL);
        }
        s->sequence = sequence;
        submit_send(&l, s);
        sequence = s->sequence;
        outstanding++;
        board->published += s->records;
    }
    _exit(0);
}

static void fetch(struct link *l, unsigned count)
{
    uint8_t out[OUTSTANDING * 64];
    size_t at = 0;
    for (unsigned i = 0; i < count; i++)
        at += put_head(l, out + at, 0, WIRE_FETCH, 0, l->session);
    write_all(l, out, at);
}

static void note_sample(uint64_t ns)
{
    uint32_t i = board->samples++;
    if (i < SAMPLES_MAX)
        board->sample[i] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void take_records(const uint8_t *at, size_t length, uint64_t *last, bool timed)
{
    const uint8_t *end = at + length;
    for (; at < end; at += size_align8(get_u32le(at))) {
        uint64_t id = get_u64le(at + 8);
        if (at[4] == WIRE_GAP || id <= *last)
            board->gaps++;
        *last = id;
        if (timed)
            note_sample(now_ns() - get_u64le(at + WIRE_RECORD_SIZE + 2));
    }
}

static void subscriber(unsigned number, bool timed)
{
    struct link l;
    link_open(&l);
    link_attach(&l, opt.channels);
    fetch(&l, OUTSTANDING);
    board->ready++;
    uint64_t last = 0;
    for (unsigned used = 0;;) {
        struct wire_reply reply;
        size_t length;
        const uint8_t *records = next_reply(&l, &reply, &length);
        take_records(records, length, &last, timed);
        board->subscriber[number].received += reply.records;
        if (++used >= OUTSTANDING / 2 && !has_complete_reply(&l)) { /* as the adapter's link does */
            fetch(&l, used);
            used = 0;
        }
    }
}

/* One request, then its answer. */
static void publisher_window(void)
{
    struct link l;
    struct submit s;
    struct wire_reply reply;
    size_t length;
    link_open(&l);
    link_attach(&l, 0);
    submit_make(&s, 1);
    board->ready++;
    while (!board->stop) {
        uint64_t start = now_ns();
        submit_send(&l, &s);
        next_reply(&l, &reply, &length);
        note_sample(now_ns() - start);
        board->published++;
    }
    _exit(0);
}

/* One message each 1/rate seconds; the payload begins with the time of sending. */
static void publisher_rate(void)
{
    struct link l;
    struct submit s;
    link_open(&l);
    link_attach(&l, 0);
    submit_make(&s, 1);
    board->ready++;
    uint64_t step = (uint64_t)(1e9 / opt.rate), next = now_ns() + step;
    struct wire_reply reply;
    size_t length;
    for (; !board->stop; next += step) {
        struct timespec until = {(time_t)(next / 1000000000), (long)(next % 1000000000)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        put_u64le(s.bytes + s.head + WIRE_RECORD_SIZE + 2, now_ns());
        submit_send(&l, &s);
        board->published++;
        struct pollfd p = {.fd = l.fd, .events = POLLIN};
        while (poll(&p, 1, 0) == 1)
            do
                next_reply(&l, &reply, &length);
            while (has_complete_reply(&l));
    }
    _exit(0);
}

/* ---- the run ---- */

static pid_t workers[WORKERS_MAX];
static unsigned worker_count;

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
        int status;
        if (waitpid(-1, &status, WNOHANG) > 0) {
            fprintf(stderr, "bench_broker: a worker ended early\n");
            exit(1);
        }
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(double p)
{
    uint32_t count = board->samples < SAMPLES_MAX ? board->samples : SAMPLES_MAX;
    return count == 0 ? 0 : board->sample[(uint32_t)((count - 1) * p)] / 1000.0;
}

static uint64_t received(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < opt.subscribers; i++)
        sum += board->subscriber[i].received;
    return sum;
}

static void report(double elapsed, uint64_t published, uint64_t delivered, double cpu, long peak)
{
    uint32_t samples = board->samples < SAMPLES_MAX ? board->samples : SAMPLES_MAX;
    qsort(board->sample, samples, sizeof(uint32_t), compare);
    double per_million = published > 0 ? cpu / ((double)published / 1e6) : 0;
    static const char *const formats[] = {
        [true] = "{\"mode\":\"%s\",\"transport\":\"%s\",\"size\":%u,\"publishers\":%u,"
                 "\"subscribers\":%u,\"channels\":%u,\"seconds\":%.3f,"
                 "\"messages_per_second\":%.0f,\"deliveries_per_second\":%.0f,"
                 "\"broker_cpu_seconds_per_million\":%.4f,\"broker_peak_rss_kib\":%ld,"
                 "\"latency_us\":{\"samples\":%u,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
                 "\"p999\":%.1f,\"max\":%.1f},\"gaps\":%llu}\n",
        [false] = "%s over %s, %u bytes, %u -> %u, %u channels, %.1f s: %.0f messages/s, %.0f "
                  "deliveries/s, broker CPU %.4f s per million, peak %ld KiB; latency (us) of %u: "
                  "p50 %.1f p90 %.1f p99 %.1f p99.9 %.1f max %.1f; gaps %llu\n"};
    printf(formats[opt.json], opt.mode, opt.tcp ? "tcp" : "ipc", opt.size, opt.publishers,
           opt.subscribers, opt.channels, elapsed, (double)published / elapsed,
           (double)delivered / elapsed, per_million, peak, samples, percentile(0.5),
           percentile(0.9), percentile(0.99), percentile(0.999), percentile(1),
           (unsigned long long)board->gaps);
}

static int run(void)
{
    bool batched = strcmp(opt.mode, "batch") == 0, window = strcmp(opt.mode, "window") == 0;
    if (!batched && !window && strcmp(opt.mode, "rate") != 0) {
        fprintf(stderr, "bench_broker: --mode is batch, window or rate\n");
        return 2;
    }
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        fail("mmap");
    start_broker();
    for (unsigned i = 0; i < opt.subscribers; i++)
        spawn(NULL, i, !batched && !window);
    wait_ready(opt.subscribers);
    for (unsigned i = 0; i < opt.publishers; i++)
        spawn(batched ? publisher_batched : window ? publisher_window : publisher_rate, 0, false);
    wait_ready(opt.subscribers + opt.publishers);
    nanosleep(&(struct timespec){0, 300000000}, NULL); /* not part of the figure */
    board->samples = 0;
    uint64_t start = now_ns(), published = board->published, delivered = received();
    double cpu = broker_cpu();
    struct timespec length = {(time_t)opt.seconds,
                              (long)((opt.seconds - (double)(time_t)opt.seconds) * 1e9)};
    nanosleep(&length, NULL);
    cpu = broker_cpu() - cpu;
    published = board->published - published;
    delivered = received() - delivered;
    double elapsed = (double)(now_ns() - start) / 1e9;
    long peak = broker_rss_kib();
    for (unsigned i = 0; i < worker_count; i++) {
        kill(workers[i], SIGKILL);
        waitpid(workers[i], NULL, 0);
    }
    report(elapsed, published, delivered, cpu, peak);
    stop_broker();
    return board->gaps == 0 ? 0 : 1;
}

static const char help[] =
    "Usage: bench_broker [option ...]\n"
    "  --mode M         batch: as many messages as go; window: one request and its answer at a\n"
    "                   time; rate: one-way latency at --rate messages a second (default batch)\n"
    "  --publishers N   processes that publish (default 1)\n"
    "  --subscribers N  processes that subscribe (default 1)\n"
    "  --size N         bytes of a payload (default 64; rate: at least 8)\n"
    "  --batch N        bytes of one SUBMIT (default 65536)\n"
    "  --channels N     channels used, all subscribed by all (default 1)\n"
    "  --patterns       subscribe by pattern\n"
    "  --rate N         default 1000\n"
    "  --seconds S      default 3\n"
    "  --tcp            over tcp instead of a unix socket\n"
    "  --no-journal     the broker keeps its ring in anonymous memory\n"
    "  --broker PATH    the program (default: the one built with this)\n"
    "  --json           one JSON object\n";

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"mode", 1, 0, 'm'},     {"publishers", 1, 0, 'p'}, {"subscribers", 1, 0, 's'},
        {"size", 1, 0, 'z'},     {"batch", 1, 0, 'b'},      {"channels", 1, 0, 'c'},
        {"patterns", 0, 0, 'P'}, {"rate", 1, 0, 'r'},       {"seconds", 1, 0, 't'},
        {"tcp", 0, 0, 'T'},      {"no-journal", 0, 0, 'n'}, {"broker", 1, 0, 'B'},
        {"json", 0, 0, 'j'},     {"help", 0, 0, 'h'},       {0, 0, 0, 0}};
    opt.broker = BROKERD_PROGRAM;
    opt.mode = "batch";
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        unsigned number = optarg != NULL ? (unsigned)strtoul(optarg, NULL, 10) : 0;
        switch (option) {
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
        case 'c':
            opt.channels = number;
            break;
        case 'P':
            opt.patterns = 1;
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
        case 'n':
            opt.no_journal = true;
            break;
        case 'B':
            opt.broker = optarg;
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
    if (opt.publishers + opt.subscribers > WORKERS_MAX || opt.channels == 0 || opt.size < 8) {
        fputs(help, stderr);
        return 2;
    }
    return run();
}
