/* Event streams: exact bytes, and what a receiver written from the WHATWG text (HTML 9.2.6) makes
 * of them. */
#include "sse.h"
#include "utf8.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t text[1 << 16];
static size_t text_length;

static void build(const struct sse_event *e)
{
    text_length = sse_event_size(e);
    cr_assert_gt(text_length, 0);
    cr_assert_lt(text_length, sizeof(text));
    text[text_length] = 0xEE;
    sse_event_write(e, text);
    cr_assert_eq(text[text_length], 0xEE);
}

static void becomes(const struct sse_event *e, const char *expected, size_t length)
{
    build(e);
    cr_assert_eq(text_length, length, "%.*s", (int)text_length, (char *)text);
    cr_assert_arr_eq(text, expected, length);
}

#define DATA(s) .data = (s), .length = sizeof(s) - 1
#define BECOMES(expected, retry_, ...)                                                             \
    becomes(&(struct sse_event){.retry = (retry_), __VA_ARGS__}, expected, sizeof(expected) - 1)

Test(sse, s45_exact_bytes)
{
    BECOMES("data: hello\n\n", -1, DATA("hello"));
    BECOMES("data: \n\n", -1, DATA(""));
    BECOMES("data: \n\n", -1, .data = NULL);
    BECOMES("data:  one blank\n\n", -1, DATA(" one blank"));
    BECOMES("data: a\ndata: b\n\n", -1, DATA("a\nb"));
    BECOMES("data: a\ndata: b\n\n", -1, DATA("a\rb"));
    BECOMES("data: a\ndata: b\n\n", -1, DATA("a\r\nb"));
    BECOMES("data: a\ndata: \ndata: b\n\n", -1, DATA("a\n\rb"));
    BECOMES("data: a\ndata: \n\n", -1, DATA("a\n"));
    BECOMES("data: a\ndata: \n\n", -1, DATA("a\r"));
    BECOMES("data: \ndata: \ndata: \n\n", -1, DATA("\r\r"));
    BECOMES("data: \ndata: id: 7\ndata: event: x\ndata: \ndata: retry: 1\n\n", -1,
            DATA("\nid: 7\revent: x\r\n\nretry: 1"));
    BECOMES("data: a\0b\n\n", -1, DATA("a\0b"));
    BECOMES("data: \xE2\x82\xAC\n\n", -1, DATA("\xE2\x82\xAC"));
}

Test(sse, event_id_and_retry)
{
    BECOMES("event: chat\nid: 7\nretry: 3000\ndata: x\n\n", 3000, DATA("x"), .event = "chat",
            .event_length = 4, .id = "7", .id_length = 1);
    BECOMES("id: \nretry: 0\ndata: x\n\n", 0, DATA("x"), .id = "");
    BECOMES("retry: 9223372036854775807\ndata: x\n\n", INT64_MAX, DATA("x"));
    BECOMES("data: x\n\n", INT64_MIN, DATA("x"));
}

Test(sse, names_and_ids_that_could_forge_are_refused)
{
    static const char *const bad[] = {"a\nb", "a\rb", "\n", "a\xFF", "\xC3"};

    for (size_t i = 0; i < 5; i++) {
        struct sse_event e = {DATA("x"), .retry = -1};
        size_t length = strlen(bad[i]);
        cr_assert_not(sse_field_is_valid(bad[i], length));
        e.event = bad[i];
        e.event_length = length;
        cr_assert_eq(sse_event_size(&e), 0);
        e.event = NULL;
        e.id = bad[i];
        e.id_length = length;
        cr_assert_eq(sse_event_size(&e), 0);
    }
    cr_assert_not(sse_field_is_valid("a\0b", 3));
    cr_assert(sse_field_is_valid("", 0));
    cr_assert(sse_field_is_valid(NULL, 0));
    cr_assert(sse_field_is_valid("data: \xE2\x82\xAC", 9));
}

