/*
 * A brokerd client on plain libnng: any NNG program in any language can do this.
 *
 *   nng_client URL publish CHANNEL COUNT     publishes "1" to COUNT
 *   nng_client URL subscribe CHANNEL COUNT   prints COUNT messages, one a line: id, space, payload
 *
 * The req0 socket repeats a request that is not answered within 200 ms, and everything after a lost
 * connection. That is safe: a publish carries its sequence, a FETCH its position. NOT_ATTACHED
 * means that the link is new, so attach again and repeat. The layouts are those of
 * docs/protocol.md; numbers are little-endian, which is what this program takes the machine to be.
 */
#include "nng_dial.h"
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { ATTACH = 1, SUBMIT = 4, FETCH = 5, SIMPLE = 1, ANSWER_FIRST = 1, NOT_ATTACHED = 4 };
enum { SUBSCRIBE = 1, PUBLISH = 3, MESSAGE = 4, GAP = 5 };

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
    uint8_t rest[12];
};

static nng_socket socket_;
static uint64_t session, origin, generation, epoch, position, head;
static const char *channel;

static void check(int error, const char *what)
{
    if (error != 0) {
        fprintf(stderr, "nng_client: %s: %s\n", what, nng_strerror(error));
        exit(1);
    }
}

/* Sends one request and waits for its reply; what follows the reply header is in *body. */
static struct reply ask(struct request request, const void *bytes, size_t length, nng_msg **body)
{
    nng_msg *message;
    struct reply reply;
    request.version = 1;
    request.session = session;
    check(nng_msg_alloc(&message, 0), "memory");
    nng_msg_append(message, &request, sizeof(request));
    nng_msg_append(message, bytes, length);
    check(nng_sendmsg(socket_, message, 0), "send");
    check(nng_recvmsg(socket_, &message, 0), "receive");
    memcpy(&reply, nng_msg_body(message), sizeof(reply));
    nng_msg_trim(message, sizeof(reply));
    head = reply.head;
    if (body != NULL)
        *body = message;
    else
        nng_msg_free(message);
    return reply;
}

/* One record with its padding; returns its size. */
static size_t put_record(uint8_t *out, uint8_t type, uint64_t sequence, const char *payload)
{
    size_t name = strlen(channel), size = sizeof(struct record) + name + strlen(payload);
    struct record record = {.size = (uint32_t)size,
                            .type = type,
                            .channel_length = (uint16_t)name,
                            .origin = type == PUBLISH ? origin : 0,
                            .sequence = sequence};
    memset(out + size, 0, 8);
    memcpy(out, &record, sizeof(record));
    memcpy(out + sizeof(record), channel, name);
    memcpy(out + sizeof(record) + name, payload, strlen(payload));
    return (size + 7) & ~(size_t)7;
}

static void attach(int subscribes)
{
    uint8_t bytes[512];
    struct attach block = {
        .generation = ++generation, .epoch = epoch, .origin = origin, .pid = (uint32_t)getpid()};
    memcpy(bytes, &block, sizeof(block));
    size_t length = sizeof(block);
    if (subscribes)
        length += put_record(bytes + length, SUBSCRIBE, 0, "");
    struct reply reply = ask((struct request){.operation = ATTACH,
                                              .flags = SIMPLE,
                                              .records = (uint32_t)subscribes,
                                              .position = position},
                             bytes, length, NULL);
    if (reply.status != 0) {
        fprintf(stderr, "nng_client: ATTACH refused with status %d\n", reply.status);
        exit(1);
    }
    if (epoch != reply.epoch)
        position = reply.head;
    epoch = reply.epoch;
}

static void publish(uint64_t count)
{
    for (uint64_t i = 1; i <= count;) {
        uint8_t bytes[512];
        char payload[32];
        snprintf(payload, sizeof(payload), "%llu", (unsigned long long)i);
        size_t length = put_record(bytes, PUBLISH, i, payload);
        struct reply reply =
            ask((struct request){.operation = SUBMIT, .flags = ANSWER_FIRST, .records = 1}, bytes,
                length, NULL);
        if (reply.status == NOT_ATTACHED)
            attach(0);
        else if (reply.status == 0)
            i++;
        else
            check(NNG_EPROTO, "SUBMIT refused");
    }
}

static void subscribe(uint64_t count)
{
    while (count > 0) {
        nng_msg *body;
        struct reply reply =
            ask((struct request){.operation = FETCH, .position = position}, NULL, 0, &body);
        if (reply.status == NOT_ATTACHED)
            attach(1);
        const uint8_t *at = nng_msg_body(body);
        for (uint32_t i = 0; reply.status == 0 && i < reply.records && count > 0; i++) {
            struct record record;
            memcpy(&record, at, sizeof(record));
            const char *name = (const char *)at + sizeof(record);
            const char *payload = name + record.channel_length;
            int length = (int)(record.size - sizeof(record)) - record.channel_length;
            bool ours = record.channel_length == strlen(channel) &&
                        memcmp(name, channel, record.channel_length) == 0;
            if (record.type == MESSAGE && ours && count--)
                printf("%llu %.*s\n", (unsigned long long)record.id, length, payload);
            else if (record.type == GAP)
                fprintf(stderr, "nng_client: messages %llu to %llu are lost\n",
                        (unsigned long long)record.sequence, (unsigned long long)record.id);
            at += (record.size + 7) & ~7u;
        }
        if (reply.status == 0)
            position = reply.value; /* handled */
        nng_msg_free(body);
    }
}

int main(int argc, char **argv)
{
    int subscribes = argc == 5 && strcmp(argv[2], "subscribe") == 0;
    if (argc != 5 || (!subscribes && strcmp(argv[2], "publish") != 0)) {
        fprintf(stderr, "usage: nng_client URL publish|subscribe CHANNEL COUNT\n");
        return 2;
    }
    channel = argv[3];
    if (strlen(channel) > 255 || getrandom(&session, 8, 0) != 8 || getrandom(&origin, 8, 0) != 8)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    check(nng_req0_open(&socket_), "open");
    check(nng_socket_set_ms(socket_, NNG_OPT_REQ_RESENDTIME, 200), "resend time");
    check(nng_socket_set_ms(socket_, NNG_OPT_RECONNMINT, 10), "reconnect time");
    check(dial_for_good(socket_, argv[1]), "dial");
    attach(subscribes);
    if (subscribes)
        fprintf(stderr, "nng_client: subscribed\n"), subscribe(strtoull(argv[4], NULL, 10));
    else
        publish(strtoull(argv[4], NULL, 10));
    return 0;
}
