#include "client_internal.h"
#include "frame.h"
#include "link_fixture.h"

/* Clients on socketpairs, started; their heads are read away. The loop runs as far as the test lets
 * it. */
enum { CLIENTS_MAX = 1100 };

static struct {
    struct client *client;
    int fd;
} browsers[CLIENTS_MAX];
static unsigned browser_count;

static void open_hub(void)
{
    fixture_open(NULL);
    f.io.references = 1;
    f.io.read_buffer = malloc(65536);
    f.io.read_buffer_size = 65536;
    f.io.now_ms = io_clock_ms();
    browser_count = 0;
}

static void close_hub(void)
{
    while (f.io.clients)
        client_end(f.io.clients, "");
    io_flush(&f.io);
    for (unsigned i = 0; i < browser_count; i++) {
        close(browsers[i].fd);
        client_unref(browsers[i].client);
    }
    free(f.io.read_buffer);
    fixture_close();
}

TestSuite(hub, .init = open_hub, .fini = close_hub, .timeout = 60);

static struct client *browser(enum client_protocol protocol, bool deflate)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    struct client_options options = {.fd = pair[0],
                                     .protocol = protocol,
                                     .response = "H",
                                     .response_length = 1,
                                     .deflate = deflate};
    struct client *c = client_new(&f.io, &options, 0);
    cr_assert(c);
    f.io.client_count++;
    client_start(c);
    io_flush(&f.io);
    char head;
    cr_assert_eq(read(pair[1], &head, 1), 1);
    browsers[browser_count].client = c;
    browsers[browser_count++].fd = pair[1];
    return c;
}

static struct client *websocket(void)
{
    return browser(CLIENT_WEBSOCKET, false);
}

static void subscribe_browser(struct client *c, const char *name, bool is_pattern, void *as)
{
    hub_subscribe_client(f.io.hub, c, name, strlen(name), is_pattern, NULL, as);
}

static struct block *block_of(struct client *c, const char *name)
{
    struct block *b = block_new(client_mailbox(c), 1);
    hub_subscribe_client(f.io.hub, c, name, strlen(name), false, b, NULL);
    return b;
}

/* A process-local publication, or one with an id. */
static void deliver(const char *channel, const char *payload, bool binary, uint64_t id)
{
    struct wire_record record = {.type = WIRE_MESSAGE,
                                 .flags = binary ? WIRE_BINARY : 0,
                                 .id = id,
                                 .channel = (const uint8_t *)channel,
                                 .channel_length = (uint16_t)strlen(channel),
                                 .payload = (const uint8_t *)payload,
                                 .payload_length = strlen(payload)};
    hub_deliver(f.io.hub, &record, 1);
}

/* A run: the payloads with ids from first on; one that begins with ! is binary. */
static void deliver_run(const char *channel, uint64_t first, unsigned count,
                        const char *const *texts)
{
    struct wire_record records[HUB_RUN_RECORDS];
    for (unsigned i = 0; i < count; i++)
        records[i] = (struct wire_record){.type = WIRE_MESSAGE,
                                          .flags = texts[i][0] == '!' ? WIRE_BINARY : 0,
                                          .id = first + i,
                                          .channel = (const uint8_t *)channel,
                                          .channel_length = (uint16_t)strlen(channel),
                                          .payload = (const uint8_t *)texts[i],
                                          .payload_length = strlen(texts[i])};
    hub_deliver(f.io.hub, records, count);
}

static int fd_of(const struct client *c)
{
    for (unsigned i = 0; i < browser_count; i++) {
        if (browsers[i].client == c)
            return browsers[i].fd;
    }
    cr_assert(false);
    return -1;
}

/* What lies at the browser, exactly. */
static void expect_bytes(const struct client *c, const void *bytes, size_t length)
{
    char got[4096];
    io_flush(&f.io);
    ssize_t n = read(fd_of(c), got, sizeof(got));
    cr_assert_eq(n, (ssize_t)length, "%zd bytes instead of %zu", n, length);
    cr_assert_eq(memcmp(got, bytes, length), 0);
}

