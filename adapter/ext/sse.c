#include "sse.h"
#include "bytes.h"
#include "utf8.h"
#include <stdio.h>

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
enum { REPLACEMENT_SIZE = 3, RETRY_SIZE = 32 };

/* Where bytes go: counted only while at is NULL, so that size and text cannot disagree. */
struct out {
    uint8_t *at;
    size_t size;
    bool overflow;
};

static void put(struct out *o, const void *bytes, size_t length)
{
    if (o->at != NULL) {
        memcpy(o->at, bytes, length);
        o->at += length;
    }
    if (!size_add(o->size, length, &o->size))
        o->overflow = true;
}

/* The first such byte, or end. */
static const uint8_t *find(const uint8_t *p, const uint8_t *end, char wanted)
{
    const uint8_t *found = memchr(p, wanted, (size_t)(end - p));

    return found != NULL ? found : end;
}

static void put_text(struct out *o, const uint8_t *p, size_t length)
{
    while (length > 0) {
        size_t valid = utf8_valid_prefix(p, length), bad;

        if (valid > 0)
            put(o, p, valid);
        p += valid;
        length -= valid;
        if (length == 0)
            break;
        put(o, replacement, REPLACEMENT_SIZE);
        bad = utf8_bad_length(p, length);
        p += bad;
        length -= bad;
    }
}

/* Each line behind the prefix and ended by LF; what ends with a line end has an empty last line.
 * The next LF and CR are searched again only when they were passed: linear also for a text of CRs.
 */
static void put_lines(struct out *o, const char *prefix, const uint8_t *p, size_t length)
{
    const uint8_t *end, *lf, *cr, *line_end;

    if (length == 0)
        p = (const uint8_t *)"";
    end = p + length;
    lf = find(p, end, '\n');
    cr = find(p, end, '\r');
    for (;;) {
        line_end = lf < cr ? lf : cr;
        put(o, prefix, strlen(prefix));
        put_text(o, p, (size_t)(line_end - p));
        put(o, "\n", 1);
        if (line_end == end)
            return;
        p = line_end + (line_end == cr && cr + 1 == lf && lf < end ? 2 : 1);
        if (lf < p)
            lf = find(p, end, '\n');
        if (cr < p)
            cr = find(p, end, '\r');
    }
}

static void put_field(struct out *o, const char *prefix, const char *value, size_t length)
{
    if (value == NULL)
        return;
    put(o, prefix, strlen(prefix));
    put(o, value, length);
    put(o, "\n", 1);
}

static void put_event(struct out *o, const struct sse_event *event)
{
    char retry[RETRY_SIZE];

    put_field(o, "event: ", event->event, event->event_length);
    put_field(o, "id: ", event->id, event->id_length);
    if (event->retry >= 0) {
        int length = snprintf(retry, sizeof(retry), "%lld", (long long)event->retry);
        put_field(o, "retry: ", retry, (size_t)length);
    }
    put_lines(o, "data: ", event->data, event->length);
    put(o, "\n", 1);
}

bool sse_field_is_valid(const char *text, size_t length)
{
    if (length == 0)
        return true;
    return memchr(text, '\0', length) == NULL && memchr(text, '\n', length) == NULL &&
           memchr(text, '\r', length) == NULL && utf8_is_valid(text, length);
}

size_t sse_event_size(const struct sse_event *event)
{
    struct out o = {0};

    if ((event->event != NULL && !sse_field_is_valid(event->event, event->event_length)) ||
        (event->id != NULL && !sse_field_is_valid(event->id, event->id_length)))
        return 0;
    put_event(&o, event);
    return o.overflow ? 0 : o.size;
}

void sse_event_write(const struct sse_event *event, uint8_t *out)
{
    struct out o = {.at = out};

    put_event(&o, event);
}

static void put_comment(struct out *o, const void *text, size_t length)
{
    put_lines(o, length > 0 ? ": " : ":", text, length);
    put(o, "\n", 1);
}

size_t sse_comment_size(const void *text, size_t length)
{
    struct out o = {0};

    put_comment(&o, text, length);
    return o.overflow ? 0 : o.size;
}

void sse_comment_write(const void *text, size_t length, uint8_t *out)
{
    struct out o = {.at = out};

    put_comment(&o, text, length);
}
