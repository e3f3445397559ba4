#include "../certificates.h"
#include "../injection/clock_jump.h"
#include "commands.h"
#include "harness.h"
#include "io_thread.h"
#include "proxy.h"

/*
 * The adapter's link against the real brokerd: several I/O threads, each a process as the broker
 * sees it, publish numbered messages and check what they are given. What may happen on the way:
 * links cut after a random prefix, the broker killed and started again, the broker stopped.
 */

enum { PROCESSES = 3, MESSAGES_MAX = 300000 };

struct process {
    struct io_thread *io;
    struct block *block;
    uint32_t *seen; /* publisher << 24 | number, in the order of arrival */
    size_t seen_count;
    uint32_t published; /* numbers up to this one were accepted by publish */
    bool confirmed;
    uint64_t gaps;
};

static struct process processes[PROCESSES];
static struct broker broker;
static struct proxy proxy;
static bool has_proxy;
static const char *secret_file;
static char tls_url[64], certificate[120]; /* the link's URL, "" for the ipc socket */

static void process_start(struct process *p, const char *path)
{
    char url[128], error[200];
    struct io_config config;
    snprintf(url, sizeof(url), "ipc://%s", path);
    io_config_init(&config);
    config.url = tls_url[0] != 0 ? tls_url : url;
    config.ca_file = tls_url[0] != 0 ? certificate : NULL;
    config.name = "test";
    config.secret_file = secret_file;
    config.block_buffer =
        1u << 30; /* the test may be slow; the mailbox's limit is another's test */
    *p = (struct process){.io = io_thread_start(&config, error, sizeof(error))};
    cr_assert(p->io != NULL, "%s", error);
    p->seen = malloc(MESSAGES_MAX * sizeof(*p->seen));
}

static struct block *listen_to(struct process *p, const char *channel, bool is_pattern)
{
    struct mailbox *m = mailbox_new(io_callbacks(p->io), 0);
    struct block *block = block_new(m, 0);
    mailbox_unref(m);
    cr_assert(commands_subscribe_block(p->io, block, channel, strlen(channel), is_pattern));
    return block;
}

static void take(struct process *p, const struct callback *c)
{
    if (c->kind == CALLBACK_GAP && c->block != NULL)
        p->gaps++;
    if (c->kind != CALLBACK_DELIVERY)
        return;
    cr_assert_lt(p->seen_count, (size_t)MESSAGES_MAX);
    cr_assert_geq(c->message->payload_length, 4u);
    uint32_t number = get_u32le(message_payload(c->message));
    if ((number & 0xffffff) != 0)
        p->seen[p->seen_count++] = number;
    else if (number >> 24 == (uint32_t)(p - processes))
        p->confirmed = true;
}

/* Takes what waits in each process's mailboxes; true if there was anything. */
static bool collect(void)
{
    bool any = false;
    for (int i = 0; i < PROCESSES && processes[i].io != NULL; i++) {
        struct callback *c;
        struct mailbox *m;
        while ((m = callback_pool_take(io_callbacks(processes[i].io), &c)) != NULL) {
            any = true;
            take(&processes[i], c);
            callback_free(c);
            mailbox_done(m);
        }
    }
    return any;
}

static void collect_or_wait(void)
{
    struct pollfd polls[PROCESSES];
    int n = 0;
    if (collect())
        return;
    for (; n < PROCESSES && processes[n].io != NULL; n++)
        polls[n] = (struct pollfd){.fd = callback_pool_fd(io_callbacks(processes[n].io)),
                                   .events = POLLIN};
    poll(polls, (nfds_t)n, 5);
    for (int i = 0; i < n; i++) {
        uint8_t token;
        if (polls[i].revents && read(polls[i].fd, &token, sizeof(token)) < 0)
            continue;
    }
}

