/*
 * A brokerd engine on plain libnng: it joins the broker to whatever its input and output are joined
 * to.
 *
 *   nng_engine URL NAME
 *
 * Each input line "CHANNEL MESSAGE" is published into the broker. Each message that others publish
 * there comes out as such a line; its own do not come back. Which channels somebody wants is told
 * on standard error: "+ channel x" or "+ pattern x*", and "-" when nobody does any more. With two
 * of them two brokers are one:
 *
 *   mkfifo back; nng_engine URL1 a <back | nng_engine URL2 b >back
 *
 * A message with a line feed cannot be a line: it is passed over and said. What else is to be known
 * stands in nng_client.c: a request may be repeated, NOT_ATTACHED means attach and repeat. Numbers
 * are little-endian, which is what this program takes the machine to be.
 */
#include "nng_dial.h"
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { ATTACH = 1, SUBMIT = 4, FETCH = 5, SIMPLE = 1, ENGINE = 4 };
enum { OK = 0, NOT_ATTACHED = 4, GOING_AWAY = 14 };
enum { SUBSCRIBE = 1, PUBLISH = 3, MESSAGE = 4, GAP = 5, INTEREST = 6, NO_INTEREST = 7 };
enum { NEW_EPOCH = 1, UNSURE = 2 }; /* flags of ATTACH's reply */
enum { PATTERN = 1, CHANNEL_MAX = 4096, NAME_MAX_BYTES = 255 };

struct request {
    uint8_t version, operation;
    uint16_t flags;
    uint32_t records;
    uint64_t session, position;
};
struct reply {
    uint8_t version, operation, status, flags;
    uint32_t records;
    uint64_t epoch, head, value;
};
struct record {
    uint32_t size;
    uint8_t type, flags;
    uint16_t channel_length;
    uint64_t id, origin, sequence;
    uint32_t checksum, engine;
};
struct attach {
    uint64_t generation, epoch, origin, unanswered;
    uint32_t pid;
    uint16_t name_length, proof_length;
    uint64_t reserved;
};

static nng_socket socket_;
static const char *name;
static uint64_t session, origin;

/* The two threads (input, output) each have a context; whoever sees that the link is new attaches.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t generation, epoch, position, unanswered;
static bool unsure;             /* whether the unanswered message was taken */
static _Atomic uint64_t newest; /* the newest id that is known of */

static void check(int error, const char *what)
{
    if (error != 0) {
        fprintf(stderr, "nng_engine: %s: %s\n", what, nng_strerror(error));
        exit(1);
    }
}

static void refused(const char *what, int status)
{
    fprintf(stderr, "nng_engine: %s is refused with status %d\n", what, status);
    exit(1);
}

/* Sends one request and waits for its reply; what follows the reply header is in *body. */
static struct reply ask(nng_ctx context, struct request request, const void *bytes, size_t length,
                        nng_msg **body)
{
    nng_msg *message;
    nng_aio *aio;
    struct reply reply;
    request.version = 1;
    request.session = session;
    check(nng_msg_alloc(&message, 0), "memory");
    check(nng_msg_append(message, &request, sizeof(request)), "memory");
    check(nng_msg_append(message, bytes, length), "memory");
    check(nng_aio_alloc(&aio, NULL, NULL), "memory");
    nng_aio_set_msg(aio, message);
    nng_ctx_send(context, aio);
    nng_aio_wait(aio);
    check(nng_aio_result(aio), "send");
    nng_ctx_recv(context, aio);
    nng_aio_wait(aio);
    check(nng_aio_result(aio), "receive");
    message = nng_aio_get_msg(aio);
    nng_aio_free(aio);
    if (nng_msg_len(message) < sizeof(reply))
        check(NNG_EPROTO, "receive");
    memcpy(&reply, nng_msg_body(message), sizeof(reply));
    atomic_store(&newest, reply.head);
    nng_msg_trim(message, sizeof(reply));
    if (body != NULL)
        *body = message;
    else
        nng_msg_free(message);
    return reply;
}