static void expect_nothing(const struct client *c)
{
    char byte;
    io_flush(&f.io);
    cr_assert(read(fd_of(c), &byte, 1) < 0 && errno == EAGAIN);
}

static bool has_key(const char *name, bool is_pattern)
{
    return subscriptions_key(hub_table(f.io.hub), name, strlen(name), is_pattern) != NULL;
}

/* The next callback of the notices, as "kind channel token". */
static bool next_notice(char text[100])
{
    struct callback *c;
    struct mailbox *m;
    bool found = false;
    while (!found && (m = callback_pool_take(f.io.callbacks, &c))) {
        found = m == f.io.notices && c->kind != CALLBACK_LOG;
        if (found)
            snprintf(text, 100, "%d %.*s%s %llu", (int)c->kind - CALLBACK_REPORT,
                     c->message ? c->message->channel_length : 0,
                     c->message ? (const char *)message_channel(c->message) : "",
                     c->message && c->message->binary ? "~" : "", (unsigned long long)c->first);
        callback_free(c);
        mailbox_done(m);
    }
    return found;
}

static void expect_notice(const char *wanted)
{
    char text[100] = "nothing";
    next_notice(text);
    cr_assert_str_eq(text, wanted);
}

Test(hub, direct_deliveries_have_the_payloads_own_kind_or_the_one_that_was_asked_for)
{
    struct client *own = websocket(), *text = websocket(), *binary = websocket();
    struct client *stream = browser(CLIENT_SSE, false);
    subscribe_browser(own, "a", false, &HUB_DIRECT_AUTO);
    subscribe_browser(text, "a", false, &HUB_DIRECT_TEXT);
    subscribe_browser(binary, "a", false, &HUB_DIRECT_BINARY);
    subscribe_browser(stream, "a", false, NULL);
    deliver("a", "hi", false, 0);
    expect_bytes(own, "\x81\2hi", 4);
    expect_bytes(text, "\x81\2hi", 4);
    expect_bytes(binary, "\x82\2hi", 4);
    expect_bytes(stream, "data: hi\n\n", 10);
    deliver("a", "ho", true, 0);
    expect_bytes(own, "\x82\2ho", 4);
    expect_bytes(text, "\x81\2ho", 4);
    expect_bytes(binary, "\x82\2ho", 4);
    expect_bytes(stream, "data: ho\n\n", 10);
    cr_assert_eq(f.io.stats.deliveries, 8);
}

Test(hub, text_that_is_not_utf_8_goes_out_as_binary_and_to_sse_with_replacements)
{
    struct client *own = websocket(), *text = websocket(), *stream = browser(CLIENT_SSE, false);
    subscribe_browser(own, "a", false, NULL);
    subscribe_browser(text, "a", false, &HUB_DIRECT_TEXT);
    subscribe_browser(stream, "a", false, NULL);
    deliver("a", "x\xff", false, 0);
    expect_bytes(own, "\x82\2x\xff", 4);
    expect_bytes(text, "\x82\2x\xff", 4);
    expect_bytes(stream, "data: x\xef\xbf\xbd\n\n", 12);
}

Test(hub, one_frame_is_shared_by_all_receivers)
{
    enum { N = 100 };
    struct client *c[N];
    for (int i = 0; i < N; i++) {
        c[i] = websocket();
        subscribe_browser(c[i], "a", false, NULL);
    }
    deliver("a", "hi", false, 0);
    struct frame *frame = (struct frame *)(c[0]->ring[c[0]->ring_head] & ~(uintptr_t)1);
    for (int i = 1; i < N; i++)
        cr_assert_eq((struct frame *)(c[i]->ring[c[i]->ring_head] & ~(uintptr_t)1), frame);
    cr_assert_eq(frame->references, N);
}

