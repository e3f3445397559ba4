/*
 * brokerctl as a user meets it: what it prints, how it exits, what reaches subscribers.
 */
#include "../certificates.h"
#include "harness.h"
#include <stdarg.h>

static struct broker b;

/* ---- running it ---- */

static struct result {
    int status;
    char out[1 << 16], err[4096];
} ctl;

static void slurp(const char *name, char *text, size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", b.dir, name);
    int fd = open(path, O_RDONLY);
    ssize_t length = fd >= 0 ? read(fd, text, size - 1) : 0;
    text[length > 0 ? length : 0] = 0;
    if (fd >= 0)
        close(fd);
}

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line for the shell in which `brokerctl` asks the broker under test; what it did is in ctl. */
static void run(const char *format, ...)
{
    char line[1024], command[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    snprintf(command, sizeof(command),
             "cd %s && brokerctl() { BROKERD_URL=${url-ipc://%s} %s \"$@\"; } && { %s; } "
             ">out 2>err </dev/null",
             b.dir, b.path, BROKERCTL_PROGRAM, line);
    int status = system(command);
    ctl.status = WEXITSTATUS(status);
    slurp("out", ctl.out, sizeof(ctl.out));
    slurp("err", ctl.err, sizeof(ctl.err));
}

static void expect_status(int status)
{
    cr_assert_eq(ctl.status, status, "exit status %d, not %d; it said: %s%s", ctl.status, status,
                 ctl.out, ctl.err);
}

/* It failed with that status and one line that has all these texts. */
static void expect_failure(int status, ...)
{
    expect_status(status);
    cr_assert(strncmp(ctl.err, "brokerctl: ", 11) == 0, "%s", ctl.err);
    cr_assert_eq(strchr(ctl.err, '\n'), ctl.err + strlen(ctl.err) - 1, "one line, not: %s",
                 ctl.err);
    va_list texts;
    va_start(texts, status);
    for (const char *text; (text = va_arg(texts, const char *)) != NULL;)
        cr_assert(strstr(ctl.err, text) != NULL, "\"%s\" is not in: %s", text, ctl.err);
    va_end(texts);
}

static void expect_output(const char *text)
{
    expect_status(0);
    cr_assert_str_eq(ctl.out, text);
}

/* A brokerctl that goes on in the background, its output in the files out2 and err2. */
static pid_t start_in_background(const char *options)
{
    char command[512];
    snprintf(command, sizeof(command), "cd %s && exec %s --url ipc://%s %s >out2 2>err2", b.dir,
             BROKERCTL_PROGRAM, b.path, options);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void wait_for_text(const char *name, const char *text)
{
    static char all[1 << 16];
    int64_t until = now_ms() + DEADLINE_MS;
    do {
        slurp(name, all, sizeof(all));
        if (strstr(all, text) != NULL)
            return;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    } while (now_ms() < until);
    cr_assert_fail("%s has no \"%s\"; it is:\n%s", name, text, all);
}

static void stop(pid_t pid)
{
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

static void start(void)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
}

static void end(void)
{
    broker_end(&b);
}

TestSuite(brokerctl, .init = start, .fini = end, .timeout = 60);

/* ---- publish ---- */

/* The next message that the peer's session 1 is given. */
static void expect_message(struct peer *p, const char *channel, const void *payload, size_t length,
                           uint8_t flags)
{
    static struct answer a; /* the rest of the last batch */
    struct wire_record record;
    while (!answer_record(&a, &record))
        a = peer_ask(p, WIRE_FETCH, 0, 1, 0, NULL);
    cr_assert_eq(record.channel_length, strlen(channel));
    cr_assert_arr_eq(record.channel, channel, record.channel_length);
    cr_assert_eq(record.payload_length, length, "%zu bytes", record.payload_length);
    cr_assert_arr_eq(record.payload, payload, length);
    cr_assert_eq(record.flags, flags);
}

Test(brokerctl, publish_takes_its_message_from_the_argument)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 1, "news");
    run("brokerctl publish news 'hello there'");
    expect_output("");
    expect_message(&p, "news", "hello there", 11, 0);
    peer_close(&p);
}

