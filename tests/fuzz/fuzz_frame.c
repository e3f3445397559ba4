/* Holds: however the bytes are cut, paused or the receiver destroyed, the events are the same and
 * within the rules. */
#include "utf8.h"
#include "ws_message.h"
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

struct seen {
    struct ws_receiver *r;
    uint64_t hash; /* of all events */
    unsigned events;
    unsigned destroy_at; /* 0: never */
    bool pauses;
    bool over;
    bool destroyed;
};

static void mix(struct seen *s, const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        s->hash = (s->hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
}

static bool on_event(void *context, const struct ws_event *e)
{
    struct seen *s = context;

    check(!s->over && !s->destroyed);
    check(e->length <= LIMIT);
    if (e->kind == WS_EVENT_TEXT || e->kind == WS_EVENT_CLOSE)
        check(utf8_is_valid(e->data, e->length));
    if (e->kind == WS_EVENT_PING || e->kind == WS_EVENT_PONG)
        check(e->length <= WS_CONTROL_MAX);
    if (e->kind == WS_EVENT_CLOSE)
        check(e->code == WS_CLOSE_NO_CODE || ws_close_code_is_valid(e->code));
    s->over = e->kind >= WS_EVENT_CLOSE;
    s->events++;
    mix(s, &e->kind, sizeof(e->kind));
    mix(s, &e->code, sizeof(e->code));
    if (s->events == s->destroy_at) {
        ws_receiver_release(s->r);
        free(s->r);
        s->destroyed = true;
    }
    /* which fault is named may depend on what arrived together; the rest may not */
    if (e->kind != WS_EVENT_FAILURE) {
        mix(s, &e->length, sizeof(e->length));
        mix(s, e->data, e->length);
    }
    return !s->destroyed && !s->pauses;
}

/* step: bytes per portion, 0 all at once. */
static struct seen run(const uint8_t *data, size_t size, const struct ws_deflate_terms *terms,
                       size_t step, bool pauses, unsigned destroy_at)
{
    struct seen s = {.r = malloc(sizeof(*s.r)), .pauses = pauses, .destroy_at = destroy_at};
    size_t at = 0;

    check(s.r != NULL);
    ws_receiver_init(s.r, LIMIT, terms);
    while (at < size && !s.destroyed) {
        size_t n = step == 0 || step > size - at ? size - at : step;
        uint8_t *portion = malloc(n);
        size_t used;
        check(portion != NULL);
        memcpy(portion, data + at, n);
        used = ws_receiver_feed(s.r, portion, n, on_event, &s);
        check(used == n || ((pauses || s.destroyed) && used <= n && (used > 0 || s.over)));
        free(portion);
        at += used;
    }
    if (!s.destroyed) {
        ws_receiver_release(s.r);
        free(s.r);
    }
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ws_deflate_terms terms = {.client_bits = 15, .server_bits = 15};
    const struct ws_deflate_terms *agreed = NULL;
    struct seen whole, other;

    if (size < 2)
        return 0;
    if (data[0] & 1)
        agreed = &terms;
    terms.client_takeover = data[0] & 2;
    whole = run(data + 2, size - 2, agreed, 0, false, 0);
    other = run(data + 2, size - 2, agreed, 1, false, 0);
    check(whole.events == other.events && whole.hash == other.hash);
    other = run(data + 2, size - 2, agreed, 2 + data[1], data[0] & 4, 0);
    check(whole.events == other.events && whole.hash == other.hash);
    run(data + 2, size - 2, agreed, data[1] % 8, false, 1 + data[1] % 4);
    return 0;
}