Test(hub, one_compressed_frame_is_shared_by_those_who_take_it)
{
    char payload[1001] = {0};
    memset(payload, 'x', 1000);
    struct client *plain = websocket(), *one = browser(CLIENT_WEBSOCKET, true);
    struct client *two = browser(CLIENT_WEBSOCKET, true);
    subscribe_browser(plain, "a", false, NULL);
    subscribe_browser(one, "a", false, NULL);
    subscribe_browser(two, "a", false, NULL);
    deliver("a", payload, false, 0);
    struct frame *frame = (struct frame *)(one->ring[one->ring_head] & ~(uintptr_t)1);
    cr_assert_eq((struct frame *)(two->ring[two->ring_head] & ~(uintptr_t)1), frame);
    cr_assert_eq(frame->bytes[0], 0xc1, "FIN, RSV1, text");
    cr_assert_lt(frame->length, 100);
    cr_assert_eq(((struct frame *)(plain->ring[plain->ring_head] & ~(uintptr_t)1))->length, 1004);
}

Test(hub, a_run_is_one_piece_for_all_clients_of_a_kind_and_each_message_keeps_its_own)
{
    const char *const texts[] = {"one", "!two", "x\xff"};
    struct client *own = websocket(), *other = websocket(), *text = websocket();
    struct client *binary = websocket(), *stream = browser(CLIENT_SSE, false);
    subscribe_browser(own, "a", false, NULL);
    subscribe_browser(other, "a", false, NULL);
    subscribe_browser(text, "a", false, &HUB_DIRECT_TEXT);
    subscribe_browser(binary, "a", false, &HUB_DIRECT_BINARY);
    subscribe_browser(stream, "a", false, NULL);
    hub_label_attached(f.io.hub, 0, 0);
    deliver_run("a", 1, 3, texts);
    cr_assert_eq(own->ring_count, 1);
    struct frame *frame = (struct frame *)(own->ring[own->ring_head] & ~(uintptr_t)1);
    cr_assert_eq((struct frame *)(other->ring[other->ring_head] & ~(uintptr_t)1), frame);
    cr_assert_eq(frame->references, 2);
    expect_bytes(own, "\x81\3one\x82\4!two\x82\2x\xff", 15);
    expect_bytes(other, "\x81\3one\x82\4!two\x82\2x\xff", 15);
    expect_bytes(text, "\x81\3one\x81\4!two\x82\2x\xff", 15);
    expect_bytes(binary, "\x82\3one\x82\4!two\x82\2x\xff", 15);
    expect_bytes(stream, "data: one\n\ndata: !two\n\ndata: x\xef\xbf\xbd\n\n", 35);
    cr_assert_eq(f.io.stats.deliveries, 15);
    cr_assert_eq(f.io.stats.frames_out, 15 + browser_count, "and the heads");
}

Test(hub, a_compressed_run_is_the_compressed_messages_one_behind_the_other)
{
    const char *const texts[] = {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "y",
                                 "!zzzzzzzzzzzzzzzzzzzzzzzzzzzzz"};
    char one_by_one[200], got[200];
    struct client *c = browser(CLIENT_WEBSOCKET, true);
    subscribe_browser(c, "a", false, NULL);
    hub_label_attached(f.io.hub, 0, 0);
    for (int i = 0; i < 3; i++)
        deliver_run("a", 1 + (uint64_t)i, 1, &texts[i]);
    io_flush(&f.io);
    ssize_t length = read(fd_of(c), one_by_one, sizeof(one_by_one));
    cr_assert(length > 10 && length < 60 && (one_by_one[0] & 0x40), "compressed");
    deliver_run("a", 4, 3, texts);
    io_flush(&f.io);
    cr_assert_eq(read(fd_of(c), got, sizeof(got)), length);
    cr_assert_eq(memcmp(got, one_by_one, (size_t)length), 0);
}

Test(hub, rule_10_a_label_in_the_middle_of_a_run)
{
    const char *const texts[] = {"five", "six", "7"};
    struct client *old = websocket();
    subscribe_browser(old, "a", false, NULL);
    hub_label_attached(f.io.hub, 0, 5);
    struct block *block = block_of(old, "b");
    hub_label_attached(f.io.hub, UINT64_MAX - 1, 6);
    deliver_run("a", 5, 3, texts);
    expect_bytes(old, "\x81\3six\x81\0017", 8);
    deliver_run("b", 5, 3, texts);
    cr_assert_eq(mailbox_length(client_mailbox(old)), 2, "open, 7");
    cr_assert_eq(f.io.stats.deliveries, 3);
    deliver_run("a", 1, 3, texts);
    expect_nothing(old);
    block_unref(block);
}