Test(brokerctl, publish_takes_its_message_from_standard_input_byte_for_byte)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 1, "news");
    run("printf 'two\\nlines\\n\\000' | brokerctl publish --binary news");
    expect_output("");
    expect_message(&p, "news", "two\nlines\n\0", 11, WIRE_BINARY);
    run("printf '' | brokerctl publish news");
    expect_message(&p, "news", "", 0, 0);
    peer_close(&p);
}

Test(brokerctl, publish_lines_keeps_the_order_and_the_last_line_without_its_end)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 1, "news");
    run("{ seq 1 9999; echo; printf end; } | brokerctl publish -v --lines news");
    expect_output("10001 messages to 1 session\n");
    for (int i = 1; i <= 9999; i++) {
        char text[16];
        expect_message(&p, "news", text, (size_t)snprintf(text, sizeof(text), "%d", i), 0);
    }
    expect_message(&p, "news", "", 0, 0);
    expect_message(&p, "news", "end", 3, 0);
    peer_close(&p);
}

Test(brokerctl, publish_lines_does_not_hold_a_line_back)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 1, "news");
    int input[2];
    cr_assert(pipe(input) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        char url[128];
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(url, sizeof(url), "ipc://%s", b.path);
        dup2(input[0], 0);
        close(input[1]);
        execl(BROKERCTL_PROGRAM, "brokerctl", "publish", "--lines", "news", "--url", url,
              (char *)NULL);
        _exit(127);
    }
    close(input[0]);
    cr_assert(write(input[1], "first\nhalf of ", 14) == 14);
    expect_message(&p, "news", "first", 5, 0);
    cr_assert(write(input[1], "one\n", 4) == 4);
    expect_message(&p, "news", "half of one", 11, 0);
    close(input[1]);
    int status;
    waitpid(pid, &status, 0);
    cr_assert_eq(status, 0);
    peer_close(&p);
}

Test(brokerctl, publish_succeeds_when_nobody_listens_and_v_says_so)
{
    run("brokerctl publish -v news hello");
    expect_output("1 message to 0 sessions\n");
}

Test(brokerctl, options_stand_before_or_after_the_command)
{
    run("url=; brokerctl -v --url ipc://%s publish news hello", b.path);
    expect_output("1 message to 0 sessions\n");
    run("url=; brokerctl publish news -v hello --url ipc://%s", b.path);
    expect_output("1 message to 0 sessions\n");
    run("brokerctl publish -v -- news --hello");
    expect_output("1 message to 0 sessions\n");
}

Test(brokerctl, publish_that_is_refused_exits_1_and_says_why)
{
    run("head -c 9000000 /dev/zero | brokerctl publish news");
    expect_failure(1, "publish refused", "larger than the broker takes", "--max-message", NULL);
    run("brokerctl publish \"$(head -c 4097 /dev/zero | tr '\\0' x)\" hello");
    expect_failure(1, "4097 bytes", "4096", NULL);
}

Test(brokerctl, without_a_broker_it_exits_1_with_one_line_that_names_the_place)
{
    run("brokerctl publish --url ipc://%s/none news hello", b.dir);
    expect_failure(1, "no broker at ipc://", "/none", "No such file or directory", "--url", NULL);
    run("brokerctl ping --url tcp://127.0.0.1:1");
    expect_failure(1, "no broker at tcp://127.0.0.1:1", "nobody listens there", NULL);
    run("brokerctl ping --url nonsense");
    expect_failure(1, "ipc:///path, tcp://host:port or tls+tcp://host:port", NULL);
}

Test(brokerctl, a_mistake_exits_2_and_names_the_help)
{
    run("brokerctl");
    expect_failure(2, "which command", "--help", NULL);
    run("brokerctl nope");
    expect_failure(2, "unknown command nope", NULL);
    run("brokerctl publish");
    expect_failure(2, "CHANNEL", NULL);
    run("brokerctl publish a b c");
    expect_failure(2, "quote", NULL);
    run("brokerctl --nope ping");
    expect_failure(2, "unknown option --nope", NULL);
    run("brokerctl --timeout 0 ping");
    expect_failure(2, "--timeout", NULL);
    run("brokerctl publish --lines news hello");
    expect_failure(2, "--lines", NULL);
    run("brokerctl subscribe '[a'");
    expect_failure(2, "malformed", NULL);
}

