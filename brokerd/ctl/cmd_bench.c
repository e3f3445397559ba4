#include "bytes.h"
#include "ctl.h"
#include "ctl_link.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * Load through the same socket that every brokerctl command uses: one request at a time for each
 * process, so it shows what an ordinary program can expect. Every subscriber checks that it gets
 * each message once and in order.
 */
enum {
    BATCH_SIZE = 64 * 1024, /* of one SUBMIT, when no rate is given */
    LEAD_MAX = 8 << 20,     /* bytes that publishers may be ahead of the slowest subscriber */
    PAYLOAD_MIN = 24,       /* publisher, sequence, time of sending */
    SUB_BITS = 4,           /* of the histogram: steps of 1/16 of a power of two */
    BUCKETS = (65 - SUB_BITS) << SUB_BITS,
    FETCH_MS = 15000,
    CATCH_UP_MS = 15000
};

struct subscriber {
    _Atomic uint64_t received, faults; /* faults: lost, doubled or out of order */
    _Atomic uint64_t latency[BUCKETS]; /* counts, by nanoseconds */
};

/* In memory that all processes share. */
struct board {
    _Atomic bool measuring, stop;
    _Atomic unsigned ready, publishers_done;
    _Atomic uint64_t published;
    struct subscriber subscriber[CTL_BENCH_WORKERS_MAX];
};

struct bench {
    const struct ctl_options *options;
    struct board *board;
    char channel[64];
    pid_t workers[2 * CTL_BENCH_WORKERS_MAX];
    unsigned worker_count, ended;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static unsigned bucket_of(uint64_t value)
{
    if (value < 2u << SUB_BITS)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift << SUB_BITS) + (unsigned)(value >> shift);
}

static double bucket_us(unsigned bucket)
{
    if (bucket < 2u << SUB_BITS)
        return bucket / 1000.0;
    unsigned shift = (bucket >> SUB_BITS) - 1;
    return (double)(((uint64_t)(bucket - (shift << SUB_BITS)) + 1) << shift) / 1000.0;
}

/* ---- subscribers ---- */

static int take_record(const struct bench *b, struct subscriber *s,
                       const struct wire_record *record, uint64_t *expected, bool *end)
{
    if (record->type == WIRE_GAP) {
        s->faults += record->id - record->sequence + 1;
        return CTL_DONE;
    }
    if (record->type != WIRE_MESSAGE || record->payload_length < PAYLOAD_MIN)
        return CTL_DONE;
    uint64_t publisher = get_u64le(record->payload), sequence = get_u64le(record->payload + 8);
    if (publisher == UINT64_MAX) {
        *end = true;
        return CTL_DONE;
    }
    if (publisher >= b->options->publishers)
        return ctl_fail("a message on %s is not from this run", b->channel);
    if (sequence != expected[publisher])
        s->faults++;
    expected[publisher] = sequence + 1;
    s->received++;
    if (b->board->measuring)
        s->latency[bucket_of(now_ns() - get_u64le(record->payload + 16))]++;
    return CTL_DONE;
}

static int take_batch(const struct bench *b, struct subscriber *s, const struct ctl_reply *reply,
                      uint64_t *expected, bool *end)
{
    size_t at = 0, used;
    for (uint32_t i = 0; i < reply->header.records; i++, at += used) {
        struct wire_record record;
        if (wire_record_decode(reply->body + at, reply->length - at, &record, &used) != STATUS_OK)
            return ctl_fail("the broker sent a batch that cannot be read");
        if (take_record(b, s, &record, expected, end) != CTL_DONE)
            return CTL_FAILED;
    }
    return CTL_DONE;
}

static int subscribe(const struct bench *b, struct ctl_link *link, uint64_t *position)
{
    uint8_t list[256];
    struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                 .channel_length = (uint16_t)strlen(b->channel),
                                 .channel = (const uint8_t *)b->channel};
    struct ctl_reply reply;
    wire_record_encode(list, &record);
    if (ctl_link_attach(link, 0, 0, list, wire_record_size(record.channel_length, 0), 1, &reply) !=
        CTL_DONE)
        return CTL_FAILED;
    if (reply.header.status != STATUS_OK)
        return ctl_link_refused(link, "bench", &reply);
    *position = reply.header.head;
    return CTL_DONE;
}