static bool publish_number(struct process *p, uint32_t number, size_t size)
{
    static uint8_t payload[4096];
    put_u32le(payload, (uint32_t)(p - processes) << 24 | number);
    return commands_publish(p->io, "news", 4, payload, size < 4 ? 4 : size, true);
}

/* Every process has its own message: so its subscription is confirmed. Number 0 is for this. */
static void wait_until_confirmed(void)
{
    int64_t until = now_ms() + DEADLINE_MS;
    for (int i = 0; i < PROCESSES && processes[i].io != NULL; i++) {
        struct process *p = &processes[i];
        cr_assert(publish_number(p, 0, 4));
        while (!p->confirmed) {
            cr_assert(now_ms() < until, "process %d was not confirmed", i);
            collect_or_wait();
        }
    }
}

static void start_all(const char *const *arguments, unsigned lifetime_ms)
{
    broker_start(&broker, arguments);
    has_proxy = lifetime_ms > 0;
    if (has_proxy) {
        unsigned seed = getenv("SEED") ? (unsigned)atoi(getenv("SEED")) : (unsigned)now_ms();
        fprintf(stderr, "proxy's seed: %u\n", seed);
        proxy_start(&proxy, &broker, seed, lifetime_ms);
        __atomic_store_n(&proxy.calm, true, __ATOMIC_RELAXED);
    }
    for (int i = 0; i < PROCESSES; i++) {
        process_start(&processes[i], has_proxy ? proxy.path : broker.path);
        processes[i].block = listen_to(&processes[i], "news", false);
    }
    wait_until_confirmed();
}

static void end_all(void)
{
    for (int i = 0; i < PROCESSES; i++) {
        block_unref(processes[i].block);
        io_thread_stop(processes[i].io);
        free(processes[i].seen);
    }
    if (has_proxy)
        proxy_stop(&proxy);
    broker_end(&broker);
}

/* Publishes a few from every process, for ms; fault(n) is called every step_ms. */
static void publish_for(int64_t ms, int64_t step_ms, unsigned burst, void (*fault)(unsigned))
{
    int64_t end = now_ms() + ms, next = now_ms() + step_ms;
    unsigned steps = 0, seed = 1;
    while (now_ms() < end) {
        for (int i = 0; i < PROCESSES; i++) {
            unsigned n = processes[i].published < MESSAGES_MAX / PROCESSES - burst
                             ? (unsigned)rand_r(&seed) % burst
                             : 0;
            for (; n > 0; n--) {
                if (publish_number(&processes[i], processes[i].published + 1,
                                   (size_t)rand_r(&seed) % 300))
                    processes[i].published++;
            }
        }
        if (fault && now_ms() >= next) {
            fault(steps++);
            next = now_ms() + step_ms;
        }
        collect_or_wait();
    }
}

static size_t published_in_all(void)
{
    size_t sum = 0;
    for (int i = 0; i < PROCESSES; i++)
        sum += processes[i].published;
    return sum;
}

static bool all_have(size_t count)
{
    for (int i = 0; i < PROCESSES; i++) {
        if (processes[i].seen_count < count)
            return false;
    }
    return true;
}

/* Everything came, once, in each publisher's order, in one order for all. */
static void expect_everything_once(void)
{
    size_t sum = published_in_all();
    int64_t until = now_ms() + DEADLINE_MS;
    while (!all_have(sum) && now_ms() < until)
        collect_or_wait();
    int64_t quiet = now_ms() + 200; /* a second copy would come now */
    while (now_ms() < quiet)
        collect_or_wait();
    for (int i = 0; i < PROCESSES; i++) {
        struct process *p = &processes[i];
        uint32_t next[PROCESSES] = {0};
        struct io_stats stats;
        for (size_t n = 0; n < p->seen_count; n++) {
            uint32_t from = p->seen[n] >> 24, number = p->seen[n] & 0xffffff;
            cr_assert_lt(from, (uint32_t)PROCESSES);
            cr_assert_eq(number, ++next[from], "process %d: message %u of %u came where %u was due",
                         i, number, from, next[from]);
        }
        cr_assert_eq(p->seen_count, sum, "process %d has %zu messages of %zu", i, p->seen_count,
                     sum);
        cr_assert_eq(memcmp(p->seen, processes[0].seen, sum * sizeof(*p->seen)), 0,
                     "one order for all");
        cr_assert_eq(p->gaps, 0u);
        io_stats(p->io, &stats);
        cr_assert_eq(stats.publishes_unsure, 0u);
        cr_assert_eq(stats.unanswered_bytes, 0u);
    }
}

