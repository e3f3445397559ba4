/*
 * Plain libnng programs against brokerd (examples/nng_client.c), also while a proxy between them
 * cuts their connections at random bytes: nothing twice, nothing lost.
 */
#include "harness.h"
#include <libgen.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

static struct broker b;

TestSuite(nng, .timeout = 180);

/* ---- a proxy process that cuts ---- */

struct proxy {
    pid_t pid;
    char path[100];
};

/* Moves bytes between the two until `budget` of them passed, or one side ends. The rest is lost. */
static void pump(int a, int z, size_t budget)
{
    struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = z, .events = POLLIN}};
    char bytes[4096];
    while (budget > 0 && poll(p, 2, -1) > 0)
        for (int i = 0; i < 2; i++) {
            if (p[i].revents == 0)
                continue;
            size_t most = budget < sizeof(bytes) ? budget : sizeof(bytes);
            ssize_t n = recv(p[i].fd, bytes, most, 0);
            if (n <= 0 || send(p[1 - i].fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
                return;
            budget -= (size_t)n;
        }
}

static void proxy_run(const struct proxy *proxy, const char *target, unsigned seed)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", proxy->path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 64) != 0)
        _exit(1);
    for (;;) {
        int near = accept(listener, NULL, NULL);
        /* now and then enough for a whole batch, or a subscriber that fell behind would never get
         * on */
        size_t budget = (size_t)rand_r(&seed) % (rand_r(&seed) % 16 == 0 ? 500000 : 20000);
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            snprintf(address.sun_path, sizeof(address.sun_path), "%s", target);
            int far = socket(AF_UNIX, SOCK_STREAM, 0);
            if (connect(far, (struct sockaddr *)&address, sizeof(address)) == 0)
                pump(near, far, budget);
            _exit(0);
        }
        close(near);
    }
}

static void proxy_start(struct proxy *proxy, const char *name, unsigned seed)
{
    snprintf(proxy->path, sizeof(proxy->path), "%s/%s", b.dir, name);
    proxy->pid = fork();
    if (proxy->pid == 0)
        proxy_run(proxy, b.path, seed);
    struct stat file;
    int64_t until = now_ms() + DEADLINE_MS;
    while (lstat(proxy->path, &file) != 0 && now_ms() < until)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
}

static void proxy_stop(const struct proxy *proxy)
{
    kill(proxy->pid, SIGKILL);
    waitpid(proxy->pid, NULL, 0);
}

/* ---- the example program ---- */

struct client {
    pid_t pid;
    FILE *out;
};

/* Another program of the build, its two outputs in one pipe. */
static struct client program_start(const char *name, const char *const *arguments)
{
    char broker_program[] = BROKERD_PROGRAM, program[512];
    snprintf(program, sizeof(program), "%s/%s", dirname(broker_program), name);
    const char *argv[8] = {program};
    for (int i = 0; arguments[i] != NULL; i++)
        argv[i + 1] = arguments[i];
    int out[2];
    cr_assert(pipe2(out, O_CLOEXEC) == 0);
    struct client c = {.pid = fork()};
    if (c.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        dup2(out[1], 2);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    close(out[1]);
    c.out = fdopen(out[0], "r");
    return c;
}

static struct client client_start(const char *path, const char *verb, const char *count)
{
    char url[160];
    snprintf(url, sizeof(url), "ipc://%s", path);
    return program_start("nng_client", (const char *[]){url, verb, "x", count, NULL});
}

static void client_end(struct client *c)
{
    int status;
    cr_assert(waitpid(c->pid, &status, 0) == c->pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the client ended with status %x",
              (unsigned)status);
    fclose(c->out);
}

/* `count` lines "id payload": payloads 1, 2, 3 ... and ids that only grow. */
static void expect_all(struct client *c, unsigned count)
{
    char line[256];
    unsigned long long last = 0, id, payload;
    for (unsigned i = 1; i <= count; i++) {
        cr_assert(fgets(line, sizeof(line), c->out) != NULL, "the subscriber ended");
        cr_assert(sscanf(line, "%llu %llu", &id, &payload) == 2, "it printed %s", line);
        cr_assert_eq(payload, i, "message %llu came, not %u", payload, i);
        cr_assert_gt(id, last);
        last = id;
    }
}

static void wait_subscribed(struct client *c)
{
    char line[256];
    cr_assert(fgets(line, sizeof(line), c->out) != NULL && strstr(line, "subscribed") != NULL);
}

Test(nng, unmodified_req0_works)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct client subscriber = client_start(b.path, "subscribe", "500");
    wait_subscribed(&subscriber);
    struct client publisher = client_start(b.path, "publish", "500");
    expect_all(&subscriber, 500);
    client_end(&publisher);
    client_end(&subscriber);
    broker_end(&b);
}