static int fetch_all(const struct bench *b, struct ctl_link *link, struct subscriber *s,
                     uint64_t position)
{
    static uint64_t expected[CTL_BENCH_WORKERS_MAX];
    struct ctl_reply reply;
    for (bool end = false; !end;) {
        struct wire_request fetch = {.version = WIRE_VERSION,
                                     .operation = WIRE_FETCH,
                                     .session = link->session,
                                     .position = position};
        if (ctl_link_call(link, &fetch, NULL, 0, FETCH_MS, &reply) != CTL_DONE)
            return CTL_FAILED;
        if (reply.header.status != STATUS_OK)
            return ctl_link_refused(link, "bench", &reply);
        if (take_batch(b, s, &reply, expected, &end) != CTL_DONE)
            return CTL_FAILED;
        position = reply.header.value;
    }
    struct wire_request detach = {
        .version = WIRE_VERSION, .operation = WIRE_DETACH, .session = link->session};
    return ctl_link_call(link, &detach, NULL, 0, 0, &reply);
}

static int run_subscriber(const struct bench *b, unsigned number)
{
    struct ctl_link link;
    uint64_t position = 0;
    if (ctl_link_open(&link, b->options) != CTL_DONE || subscribe(b, &link, &position) != CTL_DONE)
        return CTL_FAILED;
    b->board->ready++;
    int result = fetch_all(b, &link, &b->board->subscriber[number], position);
    ctl_link_close(&link);
    return result;
}

/* ---- publishers ---- */

struct publisher {
    const struct bench *bench;
    struct ctl_link link;
    uint64_t number, sequence;
    uint64_t origin, origin_sequence; /* as the broker sees it: without holes */
    uint8_t *batch, *payload;
    size_t record_size;
};

/* The first message counts as sent at sent_at, each further one step ns later. */
static int submit(struct publisher *p, uint32_t count, uint64_t number, uint64_t sent_at,
                  double step)
{
    const struct bench *b = p->bench;
    struct ctl_reply reply;
    for (uint32_t i = 0; i < count; i++) {
        put_u64le(p->payload, number);
        put_u64le(p->payload + 8, p->sequence++);
        put_u64le(p->payload + 16, sent_at + (uint64_t)(i * step));
        struct wire_record record = {.type = WIRE_PUBLISH,
                                     .flags = WIRE_BINARY,
                                     .channel_length = (uint16_t)strlen(b->channel),
                                     .origin = p->origin,
                                     .sequence = ++p->origin_sequence,
                                     .channel = (const uint8_t *)b->channel,
                                     .payload = p->payload,
                                     .payload_length = b->options->size};
        wire_record_encode(p->batch + i * p->record_size, &record);
    }
    struct wire_request request = {
        .version = WIRE_VERSION, .operation = WIRE_SUBMIT, .records = count};
    if (ctl_link_call(&p->link, &request, p->batch, count * p->record_size, 0, &reply) != CTL_DONE)
        return CTL_FAILED;
    return reply.header.status == STATUS_OK ? CTL_DONE
                                            : ctl_link_refused(&p->link, "bench", &reply);
}

/* Nothing is to be lost for the journal going round. */
static void wait_for_subscribers(const struct publisher *p)
{
    struct board *board = p->bench->board;
    while (p->bench->options->subscribers > 0 && !board->stop) {
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < p->bench->options->subscribers; i++) {
            uint64_t received = board->subscriber[i].received;
            least = received < least ? received : least;
        }
        if ((board->published - least) * p->record_size < LEAD_MAX)
            return;
        nanosleep(&(struct timespec){0, 50000}, NULL);
    }
}

