#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct load_options load_opt = {.mode = "batch",
                                .publishers = 1,
                                .subscribers = 1,
                                .size = 64,
                                .batch = 131072,
                                .channels = 1,
                                .warm_up = 0.3,
                                .seconds = 3,
                                .rate = 1000};
struct load_board *load_board;
pid_t load_server;
char load_dir[] = "/tmp/brokerd-bench-XXXXXX";
struct sockaddr_storage load_address;
socklen_t load_address_size;

static pid_t parent, workers[LOAD_WORKERS_MAX];
static unsigned worker_count;

void load_give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", load_opt.program);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void load_fail(const char *what)
{
    load_give_up("%s: %s", what, strerror(errno));
}

uint64_t load_now(void)
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
    if (clock_getcpuclockid(load_server, &clock) != 0 || clock_gettime(clock, &used) != 0)
        load_fail("the server's CPU clock");
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static long server_peak_kib(void)
{
    char path[64], line[256];
    long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", load_server);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

int load_free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&in, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&in, &size) != 0)
        load_fail("no free port");
    close(fd);
    return ntohs(in.sin_port);
}

void load_set_address(const char *file, int port)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&load_address;
    struct sockaddr_un *un = (struct sockaddr_un *)&load_address;
    if (load_opt.tcp) {
        *in = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        load_address_size = sizeof(*in);
    } else {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%s/%s", load_dir, file);
        load_address_size = sizeof(*un);
    }
}

/* Also on the way out after an error. */
static void stop_all(void)
{
    char command[64];
    if (parent != getpid())
        return;
    for (unsigned i = 0; i < worker_count; i++) {
        kill(workers[i], SIGKILL);
        waitpid(workers[i], NULL, 0);
    }
    if (load_server > 0) {
        kill(load_server, SIGTERM);
        waitpid(load_server, NULL, 0);
    }
    snprintf(command, sizeof(command), "rm -rf %s", load_dir);
    if (system(command) != 0)
        fprintf(stderr, "%s: %s is left\n", load_opt.program, load_dir);
}

/* ---- one connection ---- */

void load_connect(int *fd)
{
    int one = 1;
    *fd = socket(load_address.ss_family, SOCK_STREAM, 0);
    if (*fd < 0 || connect(*fd, (struct sockaddr *)&load_address, load_address_size) != 0)
        load_fail("connect");
    if (load_opt.tcp)
        setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void load_write(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        ssize_t n = send(fd, at, length, MSG_NOSIGNAL);
        if (n <= 0)
            load_fail("send");
        at += n;
        length -= (size_t)n;
    }
}

/* ---- the workers ---- */

void load_sample(uint64_t ns)
{
    uint32_t i = load_board->samples++;
    if (i < LOAD_SAMPLES_MAX)
        load_board->sample[i] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

void load_wait_for_subscribers(size_t message_size)
{
    while (load_opt.subscribers > 0 && !load_board->stop) {
        uint64_t least = UINT64_MAX;
        for (unsigned i = 0; i < load_opt.subscribers; i++) {
            uint64_t received = load_board->subscriber[i].received;
            least = received < least ? received : least;
        }
        if ((load_board->published - least) * message_size < LOAD_LEAD)
            return;
        nanosleep(&(struct timespec){0, 20000}, NULL);
    }
}

void load_at_rate(int fd, void (*send)(void *), void (*drain)(void *), void *context)
{
    uint64_t step = (uint64_t)(1e9 / load_opt.rate), next = load_now() + step;
    for (; !load_board->stop; next += step) {
        struct timespec until = {(time_t)(next / 1000000000), (long)(next % 1000000000)};
        struct pollfd p = {.fd = fd, .events = POLLIN};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        send(context);
        load_board->published++;
        while (poll(&p, 1, 0) == 1)
            drain(context);
    }
}

static bool in_child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        load_fail("fork");
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    else
        workers[worker_count++] = pid;
    return pid == 0;
}

