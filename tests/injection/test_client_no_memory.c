/* Each allocation between a browser's socket and the callbacks fails, one after the other, alone
 * and with all that follow: a client may be closed or a call refused, nothing is left behind, and
 * when there is memory again a new client finds all in order. One thread is everything: the test
 * runs the commands and the loop itself. */
#include "no_memory.h"

#include "../unit/link_fixture.h"
#include "client_internal.h"
#include "commands.h"

TestSuite(client_no_memory, .init = no_memory_of_libevent, .timeout = 250);

enum { READ_BUFFER = 65536, WS = 0, WS_DEFLATE = 1, SSE = 2, CLIENTS = 3 };

struct browser {
    int fd;
    struct client *client; /* NULL: there was no memory for it */
};

static uint8_t read_buffer[READ_BUFFER];
static unsigned opened, closed, messages, deliveries;

static void begin(void)
{
    fixture_open(NULL);
    f.io.references = 1; /* the struct is not the clients' to free */
    f.io.read_buffer = read_buffer;
    f.io.read_buffer_size = READ_BUFFER;
    f.io.now_ms = f.io.ticked_ms = io_clock_ms();
    f.io.awake = true; /* nobody has to be woken */
    opened = closed = messages = deliveries = 0;
}

static struct browser browse(enum client_protocol protocol, bool deflate)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    struct browser b = {.fd = pair[1]};
    b.client = client_new(&f.io,
                          &(struct client_options){.fd = pair[0],
                                                   .protocol = protocol,
                                                   .response = "HEAD",
                                                   .response_length = 4,
                                                   .received = "\x89\x80\0\0\0\0",
                                                   .received_length = deflate ? 6 : 0,
                                                   .deflate = deflate,
                                                   .deflate_takeover = deflate,
                                                   .wants_drained = true},
                          0);
    if (b.client == NULL)
        close(pair[0]);
    else if (!commands_open(b.client)) {
        client_unref(b.client);
        b.client = NULL;
    }
    return b;
}

static void leave(struct browser *b)
{
    close(b->fd);
    client_unref(b->client);
}

static void run_callbacks(void)
{
    struct callback *c;
    struct mailbox *m;
    while ((m = callback_pool_take(f.io.callbacks, &c)) != NULL) {
        opened += c->kind == CALLBACK_OPEN;
        closed += c->kind == CALLBACK_CLOSE;
        messages += c->kind == CALLBACK_MESSAGE;
        deliveries += c->kind == CALLBACK_DELIVERY;
        callback_free(c);
        mailbox_done(m);
    }
}

static void some_turns(void)
{
    for (int i = 0; i < 4; i++) {
        event_base_loop(f.io.base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
        f.io.now_ms = io_clock_ms();
        commands_run(&f.io);
        io_flush(&f.io);
        run_callbacks();
    }
}

static void say(struct browser *b, const char *bytes, size_t length)
{
    (void)!send(b->fd, bytes, length, MSG_NOSIGNAL);
    some_turns();
}

/* A block as well as direct: the two ways of a delivery. */
static struct block *subscribe(struct client *c)
{
    struct block *block = block_new(client_mailbox(c), 0);
    commands_subscribe_client(c, "a", 1, false, NULL, &HUB_DIRECT_AUTO);
    commands_subscribe_client(c, "b*", 2, true, NULL, &HUB_DIRECT_BINARY);
    if (block != NULL)
        commands_subscribe_client(c, "c", 1, false, block, NULL);
    return block;
}

static void write_something(struct client *c)
{
    struct frame *frame = client_protocol(c) == CLIENT_SSE
                              ? frame_sse_event("text", 4, "name", 4, NULL, 0, -1)
                              : frame_text("text", 4);
    if (frame != NULL)
        commands_write(c, frame);
}

static void live(struct browser *all)
{
    struct block *blocks[CLIENTS] = {NULL};
    some_turns();
    for (int i = 0; i < CLIENTS; i++)
        if (all[i].client != NULL) {
            blocks[i] = subscribe(all[i].client);
            write_something(all[i].client);
        }
    some_turns();
    say(&all[WS], "\x81\x85\0\0\0\0whole", 11);
    say(&all[WS], "\x01\x82\0\0\0\0in\x89\x81\0\0\0\0?", 15);
    say(&all[WS], "\x80\x86\0\0\0\0pieces", 12);
    say(&all[WS_DEFLATE], "\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\0", 13); /* RFC 7692 7.2.3.1 */
    for (const char *channel = "abc"; *channel != 0; channel++)
        commands_publish_local(&f.io, channel, 1, "to all", 6, false);
    some_turns();
    if (all[WS].client != NULL)
        commands_close(all[WS].client, 1000);
    say(&all[WS_DEFLATE], "\x88\x82\0\0\0\0\x03\xe8", 8);
    for (int i = 0; i < CLIENTS; i++)
        block_unref(blocks[i]);
}

static void expect_nothing_left(long n)
{
    for (int i = 0; i < 1000 && f.io.clients != NULL; i++)
        some_turns();
    some_turns();
    struct subscriptions_stats table;
    subscriptions_stats(hub_table(f.io.hub), &table);
    cr_assert_null(f.io.clients, "allocation %ld: a client stays", n);
    cr_assert_eq(f.io.client_count, 0, "allocation %ld: clients are counted that are gone", n);
    cr_assert_eq(table.subscriptions, 0, "allocation %ld: a subscription stays", n);
    cr_assert_eq(f.io.commands.bytes, 0, "allocation %ld: the queue of commands is not empty", n);
}

static void expect_all_in_order(long n)
{
    char bytes[64];
    struct browser b = browse(CLIENT_WEBSOCKET, true);
    messages = deliveries = 0;
    cr_assert_not_null(b.client);
    struct block *block = subscribe(b.client);
    say(&b, "\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\0", 13);
    commands_publish_local(&f.io, "a", 1, "news", 4, false);
    commands_publish_local(&f.io, "c", 1, "news", 4, false);
    some_turns();
    cr_assert_eq(messages, 1, "allocation %ld: no message when there is memory again", n);
    cr_assert_eq(deliveries, 1, "allocation %ld: no delivery when there is memory again", n);
    ssize_t got = recv(b.fd, bytes, sizeof(bytes), 0);
    cr_assert(got > 10 && memcmp(bytes, "HEAD", 4) == 0, "allocation %ld: %zd bytes", n, got);
    block_unref(block);
    leave(&b);
    expect_nothing_left(n);
}

static bool run_once(long n, bool stays)
{
    begin();
    no_memory_begin(n, stays);
    struct browser all[CLIENTS] = {browse(CLIENT_WEBSOCKET, false), browse(CLIENT_WEBSOCKET, true),
                                   browse(CLIENT_SSE, false)};
    live(all);
    bool failed = no_memory_end();
    for (int i = 0; i < CLIENTS; i++)
        leave(&all[i]);
    expect_nothing_left(n);
    if (!failed) {
        cr_assert_eq(opened, CLIENTS);
        cr_assert_eq(closed, CLIENTS);
        cr_assert_eq(messages, 3);
        cr_assert_eq(deliveries, CLIENTS);
    }
    cr_assert_geq(opened, closed);
    expect_all_in_order(n);
    fixture_close();
    return failed;
}

Test(client_no_memory, any_allocation_may_fail_and_nothing_is_left_behind)
{
    long n = 0;
    while (run_once(n, false))
        n++;
    cr_assert_gt(n, 50, "only %ld allocations", n);
}

Test(client_no_memory, no_memory_for_a_while_and_nothing_is_left_behind)
{
    for (long n = 0; run_once(n, true); n++)
        ;
}