/* Returns how many messages are due then, when the first is due at that time. */
static uint32_t sleep_until_due(uint64_t at, double step, uint32_t most)
{
    struct timespec until = {(time_t)(at / 1000000000), (long)(at % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    uint64_t now = now_ns();
    double due = now > at ? (double)(now - at) / step + 1 : 1;
    return due < most ? (uint32_t)due : most;
}

/* With a rate, a message counts from when it was due; what has become due goes in one request. */
static int publish_all(struct publisher *p, uint32_t most)
{
    const struct ctl_options *options = p->bench->options;
    struct board *board = p->bench->board;
    double step = options->rate > 0 ? 1e9 * options->publishers / options->rate : 0;
    uint64_t start = now_ns(), sent = 0;
    while (!board->stop) {
        uint32_t count = most;
        uint64_t at = now_ns();
        if (step > 0) {
            at = start + (uint64_t)((double)sent * step);
            count = sleep_until_due(at, step, most);
        } else {
            wait_for_subscribers(p);
        }
        if (submit(p, count, p->number, at, step) != CTL_DONE)
            return CTL_FAILED;
        sent += count;
        board->published += count;
    }
    return CTL_DONE;
}

/* The first publisher sends the last word when all others are done: it comes after every message.
 */
static int say_end(struct publisher *p)
{
    struct board *board = p->bench->board;
    board->publishers_done++;
    if (p->number > 0)
        return CTL_DONE;
    while (board->publishers_done < p->bench->options->publishers)
        pause_ms(1);
    return submit(p, 1, UINT64_MAX, now_ns(), 0);
}

static int run_publisher(const struct bench *b, unsigned number)
{
    struct publisher p = {.bench = b, .number = number};
    p.record_size = wire_record_size(strlen(b->channel), b->options->size);
    uint32_t most = (uint32_t)(BATCH_SIZE / p.record_size) + 1;
    p.batch = malloc(most * p.record_size);
    p.payload = calloc(1, b->options->size);
    int result = CTL_FAILED;
    if (p.batch == NULL || p.payload == NULL)
        ctl_fail("out of memory");
    else if (getrandom(&p.origin, sizeof(p.origin), 0) != sizeof(p.origin))
        ctl_fail("no random numbers: %s", strerror(errno));
    else if (ctl_link_open(&p.link, b->options) == CTL_DONE) {
        b->board->ready++;
        result = publish_all(&p, most);
        if (result == CTL_DONE)
            result = say_end(&p);
        ctl_link_close(&p.link);
    }
    free(p.batch);
    free(p.payload);
    return result;
}

/* ---- the run ---- */

/* Forked before this process opens an NNG socket: libnng does not survive a fork. */
static bool spawn(struct bench *b, int (*run)(const struct bench *, unsigned), unsigned number)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return ctl_fail("fork: %s", strerror(errno)) == CTL_DONE;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? run(b, number) : CTL_FAILED);
    }
    b->workers[b->worker_count++] = pid;
    return true;
}

/* Takes note of workers that have ended; false when one failed (it has said why). */
static bool reap(struct bench *b)
{
    for (unsigned i = 0; i < b->worker_count; i++) {
        int status;
        if (b->workers[i] == 0 || waitpid(b->workers[i], &status, WNOHANG) != b->workers[i])
            continue;
        b->workers[i] = 0;
        b->ended++;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != CTL_DONE)
            return false;
    }
    return true;
}

static void end_workers(struct bench *b)
{
    for (unsigned i = 0; i < b->worker_count; i++) {
        if (b->workers[i] == 0)
            continue;
        kill(b->workers[i], SIGKILL);
        waitpid(b->workers[i], NULL, 0);
    }
}

static bool wait_ready(struct bench *b, unsigned count)
{
    uint64_t end = now_ns() + (uint64_t)b->options->timeout_ms * 1000000;
    while (b->board->ready < count) {
        if (!reap(b))
            return false;
        if (now_ns() > end) {
            ctl_fail("the broker at %s was not reached by all within the time", b->options->url);
            return false;
        }
        pause_ms(1);
    }
    return true;
}

static bool wait_for(struct bench *b, double seconds)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), before = 0, shown = start;
    for (uint64_t now = start; now < end; now = now_ns()) {
        pause_ms(end - now > 20000000 ? 20 : 1);
        if (!reap(b))
            return false;
        if (b->options->json || !isatty(STDERR_FILENO) || now - shown < 500000000)
            continue;
        uint64_t published = b->board->published;
        fprintf(stderr, "\r\033[K%.0f of %.0f s, %.0f messages/s", (double)(now - start) / 1e9,
                seconds, (double)(published - before) * 1e9 / (double)(now - shown));
        before = published;
        shown = now;
    }
    return true;
}

static double percentile(const struct bench *b, double p, uint64_t *count)
{
    uint64_t sum[BUCKETS] = {0}, total = 0, seen = 0;
    for (unsigned s = 0; s < b->options->subscribers; s++)
        for (unsigned i = 0; i < BUCKETS; i++) {
            sum[i] += b->board->subscriber[s].latency[i];
            total += b->board->subscriber[s].latency[i];
        }
    *count = total;
    for (unsigned i = 0; i < BUCKETS && total > 0; i++) {
        seen += sum[i];
        if ((double)seen >= p * (double)total)
            return bucket_us(i);
    }
    return 0;
}

