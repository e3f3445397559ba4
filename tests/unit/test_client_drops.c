/* Connections dropped anywhere: in the handshake, in a frame, with deliveries under way. The counts
 * are asserted here; under the address sanitizer every byte is. */
#include "hub.h"
#include "io_harness.h"
#include "io_internal.h"
#include <criterion/criterion.h>
#include <time.h>

enum { CONNECTIONS = 3000, AT_ONCE = 32, FRAMES_MAX = 4096 };

static uint64_t seed;

static size_t random_below(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)(seed % n);
}

/* Valid, invalid and unfinished frames one behind the other, cut anywhere. */
static size_t random_frames(uint8_t *out)
{
    static const uint8_t payload[600] = {0x03, 0xe8};
    static const enum ws_opcode kinds[] = {WS_TEXT, WS_BINARY, WS_CONTINUATION,
                                           WS_PING, WS_PONG,   WS_CLOSE};
    size_t size = 0;
    for (size_t n = random_below(5); n > 0; n--) {
        enum ws_opcode kind = kinds[random_below(6)];
        size_t length = kind == WS_CLOSE ? 2 : random_below(kind > WS_CONTINUATION ? 126 : 600);
        size_t start = size;
        size += harness_frame(out + size, kind, random_below(4) > 0, payload, length);
        if (random_below(8) == 0)
            out[start] |= 0x40; /* compressed, it says */
    }
    return size == 0 ? 0 : random_below(size + 1);
}

static struct peer random_peer(struct io_thread *io)
{
    uint8_t received[FRAMES_MAX];
    struct client_options options = {
        .protocol = random_below(4) == 0 ? CLIENT_SSE : CLIENT_WEBSOCKET,
        .received = received,
        .received_length = random_below(3) == 0 ? random_frames(received) : 0,
        .deflate = random_below(2) == 0,
        .deflate_takeover = random_below(2) == 0,
        .wants_drained = random_below(2) == 0};
    return harness_open(io, options);
}

static void do_something(struct io_thread *io, struct peer *p)
{
    uint8_t bytes[FRAMES_MAX];
    size_t length = random_frames(bytes);
    if (random_below(2) == 0)
        commands_subscribe_client(p->client, "a", 1, random_below(2) == 0, NULL, &HUB_DIRECT_AUTO);
    if (random_below(2) == 0)
        commands_publish_local(io, "a", 1, bytes, length, true);
    if (random_below(3) == 0)
        harness_write(p, "something");
    if (length > 0)
        send(p->fd, bytes, length, MSG_NOSIGNAL);
    if (random_below(3) == 0)
        (void)!read(p->fd, bytes, random_below(sizeof(bytes)));
    if (random_below(6) == 0)
        commands_close(p->client, 1000);
    if (random_below(3) == 0)
        shutdown(p->fd, SHUT_WR);
}

static unsigned opened, closed;

static void run_callbacks(struct io_thread *io, int wait_ms)
{
    struct callback *c;
    while ((c = harness_callback_within(io, NULL, wait_ms)) != NULL) {
        opened += c->kind == CALLBACK_OPEN;
        closed += c->kind == CALLBACK_CLOSE;
        callback_free(c);
    }
}

Test(client_drops, S_37_connections_dropped_anywhere_leave_nothing_behind, .timeout = 120)
{
    const char *given = getenv("DROPS_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    fprintf(stderr, "DROPS_SEED=%llu\n", (unsigned long long)seed);
    seed = seed * 2 + 1;
    const struct io_config config = harness_config();
    struct io_thread *io = harness_start(&config);
    struct peer peers[AT_ONCE];
    unsigned before = harness_count_descriptors();
    for (unsigned done = 0; done < CONNECTIONS; done += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++)
            peers[i] = random_peer(io);
        for (int i = 0; i < AT_ONCE; i++) {
            do_something(io, &peers[i]);
            harness_leave(&peers[i]);
            run_callbacks(io, 0);
        }
    }
    for (int i = 0; i < WAIT_MS && opened != closed; i++)
        run_callbacks(io, 1);
    cr_assert(io_wait_clients(io, WAIT_MS));
    struct io_stats stats;
    for (int i = 0; i < WAIT_MS; i++) { /* the turn of the last end may not be over yet */
        run_callbacks(io, i == 0 ? 20 : 1);
        io_stats(io, &stats);
        if (stats.channels + stats.patterns == 0)
            break;
    }
    cr_assert_eq(opened, closed, "%u on_open, %u on_close", opened, closed);
    cr_assert_gt(opened, CONNECTIONS - 1);
    cr_assert_eq(stats.clients + stats.channels + stats.patterns, 0);
    cr_assert_eq(harness_count_descriptors(), before + (io->ring != NULL));
    io_thread_stop(io);
}
