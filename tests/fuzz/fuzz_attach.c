/* Holds: whatever a peer says in its requests, ATTACH first of all, with or without a secret, the
 * broker answers or closes, keeps its numbers, and nothing is left of the peer when it is gone. */
#define IN_PROCESS_HERE
#include "bytes.h"
#include "fuzz.h"
#include "in_process.h"
#include <fcntl.h>
#include <sys/stat.h>

static void start(void)
{
    static struct options options = {
        .journal_size = 64 * 1024, .no_journal = true, .max_message = 4096, .ready_fd = -1};
    static bool started;
    if (started)
        return;
    started = true;
    in_process_start(&options);
}

static void send_bytes(int fd, const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    while (length > 0) {
        ssize_t n = send(fd, at, length, MSG_NOSIGNAL);
        if (n <= 0) {
            if (errno != EAGAIN)
                return; /* closed: that is the broker's right */
            char drop[4096];
            while (recv(fd, drop, sizeof(drop), 0) > 0)
                ;
            in_process_settle();
            continue;
        }
        at += n;
        length -= (size_t)n;
    }
}

/* One request: its header is mostly sensible, so that what is behind it is reached. */
static void send_request(int fd, struct input *in, enum sp_transport transport)
{
    uint8_t head[SP_PREFIX_MAX + 4 + WIRE_REQUEST_SIZE];
    uint8_t kind = (uint8_t)take(in, 1);
    struct wire_request request = {.version = kind & 0x80 ? (uint8_t)take(in, 1) : WIRE_VERSION,
                                   .operation = kind & 7,
                                   .flags = (uint16_t)take(in, 1),
                                   .records = (uint32_t)take(in, 1),
                                   .session = take(in, 1) % 4,
                                   .position = take(in, 1)};
    size_t length, wanted = (size_t)take(in, 2) % 2048;
    uint8_t *body = take_copy(in, wanted, &length);
    size_t at = sp_prefix_encode(head, transport, 4 + WIRE_REQUEST_SIZE + length);
    put_u32be(head + at, 0x80000000u | (uint32_t)take(in, 1));
    wire_request_encode(head + at + 4, &request);
    send_bytes(fd, head, at + 4 + WIRE_REQUEST_SIZE);
    send_bytes(fd, body, length);
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    static uint8_t secret[] = "0123456789abcdef";
    start();
    uint8_t options = (uint8_t)take(&in, 1);
    enum sp_transport transport = options & 1 ? SP_IPC : SP_TCP;
    in_process.secret = options & 2 ? secret : NULL;
    in_process.secret_length = sizeof(secret) - 1;
    int fds[2] = {in_process_connect(transport), in_process_connect(transport)};
    uint8_t hello[SP_HELLO_SIZE];
    sp_hello_encode(hello, SP_REQ);
    for (int i = 0; i < 2 && !(options & 4); i++)
        send_bytes(fds[i], hello, sizeof(hello));
    if (options & 8)
        send_bytes(fds[0], in.at, in.left);
    else
        for (unsigned i = 0; in.left > 0 && i < 32; i++)
            send_request(fds[i % 7 == 6], &in, transport);
    in_process_settle();
    if (options & 16) {
        in_process_jump(61000);
        server_turn(&in_process, true); /* the tick is due */
        in_process_settle();
    }
    close(fds[0]);
    close(fds[1]);
    for (int i = 0; i < 1000 && in_process.connection_count > 0; i++)
        in_process_settle();
    check(in_process.connection_count == 0 && in_process.sessions.count == 0);
    check(in_process.engines.count == 0);
    if (options & 16) {
        in_process_jump(10000); /* interest does not linger longer */
        engines_tick(&in_process);
        in_process.now += 10000;
        engines_tick(&in_process);
        struct subscriptions_stats table;
        subscriptions_stats(in_process.subscriptions, &table);
        check(table.subscriptions == 0 && table.channels == 0 && table.patterns == 0);
    }
    in_process.secret = NULL;
    return 0;
}