Test(hub, of_a_run_two_subscriptions_of_a_client_get_each_message_before_the_next)
{
    const char *const texts[] = {"1", "2"};
    struct client *c = websocket();
    subscribe_browser(c, "a", false, NULL);
    subscribe_browser(c, "*", true, NULL);
    hub_label_attached(f.io.hub, UINT64_MAX - 1, 0);
    deliver_run("a", 1, 2, texts);
    expect_bytes(c, "\x81\0011\x81\0011\x81\0012\x81\0012", 12);
}

Test(hub, each_subscription_is_served_by_itself)
{
    struct client *c = websocket();
    subscribe_browser(c, "a.*", true, NULL);
    subscribe_browser(c, "a.b", false, NULL);
    deliver("a.b", "x", false, 0);
    expect_bytes(c, "\x81\1x\x81\1x", 6);
    deliver("a.c", "y", false, 0);
    expect_bytes(c, "\x81\1y", 3);
}

Test(hub, the_same_name_and_kind_again_replaces)
{
    struct client *c = websocket();
    struct block *old = block_of(c, "a");
    deliver("a", "one", false, 0);
    expect_nothing(c);
    subscribe_browser(c, "a", false, NULL);
    cr_assert(block_is_cancelled(old));
    deliver("a", "two", false, 0);
    expect_bytes(c, "\x81\3two", 5);
    struct block *new = block_of(c, "a");
    deliver("a", "three", false, 0);
    expect_nothing(c);
    cr_assert(!block_is_cancelled(new));
    cr_assert_eq(mailbox_length(client_mailbox(c)), 3, "open, one, three");
    hub_unsubscribe_client(f.io.hub, c, "a", 1, false);
    cr_assert(block_is_cancelled(new));
    cr_assert(!has_key("a", false));
    block_unref(old);
    block_unref(new);
}

Test(hub, rule_10_a_label_does_not_count_for_a_process_local_publish)
{
    struct client *c = websocket();
    subscribe_browser(c, "a", false, NULL);
    deliver("a", "from the broker", false, 9);
    expect_nothing(c);
    deliver("a", "ok", false, 0);
    expect_bytes(c, "\x81\2ok", 4);
    hub_label_attached(f.io.hub, 0, 9);
    deliver("a", "no", false, 9);
    expect_nothing(c);
    deliver("a", "go", false, 10);
    expect_bytes(c, "\x81\2go", 4);
}

Test(hub, a_client_evicted_by_a_delivery_does_not_disturb_the_others)
{
    static char payload[70001];
    memset(payload, 'x', 70000);
    f.io.config.max_pending = 200000;
    struct client *slow[3] = {websocket(), websocket(), websocket()}, *good = websocket();
    for (int i = 0; i < 3; i++) {
        subscribe_browser(slow[i], "a", false, NULL);
        subscribe_browser(slow[i], "*", true, NULL); /* reached again in the same match */
    }
    subscribe_browser(good, "a", false, NULL);
    subscribe_browser(slow[1], "only", false, NULL);
    for (int n = 0; n < 30; n++) {
        static char drop[100000];
        deliver("a", payload, false, 0);
        for (int turn = 0; turn < 20; turn++) {
            client_flush(good);
            while (read(fd_of(good), drop, sizeof(drop)) > 0)
                ;
        }
        f.io.now_ms += 10000; /* an evicted client's closing handshake is over at some time */
        for (int i = 0; i < 3; i++)
            client_tick(slow[i]);
        io_flush(&f.io);
        event_base_loop(f.io.base, EVLOOP_NONBLOCK);
    }
    for (int i = 0; i < 3; i++)
        cr_assert(!client_is_open(slow[i]));
    cr_assert(client_is_open(good));
    cr_assert_eq(f.io.stats.evicted_slow, 3);
    cr_assert(!has_key("only", false), "dropped with its client");
    cr_assert(!has_key("*", true));
    deliver("a", "hi", false, 0);
    expect_bytes(good, "\x81\2hi", 4);
}