static void start_subscribers(const struct load_driver *driver, bool timed)
{
    unsigned processes = load_opt.processes > 0 ? load_opt.processes : load_opt.subscribers;
    for (unsigned i = 0; i < processes; i++) {
        unsigned first = load_opt.subscribers * i / processes;
        unsigned end = load_opt.subscribers * (i + 1) / processes;
        if (end > first && in_child())
            driver->subscribe(first, end - first, timed);
    }
}

static void start_publishers(void (*publish)(void))
{
    for (unsigned i = 0; i < load_opt.publishers; i++)
        if (in_child()) {
            publish();
            exit(0);
        }
}

static void wait_ready(unsigned count)
{
    while (load_board->ready < count) {
        for (unsigned i = 0; i < worker_count; i++)
            if (waitpid(workers[i], NULL, WNOHANG) == workers[i])
                load_give_up("a worker ended early");
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

/* ---- the run ---- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(const uint32_t *sample, uint32_t count, double p)
{
    return count == 0 ? 0 : sample[(uint32_t)((count - 1) * p)] / 1000.0;
}

static uint64_t received(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < load_opt.subscribers; i++)
        sum += load_board->subscriber[i].received;
    return sum;
}

struct figures {
    double elapsed, cpu;
    uint64_t published, delivered;
};

static void report(const char *server_name, const struct figures *f)
{
    uint32_t samples =
        load_board->samples < LOAD_SAMPLES_MAX ? load_board->samples : LOAD_SAMPLES_MAX;
    static const char *const formats[] = {
        [true] = "{\"server\":\"%s\",\"mode\":\"%s\",\"transport\":\"%s\",\"size\":%u,"
                 "\"publishers\":%u,\"subscribers\":%u,\"channels\":%u,\"seconds\":%.3f,"
                 "\"messages_per_second\":%.0f,\"deliveries_per_second\":%.0f,"
                 "\"broker_cpu_seconds_per_million\":%.4f,\"broker_peak_rss_kib\":%ld,"
                 "\"latency_us\":{\"samples\":%u,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
                 "\"p999\":%.1f,\"max\":%.1f},\"gaps\":%llu}\n",
        [false] = "%s %s over %s, %u bytes, %u -> %u, %u channels, %.1f s: %.0f messages/s, %.0f "
                  "deliveries/s, server CPU %.4f s per million, peak %ld KiB; latency (us) of %u: "
                  "p50 %.1f p90 %.1f p99 %.1f p99.9 %.1f max %.1f; gaps %llu\n"};
    uint32_t *sample = malloc(((size_t)samples + 1) * sizeof(*sample)); /* more still come */
    memcpy(sample, load_board->sample, samples * sizeof(*sample));
    qsort(sample, samples, sizeof(*sample), compare);
    printf(formats[load_opt.json], server_name, load_opt.mode, load_opt.tcp ? "tcp" : "unix",
           load_opt.size, load_opt.publishers, load_opt.subscribers, load_opt.channels, f->elapsed,
           (double)f->published / f->elapsed, (double)f->delivered / f->elapsed,
           f->published > 0 ? f->cpu / ((double)f->published / 1e6) : 0, server_peak_kib(), samples,
           percentile(sample, samples, 0.5), percentile(sample, samples, 0.9),
           percentile(sample, samples, 0.99), percentile(sample, samples, 0.999),
           percentile(sample, samples, 1), (unsigned long long)load_board->gaps);
    free(sample);
}

static void wait_for(double seconds)
{
    struct timespec length = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&length, NULL);
}

static struct figures measure(void)
{
    wait_for(load_opt.warm_up); /* not part of the figure */
    load_board->samples = 0;
    uint64_t start = load_now(), published = load_board->published, delivered = received();
    double cpu = server_cpu();
    wait_for(load_opt.seconds);
    cpu = server_cpu() - cpu;
    return (struct figures){.elapsed = (double)(load_now() - start) / 1e9,
                            .cpu = cpu,
                            .published = load_board->published - published,
                            .delivered = received() - delivered};
}