TestSuite(link_broker, .timeout = 120);

Test(link_broker, P1_a_publish_of_one_process_reaches_all_in_one_order)
{
    start_all(NULL, 0);
    publish_for(500, 1000, 40, NULL);
    expect_everything_once();
    cr_assert_gt(published_in_all(), 100u);
    end_all();
}

Test(link_broker, P1_subscribe_then_publish_of_one_thread_sees_its_own_message)
{
    start_all(NULL, 0);
    for (int n = 0; n < 200; n++) {
        char channel[20];
        snprintf(channel, sizeof(channel), "own%d", n);
        struct block *block = listen_to(&processes[0], channel, false);
        uint8_t payload[4];
        put_u32le(payload, (uint32_t)n + 1);
        cr_assert(commands_publish(processes[0].io, channel, strlen(channel), payload, 4, true));
        cr_assert(commands_publish(processes[1].io, channel, strlen(channel), payload, 4, true));
        block_unref(block);
    }
    int64_t until = now_ms() + DEADLINE_MS;
    bool heard[201] = {false};
    size_t count = 0;
    while (count < 200 && now_ms() < until) {
        collect_or_wait();
        for (size_t i = 0; i < processes[0].seen_count; i++) {
            uint32_t n = processes[0].seen[i];
            cr_assert_leq(n, 200u);
            count += !heard[n];
            heard[n] = true;
        }
        processes[0].seen_count = 0;
    }
    cr_assert_eq(count, 200u);
    end_all();
}

static void no_fault(unsigned n)
{
    (void)n;
}

Test(link_broker, P1_links_cut_after_random_prefixes_lose_and_double_nothing)
{
    start_all(NULL, 60);
    __atomic_store_n(&proxy.calm, false, __ATOMIC_RELAXED);
    publish_for(5000, 1000, 30, no_fault);
    __atomic_store_n(&proxy.calm, true, __ATOMIC_RELAXED);
    expect_everything_once();
    cr_assert_gt(__atomic_load_n(&proxy.cuts, __ATOMIC_RELAXED), 30u);
    end_all();
}

static void kill_the_broker(unsigned n)
{
    (void)n;
    broker_signal(&broker, SIGKILL);
    broker_run(&broker);
}

Test(link_broker, P4_a_killed_and_restarted_broker_loses_and_doubles_nothing)
{
    start_all(NULL, 0);
    publish_for(4000, 300, 60, kill_the_broker);
    expect_everything_once();
    end_all();
}

static void end_the_broker(unsigned n)
{
    (void)n;
    int status = broker_signal(&broker, SIGTERM);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    broker_run(&broker);
}

Test(link_broker, P1_a_planned_restart_is_no_event)
{
    start_all(NULL, 0);
    publish_for(2000, 300, 60, end_the_broker);
    expect_everything_once();
    end_all();
}

Test(link_broker, P1_kills_and_cuts_together)
{
    start_all(NULL, 80);
    __atomic_store_n(&proxy.calm, false, __ATOMIC_RELAXED);
    publish_for(5000, 500, 30, kill_the_broker);
    __atomic_store_n(&proxy.calm, true, __ATOMIC_RELAXED);
    expect_everything_once();
    end_all();
}