Test(brokerctl, publish_without_a_message_on_a_terminal_exits_2)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    cr_assert(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    run("brokerctl publish news <%s", ptsname(terminal));
    expect_failure(2, "MESSAGE", "terminal", NULL);
    close(terminal);
}

Test(brokerctl, tells_version_and_help)
{
    run("brokerctl --version");
    expect_output("brokerctl " BROKERD_VERSION "\n");
    run("brokerctl --help");
    expect_status(0);
    cr_assert(strstr(ctl.out, "exit status") != NULL);
}

/* ---- a broker that does not answer ---- */

/* Says hello as a REP socket does, and nothing more. */
static pid_t start_mute(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    cr_assert(listen(listener, 4) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint8_t hello[SP_HELLO_SIZE];
        sp_hello_encode(hello, SP_REP);
        int fd = accept(listener, NULL, NULL);
        write_all(fd, hello, sizeof(hello));
        pause();
        _exit(0);
    }
    close(listener);
    return pid;
}

Test(brokerctl, publish_without_an_answer_exits_1_and_says_that_its_fate_is_unknown)
{
    char path[100];
    snprintf(path, sizeof(path), "%s/mute", b.dir);
    pid_t mute = start_mute(path);
    run("brokerctl publish --timeout 0.2 --url ipc://%s news hello", path);
    stop(mute);
    expect_failure(1, "did not answer within 0.2 s", "unknown", NULL);
}

Test(brokerctl, a_broker_that_does_not_even_say_hello_is_waited_for_no_longer_than_timeout)
{
    kill(b.pid, SIGSTOP);
    int64_t before = now_ms();
    run("brokerctl publish --timeout 0.2 news hello");
    kill(b.pid, SIGCONT);
    expect_failure(1, "no connection within 0.2 s", NULL);
    cr_assert_lt(now_ms() - before, 5000);
}

/* ---- subscribe ---- */

Test(brokerctl, subscribe_prints_what_matches_from_now_on)
{
    run("brokerctl publish news before");
    pid_t pid = start_in_background("subscribe -v 'n*' other");
    wait_for_text("err2", "subscribed");
    run("brokerctl publish news hello && brokerctl publish away no && brokerctl publish other yes");
    expect_output("");
    wait_for_text("out2", "news: hello\nother: yes\n");
    stop(pid);
    run("cat out2");
    expect_output("news: hello\nother: yes\n");
}

Test(brokerctl, subscribe_json_prints_an_object_a_line)
{
    pid_t pid = start_in_background("subscribe --json -v '*'");
    wait_for_text("err2", "subscribed");
    run("brokerctl publish 'a\"b' 'x\\y' && printf '\\000\\377' | brokerctl publish --binary c");
    expect_output("");
    wait_for_text("out2", "{\"id\":1,\"channel\":\"a\\\"b\",\"message\":\"x\\\\y\"}\n"
                          "{\"id\":2,\"channel\":\"c\",\"base64\":\"AP8=\"}\n");
    stop(pid);
}

Test(brokerctl, subscribe_goes_on_when_the_broker_comes_back)
{
    pid_t pid = start_in_background("subscribe -v news");
    wait_for_text("err2", "subscribed");
    broker_signal(&b, SIGKILL);
    broker_run(&b);
    wait_for_text("err2", "began anew");
    run("brokerctl publish news again");
    expect_output("");
    wait_for_text("out2", "news: again\n");
    stop(pid);
}

/* ---- what it shows ---- */

Test(brokerctl, ping_stats_sessions_and_channels_show_the_broker)
{
    struct peer p = peer_open(&b);
    peer_join(&p, 1, "news.*");
    run("brokerctl publish news.a hello; brokerctl ping");
    expect_status(0);
    cr_assert(strstr(ctl.out, "answered in") != NULL && strstr(ctl.out, BROKERD_VERSION) != NULL);
    run("brokerctl stats | grep '^published '; brokerctl stats --json | grep '\"published\": 1,$'");
    expect_status(0);
    run("brokerctl sessions");
    expect_status(0);
    cr_assert(strstr(ctl.out, "0000000000000001  member  test") != NULL, "%s", ctl.out);
    run("brokerctl channels --json 'n*'");
    expect_output("[\n  {\"kind\": \"pattern\", \"name\": \"news.*\", \"subscribers\": 1}\n]\n");
    run("brokerctl channels --json 'x*'");
    expect_output("[]\n");
    peer_close(&p);
}

