/*
 * What the broker's loop costs a message: the broker, a publisher and its subscribers are one
 * thread, on pairs of sockets, so that neither wake-ups nor a scheduler are in the figure. Counted
 * is the thread's time within turns of the loop, in many short parts; shown are the smallest of
 * them and the middle one. A host that does other things only ever adds, so the smallest tells two
 * builds apart that differ by 2 %, when they are run in turn. See --help.
 */
#define IN_PROCESS_HERE
#include "../fuzz/in_process.h"
#include "buffer.h"
#include "bytes.h"
#include "sp.h"
#include "wire.h"
#include <getopt.h>
#include <string.h>

enum {
    SUBSCRIBERS_MAX = 64,
    NAMES_AT_ONCE = 2000, /* of one SUBMIT that subscribes */
    READ_SIZE_MAX = 1 << 20,
    IN_MAX = 64 << 20
};

static unsigned subscribers = 1, channels = 1, size = 64, batch = WIRE_BATCH_SIZE, parts = 40,
                sets_count = 64; /* different SUBMITs, so that many channels have their turn */
static uint64_t spent;           /* ns within turns, of the part at hand */

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "bench_turn: %s\n", what);
    exit(1);
}

static uint64_t thread_ns(void)
{
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void turns(void)
{
    uint64_t start = thread_ns();
    in_process_settle();
    spent += thread_ns() - start;
}

/* ---- a peer ---- */

struct peer {
    int fd;
    uint32_t next_id;
    uint64_t session;
    unsigned parked; /* FETCHes */
    uint64_t messages;
    struct buffer in;
};

static void peer_send(const struct peer *p, const uint8_t *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(p->fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            give_up(strerror(errno));
        if (n < 0) {
            turns();
            continue;
        }
        bytes += n;
        length -= (size_t)n;
    }
}

static void take_reply(struct peer *p, const uint8_t *body, size_t length)
{
    struct wire_reply reply;
    if (wire_reply_decode(body + 4, length - 4, &reply) != STATUS_OK || reply.status != STATUS_OK)
        give_up("a request was refused");
    if (reply.operation != WIRE_FETCH)
        return;
    p->parked--;
    p->messages += reply.records;
}

static void peer_read(struct peer *p)
{
    uint64_t body;
    size_t prefix = sp_prefix_size(SP_IPC);
    uint8_t *room;
    ssize_t n;
    while ((room = buffer_reserve(&p->in, READ_SIZE_MAX)) != NULL &&
           (n = recv(p->fd, room, READ_SIZE_MAX, 0)) > 0)
        buffer_commit(&p->in, (size_t)n);
    while (sp_prefix_decode(buffer_bytes(&p->in), buffer_length(&p->in), SP_IPC, IN_MAX, &body) ==
               STATUS_OK &&
           buffer_length(&p->in) - prefix >= body) {
        take_reply(p, buffer_bytes(&p->in) + prefix, (size_t)body);
        buffer_consume(&p->in, prefix + (size_t)body);
    }
}

static void request(struct peer *p, uint8_t operation, uint32_t records, const uint8_t *body,
                    size_t length)
{
    uint8_t head[64];
    size_t at = sp_prefix_encode(head, SP_IPC, 4 + WIRE_REQUEST_SIZE + length);
    put_u32be(head + at, p->next_id++ | 0x80000000);
    wire_request_encode(head + at + 4, &(struct wire_request){.version = WIRE_VERSION,
                                                              .operation = operation,
                                                              .records = records,
                                                              .session = p->session});
    peer_send(p, head, at + 4 + WIRE_REQUEST_SIZE);
    peer_send(p, body, length);
}

static void peer_open(struct peer *p, uint64_t session)
{
    uint8_t bytes[128];
    struct wire_attach attach = {
        .generation = 1, .pid = 1, .name = (const uint8_t *)"bench", .name_length = 5};
    *p = (struct peer){.fd = in_process_connect(SP_IPC), .session = session};
    buffer_init(&p->in, IN_MAX);
    sp_hello_encode(bytes, SP_REQ);
    peer_send(p, bytes, SP_HELLO_SIZE);
    turns();
    if (recv(p->fd, bytes, SP_HELLO_SIZE, 0) != SP_HELLO_SIZE)
        give_up("no hello");
    wire_attach_encode(bytes, &attach);
    request(p, WIRE_ATTACH, 0, bytes, wire_attach_size(&attach));
    turns();
    peer_read(p);
}

static size_t put_record(uint8_t *out, struct wire_record *record, unsigned channel)
{
    char name[16];
    record->channel = (const uint8_t *)name;
    record->channel_length = (uint16_t)snprintf(name, sizeof(name), "c%u", channel);
    wire_record_encode(out, record);
    return wire_record_size(record->channel_length, record->payload_length);
}

static void subscribe_to_all(struct peer *p)
{
    static uint8_t names[NAMES_AT_ONCE * 64];
    for (unsigned done = 0; done < channels;) {
        size_t length = 0;
        uint32_t records = 0;
        for (; done < channels && records < NAMES_AT_ONCE; records++)
            length +=
                put_record(names + length, &(struct wire_record){.type = WIRE_SUBSCRIBE}, done++);
        request(p, WIRE_SUBMIT, records, names, length);
        turns();
        peer_read(p);
    }
}

/* ---- what is measured ---- */

static struct set {
    uint8_t *bytes;
    size_t length;
} * sets;

static void make_sets(uint32_t records)
{
    uint8_t *payload = calloc(1, size);
    sets = calloc(sets_count, sizeof(*sets));
    for (uint32_t n = 0; n < sets_count; n++) {
        sets[n].bytes = malloc(records * wire_record_size(16, size));
        for (uint32_t i = 0; i < records; i++) {
            uint64_t spread = ((uint64_t)n * records + i) * 2654435761u; /* prime */
            struct wire_record record = {.type = WIRE_PUBLISH,
                                         .flags = WIRE_BINARY,
                                         .origin = 1,
                                         .payload = payload,
                                         .payload_length = size};
            sets[n].length +=
                put_record(sets[n].bytes + sets[n].length, &record, (unsigned)(spread % channels));
        }
    }
    free(payload);
}

/* One SUBMIT goes in, and what comes of it out. */
static void publish_set(struct peer *publisher, struct peer *receivers, unsigned n,
                        uint32_t records)
{
    static uint64_t sequence = 1;
    for (unsigned i = 0; i < subscribers; i++)
        for (; receivers[i].parked < WIRE_FULL_CREDITS; receivers[i].parked++)
            request(&receivers[i], WIRE_FETCH, 0, NULL, 0);
    uint8_t *at = sets[n].bytes;
    for (uint32_t i = 0; i < records; i++, at += size_align8(get_u32le(at)))
        put_u64le(at + 24, sequence++);
    request(publisher, WIRE_SUBMIT, records, sets[n].bytes, sets[n].length);
    turns();
    peer_read(publisher);
    for (unsigned i = 0; i < subscribers; i++)
        peer_read(&receivers[i]);
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void measure(struct peer *publisher, struct peer *receivers)
{
    uint32_t records = batch / (uint32_t)wire_record_size(2, size) + 1;
    double *ns = calloc(parts, sizeof(*ns));
    make_sets(records);
    for (unsigned part = 0; part <= parts; part++) { /* the first warms up */
        spent = 0;
        for (unsigned n = 0; n < sets_count; n++)
            publish_set(publisher, receivers, n, records);
        if (part > 0)
            ns[part - 1] = (double)spent / sets_count / records;
    }
    for (unsigned i = 0; i < subscribers; i++)
        if (receivers[i].messages != (uint64_t)(parts + 1) * sets_count * records)
            give_up("a subscriber did not get every message");
    qsort(ns, parts, sizeof(*ns), compare);
    printf("%u bytes, 1 -> %u, %u channels, SUBMITs of %u bytes: %.1f ns a message (the smallest "
           "of %u; the middle one %.1f)\n",
           size, subscribers, channels, batch, ns[0], parts, ns[parts / 2]);
    free(ns);
}

static const char help[] = "Usage: bench_turn [option ...]\n"
                           "  --subscribers N  connections that subscribe (default 1, at most 64)\n"
                           "  --channels N     channels used, all subscribed by all (default 1)\n"
                           "  --size N         bytes of a payload (default 64)\n"
                           "  --batch N        bytes of a SUBMIT (default 131072)\n"
                           "  --sets N         different SUBMITs, sent in turn (default 64)\n"
                           "  --parts N        measured one by one (default 40)\n";

static void parse(int argc, char **argv)
{
    static const struct option options[] = {{"subscribers", required_argument, NULL, 's'},
                                            {"channels", required_argument, NULL, 'c'},
                                            {"size", required_argument, NULL, 'z'},
                                            {"batch", required_argument, NULL, 'b'},
                                            {"sets", required_argument, NULL, 'n'},
                                            {"parts", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    unsigned *const numbers[] = {['s'] = &subscribers, ['c'] = &channels,   ['z'] = &size,
                                 ['b'] = &batch,       ['n'] = &sets_count, ['p'] = &parts};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h' || option == '?') {
            fputs(help, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
        *numbers[option] = (unsigned)strtoul(optarg, NULL, 10);
    }
    if (optind < argc || subscribers > SUBSCRIBERS_MAX || channels == 0 || parts == 0 ||
        sets_count == 0) {
        fputs(help, stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static struct peer publisher, receivers[SUBSCRIBERS_MAX];
    static char journal[64];
    struct options options = {
        .journal = journal, .journal_size = 64 << 20, .max_message = 1 << 20, .ready_fd = -1};
    parse(argc, argv);
    snprintf(journal, sizeof(journal), "/tmp/bench_turn.%d.journal", getpid());
    in_process_start(&options);
    unlink(journal);
    for (unsigned i = 0; i < subscribers; i++) {
        peer_open(&receivers[i], 100 + i);
        subscribe_to_all(&receivers[i]);
    }
    peer_open(&publisher, 1);
    measure(&publisher, receivers);
    for (unsigned i = 0; i < subscribers; i++)
        buffer_release(&receivers[i].in);
    buffer_release(&publisher.in);
    for (unsigned n = 0; n < sets_count; n++)
        free(sets[n].bytes);
    free(sets);
    server_close(&in_process);
    return 0;
}
