#include "buffer.h"
#include "bytes.h"
#include "ctl.h"
#include "ctl_link.h"
#include "glob.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    INPUT_MAX = 64 * 1024 * 1024, /* a message on standard input; the broker's own limit is lower */
    BATCH_MAX = WIRE_BATCH_SIZE,
    READ_SIZE = 64 * 1024
};

/* One-shot publishes: no session, an origin of their own, numbered without holes. */
struct publisher {
    struct ctl_link link;
    const char *channel;
    size_t channel_length;
    bool binary;
    uint64_t origin, sequence;
    struct buffer batch;
    uint32_t batched;
    uint64_t published, reached; /* reached: the most sessions that one SUBMIT was queued to */
};

static int publisher_flush(struct publisher *p)
{
    if (!p->batched)
        return CTL_DONE;
    struct wire_request request = {.version = WIRE_VERSION,
                                   .operation = WIRE_SUBMIT,
                                   .flags = WIRE_ANSWER_FIRST,
                                   .records = p->batched};
    struct ctl_reply reply;
    int result = ctl_link_call(&p->link, &request, buffer_bytes(&p->batch),
                               buffer_length(&p->batch), 0, &reply);
    if (result == CTL_DONE && reply.header.status != STATUS_OK)
        result = ctl_link_refused(&p->link, "publish", &reply);
    if (result == CTL_DONE) {
        p->published += p->batched;
        if (reply.header.records > p->reached)
            p->reached = reply.header.records;
    }
    buffer_consume(&p->batch, buffer_length(&p->batch));
    p->batched = 0;
    return result;
}

static int publisher_add(struct publisher *p, const void *payload, size_t length)
{
    size_t size = wire_record_size(p->channel_length, length);
    if (!size)
        return ctl_fail("a message of %zu bytes is too long", length);
    if (buffer_length(&p->batch) + size > BATCH_MAX && publisher_flush(p) != CTL_DONE)
        return CTL_FAILED;
    uint8_t *out = buffer_reserve(&p->batch, size);
    if (!out)
        return ctl_fail("a message of %zu bytes is too long", length);
    struct wire_record record = {.type = WIRE_PUBLISH,
                                 .flags = p->binary ? WIRE_BINARY : 0,
                                 .channel_length = (uint16_t)p->channel_length,
                                 .origin = p->origin,
                                 .sequence = ++p->sequence,
                                 .channel = (const uint8_t *)p->channel,
                                 .payload = payload,
                                 .payload_length = length};
    wire_record_encode(out, &record);
    buffer_commit(&p->batch, size);
    p->batched++;
    return CTL_DONE;
}

/* Appends what is there on standard input; *end at its end. */
static int read_input(struct buffer *input, bool *end)
{
    uint8_t *room = buffer_reserve(input, READ_SIZE);
    if (!room)
        return ctl_fail("standard input: a message is longer than %d bytes", INPUT_MAX);
    ssize_t got = read(STDIN_FILENO, room, READ_SIZE);
    if (got < 0 && errno != EINTR)
        return ctl_fail("standard input: %s", strerror(errno));
    if (got > 0)
        buffer_commit(input, (size_t)got);
    *end = got == 0;
    return CTL_DONE;
}

static int publish_whole_input(struct publisher *p, struct buffer *input)
{
    for (bool end = false; !end;)
        if (read_input(input, &end) != CTL_DONE)
            return CTL_FAILED;
    if (publisher_add(p, buffer_bytes(input), buffer_length(input)) != CTL_DONE)
        return CTL_FAILED;
    return publisher_flush(p);
}

static int publish_complete_lines(struct publisher *p, struct buffer *input)
{
    uint8_t *newline;
    while (buffer_length(input) &&
           (newline = memchr(buffer_bytes(input), '\n', buffer_length(input))) != NULL) {
        size_t length = (size_t)(newline - buffer_bytes(input));
        if (publisher_add(p, buffer_bytes(input), length) != CTL_DONE)
            return CTL_FAILED;
        buffer_consume(input, length + 1);
    }
    return CTL_DONE;
}

/* What one read gives is published at once: a slow producer's lines are not held back, a fast one's
 * go in large batches. */
static int publish_lines(struct publisher *p, struct buffer *input)
{
    for (bool end = false; !end;) {
        if (read_input(input, &end) != CTL_DONE || publish_complete_lines(p, input) != CTL_DONE)
            return CTL_FAILED;
        if (end && buffer_length(input) &&
            publisher_add(p, buffer_bytes(input), buffer_length(input)) != CTL_DONE)
            return CTL_FAILED;
        if (publisher_flush(p) != CTL_DONE)
            return CTL_FAILED;
    }
    return CTL_DONE;
}

static int publish_all(struct publisher *p, const struct ctl_options *options)
{
    if (options->count == 2) {
        const char *message = options->arguments[1];
        if (publisher_add(p, message, strlen(message)) != CTL_DONE)
            return CTL_FAILED;
        return publisher_flush(p);
    }
    struct buffer input;
    buffer_init(&input, INPUT_MAX);
    int result = options->lines ? publish_lines(p, &input) : publish_whole_input(p, &input);
    buffer_release(&input);
    return result;
}

int cmd_publish(const struct ctl_options *options)
{
    if (options->count < 1 || options->count > 2)
        return ctl_usage(
            "publish takes CHANNEL and at most one MESSAGE (quote a message with spaces)");
    if (options->count == 2 && options->lines)
        return ctl_usage("--lines reads standard input: leave MESSAGE out");
    if (options->count == 1 && isatty(STDIN_FILENO))
        return ctl_usage(
            "publish wants a MESSAGE, or one on standard input (which is a terminal now)");
    struct publisher p = {.channel = options->arguments[0],
                          .channel_length = strlen(options->arguments[0]),
                          .binary = options->binary};
    if (p.channel_length > CHANNEL_LENGTH_MAX)
        return ctl_fail("the channel name has %zu bytes; at most %d are allowed", p.channel_length,
                        CHANNEL_LENGTH_MAX);
    if (getrandom(&p.origin, sizeof(p.origin), 0) != sizeof(p.origin))
        return ctl_fail("no random numbers: %s", strerror(errno));
    if (ctl_link_open(&p.link, options) != CTL_DONE)
        return CTL_FAILED;
    buffer_init(&p.batch, INPUT_MAX + BATCH_MAX);
    int result = publish_all(&p, options);
    buffer_release(&p.batch);
    ctl_link_close(&p.link);
    if (result == CTL_DONE && options->verbose)
        printf("%llu message%s to %llu session%s\n", (unsigned long long)p.published,
               p.published == 1 ? "" : "s", (unsigned long long)p.reached,
               p.reached == 1 ? "" : "s");
    return result;
}
