/*
 * ws_check CLIENTS PORT...: that many WebSocket clients at each of the ports of 127.0.0.1, which
 * check all that they receive (ledger.h). Lines on standard input:
 *
 *   expect N...  the publishers' last sequences: when all clients have come to them, or all that
 *                are still open, the result is printed and the program ends
 *   report       the result is printed now, and the program ends
 *
 * On standard output: `open` when all are connected, `ready` when each has seen a mark, then once a
 * second `progress READY LEAST MOST FAULTS DELIVERIES`, and `result {JSON}`. Exit status 0,
 * whatever the result; 2 when the clients could not be opened.
 *
 * ws_check self-test: are faults counted as what they are? Exit status 1 if not.
 */
#include "ledger.h"
#include "self_test.h"
#include "socket.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MAX = 4096, EVENTS = 64 };

struct client {
    struct web_socket socket;
    struct receipt receipt;
    struct check *check;
    bool ready;
};

struct check {
    struct ledger ledger;
    struct client *clients;
    unsigned count, groups, ready, closed;
    uint32_t expected[PUBLISHERS_MAX];
    bool expects, told_ready;
    uint8_t buffer[READ_SIZE + HELD_MAX];
};

static void message(const uint8_t *payload, size_t length, void *context)
{
    struct client *c = context;
    if (ledger_take(&c->check->ledger, &c->receipt, payload, length) == MARK && !c->ready) {
        c->ready = true;
        c->check->ready++;
    }
}

static bool has_all(const struct check *check, const struct client *c)
{
    for (unsigned p = 0; p < PUBLISHERS_MAX; p++) {
        if (c->receipt.highest[p] < check->expected[p])
            return false;
    }
    return true;
}

static bool is_complete(const struct check *check)
{
    if (!check->expects)
        return false;
    for (unsigned i = 0; i < check->count; i++) {
        const struct client *c = &check->clients[i];
        if (c->socket.fd >= 0 && !has_all(check, c))
            return false;
    }
    return true;
}

struct totals {
    uint64_t deliveries, missing, twice, late, diverged, least, most;
};

static struct totals total(const struct check *check)
{
    struct totals t = {.least = UINT64_MAX};
    for (unsigned i = 0; i < check->count; i++) {
        const struct receipt *r = &check->clients[i].receipt;
        t.deliveries += r->messages;
        t.missing += r->missing;
        t.twice += r->twice;
        t.late += r->late;
        t.diverged += r->diverged;
        t.least = r->messages < t.least ? r->messages : t.least;
        t.most = r->messages > t.most ? r->messages : t.most;
    }
    return t;
}

/* A client that did not come to the publishers' ends misses the rest, too. */
static void count_the_rest(struct check *check)
{
    for (unsigned i = 0; check->expects && i < check->count; i++) {
        struct receipt *r = &check->clients[i].receipt;
        for (unsigned p = 0; p < PUBLISHERS_MAX; p++) {
            if (r->highest[p] < check->expected[p])
                r->missing += check->expected[p] - r->highest[p];
        }
    }
}

static void print_lateness(const char *name, const struct lateness *late)
{
    if (late->sequence != 0)
        printf(",\"%s\":\"%u of publisher %u behind its %u, as message %" PRIu64 "\"", name,
               late->sequence, late->publisher, late->highest, late->place);
}

static void print_result(struct check *check)
{
    count_the_rest(check);
    struct totals t = total(check);
    printf("result {\"clients\":%u,\"deliveries\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"twice\":%" PRIu64 ",\"late\":%" PRIu64 ",\"diverged\":%" PRIu64
           ",\"foreign\":%" PRIu64 ",\"closed\":%u,\"complete\":%s,\"total_order\":%s,"
           "\"lost_by_process\":[",
           check->count, t.deliveries, t.missing, t.twice, t.late, t.diverged,
           check->ledger.foreign, check->closed, is_complete(check) ? "true" : "false",
           ledger_has_total_order(&check->ledger) ? "true" : "false");
    unsigned each = check->count / check->groups;
    for (unsigned g = 0; g < check->groups; g++)
        printf("%s%" PRIu64, g > 0 ? "," : "", check->clients[g * each].receipt.missing);
    printf("]");
    print_lateness("first_late", &check->ledger.first_late);
    print_lateness("last_late", &check->ledger.last_late);
    printf("}\n");
}

static void print_progress(const struct check *check)
{
    struct totals t = total(check);
    printf("progress %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", check->ready, t.least,
           t.most,
           t.missing + t.twice + t.late + t.diverged + check->ledger.foreign + check->closed,
           t.deliveries);
}

/* false: the program is to end. */
static bool take_command(struct check *check)
{
    char line[512];
    if (fgets(line, sizeof(line), stdin) == NULL || strncmp(line, "report", 6) == 0)
        return false;
    if (strncmp(line, "expect", 6) == 0) {
        char *at = line + 6;
        for (unsigned p = 0; p < PUBLISHERS_MAX; p++)
            check->expected[p] = (uint32_t)strtoul(at, &at, 10);
        check->expects = true;
    }
    return true;
}

static bool open_all(struct check *check, int epoll, unsigned each, char **ports)
{
    for (unsigned i = 0; i < check->count; i++) {
        struct client *c = &check->clients[i];
        c->check = check;
        c->receipt.group = i / each;
        if (!web_socket_open(&c->socket, (unsigned)atoi(ports[i / each]))) {
            fprintf(stderr, "ws_check: client %u could not be opened\n", i);
            return false;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->socket.fd, &event);
    }
    struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &commands);
    puts("open");
    return true;
}

/* false: the program is to end. */
static bool turn(struct check *check, int epoll)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epoll, events, EVENTS, 200);
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        if (c == NULL) {
            if (!take_command(check))
                return false;
        } else if (!web_socket_read(&c->socket, check->buffer, message, c)) {
            check->closed++;
        }
    }
    if (check->ready == check->count && !check->told_ready) {
        check->told_ready = true;
        puts("ready");
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "self-test") == 0)
        return self_test() ? 0 : 1;
    static struct check check;
    unsigned each = argc > 2 ? (unsigned)atoi(argv[1]) : 0;
    check.groups = (unsigned)(argc > 2 ? argc - 2 : 0);
    check.count = each * check.groups;
    if (check.count == 0 || check.count > CLIENTS_MAX || check.groups > GROUPS_MAX) {
        fprintf(stderr, "usage: ws_check CLIENTS PORT...\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0);
    check.clients = calloc(check.count, sizeof(*check.clients));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (check.clients == NULL || !open_all(&check, epoll, each, argv + 2))
        return 2;
    time_t last = time(NULL);
    while (turn(&check, epoll) && !is_complete(&check)) {
        if (time(NULL) != last) {
            last = time(NULL);
            print_progress(&check);
        }
    }
    print_result(&check);
    for (unsigned i = 0; i < check.count; i++)
        receipt_release(&check.clients[i].receipt);
    free(check.clients);
    ledger_release(&check.ledger);
    return 0;
}
