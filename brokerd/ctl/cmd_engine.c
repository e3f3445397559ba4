#include "ctl.h"
#include "ctl_link.h"
#include <stdio.h>
#include <string.h>

int cmd_engine(const struct ctl_options *options)
{
    const char *action = options->count == 2 ? options->arguments[0] : "";
    bool detach = strcmp(action, "detach") == 0;
    if (!detach && strcmp(action, "reset") != 0)
        return ctl_usage("engine takes detach NAME or reset NAME");
    const char *name = options->arguments[1];
    if (strlen(name) > WIRE_NAME_MAX)
        return ctl_usage("an engine's name has at most %d bytes", WIRE_NAME_MAX);

    uint8_t bytes[WIRE_RECORD_SIZE + WIRE_NAME_MAX + 8];
    struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                 .channel_length = (uint16_t)strlen(name),
                                 .channel = (const uint8_t *)name};
    wire_record_encode(bytes, &record);
    struct wire_request request = {
        .version = WIRE_VERSION, .operation = detach ? WIRE_DETACH : WIRE_RESET, .records = 1};
    struct ctl_link link;
    struct ctl_reply reply;
    if (ctl_link_open(&link, options) != CTL_DONE)
        return CTL_FAILED;
    int result =
        ctl_link_call(&link, &request, bytes, wire_record_size(strlen(name), 0), 0, &reply);
    if (result == CTL_DONE && reply.header.status == STATUS_UNKNOWN_NAME)
        result = ctl_fail("engine %s: no engine is called %s; brokerctl engines lists them", action,
                          name);
    else if (result == CTL_DONE && reply.header.status != STATUS_OK)
        result = ctl_link_refused(&link, "engine", &reply);
    else if (result == CTL_DONE && options->verbose)
        printf("%llu\n", (unsigned long long)reply.header.value);
    ctl_link_close(&link);
    return result;
}