static void stop_the_broker(unsigned n)
{
    (void)n;
    int status;
    kill(broker.pid, SIGSTOP);
    cr_assert(waitpid(broker.pid, &status, WUNTRACED) == broker.pid && WIFSTOPPED(status));
    publish_for(300, 1000, 10, NULL);
    kill(broker.pid, SIGCONT);
}

Test(link_broker, P1_a_stopped_broker_delays_and_nothing_else)
{
    start_all(NULL, 0);
    publish_for(2000, 400, 30, stop_the_broker);
    expect_everything_once();
    end_all();
}

/* What a process did not get, it was told of; what it got is in order and not twice. */
static void expect_gaps_cover_the_losses(void)
{
    int64_t until = now_ms() + DEADLINE_MS;
    for (int i = 0; i < PROCESSES; i++)
        cr_assert(io_wait_published(processes[i].io, DEADLINE_MS));
    uint32_t last = (1u << 24) - 1; /* a mark that comes behind everything */
    cr_assert(publish_number(&processes[0], last, 4));
    for (int i = 0; i < PROCESSES; i++) {
        struct process *p = &processes[i];
        while (p->seen_count == 0 || p->seen[p->seen_count - 1] != last) {
            cr_assert(now_ms() < until, "process %d hears nothing any more", i);
            collect_or_wait();
        }
        uint32_t before[PROCESSES] = {0};
        size_t lost = 0;
        for (size_t n = 0; n + 1 < p->seen_count; n++) {
            uint32_t from = p->seen[n] >> 24, number = p->seen[n] & 0xffffff;
            cr_assert_gt(number, before[from], "process %d: twice or out of order", i);
            lost += number - before[from] - 1;
            before[from] = number;
        }
        cr_assert(lost == 0 || p->gaps > 0, "process %d: %zu lost, no GAP", i, lost);
    }
}

Test(link_broker, P1_a_tiny_ring_tells_every_loss_by_a_gap)
{
    start_all((const char *const[]){"--journal-size", "64K", NULL}, 80);
    __atomic_store_n(&proxy.calm, false, __ATOMIC_RELAXED);
    publish_for(4000, 700, 60, kill_the_broker);
    __atomic_store_n(&proxy.calm, true, __ATOMIC_RELAXED);
    expect_gaps_cover_the_losses();
    end_all();
}

Test(link_broker, a_broker_without_a_journal_is_a_new_epoch_after_a_restart)
{
    start_all((const char *const[]){"--no-journal", NULL}, 0);
    publish_for(1500, 400, 40, kill_the_broker);
    expect_gaps_cover_the_losses();
    for (int i = 0; i < PROCESSES; i++)
        cr_assert_gt(processes[i].gaps, 0u);
    end_all();
}

