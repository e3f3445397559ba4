/* Sockets, signals, options and the admin port of the daemon. */
#include "../certificates.h"
#include "harness.h"

static struct broker b;

TestSuite(listen, .timeout = 120);

Test(listen, stale_socket_file_is_replaced)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    broker_signal(&b, SIGKILL);
    struct stat file;
    cr_assert(lstat(b.path, &file) == 0 && S_ISSOCK(file.st_mode));
    broker_run(&b);
    broker_log_has(&b, "left by a broker that is gone");
    struct peer p = peer_open(&b);
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
    broker_end(&b);
}

Test(listen, live_socket_is_refused_and_not_disturbed)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct broker second = b;
    int status;
    cr_assert(!broker_try(&second, &status));
    cr_assert_eq(WEXITSTATUS(status), 1);
    broker_log_has(&b, "another broker serves it");
    struct peer p = peer_open(&b);
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
    broker_end(&b);
}

Test(listen, socket_that_a_program_without_lock_serves_is_refused)
{
    broker_prepare(&b, (const char *[]){"--no-journal", NULL});
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", b.path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
    cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
    cr_assert(!broker_try(&b, &status));
    cr_assert_eq(WEXITSTATUS(status), 1);
    broker_log_has(&b, "another program serves it");
    close(fd);
    broker_end(&b);
}

Test(listen, path_that_is_no_socket_is_refused_and_kept)
{
    broker_prepare(&b, (const char *[]){"--no-journal", NULL});
    int fd = open(b.path, O_WRONLY | O_CREAT, 0600), status;
    cr_assert(write(fd, "keep", 4) == 4);
    close(fd);
    cr_assert(!broker_try(&b, &status));
    broker_log_has(&b, "not a socket");
    struct stat file;
    cr_assert(lstat(b.path, &file) == 0 && file.st_size == 4);
    broker_end(&b);
}

Test(listen, twelve_at_once_over_a_stale_socket_give_one)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    broker_signal(&b, SIGKILL);
    struct broker many[12];
    int ready[2], ended = 0;
    cr_assert(pipe2(ready, O_CLOEXEC) == 0);
    for (int i = 0; i < 12; i++) {
        many[i] = b;
        many[i].pid = fork();
        if (many[i].pid == 0)
            broker_exec(&many[i], ready[1]);
    }
    close(ready[1]);
    char byte;
    cr_assert(read(ready[0], &byte, 1) == 1);
    for (; ended < 11; ended++) { /* eleven see that one serves, and end with status 1 */
        int status;
        cr_assert(waitpid(-1, &status, 0) > 0);
        cr_assert_eq(WEXITSTATUS(status), 1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 0, "two became ready");
    struct peer p = peer_open(&b);
    cr_assert_eq(peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.status, STATUS_OK);
    for (int i = 0; i < 12; i++)
        if (kill(many[i].pid, 0) == 0)
            b.pid = many[i].pid;
    broker_end(&b);
}

Test(listen, socket_is_0660_whatever_the_umask)
{
    mode_t mask = umask(0);
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    umask(mask);
    struct stat file;
    cr_assert(lstat(b.path, &file) == 0);
    cr_assert_eq(file.st_mode & 0777, 0660);
    broker_end(&b);
}

/* Bound with its mode, not given it afterwards: who looks all the time never sees another. */
Test(listen, socket_is_0660_from_its_first_moment)
{
    mode_t mask = umask(0);
    for (int round = 0; round < 10; round++) {
        int pair[2];
        broker_prepare(&b, (const char *[]){"--no-journal", NULL});
        cr_assert(pipe2(pair, O_CLOEXEC) == 0);
        pid_t watcher = fork();
        if (watcher == 0) {
            struct stat file;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (lstat(b.path, &file) != 0)
                ;
            _exit(write(pair[1], &file.st_mode, sizeof(file.st_mode)) > 0 ? 0 : 1);
        }
        broker_run(&b);
        mode_t mode = 0;
        cr_assert(read(pair[0], &mode, sizeof(mode)) == sizeof(mode));
        cr_assert_eq(mode & 0777, 0660, "mode %o at first", mode & 0777);
        waitpid(watcher, NULL, 0);
        close(pair[0]);
        close(pair[1]);
        broker_end(&b);
    }
    umask(mask);
}