Test(sse, section_5e_invalid_utf8_becomes_ufffd)
{
    BECOMES("data: \xEF\xBF\xBD\n\n", -1, DATA("\xFF"));
    BECOMES("data: a\xEF\xBF\xBD(b\n\n", -1, DATA("a\xC3(b"));
    BECOMES("data: \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\n\n", -1, DATA("\xED\xA0\x80"));
    BECOMES("data: \xEF\xBF\xBD\n\n", -1, DATA("\xF0\x9F\x98"));
    BECOMES("data: \xEF\xBF\xBD\ndata: \xEF\xBF\xBD\n\n", -1, DATA("\xE2\x82\n\xAC"));
}

Test(sse, comments)
{
    cr_assert_eq(sse_comment_size(NULL, 0), 3);
    sse_comment_write(NULL, 0, text);
    cr_assert_arr_eq(text, ":\n\n", 3);
    cr_assert_eq(sse_comment_size("a\ndata: b", 9), 15);
    sse_comment_write("a\ndata: b", 9, text);
    cr_assert_arr_eq(text, ": a\n: data: b\n\n", 15);
}

/* The receiver: interprets lines as HTML 9.2.6 says, at most a few events. */
struct received {
    unsigned events;
    char data[1 << 16];
    size_t length;
    bool other_field;
};

static void dispatch_line(struct received *r, const char *line, size_t length)
{
    const char *colon = memchr(line, ':', length);
    size_t name = colon != NULL ? (size_t)(colon - line) : length;

    if (length == 0) {
        r->events++;
        return;
    }
    if (name == 4 && memcmp(line, "data", 4) == 0 && colon != NULL) {
        size_t skip = length > 5 && line[5] == ' ' ? 6 : 5;
        memcpy(r->data + r->length, line + skip, length - skip);
        r->length += length - skip;
        r->data[r->length++] = '\n';
    } else {
        r->other_field = true;
    }
}

static void receive(struct received *r)
{
    size_t start = 0;

    r->events = 0;
    r->length = 0;
    r->other_field = false;
    for (size_t i = 0; i < text_length; i++) {
        if (text[i] != '\n' && text[i] != '\r')
            continue;
        dispatch_line(r, (char *)text + start, i - start);
        if (text[i] == '\r' && i + 1 < text_length && text[i + 1] == '\n')
            i++;
        start = i + 1;
    }
    cr_assert_eq(start, text_length, "the text ends with a line end");
    if (r->length > 0)
        r->length--; /* the last LF of the data buffer is removed */
}

Test(sse, s45_any_bytes_are_one_event_with_those_lines)
{
    static struct received r;
    static const char likely[] = "\n\r: adtei\xC3\xA9\xFF";
    char data[40], expected[200];

    srand(5);
    for (int round = 0; round < 200000; round++) {
        size_t length = (size_t)rand() % sizeof(data), n = 0;
        struct sse_event e = {.data = data, .length = length, .retry = -1};

        for (size_t i = 0; i < length; i++)
            data[i] = likely[(size_t)rand() % (sizeof(likely) - 1)];
        for (size_t i = 0; i < length;) {
            if (data[i] == '\r' || data[i] == '\n') {
                i += data[i] == '\r' && i + 1 < length && data[i + 1] == '\n' ? 2 : 1;
                expected[n++] = '\n';
            } else if (utf8_valid_prefix(data + i, 1) == 1) {
                expected[n++] = data[i++];
            } else if (i + 1 < length && utf8_is_valid(data + i, 2)) {
                expected[n++] = data[i++];
                expected[n++] = data[i++];
            } else {
                memcpy(expected + n, "\xEF\xBF\xBD", 3);
                n += 3;
                i++;
            }
        }
        build(&e);
        receive(&r);
        cr_assert_eq(r.events, 1);
        cr_assert_not(r.other_field);
        cr_assert_eq(r.length, n);
        cr_assert_arr_eq(r.data, expected, n);
    }
}

Test(sse, limits_a_text_of_line_ends_costs_linear_time, .timeout = 30)
{
    enum { SIZE = 4 << 20 };
    char *data = malloc(SIZE);

    for (int kind = 0; kind < 3; kind++) {
        struct sse_event e = {.data = data, .length = SIZE, .retry = -1};
        memset(data, kind == 0 ? '\r' : kind == 1 ? '\n' : '\xFF', SIZE);
        cr_assert_eq(sse_event_size(&e), kind < 2 ? 7 * (size_t)SIZE + 8 : 3 * (size_t)SIZE + 8);
    }
    free(data);
}