static size_t padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* One record with its padding, in memory of its own. */
static uint8_t *new_record(struct record record, const char *channel, const char *payload,
                           size_t payload_length, size_t *length)
{
    size_t channel_length = strlen(channel);
    size_t size = sizeof(record) + channel_length + payload_length;
    uint8_t *bytes = calloc(1, padded(size));
    if (bytes == NULL)
        check(NNG_ENOMEM, "memory");
    record.size = (uint32_t)size;
    record.channel_length = (uint16_t)channel_length;
    memcpy(bytes, &record, sizeof(record));
    memcpy(bytes + sizeof(record), channel, channel_length);
    memcpy(bytes + sizeof(record) + channel_length, payload, payload_length);
    *length = padded(size);
    return bytes;
}

/* Under the lock. The one subscription is to everything, so what the members want need not be kept.
 */
static void attach(nng_ctx context)
{
    size_t name_length = strlen(name), all_length;
    size_t block_length = padded(sizeof(struct attach) + name_length);
    struct attach block = {.generation = ++generation,
                           .epoch = epoch,
                           .origin = origin,
                           .unanswered = unanswered,
                           .pid = (uint32_t)getpid(),
                           .name_length = (uint16_t)name_length};
    uint8_t bytes[512] = {0};
    memcpy(bytes, &block, sizeof(block));
    memcpy(bytes + sizeof(block), name, name_length);
    uint8_t *all =
        new_record((struct record){.type = SUBSCRIBE, .flags = PATTERN}, "*", "", 0, &all_length);
    memcpy(bytes + block_length, all, all_length);
    free(all);
    struct reply reply =
        ask(context,
            (struct request){
                .operation = ATTACH, .flags = SIMPLE | ENGINE, .records = 1, .position = position},
            bytes, block_length + all_length, NULL);
    if (reply.status != OK)
        refused("ATTACH", reply.status);
    if (unanswered != 0 && reply.flags & (NEW_EPOCH | UNSURE))
        unsure = true;
    if (epoch != reply.epoch)
        position = reply.head;
    epoch = reply.epoch;
}

static uint64_t current_generation(void)
{
    pthread_mutex_lock(&lock);
    uint64_t now = generation;
    pthread_mutex_unlock(&lock);
    return now;
}

/* Unless the other thread has done it since `seen` was current. */
static void attach_again(nng_ctx context, uint64_t seen)
{
    pthread_mutex_lock(&lock);
    if (generation == seen)
        attach(context);
    pthread_mutex_unlock(&lock);
}

/* ---- input: lines are published ---- */

/* Whether the message is done with: taken, or not to be sent again. Attaches when the link is new.
 */
