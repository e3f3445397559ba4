/*
 * examples/nng_engine.c, an engine on plain libnng, against brokerd: told of interest, publishes
 * into the broker, does not hear its own, and two of them join two brokers.
 */
#include "harness.h"
#include <libgen.h>

TestSuite(nng_engine, .timeout = 120);

struct engine {
    pid_t pid;
    int in;        /* its lines to publish */
    int out, told; /* its messages; what it is told */
    char rest[2][8192];
};

/* in and out: descriptors that it gets as its own, or -1 for pipes to the test. */
static void engine_start(struct engine *e, const struct broker *b, const char *name, int in,
                         int out)
{
    char broker_program[] = BROKERD_PROGRAM, program[512], url[160];
    int to[2], from[2], told[2];
    *e = (struct engine){.pid = 0};
    snprintf(program, sizeof(program), "%s/nng_engine", dirname(broker_program));
    snprintf(url, sizeof(url), "ipc://%s", b->path);
    cr_assert(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0 &&
              pipe2(told, O_CLOEXEC) == 0);
    e->pid = fork();
    if (e->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in < 0 ? to[0] : in, 0);
        dup2(out < 0 ? from[1] : out, 1);
        dup2(told[1], 2);
        execl(program, program, url, name, NULL);
        _exit(127);
    }
    close(to[0]), close(from[1]), close(told[1]);
    e->in = to[1], e->out = from[0], e->told = told[0];
}

static void engine_stop(const struct engine *e)
{
    kill(e->pid, SIGTERM);
    cr_assert(waitpid(e->pid, NULL, 0) == e->pid);
}

static void engine_say(const struct engine *e, const char *line)
{
    cr_assert(write(e->in, line, strlen(line)) == (ssize_t)strlen(line));
}

/* The next line is this one. which: 0 its output, 1 what it is told. */
static void expect_line(struct engine *e, int which, const char *line)
{
    char *rest = e->rest[which], *end;
    while ((end = strchr(rest, '\n')) == NULL) {
        struct pollfd p = {.fd = which ? e->told : e->out, .events = POLLIN};
        size_t have = strlen(rest);
        cr_assert(poll(&p, 1, DEADLINE_MS) == 1, "no line came, but %s was due", line);
        ssize_t n = read(p.fd, rest + have, sizeof(e->rest[0]) - 1 - have);
        cr_assert(n > 0, "the engine ended, but %s was due", line);
        rest[have + (size_t)n] = '\0';
    }
    *end = '\0';
    cr_assert_str_eq(rest, line);
    memmove(rest, end + 1, strlen(end + 1) + 1);
}

static void submit_name(struct peer *p, uint8_t type, const char *name)
{
    struct body body = {0};
    body_name(&body, type, name, strchr(name, '*') != NULL);
    cr_assert_eq(peer_ask(p, WIRE_SUBMIT, 0, 1, 0, &body).reply.status, STATUS_OK);
    body_reset(&body);
}

/* The next message of session 1, heartbeats aside, has this payload. */
static void expect_message(struct peer *p, const char *payload)
{
    struct answer a;
    struct wire_record record;
    int64_t until = now_ms() + DEADLINE_MS;
    do
        a = peer_ask(p, WIRE_FETCH, 0, 1, 0, NULL);
    while (a.reply.records == 0 && now_ms() < until);
    cr_assert_eq(a.reply.records, 1, "%u records", a.reply.records);
    cr_assert(answer_record(&a, &record));
    cr_assert(record.payload_length == strlen(payload) &&
                  memcmp(record.payload, payload, record.payload_length) == 0,
              "%.*s", (int)record.payload_length, (const char *)record.payload);
}

Test(nng_engine, is_told_of_interest_publishes_and_does_not_hear_its_own)
{
    struct broker b;
    struct engine e;
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer member = peer_open(&b);
    peer_join(&member, 1, "x");
    engine_start(&e, &b, "lines", -1, -1);
    expect_line(&e, 1, "nng_engine: attached");
    expect_line(&e, 1, "+ channel x");
    submit_name(&member, WIRE_SUBSCRIBE, "y*");
    expect_line(&e, 1, "+ pattern y*");
    submit_name(&member, WIRE_UNSUBSCRIBE, "y*");
    expect_line(&e, 1, "- pattern y*");
    engine_say(&e, "nonsense\nx from the engine\n");
    expect_line(&e, 1, "nng_engine: a line is CHANNEL, a space, MESSAGE");
    expect_message(&member, "from the engine");
    peer_publish(&member, 1, 8, 1, "x", "from a member");
    expect_line(&e, 0, "x from a member"); /* and not its own before */
    expect_message(&member, "from a member");
    peer_publish(&member, 1, 8, 2, "x", "two\nlines");
    expect_line(&e, 1, "nng_engine: message 3 does not fit a line");
    engine_stop(&e);
    broker_end(&b);
}

Test(nng_engine, rule_16_goes_on_when_the_broker_was_killed)
{
    struct broker b;
    struct engine e;
    broker_start(&b, NULL);
    struct peer member = peer_open(&b);
    peer_join(&member, 1, "x");
    engine_start(&e, &b, "lines", -1, -1);
    expect_line(&e, 1, "nng_engine: attached");
    expect_line(&e, 1, "+ channel x");
    broker_signal(&b, SIGKILL);
    peer_close(&member);
    engine_say(&e, "x said meanwhile\n");
    broker_run(&b);
    member = peer_open(&b);
    peer_join(&member, 1, "x");
    expect_line(&e, 1, "+ channel x"); /* told anew */
    peer_publish(&member, 1, 8, 1, "x", "after");
    expect_line(&e, 0, "x after");
    uint64_t head = 0;
    for (int64_t until = now_ms() + DEADLINE_MS; head < 2 && now_ms() < until;)
        head = peer_ask(&member, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.head;
    cr_assert_eq(head, 2, "the line said meanwhile was taken once");
    engine_stop(&e);
    broker_end(&b);
}

Test(nng_engine, two_of_them_make_two_brokers_one_without_a_loop)
{
    struct broker one, two;
    struct engine a, z;
    int there[2], back[2];
    broker_start(&one, (const char *[]){"--no-journal", NULL});
    broker_start(&two, (const char *[]){"--no-journal", NULL});
    struct peer here = peer_open(&one), far = peer_open(&two);
    peer_join(&here, 1, "x");
    peer_join(&far, 1, "x");
    cr_assert(pipe2(there, O_CLOEXEC) == 0 && pipe2(back, O_CLOEXEC) == 0);
    engine_start(&a, &one, "a", back[0], there[1]);
    engine_start(&z, &two, "b", there[0], back[1]);
    expect_line(&a, 1, "nng_engine: attached");
    expect_line(&z, 1, "nng_engine: attached");
    peer_publish(&here, 1, 8, 1, "x", "hello");
    expect_message(&here, "hello");
    expect_message(&far, "hello");
    peer_publish(&far, 1, 9, 1, "x", "answer");
    expect_message(&far, "answer");
    expect_message(&here, "answer"); /* hello did not come back before it */
    engine_stop(&a);
    engine_stop(&z);
    broker_end(&one);
    broker_end(&two);
}