Test(brokerctl, subscribe_says_that_weak_patterns_are_too_many)
{
    run("set -f; brokerctl subscribe $(for i in $(seq 1 65); do printf '[!-~]%%s' \"$(printf "
        "'?%%.0s' "
        "$(seq 1 $i)) \"; done)");
    expect_failure(1, "too many patterns without a literal part", "64", NULL);
}

Test(brokerctl, engines_are_listed_told_again_and_detached)
{
    struct peer p = peer_open(&b);
    struct answer a = peer_attach(
        &p, &(struct attaching){.session = 1, .generation = 1, .flags = WIRE_ENGINE, .name = "bus"},
        NULL);
    cr_assert_eq(a.reply.status, STATUS_OK);
    run("brokerctl engines | grep '^bus ' && brokerctl engine reset bus");
    expect_status(0);
    run("brokerctl engine detach bus && brokerctl engines --json");
    expect_output("[]\n");
    run("brokerctl engine detach bus");
    expect_failure(1, "no engine is called bus", NULL);
    struct peer twins[2];
    for (uint64_t i = 0; i < 2; i++) {
        twins[i] = peer_open(&b);
        struct attaching attach = {
            .session = 2 + i, .generation = 1, .flags = WIRE_ENGINE, .name = "bus"};
        cr_assert_eq(peer_attach(&twins[i], &attach, NULL).reply.status, STATUS_OK);
    }
    run("brokerctl engine -v reset bus && brokerctl -v engine detach bus");
    expect_output("2\n2\n");
    run("brokerctl engines --json");
    expect_output("[]\n");
    for (int i = 0; i < 2; i++)
        peer_close(&twins[i]);
    run("brokerctl engine stop bus");
    expect_failure(2, "detach NAME or reset NAME", NULL);
    peer_close(&p);
}

/* ---- the place and the secret ---- */

Test(brokerctl, without_a_url_it_asks_the_application_s_own_broker)
{
    run("url=; export BROKERD_APP=/srv/app; brokerctl ping");
    expect_failure(1, "/brokerd-", "/dae668e4084f07b6.sock", NULL);
}

static void start_with_secret(void)
{
    static char secret[120];
    broker_prepare(&b, (const char *[]){"--no-journal", "--secret-file", secret, NULL});
    snprintf(secret, sizeof(secret), "%s/secret", b.dir);
    int fd = open(secret, O_WRONLY | O_CREAT, 0600);
    cr_assert(write(fd, "open sesame\n", 12) == 12);
    close(fd);
    broker_run(&b);
}

TestSuite(brokerctl_secret, .init = start_with_secret, .fini = end, .timeout = 60);

Test(brokerctl_secret, who_knows_it_is_served)
{
    run("brokerctl --secret-file secret publish -v news hello && BROKERD_SECRET_FILE=secret "
        "brokerctl sessions");
    expect_status(0);
    pid_t pid = start_in_background("--secret-file secret subscribe -v news");
    wait_for_text("err2", "subscribed");
    broker_signal(&b, SIGKILL);
    broker_run(&b);
    wait_for_text("err2", "began anew");
    run("brokerctl --secret-file secret publish news again");
    expect_output("");
    wait_for_text("out2", "news: again\n");
    stop(pid);
}

Test(brokerctl_secret, who_does_not_know_it_is_told_what_to_give)
{
    run("brokerctl publish news hello");
    expect_failure(1, "authentication is required", "--secret-file", NULL);
    run("echo wrong >wrong; brokerctl --secret-file wrong publish news hello");
    expect_failure(1, "authentication failed", "--secret-file", NULL);
    run("brokerctl --secret-file none publish news hello");
    expect_failure(1, "none", "No such file", NULL);
}

Test(brokerctl, a_secret_that_the_broker_does_not_ask_for_is_a_mistake)
{
    run("echo open sesame >secret; brokerctl --secret-file secret publish news hello");
    expect_failure(1, "knows no secret", NULL);
}