Test(listen, sigterm_drains_sends_what_is_queued_and_removes_the_socket_rule_19)
{
    broker_start(&b, NULL);
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    static char payload[40000]; /* three of them in a batch, and eight batches */
    struct body body = {0};
    for (uint64_t i = 1; i <= 20; i++)
        body_publish(&body, 7, i, "x", payload, sizeof(payload));
    uint32_t first = p.next_id;
    for (int i = 0; i < 30; i++)
        peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &body);
    kill(b.pid, SIGTERM);
    uint64_t last = 0;
    unsigned away = 0;
    struct answer a;
    for (uint32_t i = 0; i < 30; i++) {
        cr_assert(peer_next(&p, &a));
        cr_assert_eq(a.id, first + i);
        struct wire_record record;
        while (answer_record(&a, &record))
            cr_assert_eq(record.id, ++last);
        away += a.reply.status == STATUS_GOING_AWAY;
    }
    cr_assert_eq(last, 20);
    cr_assert_gt(away, 0);
    expect_closed(p.fd);
    int status = broker_wait(&b);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    struct stat file;
    cr_assert(lstat(b.path, &file) != 0, "the socket file is left");
    broker_end(&b);
}

Test(listen, sigterm_gives_up_after_5_s_on_a_peer_that_does_not_read_rule_19)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    for (int i = 0; i < 8; i++)
        peer_request(&p, WIRE_FETCH, 0, 9, 0, NULL);
    static char payload[4 << 20];
    struct body body = {0};
    body_publish(&body, 7, 1, "x", payload, sizeof(payload));
    peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &body);
    int64_t start = now_ms();
    int status = broker_signal(&b, SIGINT);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert(now_ms() - start >= 4000 && now_ms() - start < 8000);
    broker_end(&b);
}

Test(listen, exit_when_idle)
{
    broker_start(&b, (const char *[]){"--no-journal", "--exit-when-idle", "1", NULL});
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    for (int i = 0; i < 3; i++) /* stays while there is a session */
        peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
    peer_close(&p);
    int status = broker_wait(&b);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    broker_log_has(&b, "ending: no session for 1 s");
    broker_end(&b);
}

