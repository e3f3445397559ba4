/* What one peer may hold: connections, sessions, subscriptions, bytes. Refused, counted, logged
 * with its name; it goes on with what it has, and gets more once it gave something back. */
#include "harness.h"

static struct broker b;

static void start(const char *option, const char *value)
{
    broker_start(&b, (const char *[]){"--no-journal", option, value, NULL});
}

static void end(void)
{
    broker_end(&b);
}

TestSuite(peers, .fini = end, .timeout = 60);

static uint64_t number_of(struct peer *p, const char *name)
{
    struct answer a = peer_ask(p, WIRE_QUERY, WIRE_STATS, 0, 0, NULL);
    cr_assert_eq(a.reply.status, STATUS_OK);
    char text[16384];
    snprintf(text, sizeof(text), "\n%.*s", (int)a.length, (const char *)a.bytes);
    char row[64];
    snprintf(row, sizeof(row), "\n%s\t", name);
    const char *at = strstr(text, row);
    cr_assert(at != NULL, "no %s in the statistics", name);
    return strtoull(at + strlen(row), NULL, 10);
}

Test(peers, connections_past_the_limit_are_closed_at_once)
{
    start("--peer-connections", "3");
    struct peer p = peer_open(&b), q = peer_open(&b), r = peer_open(&b);
    for (int i = 0; i < 5; i++) {
        int fd = peer_socket(b.path);
        expect_closed(fd);
        close(fd);
    }
    broker_log_has(&b, "is refused more connections: its address or user holds 3, and "
                       "--peer-connections is 3");
    cr_assert_leq(broker_log_count(&b, "is refused more connections", "ipc peer pid "), 2,
                  "at most one line a second");
    cr_assert_eq(number_of(&p, "peer_connections_refused"), 5);
    cr_assert_eq(number_of(&p, "connections"), 3);
    cr_assert_eq(number_of(&p, "peers"), 1);
    peer_close(&q);
    peer_close(&r);
    while (number_of(&p, "connections") > 1)
        ;
    q = peer_open(&b);
    cr_assert_eq(number_of(&q, "connections"), 2);
}

Test(peers, sessions_past_the_limit_are_refused)
{
    start("--peer-sessions", "2");
    struct peer p = peer_open(&b), q = peer_open(&b);
    peer_join(&p, 1, "x");
    peer_join(&q, 2, "x");
    struct attaching third = {.session = 3, .generation = 1};
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false);
    struct answer refused = peer_attach(&q, &third, &list);
    cr_assert_eq(refused.reply.status, STATUS_FULL);
    cr_assert_eq(refused.reply.records, 1, "none of the list is at fault");
    broker_log_has(&b, "is refused more sessions");
    cr_assert_eq(number_of(&p, "peer_sessions_refused"), 1);
    cr_assert_eq(peer_publish(&p, 1, 7, 1, "x", "y").reply.records, 2, "the others go on");
    /* rule 17: a newer link of a session is none more */
    struct attaching again = {.session = 1, .generation = 2};
    cr_assert_eq(peer_attach(&q, &again, NULL).reply.status, STATUS_OK);
    cr_assert_eq(peer_ask(&q, WIRE_DETACH, 0, 2, 0, NULL).reply.status, STATUS_OK);
    cr_assert_eq(peer_attach(&q, &third, NULL).reply.status, STATUS_OK);
}

Test(peers, subscriptions_past_the_limit_are_refused)
{
    start("--peer-subscriptions", "3");
    struct peer p = peer_open(&b), q = peer_open(&b);
    struct body body = {0};
    peer_join(&p, 1, "a");
    peer_join(&q, 2, "b");
    for (int i = 0; i < 3; i++) { /* twice the same is one */
        body_name(&body, WIRE_SUBSCRIBE, i < 2 ? "c" : "d", false);
    }
    struct answer a = peer_ask(&q, WIRE_SUBMIT, 0, 2, 0, &body);
    cr_assert_eq(a.reply.status, STATUS_FULL);
    cr_assert_eq(a.reply.value, 2);
    broker_log_has(&b, "is refused more subscriptions");
    cr_assert_eq(number_of(&p, "peer_subscriptions_refused"), 1);
    cr_assert_eq(number_of(&p, "subscriptions"), 3);
    body_reset(&body);
    body_name(&body, WIRE_UNSUBSCRIBE, "c", false);
    body_name(&body, WIRE_SUBSCRIBE, "d", false);
    cr_assert_eq(peer_ask(&q, WIRE_SUBMIT, 0, 2, 0, &body).reply.status, STATUS_OK);
}