static bool answered(nng_ctx context, uint64_t seen, struct reply reply)
{
    if (reply.status != OK && reply.status != NOT_ATTACHED)
        refused("a message", reply.status);
    pthread_mutex_lock(&lock);
    if (reply.status == NOT_ATTACHED && generation == seen)
        attach(context);
    bool done = reply.status == OK || unsure;
    if (reply.status != OK && unsure)
        fprintf(stderr, "nng_engine: whether a message was taken is not known\n");
    if (done) {
        unsure = false;
        unanswered = 0;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static void publish(nng_ctx context, uint64_t sequence, const char *channel, const char *payload,
                    size_t payload_length)
{
    size_t length;
    uint64_t seen;
    struct reply reply;
    uint8_t *bytes =
        new_record((struct record){.type = PUBLISH, .origin = origin, .sequence = sequence},
                   channel, payload, payload_length, &length);
    pthread_mutex_lock(&lock);
    unanswered = atomic_load(&newest) + 1; /* the lowest id that it can get */
    pthread_mutex_unlock(&lock);
    do {
        seen = current_generation();
        reply =
            ask(context, (struct request){.operation = SUBMIT, .records = 1}, bytes, length, NULL);
    } while (!answered(context, seen, reply));
    free(bytes);
}

static void *read_input(void *context)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    uint64_t sequence = 0;
    while ((length = getline(&line, &room, stdin)) > 0) {
        if (line[length - 1] == '\n')
            line[--length] = '\0';
        char *space = strchr(line, ' ');
        if (space == NULL || space == line || space - line > CHANNEL_MAX) {
            fprintf(stderr, "nng_engine: a line is CHANNEL, a space, MESSAGE\n");
            continue;
        }
        *space = '\0';
        publish(*(nng_ctx *)context, ++sequence, line, space + 1,
                (size_t)(line + length - space) - 1);
    }
    free(line);
    return NULL; /* the output goes on */
}

/* ---- output: what others publish, and what is wanted ---- */

static void handle(const struct record *record, const char *channel, const char *payload,
                   size_t payload_length)
{
    int channel_length = record->channel_length;
    switch (record->type) {
    case MESSAGE:
        if (memchr(payload, '\n', payload_length) != NULL ||
            memchr(channel, '\n', record->channel_length) != NULL ||
            memchr(channel, ' ', record->channel_length) != NULL)
            fprintf(stderr, "nng_engine: message %llu does not fit a line\n",
                    (unsigned long long)record->id);
        else {
            printf("%.*s ", channel_length, channel);
            fwrite(payload, 1, payload_length, stdout);
            putchar('\n');
        }
        break;
    case GAP:
        fprintf(stderr, "nng_engine: messages %llu to %llu are lost\n",
                (unsigned long long)record->sequence, (unsigned long long)record->id);
        break;
    case INTEREST:
    case NO_INTEREST:
        fprintf(stderr, "%c %s %.*s\n", record->type == INTEREST ? '+' : '-',
                record->flags & PATTERN ? "pattern" : "channel", channel_length, channel);
        break;
    default: /* of a later version */
        break;
    }
}

static void handle_batch(const nng_msg *body, uint32_t records)
{
    const char *at = nng_msg_body((nng_msg *)(uintptr_t)body);
    size_t left = nng_msg_len(body);
    for (uint32_t i = 0; i < records; i++) {
        struct record record;
        if (left < sizeof(record))
            check(NNG_EPROTO, "a batch");
        memcpy(&record, at, sizeof(record));
        size_t head = sizeof(record) + record.channel_length;
        if (record.size < head || padded(record.size) > left)
            check(NNG_EPROTO, "a batch");
        handle(&record, at + sizeof(record), at + head, record.size - head);
        at += padded(record.size);
        left -= padded(record.size);
    }
}

static void write_output(nng_ctx context)
{
    for (;;) {
        nng_msg *body;
        pthread_mutex_lock(&lock);
        uint64_t seen = generation;
        struct request request = {.operation = FETCH, .position = position};
        pthread_mutex_unlock(&lock);
        struct reply reply = ask(context, request, NULL, 0, &body);
        if (reply.status == NOT_ATTACHED) {
            attach_again(context, seen);
        } else if (reply.status == GOING_AWAY) {
            fprintf(stderr, "nng_engine: the broker ends, or has detached this engine\n");
            exit(0);
        } else if (reply.status != OK) {
            refused("FETCH", reply.status);
        } else {
            handle_batch(body, reply.records);
            pthread_mutex_lock(&lock);
            if (epoch == reply.epoch)
                position = reply.value; /* handled */
            pthread_mutex_unlock(&lock);
        }
        nng_msg_free(body);
    }
}

int main(int argc, char **argv)
{
    nng_ctx input, output;
    pthread_t reader;
    if (argc != 3 || argv[2][0] == '\0' || strlen(argv[2]) > NAME_MAX_BYTES) {
        fprintf(stderr, "usage: nng_engine URL NAME\n");
        return 2;
    }
    name = argv[2];
    if (getrandom(&session, 8, 0) != 8 || getrandom(&origin, 8, 0) != 8)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    check(nng_req0_open(&socket_), "open");
    check(nng_socket_set_ms(socket_, NNG_OPT_REQ_RESENDTIME, 200), "resend time");
    check(nng_socket_set_ms(socket_, NNG_OPT_RECONNMINT, 10), "reconnect time");
    check(nng_socket_set_size(socket_, NNG_OPT_RECVMAXSZ, 0), "message size"); /* the broker's */
    check(nng_ctx_open(&input, socket_), "context");
    check(nng_ctx_open(&output, socket_), "context");
    check(dial_for_good(socket_, argv[1]), "dial");
    attach_again(output, 0);
    fprintf(stderr, "nng_engine: attached\n");
    if (pthread_create(&reader, NULL, read_input, &input) != 0)
        return 1;
    write_output(output);
}
