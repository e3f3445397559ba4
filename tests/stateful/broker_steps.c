/*
 * A stateful fuzz of the broker: peers that say right and wrong things, cut in any place, close,
 * do not read, let time pass, and a broker that is closed and opened again on its journal. The
 * real broker runs in this process; beside it a plain model (model.h) is given the same bytes and
 * says what must come of each. After every step the two are compared.
 *
 *   broker_steps [--steps N] [--seed S] [--trace]
 *
 * The default is 60,000 steps from a seed that is drawn and printed. A run is the same again with
 * the same seed, but for where the broker cuts what it sends.
 */
#include "model.h"
#include <getopt.h>

enum {
    SEND_MAX = 8192,
    PENDING_MAX = 65536,
    PARKED_UNREAD_MAX = 32 /* more: who has too many at 64 is known only once it has read */
};

static const char *const channels[] = {"a", "b", "a.x", "a.y", "news.sport", "news.spurt", ""};
/* Enough for look-ups ahead, and for audiences that are known. */
static const char *const rooms[] = {"r00", "r01", "r02", "r03", "r04", "r05", "r06", "r07",
                                    "r08", "r09", "r10", "r11", "r12", "r13", "r14", "r15",
                                    "r16", "r17", "r18", "r19", "r20", "r21", "r22", "r23"};
static const char *const patterns[] = {"a.*", "*", "news.sp[ou]rt", "?", "a[", "[^a]", "n*t", "b"};

#define COUNT(list) (sizeof(list) / sizeof(*(list)))

static uint8_t message[SEND_MAX];
static struct {
    uint8_t bytes[PENDING_MAX]; /* of a message that was sent in part */
    size_t length;
} pending[PEERS];

static const char *some_channel(void)
{
    return chance(3) ? rooms[pick(COUNT(rooms))] : channels[pick(COUNT(channels))];
}

static const char *some_name(bool *is_pattern)
{
    static char long_name[CHANNEL_LENGTH_MAX + 2];
    *is_pattern = chance(3);
    if (chance(60)) {
        size_t length = chance(3) ? CHANNEL_LENGTH_MAX + 1 : 200 + pick(300);
        memset(long_name, 'l', length);
        long_name[length] = 0;
        return long_name;
    }
    return *is_pattern ? patterns[pick(COUNT(patterns))] : some_channel();
}

struct writing { /* a request that is put together in `message` */
    struct wire_request header;
    uint8_t body[SEND_MAX - 128];
    size_t length;
};

static void add_record(struct writing *w, const struct wire_record *record)
{
    size_t size = wire_record_size(record->channel_length, record->payload_length);
    if (w->length + size > sizeof(w->body))
        return;
    wire_record_encode(w->body + w->length, record);
    w->length += size;
    w->header.records++;
}

static void add_names(struct writing *w, unsigned count, bool may_remove)
{
    for (unsigned i = 0; i < count; i++) {
        bool is_pattern;
        const char *name = some_name(&is_pattern);
        add_record(w, &(struct wire_record){.type = may_remove && chance(2) ? WIRE_UNSUBSCRIBE
                                                                            : WIRE_SUBSCRIBE,
                                            .flags = is_pattern ? WIRE_PATTERN : 0,
                                            .channel = (const uint8_t *)name,
                                            .channel_length = (uint16_t)strlen(name)});
    }
}

static void add_rooms(struct writing *w)
{
    for (size_t i = 0; i < COUNT(rooms); i++)
        add_record(w, &(struct wire_record){.type = WIRE_SUBSCRIBE,
                                            .channel = (const uint8_t *)rooms[i],
                                            .channel_length = (uint16_t)strlen(rooms[i])});
}

static void add_publishes(struct writing *w, unsigned count)
{
    static const uint8_t filling[8192] = "payload";
    uint64_t origin = chance(40) ? 0 : 1 + pick(6), known = model_known(origin);
    uint64_t sequence = known + 1;
    if (chance(10))
        sequence = known > 3 ? known - pick(3) : known + pick(4);
    for (unsigned i = 0; i < count; i++) {
        const char *channel = some_channel();
        add_record(w, &(struct wire_record){.type = chance(300) ? WIRE_SUBSCRIBE : WIRE_PUBLISH,
                                            .flags = (uint8_t)pick(3),
                                            .origin = origin,
                                            .sequence = sequence++,
                                            .channel = (const uint8_t *)channel,
                                            .channel_length = (uint16_t)strlen(channel),
                                            .payload = filling,
                                            .payload_length = chance(30) ? pick(6000) : pick(90)});
    }
}

