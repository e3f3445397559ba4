/*
 * brokerctl as a user meets it: what it prints, how it exits, what reaches subscribers.
 */
#include "ctl_harness.h"

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

/* ---- the place ---- */

Test(brokerctl, without_a_url_it_asks_the_application_s_own_broker)
{
    run("url=; export BROKERD_APP=/srv/app; brokerctl ping");
    expect_failure(1, "/brokerd-", "/dae668e4084f07b6.sock", NULL);
}