Test(nng, rules_5_and_16_connections_cut_under_load_nothing_twice_nothing_lost)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct proxy up, down;
    proxy_start(&up, "up", 1);
    proxy_start(&down, "down", 2);
    struct client subscriber = client_start(down.path, "subscribe", "6000");
    wait_subscribed(&subscriber);
    struct client publisher = client_start(up.path, "publish", "6000");
    expect_all(&subscriber, 6000);
    client_end(&publisher);
    client_end(&subscriber);
    struct peer p = peer_open(&b);
    struct answer a = peer_ask(&p, WIRE_QUERY, WIRE_STATS, 0, 0, NULL);
    const char *row = memmem(a.bytes, a.length, "\nconnections_opened\t", 20);
    cr_assert(row != NULL);
    cr_assert_gt(strtoul(row + 20, NULL, 10), 30ul, "hardly anything was cut");
    cr_assert_eq(a.reply.head, 6000, "something was taken twice");
    proxy_stop(&up);
    proxy_stop(&down);
    broker_end(&b);
}

Test(nng, P1_P4_the_broker_killed_under_load_nothing_twice_nothing_lost)
{
    broker_start(&b, NULL);
    struct client subscriber = client_start(b.path, "subscribe", "5000");
    wait_subscribed(&subscriber);
    struct client publisher = client_start(b.path, "publish", "5000");
    for (int kills = 0; kills < 8; kills++) {
        struct peer p = peer_open(&b);
        uint64_t before = peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.head, head = before;
        while (head < before + 300 && head < 5000)
            head = peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.head;
        broker_signal(&b, SIGKILL);
        peer_close(&p);
        broker_run(&b);
    }
    expect_all(&subscriber, 5000);
    client_end(&publisher);
    client_end(&subscriber);
    broker_end(&b);
}

/* Takes the broker's place and closes each connection at once, until `patient` clients have tried
 * and none tries any more, or for three seconds: a libnng whose handshake ends in its own write
 * dials no more (examples/nng_dial.h). */
static void break_handshakes(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, b.path);
    unlink(b.path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    cr_assert(listen(listener, 64) == 0);
    int broken = 0;
    int64_t until = now_ms() + 3000, quiet = until;
    while (now_ms() < until && now_ms() < quiet) {
        int fd = accept(listener, NULL, NULL); /* not poll: the client's write is to come later */
        if (fd < 0)
            continue;
        close(fd);
        broken++;
        quiet = now_ms() + 700;
    }
    cr_assert_gt(broken, 0);
    close(listener);
}

Test(nng, a_broken_handshake_ends_neither_the_example_nor_brokerctl)
{
    broker_start(&b, NULL);
    char url[160], line[64];
    snprintf(url, sizeof(url), "ipc://%s", b.path);
    struct client c[] = {
        client_start(b.path, "subscribe", "1"),
        program_start("brokerctl",
                      (const char *[]){"--url", url, "--verbose", "subscribe", "x", NULL}),
    };
    for (int i = 0; i < 2; i++)
        wait_subscribed(&c[i]);
    broker_signal(&b, SIGKILL);
    break_handshakes();
    broker_run(&b);
    struct peer p = peer_open(&b);
    peer_publish(&p, 0, 8, 1, "x", "1");
    expect_all(&c[0], 1);
    cr_assert(fgets(line, sizeof(line), c[1].out) != NULL && strcmp(line, "x: 1\n") == 0);
    client_end(&c[0]);
    kill(c[1].pid, SIGKILL);
    waitpid(c[1].pid, NULL, 0);
    broker_end(&b);
}

Test(nng, a_client_that_closes_at_once_does_not_stop_the_listener)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    for (int i = 0; i < 100; i++) {
        nng_socket s;
        char url[160];
        snprintf(url, sizeof(url), "ipc://%s", b.path);
        cr_assert(nng_req0_open(&s) == 0);
        cr_assert(nng_dial(s, url, NULL, 0) == 0);
        nng_close(s);
    }
    struct peer p = peer_open(&b);
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
    broker_end(&b);
}