static uint64_t some_session(int peer)
{
    struct m_session *s = model_session_of(peer, pick(4));
    if (s != NULL && !chance(12))
        return s->id;
    return chance(30) ? pick(3) * 0x1122334455667788u : pick(9);
}

static void make_attach(struct writing *w)
{
    static const char *const names[] = {"redis", "worker", "other", ""};
    w->header.session = chance(50) ? 0 : 1 + pick(8);
    struct m_session *s = model_session(w->header.session);
    uint64_t head = model.head, known = s != NULL ? s->generation : 3;
    uint64_t positions[] = {s != NULL ? s->position : head, head, 0, head + 1, pick(2000)};
    uint64_t unanswered[] = {0, head, 1, 1 + pick(5000)};
    const char *name = names[pick(COUNT(names))];
    struct wire_attach attach = {.generation = known + pick(3) - (chance(8) ? 2 : 0),
                                 .epoch = chance(8) ? pick(2) : model.epoch,
                                 .origin = chance(3) ? 0 : 1 + pick(8),
                                 .unanswered = unanswered[pick(COUNT(unanswered))],
                                 .pid = 1,
                                 .name = (const uint8_t *)name,
                                 .name_length = strlen(name)};
    w->header.position = positions[pick(COUNT(positions))];
    w->header.flags = (uint16_t)((chance(5) ? WIRE_SIMPLE : 0) | (chance(8) ? WIRE_MORE : 0) |
                                 (chance(6) ? WIRE_ENGINE : 0));
    wire_attach_encode(w->body, &attach);
    w->length = wire_attach_size(&attach);
    add_names(w, pick(5), chance(20));
    if (chance(6))
        add_rooms(w);
}

static void make_fetch(struct writing *w, int peer)
{
    w->header.session = some_session(peer);
    struct m_session *s = model_session(w->header.session);
    w->header.position = s != NULL && !chance(6) ? s->position : pick(3) * model.head / 2 + pick(2);
}

static void make_request(struct writing *w, int peer)
{
    *w = (struct writing){.header = {.version = WIRE_VERSION}};
    unsigned kind = pick(100);
    w->header.session = some_session(peer);
    if (kind < 14 || model_session_of(peer, 0) == NULL) {
        w->header.operation = WIRE_ATTACH;
        make_attach(w);
    } else if (kind < 50) {
        w->header.operation = WIRE_SUBMIT;
        if (chance(3))
            w->header.session = 0;
        if (chance(3))
            w->header.flags = WIRE_ANSWER_FIRST;
        add_publishes(w, 1 + pick(6));
    } else if (kind < 62) {
        w->header.operation = WIRE_SUBMIT;
        add_names(w, 1 + pick(3), true);
    } else if (kind < 92) {
        w->header.operation = WIRE_FETCH;
        make_fetch(w, peer);
    } else if (kind < 94) {
        w->header.operation = chance(2) ? WIRE_DETACH : WIRE_RESET;
        if (chance(3))
            add_record(w, &(struct wire_record){.type = WIRE_SUBSCRIBE,
                                                .channel = (const uint8_t *)"redis",
                                                .channel_length = 5});
    } else if (kind < 98) {
        w->header.operation = WIRE_QUERY;
        w->header.flags = (uint16_t)pick(6);
        if (chance(3))
            add_names(w, 1, false);
    } else {
        w->header.operation = (uint8_t)pick(10);
        w->header.version = chance(2) ? WIRE_VERSION : (uint8_t)pick(4);
    }
}

/* Some bytes of the message are another; the length in front of it often stays true. */
static void spoil(uint8_t *bytes, size_t length, size_t prefix)
{
    for (unsigned n = 1 + pick(3); n > 0; n--) {
        size_t from = chance(20) ? 0 : prefix;
        bytes[from + pick((unsigned)(length - from))] ^= (uint8_t)(1 + pick(255));
    }
}

