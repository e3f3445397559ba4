/* Holds: whatever a broker answers, the adapter's link ends that connection or goes on; its
 * position never goes back within an epoch, nothing at or below a label is delivered, and no byte
 * of the publish buffer is given back twice. The hub and the mailboxes are the real ones. */
#include "bytes.h"
#include "callback_pool.h"
#include "fuzz.h"
#include "hub_internal.h"
#include "io_internal.h"
#include "link_internal.h"
#include "sp.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct io_thread io;
static int broker; /* the other end of the link's socket */

static void start(void)
{
    static bool started;
    if (started)
        return;
    started = true;
    io_config_init(&io.config);
    io.config.url = "ipc:///nowhere";
    io.config.name = "fuzz";
    io.generation = io_generation();
    io.base = event_base_new();
    pthread_mutex_init(&io.lock, NULL);
    pthread_cond_init(&io.changed, NULL);
    io.callbacks = callback_pool_new(io.config.block_buffer);
    io.notices = mailbox_new(io.callbacks, 0);
    check(io.base != NULL && io.notices != NULL);
}

/* As link_connect does, but for a pair of sockets. */
static void connect_link(struct link *link)
{
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    link->generation++;
    link->message_max = 64 * 1024;
    buffer_init(&link->in, SIZE_MAX);
    link->fd = ends[0];
    link->writable = event_new(io.base, link->fd, EV_WRITE, NULL, NULL);
    link->state = LINK_GREETING;
    broker = ends[1];
}

/* Says what arrived to the mailboxes; checks what blocks get. */
static void drain_callbacks(void)
{
    struct callback *c;
    struct mailbox *m;
    while ((m = callback_pool_take(io.callbacks, &c))) {
        if (c->kind == CALLBACK_GAP)
            check(c->first <= c->last);
        callback_free(c);
        mailbox_done(m);
    }
}

/* The ids of what the link asked and has no answer to yet, by number. */
static uint32_t asked_id(const struct link *link, unsigned n)
{
    switch (n % 6) {
    case 0:
        return link->attach_request;
    case 1:
        return link->submit_count > 0 ? link->submits[link->submit_start].request : 0;
    case 5:
        return n * 0x01000193u;
    default:
        return link->fetch_count > 0 ? link->fetches[(n / 6) % link->fetch_count] : 0;
    }
}

/* One reply; most of it fits what the link waits for, so that what is behind it is reached. */
static void answer(struct link *link, struct input *in)
{
    uint8_t head[9 + 4 + WIRE_REPLY_SIZE];
    uint8_t options = (uint8_t)take(in, 1), n = (uint8_t)take(in, 1);
    struct wire_reply reply = {.version = options & 1 ? (uint8_t)take(in, 1) : WIRE_VERSION,
                               .operation = (uint8_t)(n % 8),
                               .status = options & 2 ? (uint8_t)take(in, 1) : STATUS_OK,
                               .flags = options & 4 ? (uint8_t)take(in, 1) : 0,
                               .records = (uint32_t)take(in, 1),
                               .epoch = options & 8 ? take(in, 2) : 0x5555,
                               .head = take(in, 2),
                               .value = options & 16 ? take(in, 8) : take(in, 1)};
    size_t length;
    uint8_t *body = take_copy(in, (size_t)take(in, 2) % 1024, &length);
    head[0] = 1;
    put_u64be(head + 1, 4 + WIRE_REPLY_SIZE + length);
    put_u32be(head + 9, asked_id(link, n));
    wire_reply_encode(head + 13, &reply);
    (void)!send(broker, head, sizeof(head), MSG_NOSIGNAL);
    (void)!send(broker, body, length, MSG_NOSIGNAL);
    free(body);
}

static const char *const names[] = {"a", "a.b", "a.*", "news.[ab]", "*"};

static void subscribe(struct block **blocks, unsigned n)
{
    if (blocks[n] != NULL) {
        hub_unsubscribe_block(io.hub, blocks[n]);
        block_unref(blocks[n]);
        blocks[n] = NULL;
        return;
    }
    struct mailbox *mailbox = mailbox_new(io.callbacks, 0);
    check(mailbox != NULL);
    blocks[n] = block_new(mailbox, 0);
    mailbox_unref(mailbox);
    check(blocks[n] != NULL);
    hub_subscribe_block(io.hub, blocks[n], names[n], strlen(names[n]), n >= 2);
}

static void publish(struct link *link, unsigned n)
{
    uint8_t payload[256] = {0};
    io.unanswered_bytes += wire_record_size(1, n);
    link_publish(link, "a", 1, payload, n, false);
}

/* What the link reads now, and what it then does. */
static void read_link(struct link *link)
{
    char drop[8192];
    uint64_t epoch = link->epoch, position = link->position;
    const char *reason = link_read(link);
    check(link->epoch != epoch || link->position >= position);
    check(io.unanswered_bytes < 1u << 30);
    if (reason == NULL)
        link_flush(link);
    else
        link_down(link, reason);
    while (recv(broker, drop, sizeof(drop), 0) > 0)
        ;
    if (link->state == LINK_IDLE) {
        close(broker);
        connect_link(link);
        (void)!send(broker, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL);
    }
    drain_callbacks();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct block *blocks[5] = {NULL};
    start();
    io.hub = hub_new(&io);
    io.link = link_new(&io);
    check(io.hub != NULL && io.link != NULL);
    io.unanswered_bytes = 0;
    struct link *link = io.link;
    connect_link(link);
    (void)!send(broker, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL);
    for (unsigned steps = 0; in.left > 0 && steps < 64; steps++) {
        uint8_t step = (uint8_t)take(&in, 1);
        if (step < 128)
            answer(link, &in);
        else if (step < 160)
            subscribe(blocks, step % 5u);
        else if (step < 200)
            publish(link, step);
        else if (step < 210) {
            size_t length; /* anything at all */
            uint8_t *bytes = take_copy(&in, step, &length);
            (void)!send(broker, bytes, length, MSG_NOSIGNAL);
            free(bytes);
        } else
            link_flush(link);
        if (link->state == LINK_IDLE) {
            close(broker);
            connect_link(link);
            (void)!send(broker, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL);
        }
        read_link(link);
    }
    for (unsigned i = 0; i < 5; i++)
        if (blocks[i] != NULL)
            subscribe(blocks, i);
    link_free(link);
    close(broker);
    hub_free(io.hub);
    drain_callbacks();
    return 0;
}