static void received(const struct bench *b, uint64_t *sum, uint64_t *faults)
{
    *sum = *faults = 0;
    for (unsigned i = 0; i < b->options->subscribers; i++) {
        *sum += b->board->subscriber[i].received;
        *faults += b->board->subscriber[i].faults;
    }
}

static void report(const struct bench *b, double seconds, uint64_t messages, uint64_t deliveries,
                   uint64_t faults)
{
    const struct ctl_options *o = b->options;
    uint64_t n;
    double p50 = percentile(b, 0.5, &n), p99 = percentile(b, 0.99, &n);
    double p999 = percentile(b, 0.999, &n);
    if (!o->json && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    printf(o->json
               ? "{\"publishers\":%u,\"subscribers\":%u,\"size\":%zu,\"rate\":%.0f,"
                 "\"seconds\":%.2f,\"messages_per_second\":%.0f,\"deliveries_per_second\":%.0f,"
                 "\"latency_us\":{\"samples\":%llu,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f},"
                 "\"faults\":%llu}\n"
               : "%u publishers, %u subscribers, %zu bytes, rate %.0f, %.2f s: %.0f messages/s, "
                 "%.0f deliveries/s; latency of %llu (us): p50 %.1f p99 %.1f p99.9 %.1f; "
                 "lost, doubled or out of order: %llu\n",
           o->publishers, o->subscribers, o->size, o->rate, seconds, (double)messages / seconds,
           (double)deliveries / seconds, (unsigned long long)n, p50, p99, p999,
           (unsigned long long)faults);
}

static int measure(struct bench *b)
{
    const struct ctl_options *o = b->options;
    struct board *board = b->board;
    uint64_t deliveries, end_deliveries, faults;
    if (!wait_for(b, 0.3))
        return CTL_FAILED;
    received(b, &deliveries, &faults);
    uint64_t start = now_ns(), messages = board->published;
    board->measuring = true;
    if (!wait_for(b, o->seconds))
        return CTL_FAILED;
    board->measuring = false;
    messages = board->published - messages;
    received(b, &end_deliveries, &faults);
    double seconds = (double)(now_ns() - start) / 1e9;
    board->stop = true;
    for (uint64_t end = now_ns() + CATCH_UP_MS * UINT64_C(1000000); b->ended < b->worker_count;) {
        if (!reap(b) || now_ns() > end)
            return ctl_fail("not every message had come %d s after the last one was sent",
                            CATCH_UP_MS / 1000);
        pause_ms(1);
    }
    uint64_t all;
    received(b, &all, &faults);
    uint64_t due = board->published * o->subscribers;
    faults += due > all ? due - all : 0;
    report(b, seconds, messages, end_deliveries - deliveries, faults);
    return faults == 0 ? CTL_DONE : CTL_FAILED;
}

static int run(struct bench *b)
{
    const struct ctl_options *o = b->options;
    for (unsigned i = 0; i < o->subscribers; i++)
        if (!spawn(b, run_subscriber, i))
            return CTL_FAILED;
    if (!wait_ready(b, o->subscribers))
        return CTL_FAILED;
    for (unsigned i = 0; i < o->publishers; i++)
        if (!spawn(b, run_publisher, i))
            return CTL_FAILED;
    return wait_ready(b, o->subscribers + o->publishers) ? measure(b) : CTL_FAILED;
}

int cmd_bench(const struct ctl_options *options)
{
    uint64_t random;
    if (options->count > 0)
        return ctl_usage("bench takes options only, not %s", options->arguments[0]);
    if (options->size < PAYLOAD_MIN)
        return ctl_usage("--size is at least %d", PAYLOAD_MIN);
    struct bench b = {.options = options};
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return ctl_fail("no random numbers: %s", strerror(errno));
    snprintf(b.channel, sizeof(b.channel), "brokerctl.bench.%016llx", (unsigned long long)random);
    b.board =
        mmap(NULL, sizeof(*b.board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b.board == MAP_FAILED)
        return ctl_fail("out of memory");
    int result = run(&b);
    end_workers(&b);
    munmap(b.board, sizeof(*b.board));
    return result;
}