/* Into message; returns its length, *prefix of it before the body. */
static size_t encode(int peer, const struct writing *w, size_t *prefix)
{
    enum sp_transport transport = model.peers[peer].transport;
    size_t backtrace = chance(20) ? 8 : 4;
    size_t body = backtrace + WIRE_REQUEST_SIZE + w->length;
    size_t at = *prefix = sp_prefix_encode(message, transport, body);
    if (backtrace == 8) {
        put_u32be(message + at, pick(1000));
        at += 4;
    }
    put_u32be(message + at, 0x80000000u | pick(0x7fffffff));
    wire_request_encode(message + at + 4, &w->header);
    memcpy(message + at + 4 + WIRE_REQUEST_SIZE, w->body, w->length);
    return at + 4 + WIRE_REQUEST_SIZE + w->length;
}

static size_t make_message(int peer)
{
    static struct writing w;
    size_t prefix;
    make_request(&w, peer);
    bool spoiled = chance(12);
    if (spoiled && chance(4))
        w.length = w.length > 0 ? pick((unsigned)w.length) : 0;
    size_t length = encode(peer, &w, &prefix);
    if (spoiled)
        spoil(message, length, prefix);
    return length;
}

/* To the broker and to the model; in two parts now and then. */
static void send_message(int peer, const uint8_t *bytes, size_t length)
{
    size_t now = chance(12) && length > 1 ? 1 + pick((unsigned)length - 1) : length;
    pending[peer].length = length - now;
    memcpy(pending[peer].bytes, bytes + now, length - now);
    peer_send(peer, bytes, now);
}

/* So many credits that some are given back. */
static void send_fetches(int peer)
{
    static struct writing w;
    size_t prefix;
    struct m_session *s = model_session_of(peer, pick(4));
    for (unsigned n = 4 + pick(40); s != NULL && n > 0 && pending[peer].length == 0; n--) {
        w.header = (struct wire_request){.version = WIRE_VERSION,
                                         .operation = WIRE_FETCH,
                                         .session = s->id,
                                         .position = s->position};
        size_t length = encode(peer, &w, &prefix);
        send_message(peer, message, length);
    }
}

static void step_connect(int peer)
{
    uint8_t hello[SP_HELLO_SIZE];
    pending[peer].length = 0;
    peer_connect(peer, chance(2) ? SP_IPC : SP_TCP);
    sp_hello_encode(hello, SP_REQ);
    if (chance(40))
        hello[pick(SP_HELLO_SIZE)] ^= (uint8_t)(1 + pick(255));
    if (!chance(50)) /* else it says nothing */
        send_message(peer, hello, sizeof(hello));
}

static void step_peer(int peer)
{
    static uint8_t bytes[PENDING_MAX];
    struct m_peer *p = &model.peers[peer];
    if (p->state == PEER_GONE) {
        step_connect(peer);
    } else if (pending[peer].length > 0) {
        size_t length = pending[peer].length;
        memcpy(bytes, pending[peer].bytes, length);
        send_message(peer, bytes, length);
    } else if (chance(60)) {
        peer_close(peer);
    } else if (chance(80)) {
        p->reads = !p->reads;
        p->lax = true;
    } else if (chance(400)) {
        size_t length = 1 + pick(60);
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)pick(256);
        send_message(peer, bytes, length);
    } else if (!p->reads && model_parked(peer) > PARKED_UNREAD_MAX) {
        p->reads = true;
    } else if (chance(30) && p->reads && p->sent_unread < 160) {
        send_fetches(peer);
    } else if (p->sent_unread < 200) {
        size_t length = make_message(peer);
        send_message(peer, message, length);
    } else {
        p->reads = true;
    }
}

static void step(void)
{
    if (chance(20000))
        model_restart();
    else if (chance(150))
        model_jump(chance(12) ? 70000 : chance(3) ? 16000 : chance(2) ? 6000 : 700);
    else
        step_peer((int)pick(PEERS));
    model_compare();
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"steps", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"trace", no_argument, NULL, 't'},
                                            {NULL, 0, NULL, 0}};
    uint64_t steps = 60000, seed = (uint64_t)time(NULL);
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'n')
            steps = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 't')
            model.tracing = true;
        else
            return 2;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    model_start(seed);
    for (model.step = 0; model.step < steps; model.step++)
        step();
    model_end();
    return 0;
}