int load_run(const struct load_driver *driver)
{
    bool batched = strcmp(load_opt.mode, "batch") == 0;
    bool window = strcmp(load_opt.mode, "window") == 0;
    load_board =
        mmap(NULL, sizeof(*load_board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (load_board == MAP_FAILED || mkdtemp(load_dir) == NULL)
        load_fail("start");
    parent = getpid();
    atexit(stop_all);
    driver->start();
    start_subscribers(driver, !batched && !window);
    wait_ready(load_opt.subscribers);
    start_publishers(batched  ? driver->publish_batched
                     : window ? driver->publish_window
                              : driver->publish_at_rate);
    wait_ready(load_opt.subscribers + load_opt.publishers);
    struct figures figures = measure();
    report(driver->server_name, &figures);
    return load_board->gaps == 0 ? 0 : 1;
}

/* ---- the command line ---- */

const char load_help[] =
    "  --server PATH    the server's program\n"
    "  --mode M         batch: as many messages as go; window: one request and its answer at a\n"
    "                   time; rate: one-way latency at --rate messages a second (default batch)\n"
    "  --publishers N   processes that publish (default 1)\n"
    "  --subscribers N  connections that subscribe (default 1)\n"
    "  --processes N    that these are spread over (default: one each)\n"
    "  --size N         bytes of a payload (default 64, at least 16)\n"
    "  --batch N        bytes that are written at a time (default 131072)\n"
    "  --rate N         default 1000\n"
    "  --warm-up S      before measuring (default 0.3)\n"
    "  --seconds S      measured (default 3)\n"
    "  --tcp            over tcp instead of a unix socket\n"
    "  --json           one JSON object\n";

static bool set_flag(const char *name)
{
    if (strcmp(name, "--tcp") == 0)
        load_opt.tcp = true;
    else if (strcmp(name, "--json") == 0)
        load_opt.json = true;
    else
        return false;
    return true;
}

static bool set_value(const char *name, const char *value)
{
    static const struct {
        const char *name;
        unsigned *number;
        const char **text;
        double *real;
    } known[] = {{"--server", NULL, &load_opt.server, NULL},
                 {"--mode", NULL, &load_opt.mode, NULL},
                 {"--publishers", &load_opt.publishers, NULL, NULL},
                 {"--subscribers", &load_opt.subscribers, NULL, NULL},
                 {"--processes", &load_opt.processes, NULL, NULL},
                 {"--size", &load_opt.size, NULL, NULL},
                 {"--batch", &load_opt.batch, NULL, NULL},
                 {"--rate", NULL, NULL, &load_opt.rate},
                 {"--warm-up", NULL, NULL, &load_opt.warm_up},
                 {"--seconds", NULL, NULL, &load_opt.seconds}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i].name) != 0)
            continue;
        if (known[i].number != NULL)
            *known[i].number = (unsigned)strtoul(value, NULL, 10);
        else if (known[i].text != NULL)
            *known[i].text = value;
        else
            *known[i].real = atof(value);
        return true;
    }
    return false;
}

static bool is_sound(void)
{
    unsigned processes = load_opt.processes > 0 ? load_opt.processes : load_opt.subscribers;
    return (strcmp(load_opt.mode, "batch") == 0 || strcmp(load_opt.mode, "window") == 0 ||
            strcmp(load_opt.mode, "rate") == 0) &&
           load_opt.publishers + processes <= LOAD_WORKERS_MAX &&
           load_opt.subscribers <= LOAD_SUBSCRIPTIONS_MAX && load_opt.size >= 16 &&
           load_opt.channels > 0 && load_opt.rate > 0 && load_opt.seconds > 0;
}

bool load_parse(int argc, char **argv, const char *help, bool (*own)(const char *, const char *))
{
    bool ok = true;
    for (int i = 1; i < argc && ok; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s%s", help, load_help);
            exit(0);
        }
        if (set_flag(argv[i]) || own(argv[i], NULL))
            continue;
        ok = value != NULL && (set_value(argv[i], value) || own(argv[i], value));
        i++;
    }
    if (!ok || !is_sound())
        fprintf(stderr, "%s%s", help, load_help);
    return ok && is_sound();
}