/* They leave by and by, but not at the cost of who comes back with as many. */
Test(peers, subscriptions_of_an_ended_session_make_room)
{
    enum { MANY = 2900 };
    start("--peer-subscriptions", "3000");
    struct peer p = peer_open(&b), q = peer_open(&b);
    struct body list = {0};
    char name[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "c%d", i);
        body_name(&list, WIRE_SUBSCRIBE, name, false);
    }
    struct attaching attach = {.session = 1, .generation = 1};
    cr_assert_eq(peer_attach(&p, &attach, &list).reply.status, STATUS_OK);
    attach.generation = 2;
    cr_assert_eq(peer_attach(&q, &attach, &list).reply.status, STATUS_OK);
    cr_assert_eq(number_of(&q, "peer_subscriptions_refused"), 0);
    cr_assert_eq(number_of(&q, "subscriptions"), MANY);
    body_reset(&list);
}

Test(peers, a_request_that_takes_too_many_bytes_ends_its_connection)
{
    start("--peer-bytes", "1M");
    struct peer witness = peer_open(&b);
    peer_join(&witness, 1, "x");
    int fds[4];
    uint8_t *part = calloc(1, 500000);
    memcpy(part, "\0SP\0\0\x30\0\0", 8);
    sp_prefix_encode(part + 8, SP_IPC, 1000000);
    for (int i = 0; i < 4; i++) { /* halves of requests, 500,000 bytes each */
        fds[i] = peer_socket(b.path);
        size_t sent = 0;
        ssize_t n = 0; /* the broker may close while we write */
        while (sent < 500000 && (n = send(fds[i], part + sent, 500000 - sent, MSG_NOSIGNAL)) > 0)
            sent += (size_t)n;
    }
    broker_log_has(&b, "its peer holds as many bytes as it may");
    cr_assert_geq(number_of(&witness, "peer_bytes_refused"), 1);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    while (number_of(&witness, "connections") > 1)
        ;
    struct peer p = peer_open(&b);
    peer_join(&p, 2, "x");
    cr_assert_eq(peer_publish(&witness, 1, 7, 1, "x", "y").reply.records, 2);
    free(part);
}

Test(peers, a_peer_that_does_not_read_is_held_to_its_bytes)
{
    start("--peer-bytes", "512K");
    struct peer p = peer_open(&b);
    struct wire_request query = {
        .version = WIRE_VERSION, .operation = WIRE_QUERY, .flags = WIRE_STATS};
    uint8_t message[9 + 4 + WIRE_REQUEST_SIZE];
    size_t at = sp_prefix_encode(message, SP_IPC, 4 + WIRE_REQUEST_SIZE);
    put_u32be(message + at, 0x80000001);
    wire_request_encode(message + at + 4, &query);
    while (send(p.fd, message, sizeof(message), MSG_NOSIGNAL) == (ssize_t)sizeof(message))
        ;
    broker_log_has(&b, "ended: its peer holds as many bytes as it may (--peer-bytes)");
    struct peer q = peer_open(&b);
    cr_assert_geq(number_of(&q, "peer_bytes_refused"), 1);
}

Test(peers, a_message_past_max_message_is_refused_with_a_line)
{
    start("--max-message", "1000");
    struct peer p = peer_open(&b);
    static char payload[2000];
    memset(payload, 'x', sizeof(payload) - 1);
    for (uint64_t i = 0; i < 5; i++)
        cr_assert_eq(peer_publish(&p, 0, 7, 1, "x", payload).reply.status, STATUS_TOO_LARGE);
    broker_log_has(&b, "a message of ipc peer pid ");
    cr_assert_leq(broker_log_count(&b, "larger than --max-message", "ipc peer pid "), 2);
    cr_assert_eq(number_of(&p, "refused"), 5);
    peer_publish(&p, 0, 7, 1, "x", "y");
}