Test(hub, a_client_that_ends_takes_its_subscriptions_with_it)
{
    struct client *one = websocket(), *two = websocket();
    struct block *b = block_of(one, "a");
    subscribe_browser(one, "b", false, NULL);
    subscribe_browser(two, "b", false, NULL);
    deliver("a", "waits", false, 0);
    client_end(one, "");
    deliver("b", "x", false, 0);
    expect_bytes(two, "\x81\1x", 3);
    cr_assert(!has_key("a", false));
    cr_assert(has_key("b", false));
    cr_assert(!block_is_cancelled(b), "what waits still runs before on_close");
    block_unref(b);
}

Test(hub, rule_14_a_gap_is_told_to_blocks_not_to_browsers)
{
    struct client *c = websocket();
    struct block *block = subscribe_to("a");
    subscribe_browser(c, "a", false, NULL);
    hub_gap(f.io.hub, 1, 5);
    cr_assert_eq(f.io.stats.gaps, 0, "nobody was confirmed yet");
    hub_label_attached(f.io.hub, 0, 3);
    hub_gap(f.io.hub, 2, 3);
    cr_assert_eq(f.io.stats.gaps, 0, "both are younger");
    hub_gap(f.io.hub, 2, 9);
    cr_assert_eq(f.io.stats.gaps, 1);
    cr_assert_eq(f.io.stats.gap_messages, 8);
    expect_nothing(c);
    cr_assert_eq(mailbox_length(block->mailbox), 1);
    block_unref(block);
}

Test(hub, engines_get_a_report_and_then_the_changes)
{
    struct client *c = websocket(), *d = websocket();
    subscribe_browser(c, "a", false, NULL);
    subscribe_browser(c, "p*", true, NULL);
    hub_report(f.io.hub, 77);
    hub_watch(f.io.hub, true);
    subscribe_browser(c, "b", false, NULL);
    subscribe_browser(d, "b", false, NULL);
    hub_unsubscribe_client(f.io.hub, c, "b", 1, false);
    hub_unsubscribe_client(f.io.hub, d, "b", 1, false);
    hub_watch(f.io.hub, false);
    subscribe_browser(c, "z", false, NULL);
    expect_notice("0  77");
    expect_notice("1 a 77");
    expect_notice("1 p*~ 77");
    expect_notice("1 b 0");
    expect_notice("2 b 0");
    expect_notice("nothing");
}

Test(hub, the_limits_of_names_and_of_weak_patterns_refuse_and_cancel)
{
    struct client *c = websocket();
    char name[4097] = {0};
    struct block *last = NULL;
    for (int i = 0; i < 65; i++) {
        block_unref(last);
        memset(name, '?', (size_t)i + 1);
        last = block_new(client_mailbox(c), 1);
        hub_subscribe_client(f.io.hub, c, name, (size_t)i + 1, true, last, NULL);
        cr_assert_eq(block_is_cancelled(last), i == 64);
    }
    block_unref(last);
    unsigned keys = 0;
    do {
        snprintf(name, sizeof(name), "%04096u", keys++);
        last = block_new(client_mailbox(c), 1);
        hub_subscribe_client(f.io.hub, c, name, 4096, false, last, NULL);
        bool refused = block_is_cancelled(last);
        block_unref(last);
        if (refused)
            break;
    } while (keys < 20000);
    cr_assert(f.io.names_bytes <= 64u << 20);
    cr_assert_gt(f.io.names_bytes, (64u << 20) - 4136);
    cr_assert_not(hub_has_room(&f.io, 4096), "so subscribe says it at once");
}

Test(hub, a_block_outside_clients_comes_and_goes)
{
    struct block *block = subscribe_to("a");
    deliver("a", "one", false, 0);
    cr_assert_eq(mailbox_length(block->mailbox), 1);
    hub_subscribe_block(f.io.hub, block, "b", 1,
                        false); /* exactly one name: the second is not taken */
    cr_assert(!has_key("b", false));
    hub_unsubscribe_block(f.io.hub, block);
    cr_assert(block_is_cancelled(block));
    cr_assert(!has_key("a", false));
    hub_unsubscribe_block(f.io.hub, block);
    deliver("a", "two", false, 0);
    cr_assert_eq(mailbox_length(block->mailbox), 1);
    block_unref(block);
}