Test(link_broker, authentication_by_a_secret)
{
    char dir[] = "/tmp/brokerd-secret-XXXXXX", right[64], wrong[64], url[128], error[200];
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(right, sizeof(right), "%s/right", dir);
    snprintf(wrong, sizeof(wrong), "%s/wrong", dir);
    const char *const texts[2][2] = {{right, "open sesame\n"}, {wrong, "open barley\n"}};
    for (int i = 0; i < 2; i++) {
        int fd = open(texts[i][0], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        cr_assert(write(fd, texts[i][1], 12) == 12);
        close(fd);
    }
    secret_file = right;
    start_all((const char *const[]){"--secret-file", right, NULL}, 0);
    publish_for(300, 1000, 20, NULL);
    expect_everything_once();
    struct io_config config;
    io_config_init(&config);
    snprintf(url, sizeof(url), "ipc://%s", broker.path);
    config.url = url;
    config.secret_file = wrong;
    struct io_thread *stranger = io_thread_start(&config, error, sizeof(error));
    cr_assert(stranger != NULL);
    broker_log_has(&broker, "authentication failed");
    struct io_stats stats;
    io_stats(stranger, &stats);
    cr_assert(!stats.connected);
    io_thread_stop(stranger);
    end_all();
    secret_file = NULL;
    unlink(right);
    unlink(wrong);
    rmdir(dir);
}

/* The same over TLS, by a certificate that signed itself. */
static void start_all_over_tls(void)
{
    snprintf(tls_url, sizeof(tls_url), "tls+tcp://127.0.0.1:%d", free_port());
    snprintf(certificate, sizeof(certificate), "/tmp/brokerd-test-%d.pem", getpid());
    identity_write(certificate, "IP:127.0.0.1", 86400, NULL);
    start_all((const char *[]){"--listen", tls_url, "--tls-cert", certificate, NULL}, 0);
}

static void end_all_over_tls(void)
{
    end_all();
    unlink(certificate);
}

Test(link_broker, P4_a_killed_broker_loses_and_doubles_nothing_over_tls)
{
    start_all_over_tls();
    publish_for(3000, 300, 60, kill_the_broker);
    expect_everything_once();
    end_all_over_tls();
}

Test(link_broker, P1_a_stopped_broker_loses_and_doubles_nothing_over_tls)
{
    start_all_over_tls();
    publish_for(2000, 500, 60, stop_the_broker);
    expect_everything_once();
    end_all_over_tls();
}

/* Clocks that jump, in the broker and in the adapter at once. The address sanitizer wants to be
 * first in a program, so nothing can be preloaded there. */
#if defined(__SANITIZE_ADDRESS__)
enum { CAN_PRELOAD = false };
#else
enum { CAN_PRELOAD = true };
#endif

static struct clock_jump *clocks;
static char clock_file[64];

static struct client *start_with_clocks(int *browser)
{
    int pair[2];
    snprintf(clock_file, sizeof(clock_file), "/tmp/brokerd-clock-%d", getpid());
    clocks = clock_jump_begin(clock_file, CLOCK_JUMP_LIBRARY);
    cr_assert_not_null(clocks);
    start_all(NULL, 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    struct client *c = client_new(processes[0].io, &(struct client_options){.fd = pair[0]}, 0);
    cr_assert(c != NULL && commands_open(c));
    /* it is in the middle of a message, which must not be taken for one that dribbles in */
    cr_assert_eq(write(pair[1], "\x81\xfe\xea\x60\0\0\0\0half", 12), 12);
    *browser = pair[1];
    return c;
}

static void end_with_clocks(struct client *c, int browser)
{
    struct io_stats stats;
    io_stats(processes[0].io, &stats);
    cr_assert(client_is_open(c), "no WebSocket pays for it");
    cr_assert_eq(stats.ping_timeouts + stats.evicted_stalled, 0u);
    client_unref(c);
    end_all();
    close(browser);
    unlink(clock_file);
}

static void set_the_wall_clock(unsigned n)
{
    const int64_t year = 365 * 86400;
    clocks->wall_s = (n % 2 ? 10 : -10) * year;
}

Test(link_broker, P1_a_wall_clock_that_jumps_by_years_is_noticed_by_nobody,
     .disabled = !CAN_PRELOAD)
{
    int browser;
    struct client *c = start_with_clocks(&browser);
    publish_for(2500, 100, 30, set_the_wall_clock);
    expect_everything_once();
    for (int i = 0; i < PROCESSES; i++) {
        struct io_stats stats;
        io_stats(processes[i].io, &stats);
        cr_assert_eq(stats.link_connects, 1u, "the link of process %d was made anew", i);
    }
    end_with_clocks(c, browser);
}

static void sleep_for_ten_minutes(unsigned n)
{
    (void)n;
    clocks->monotonic_s += 600;
}

/* As after a suspended machine, or processes that did not run. */
Test(link_broker, P1_ten_minutes_that_went_by_at_once_lose_and_double_nothing,
     .disabled = !CAN_PRELOAD)
{
    int browser;
    struct client *c = start_with_clocks(&browser);
    publish_for(4000, 700, 30, sleep_for_ten_minutes);
    expect_everything_once();
    end_with_clocks(c, browser);
}
