/* Each allocation of the broker fails, one after the other, alone and with all that follow: a
 * connection may end, the broker may not; and when there is memory again, all works and nothing of
 * the others is left. */
#define IN_PROCESS_HERE
#include "no_memory.h"

#include "../fuzz/in_process.h"
#include "bytes.h"
#include "wire.h"
#include <criterion/criterion.h>

TestSuite(broker_no_memory, .init = no_memory_of_libevent, .timeout = 250);

enum { PEERS = 2, RECEIVED = 1 << 20 };

static struct options options = {
    .journal_size = 256 * 1024, .no_journal = true, .max_message = 60000, .ready_fd = -1};
static uint8_t bytes[1 << 18], received[PEERS][RECEIVED];
static size_t length, got[PEERS];
static int fds[PEERS];

static void drain(int peer)
{
    ssize_t n;
    while ((n = recv(fds[peer], received[peer] + got[peer], RECEIVED - got[peer], 0)) > 0)
        got[peer] += (size_t)n;
}

static void send_all(int peer)
{
    for (size_t at = 0; at < length;) {
        ssize_t n = send(fds[peer], bytes + at, length - at, MSG_NOSIGNAL);
        if (n <= 0 && errno != EAGAIN)
            break; /* the broker closed: so be it */
        at += n > 0 ? (size_t)n : 0;
        in_process_settle();
    }
    in_process_settle();
    drain(peer);
    length = 0;
}

static size_t begin(uint8_t operation, uint16_t flags, uint64_t session, uint32_t records)
{
    static uint32_t id;
    length = SP_PREFIX_MAX + 4;
    put_u32be(bytes + SP_PREFIX_MAX, 0x80000000u | ++id);
    wire_request_encode(bytes + length, &(struct wire_request){.version = WIRE_VERSION,
                                                               .operation = operation,
                                                               .flags = flags,
                                                               .session = session,
                                                               .records = records});
    return length += WIRE_REQUEST_SIZE;
}

static void add(uint8_t type, const char *channel, uint64_t sequence, size_t payload)
{
    static uint8_t filling[60000];
    struct wire_record r = {.type = type,
                            .flags = strchr(channel, '*') != NULL ? WIRE_PATTERN : 0,
                            .origin = type == WIRE_PUBLISH ? 7 : 0,
                            .sequence = sequence,
                            .channel = (const uint8_t *)channel,
                            .channel_length = (uint16_t)strlen(channel),
                            .payload = filling,
                            .payload_length = payload};
    wire_record_encode(bytes + length, &r);
    length += wire_record_size(r.channel_length, payload);
}

static void finish(int peer)
{
    sp_prefix_encode(bytes, SP_IPC, length - SP_PREFIX_MAX);
    send_all(peer);
}

static void attach(int peer, uint64_t session, uint16_t flags, uint32_t names)
{
    static const char *const list[] = {"a", "a.b", "a.*", "n*ws.*"};
    struct wire_attach block = {
        .generation = 1, .name = (const uint8_t *)"test", .name_length = 4, .origin = 7, .pid = 1};
    begin(WIRE_ATTACH, flags, session, names);
    wire_attach_encode(bytes + length, &block);
    length += wire_attach_size(&block);
    for (uint32_t i = 0; i < names; i++)
        add(WIRE_SUBSCRIBE, list[i], 0, 0);
    finish(peer);
}

static void publish(int peer, uint64_t session, const char *channel, size_t payload)
{
    uint64_t id;
    begin(WIRE_SUBMIT, 0, session, 1);
    add(WIRE_PUBLISH, channel, origins_known(in_process.origins, 7, &id) + 1, payload);
    finish(peer);
}

static void open_peers(void)
{
    for (int i = 0; i < PEERS; i++) {
        fds[i] = in_process_connect(SP_IPC);
        got[i] = 0;
        sp_hello_encode(bytes, SP_REQ);
        length = SP_HELLO_SIZE;
        send_all(i);
    }
}

static void close_peers(void)
{
    for (int i = 0; i < PEERS; i++)
        close(fds[i]);
    in_process_settle();
}

/* Something of everything; what is refused or cut is not looked at. */
static void scenario(void)
{
    open_peers();
    attach(0, 11, 0, 4);
    attach(1, 12, WIRE_ENGINE, 1);
    for (unsigned i = 0; i < 3; i++) {
        begin(WIRE_FETCH, 0, 11 + i % 2, 0);
        finish((int)(i % 2));
    }
    publish(0, 11, "a", 100);
    publish(1, 0, "a.b", 50000);
    begin(WIRE_SUBMIT, 0, 11, 3);
    add(WIRE_SUBSCRIBE, "new*", 0, 0);
    add(WIRE_UNSUBSCRIBE, "a.*", 0, 0);
    add(WIRE_SUBSCRIBE, "z", 0, 0);
    finish(0);
    for (uint16_t topic = WIRE_PING; topic <= WIRE_ENGINES; topic++) {
        begin(WIRE_QUERY, topic, 0, 0);
        finish(1);
    }
    begin(WIRE_RESET, 0, 12, 0);
    finish(1);
    close_peers();
}

/* With memory, everything works and nothing else is there. */
static void check_works(const char *when, long n)
{
    struct subscriptions_stats table;
    in_process_jump(10000); /* interest does not linger longer */
    in_process_settle();
    in_process_jump(1000);
    in_process_settle();
    subscriptions_stats(in_process.subscriptions, &table);
    cr_assert(in_process.connection_count == 0 && in_process.sessions.count == 0 &&
                  in_process.engines.count == 0 && table.subscriptions == 0 &&
                  table.channels == 0 && table.patterns == 0,
              "%s %ld: something is left", when, n);
    open_peers();
    attach(0, 11, 0, 4);
    begin(WIRE_FETCH, 0, 11, 0);
    finish(0);
    size_t before = got[0];
    publish(1, 0, "a.b", 5000);
    drain(0);
    cr_assert(got[0] - before > 5000, "%s %ld: no delivery", when, n);
    close_peers();
}

static long run_all(bool stays)
{
    long n = 0;
    for (bool failed = true; failed; n++) {
        no_memory_begin(n, stays);
        scenario();
        failed = no_memory_end();
        check_works(stays ? "from allocation" : "allocation", n);
    }
    return n - 1;
}

Test(broker_no_memory, P5_any_allocation_may_fail_while_it_serves)
{
    in_process_start(&options);
    in_process_settle();
    long alone = run_all(false), with_all = run_all(true);
    cr_assert(alone > 20 && with_all > 20, "only %ld and %ld allocations", alone, with_all);
    server_close(&in_process);
}

Test(broker_no_memory, a_start_without_memory_is_refused_and_leaves_nothing)
{
    bool failed = true;
    log_set_level(LOG_LEVEL_ERROR);
    for (long n = 0; failed; n++) {
        no_memory_begin(n, n % 2 == 0);
        bool ok = server_open(&in_process, &options);
        failed = no_memory_end();
        cr_assert(ok || failed, "refused without a cause");
        cr_assert(!ok || !failed || n > 2, "started without memory");
        server_close(&in_process);
        if (n % 2 == 0)
            failed = true; /* the odd ones decide: they let what follows succeed */
    }
}