static int tcp_connect(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

Test(listen, tcp_and_ipc_share_one_broker)
{
    char url[64];
    int port = free_port();
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
    broker_start(&b, (const char *[]){"--no-journal", "--listen", url, NULL});
    struct peer tcp = {.fd = tcp_connect(port), .transport = SP_TCP, .next_id = 0x80000001};
    struct peer ipc = peer_open(&b);
    peer_hello(&tcp);
    peer_join(&tcp, 9, "x");
    cr_assert_eq(peer_publish(&ipc, 0, 7, 1, "x", "y").reply.records, 1);
    cr_assert_eq(peer_ask(&tcp, WIRE_FETCH, 0, 9, 0, NULL).reply.records, 1);
    broker_end(&b);
}

Test(listen, tls_for_everybody_beyond_loopback_is_warned_of)
{
    static char url[64], path[100];
    broker_prepare(&b, (const char *[]){"--no-journal", "--listen", url, "--tls-cert", path, NULL});
    snprintf(path, sizeof(path), "%s/cert.pem", b.dir);
    snprintf(url, sizeof(url), "tls+tcp://0.0.0.0:%d", free_port());
    identity_write(path, "DNS:localhost", 30 * 86400, NULL);
    broker_run(&b);
    broker_log_has(&b, "lets in everybody who reaches it: give --secret-file or --tls-client-ca");
    broker_end(&b);
}

/* Sends a GET and returns the whole answer. */
static const char *http_get(int port, const char *path)
{
    static char text[65536];
    char request[128];
    int fd = tcp_connect(port);
    int length = snprintf(request, sizeof(request),
                          "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    write_all(fd, request, (size_t)length);
    size_t used = 0;
    while (used < sizeof(text) - 1 && read_all(fd, text + used, 1))
        used++;
    text[used] = 0;
    close(fd);
    return text;
}

Test(listen, admin_http)
{
    char address[32];
    int port = free_port();
    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    broker_start(&b, (const char *[]){"--no-journal", "--admin", address, NULL});
    const char *text = http_get(port, "/healthz");
    cr_assert(strstr(text, "200 OK") != NULL && strstr(text, "\r\n\r\nok\n") != NULL);
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    peer_publish(&p, 9, 7, 1, "x", "y");
    text = http_get(port, "/metrics");
    cr_assert(strstr(text, "\nbrokerd_published_total 1\n") != NULL);
    cr_assert(strstr(text, "\nbrokerd_sessions 1\n") != NULL);
    cr_assert(strstr(text, "# TYPE brokerd_published_total counter") != NULL);
    cr_assert(strstr(http_get(port, "/elsewhere"), "404") != NULL);
    broker_end(&b);
}

/* Runs brokerd with these arguments; its exit status. What it writes is in `output`. */
static int run(const char *const *arguments, char *output, size_t size)
{
    int out[2], status;
    cr_assert(pipe2(out, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        const char *argv[16] = {BROKERD_PROGRAM};
        for (int i = 0; arguments[i] != NULL; i++)
            argv[1 + i] = arguments[i];
        dup2(out[1], 1);
        dup2(out[1], 2);
        execv(BROKERD_PROGRAM, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(out[1]);
    size_t used = 0;
    ssize_t n;
    while ((n = read(out[0], output + used, size - 1 - used)) > 0)
        used += (size_t)n;
    output[used] = 0;
    close(out[0]);
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

Test(listen, option_errors_say_what_was_wrong_and_what_would_be_right)
{
    static const struct {
        const char *arguments[8], *text;
    } cases[] = {
        {{NULL}, "--listen is missing"},
        {{"--listen", "http://x"}, "must begin with ipc://, tcp:// or tls+tcp://"},
        {{"--listen", "tcp://127.0.0.1"}, "HOST:PORT"},
        {{"--listen", "tcp://127.0.0.1:99999"}, "0 to 65535"},
        {{"--listen", "ipc://"}, "the path is missing"},
        {{"--listen"}, "--listen needs a value"},
        {{"--listen", "tcp://0.0.0.0:7777"}, "--insecure"},
        {{"--listen", "tcp://*:7777"}, "--insecure"},
        {{"--listen", "tcp://[::]:7777"}, "--insecure"},
        {{"--listen", "tls+tcp://127.0.0.1:7777"}, "give --tls-cert"},
        {{"--listen", "ipc:///tmp/x", "--tls-cert", "c"}, "which is missing"},
        {{"--listen", "ipc:///tmp/x", "--tls-key", "c"}, "which is missing"},
        {{"--listen", "tls+tcp://127.0.0.1:0", "--tls-cert", "c", "--tls-client-crl", "l"},
         "--tls-client-ca, which is missing"},
        {{"--listen", "ipc:///tmp/x", "--secret-file", "s", "--background"}, "must be absolute"},
        {{"--listen", "ipc:///tmp/x", "--journal-size", "3"}, "64K"},
        {{"--listen", "ipc:///tmp/x", "--max-message", "x"}, "8M"},
        {{"--listen", "ipc:///tmp/x", "--log-level", "loud"}, "error, warn, info or debug"},
        {{"--listen", "ipc:///tmp/x", "--journal", "j", "--no-journal"}, "exclude each other"},
        {{"--frobnicate"}, "unknown option --frobnicate"},
        {{"ipc:///tmp/x"}, "unexpected argument"},
    };
    char output[8192];
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        cr_assert_eq(run(cases[i].arguments, output, sizeof(output)), 2, "case %zu", i);
        cr_assert(strstr(output, cases[i].text) != NULL, "case %zu: %s", i, output);
        cr_assert(strchr(output, '\n') == output + strlen(output) - 1, "more than one line");
    }
    cr_assert_eq(run((const char *[]){"--version", NULL}, output, sizeof(output)), 0);
    cr_assert(strncmp(output, "brokerd ", 8) == 0);
    cr_assert_eq(run((const char *[]){"--help", NULL}, output, sizeof(output)), 0);
    cr_assert(strstr(output, "--exit-when-idle") != NULL);
}