/* ---- tls+tcp: libnng's TLS against ours ---- */

static char tls_url[64];

static void start_with_tls(void)
{
    static char ca_path[100], cert_path[100];
    char other[100];
    snprintf(tls_url, sizeof(tls_url), "tls+tcp://localhost:%d", free_port());
    broker_prepare(&b, (const char *[]){"--no-journal", "--listen", tls_url, "--tls-cert",
                                        cert_path, "--tls-client-ca", ca_path, NULL});
    snprintf(ca_path, sizeof(ca_path), "%s/ca.pem", b.dir);
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", b.dir);
    struct authority ca = authority_make("the tests' authority");
    struct authority foreign = authority_make("somebody else");
    pem_write(ca_path, ca.certificate, NULL);
    long serial = identity_write(cert_path, "DNS:localhost", 86400, &ca);
    snprintf(other, sizeof(other), "%s/revoked.crl", b.dir);
    revocation_list_write(other, &ca, serial, 86400, false);
    snprintf(other, sizeof(other), "%s/none_revoked.crl", b.dir);
    revocation_list_write(other, &ca, 0, 86400, false);
    snprintf(other, sizeof(other), "%s/expired.crl", b.dir);
    revocation_list_write(other, &ca, 0, -3600, false);
    snprintf(other, sizeof(other), "%s/own.pem", b.dir);
    identity_write(other, "DNS:brokerctl", 86400, &ca);
    snprintf(other, sizeof(other), "%s/other.pem", b.dir);
    pem_write(other, foreign.certificate, NULL);
    broker_run(&b);
}

TestSuite(brokerctl_tls, .init = start_with_tls, .fini = end, .timeout = 60);

static void run_tls(const char *options)
{
    run("brokerctl --url %s %s", tls_url, options);
}

Test(brokerctl_tls, publishes_with_the_right_files)
{
    run_tls("--ca-file ca.pem --cert-file own.pem --key-file own.pem publish -v news hello");
    expect_status(0);
    run("url=%s; BROKERD_CA_FILE=ca.pem BROKERD_CERT_FILE=own.pem brokerctl ping", tls_url);
    expect_status(0);
    cr_assert(strstr(ctl.out, tls_url) != NULL || strstr(ctl.out, "brokerd") != NULL, "%s",
              ctl.out);
}

Test(brokerctl_tls, a_revoked_broker_is_refused)
{
    run_tls("--ca-file ca.pem --crl-file none_revoked.crl --cert-file own.pem publish news hello");
    expect_status(0);
    run_tls("--ca-file ca.pem --crl-file revoked.crl --cert-file own.pem publish news hello");
    expect_failure(1, "certificate is refused", "--crl-file", NULL);
    run("BROKERD_CRL_FILE=revoked.crl brokerctl --url %s --ca-file ca.pem --cert-file own.pem ping",
        tls_url);
    expect_failure(1, "certificate is refused", NULL);
    run_tls("--ca-file ca.pem --crl-file expired.crl --cert-file own.pem publish news hello");
    expect_failure(1, "certificate is refused", NULL);
    run_tls("--ca-file ca.pem --crl-file ca.pem --cert-file own.pem publish news hello");
    expect_failure(1, "the file of --crl-file, ca.pem, cannot be used", NULL);
    run_tls("--ca-file ca.pem --crl-file none.crl --cert-file own.pem publish news hello");
    expect_failure(1, "none.crl", "No such file", NULL);
}

Test(brokerctl_tls, an_authority_that_did_not_sign_is_told)
{
    run_tls("--ca-file other.pem --cert-file own.pem publish news hello");
    expect_failure(1, "certificate is refused", "--ca-file", NULL);
    run_tls("--cert-file own.pem publish news hello"); /* the system's do not know it */
    expect_failure(1, "--ca-file", NULL);
    run_tls("--ca-file ca.pem publish --timeout 1 news hello");
    expect_failure(1, "brokerd", NULL);
    broker_log_has(&b, "TLS failed: peer did not return a certificate");
    run_tls("--ca-file none.pem publish news hello");
    expect_failure(1, "none.pem", "No such file", NULL);
}
