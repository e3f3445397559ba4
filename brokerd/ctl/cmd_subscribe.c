#include "buffer.h"
#include "ctl.h"
#include "ctl_link.h"
#include "glob.h"
#include "json.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SILENCE_MS = 15000 }; /* a parked FETCH is answered within 5 s, message or not */

struct listener {
    struct ctl_link link;
    struct buffer list; /* SUBSCRIBE records */
    uint32_t list_count;
    uint64_t epoch, position;
    bool json, verbose, to_terminal;
};

static int add_pattern(struct listener *l, const char *pattern)
{
    size_t length = strlen(pattern);
    enum status status = glob_check(pattern, length);
    if (status != STATUS_OK)
        return ctl_usage("pattern %s: %s", pattern, status_text(status));
    struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                 .flags = WIRE_PATTERN,
                                 .channel_length = (uint16_t)length,
                                 .channel = (const uint8_t *)pattern};
    size_t size = wire_record_size(length, 0);
    uint8_t *out = buffer_reserve(&l->list, size);
    if (!out)
        return ctl_usage("too many patterns");
    wire_record_encode(out, &record);
    buffer_commit(&l->list, size);
    l->list_count++;
    return CTL_DONE;
}

static int attach(struct listener *l)
{
    struct ctl_reply reply;
    if (ctl_link_attach(&l->link, l->epoch, l->position, buffer_bytes(&l->list),
                        buffer_length(&l->list), l->list_count, &reply) != CTL_DONE)
        return CTL_FAILED;
    if (reply.header.status != STATUS_OK)
        return ctl_link_refused(&l->link, "subscribe", &reply);
    if (l->epoch && (reply.header.flags & WIRE_NEW_EPOCH))
        fprintf(stderr, "brokerctl: the broker began anew: messages in between are lost\n");
    if (!l->epoch || (reply.header.flags & WIRE_NEW_EPOCH))
        l->position = reply.header.head;
    l->epoch = reply.header.epoch;
    return CTL_DONE;
}

/* As it is; on a terminal control characters are shown and not obeyed. */
static void print_bytes(const struct listener *l, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; l->to_terminal && i < length; i++) {
        if ((bytes[i] < 0x20 && bytes[i] != '\t' && bytes[i] != '\n') || bytes[i] == 0x7f)
            printf("\\x%02x", bytes[i]);
        else
            putchar(bytes[i]);
    }
    if (!l->to_terminal)
        fwrite(bytes, 1, length, stdout);
}

static void print_message(const struct listener *l, const struct wire_record *record)
{
    bool binary = record->flags & WIRE_BINARY;
    if (l->json) {
        printf("{\"id\":%llu,\"channel\":", (unsigned long long)record->id);
        json_string(stdout, record->channel, record->channel_length);
        fputs(binary ? ",\"base64\":" : ",\"message\":", stdout);
        (binary ? json_base64 : json_string)(stdout, record->payload, record->payload_length);
        puts("}");
        return;
    }
    print_bytes(l, record->channel, record->channel_length);
    fputs(": ", stdout);
    print_bytes(l, record->payload, record->payload_length);
    putchar('\n');
}

static void print_gap(const struct listener *l, const struct wire_record *record)
{
    if (l->json)
        printf("{\"gap\":[%llu,%llu]}\n", (unsigned long long)record->sequence,
               (unsigned long long)record->id);
    else
        fprintf(stderr, "brokerctl: ids %llu to %llu are gone, this program was too slow\n",
                (unsigned long long)record->sequence, (unsigned long long)record->id);
}

static int print_batch(struct listener *l, const struct ctl_reply *reply)
{
    size_t at = 0, used;
    for (uint32_t i = 0; i < reply->header.records; i++, at += used) {
        struct wire_record record;
        if (wire_record_decode(reply->body + at, reply->length - at, &record, &used) != STATUS_OK)
            return ctl_fail("the broker sent a batch that cannot be read");
        if (record.id <= l->position)
            continue;
        if (record.type == WIRE_GAP)
            print_gap(l, &record);
        else if (record.type == WIRE_MESSAGE)
            print_message(l, &record);
    }
    l->position = reply->header.value;
    if (fflush(stdout) != 0)
        return ctl_fail("standard output is gone");
    return CTL_DONE;
}

static int listen_on(struct listener *l)
{
    if (attach(l) != CTL_DONE)
        return CTL_FAILED;
    if (l->verbose)
        fputs("brokerctl: subscribed\n", stderr);
    for (;;) {
        struct wire_request fetch = {.version = WIRE_VERSION,
                                     .operation = WIRE_FETCH,
                                     .session = l->link.session,
                                     .position = l->position};
        struct ctl_reply reply;
        if (ctl_link_call(&l->link, &fetch, NULL, 0, SILENCE_MS, &reply) != CTL_DONE)
            return CTL_FAILED;
        int result = CTL_DONE;
        switch (reply.header.status) {
        case STATUS_OK:
            result = print_batch(l, &reply);
            break;
        case STATUS_NOT_ATTACHED: /* libnng connected again, perhaps to a new broker */
        case STATUS_AUTH:
        case STATUS_GOING_AWAY:
            result = attach(l);
            break;
        default:
            return ctl_link_refused(&l->link, "subscribe", &reply);
        }
        if (result != CTL_DONE)
            return result;
    }
}

int cmd_subscribe(const struct ctl_options *options)
{
    if (options->count < 1)
        return ctl_usage("subscribe takes one PATTERN or more");
    signal(SIGPIPE, SIG_DFL); /* `brokerctl subscribe x | head` ends quietly */
    struct listener l = {.json = options->json,
                         .verbose = options->verbose,
                         .to_terminal = isatty(STDOUT_FILENO) == 1};
    buffer_init(&l.list, WIRE_ATTACH_PART_SIZE);
    int result = CTL_DONE;
    for (int i = 0; i < options->count && result == CTL_DONE; i++)
        result = add_pattern(&l, options->arguments[i]);
    if (result == CTL_DONE && (result = ctl_link_open(&l.link, options)) == CTL_DONE) {
        result = listen_on(&l);
        ctl_link_close(&l.link);
    }
    buffer_release(&l.list);
    return result;
}
