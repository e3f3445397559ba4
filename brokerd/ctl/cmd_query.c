#include "ctl.h"
#include "ctl_link.h"
#include "ctl_table.h"
#include "glob.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static int query(struct ctl_link *link, uint16_t topic, const char *pattern,
                 struct ctl_reply *reply)
{
    uint8_t record_bytes[WIRE_RECORD_SIZE + CHANNEL_LENGTH_MAX + 8];
    size_t length = 0;
    if (pattern) {
        struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                     .flags = WIRE_PATTERN,
                                     .channel_length = (uint16_t)strlen(pattern),
                                     .channel = (const uint8_t *)pattern};
        length = wire_record_size(record.channel_length, 0);
        wire_record_encode(record_bytes, &record);
    }
    struct wire_request request = {.version = WIRE_VERSION,
                                   .operation = WIRE_QUERY,
                                   .flags = topic,
                                   .records = pattern ? 1 : 0};
    if (ctl_link_call(link, &request, record_bytes, length, 0, reply) != CTL_DONE)
        return CTL_FAILED;
    if (reply->header.status != STATUS_OK)
        return ctl_link_refused(link, "query", reply);
    return CTL_DONE;
}

static int show(const struct ctl_options *options, uint16_t topic, const char *pattern, bool pairs)
{
    struct ctl_link link;
    struct ctl_reply reply;
    if (ctl_link_open(&link, options) != CTL_DONE)
        return CTL_FAILED;
    int result = query(&link, topic, pattern, &reply);
    if (result == CTL_DONE) {
        const char *text = (const char *)reply.body;
        if (options->json)
            ctl_table_print_json(text, reply.length, pairs);
        else
            ctl_table_print(text, reply.length);
        if (reply.header.value)
            fprintf(stderr, "brokerctl: %" PRIu64 " more rows are not shown\n", reply.header.value);
    }
    ctl_link_close(&link);
    return result;
}

int cmd_ping(const struct ctl_options *options)
{
    if (options->count)
        return ctl_usage("ping takes no argument");
    struct ctl_link link;
    struct ctl_reply reply;
    if (ctl_link_open(&link, options) != CTL_DONE)
        return CTL_FAILED;
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    int result = query(&link, WIRE_PING, NULL, &reply);
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (result == CTL_DONE && options->json) {
        ctl_table_print_json((const char *)reply.body, reply.length, false);
    } else if (result == CTL_DONE) {
        double ms = (double)(after.tv_sec - before.tv_sec) * 1e3 +
                    (double)(after.tv_nsec - before.tv_nsec) / 1e6;
        printf("brokerd at %s answered in %.2f ms\n", options->url, ms);
        ctl_table_print((const char *)reply.body, reply.length);
    }
    ctl_link_close(&link);
    return result;
}

int cmd_stats(const struct ctl_options *options)
{
    if (options->count)
        return ctl_usage("stats takes no argument");
    return show(options, WIRE_STATS, NULL, true);
}

int cmd_sessions(const struct ctl_options *options)
{
    if (options->count)
        return ctl_usage("sessions takes no argument");
    return show(options, WIRE_SESSIONS, NULL, false);
}

int cmd_channels(const struct ctl_options *options)
{
    if (options->count > 1)
        return ctl_usage("channels takes at most one PATTERN");
    const char *pattern = options->count ? options->arguments[0] : NULL;
    enum status status = pattern ? glob_check(pattern, strlen(pattern)) : STATUS_OK;
    if (status != STATUS_OK)
        return ctl_usage("pattern %s: %s", pattern, status_text(status));
    return show(options, WIRE_CHANNELS, pattern, false);
}

int cmd_engines(const struct ctl_options *options)
{
    if (options->count)
        return ctl_usage("engines takes no argument");
    return show(options, WIRE_ENGINES, NULL, false);
}
