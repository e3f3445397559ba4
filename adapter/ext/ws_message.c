#include "ws_message.h"
#include "bytes.h"
#include <stdlib.h>

/* One call of ws_receiver_feed. The functions below return false when the callback did: from then
 * on the receiver may be gone. */
struct feed {
    struct ws_receiver *r;
    uint8_t *at;
    size_t left;
    ws_event_function *on_event;
    void *context;
};

void ws_receiver_init(struct ws_receiver *r, size_t max_message,
                      const struct ws_deflate_terms *terms)
{
    *r = (struct ws_receiver){.deflate = terms != NULL};
    buffer_init(&r->message, max_message);
    if (terms != NULL)
        r->terms = *terms;
}

void ws_receiver_release(struct ws_receiver *r)
{
    buffer_release(&r->message);
    ws_inflater_free(r->inflater);
    free(r->control);
    r->inflater = NULL;
    r->control = NULL;
    r->ended = true;
}

static bool emit(struct feed *f, enum ws_event_kind kind, uint16_t code, const uint8_t *data,
                 size_t length)
{
    struct ws_event event = {.kind = kind, .code = code, .data = data, .length = length};

    return f->on_event(f->context, &event);
}

static bool fail(struct feed *f, uint16_t code, const char *reason)
{
    ws_receiver_release(f->r);
    return emit(f, WS_EVENT_FAILURE, code, (const uint8_t *)reason, strlen(reason));
}

static bool is_control(uint8_t opcode)
{
    return opcode & 0x8;
}

/* A frame's header is there: may it come now? */
static bool begin_frame(struct feed *f, const struct ws_header *header)
{
    struct ws_receiver *r = f->r;

    if (!header->masked)
        return fail(f, WS_CLOSE_PROTOCOL, "frame is not masked");
    if (header->opcode == WS_CONTINUATION && r->kind == 0)
        return fail(f, WS_CLOSE_PROTOCOL, "continuation without a message");
    if (header->opcode == WS_TEXT || header->opcode == WS_BINARY) {
        if (r->kind != 0)
            return fail(f, WS_CLOSE_PROTOCOL, "new message within a fragmented one");
        r->kind = header->opcode;
        r->compressed = header->rsv1;
        r->inflating = false;
        utf8_init(&r->utf8);
    }
    if (!is_control(header->opcode) && !r->compressed &&
        header->length > r->message.limit - buffer_length(&r->message))
        return fail(f, WS_CLOSE_TOO_BIG, "message is too big");
    r->frame = header->opcode;
    r->fin = header->fin;
    r->left = header->length;
    memcpy(r->mask, header->mask, sizeof(r->mask));
    r->in_frame = true;
    return true;
}

static bool read_header(struct feed *f)
{
    struct ws_receiver *r = f->r;
    const uint8_t *bytes = f->at;
    size_t have = r->header_length, length = f->left;
    struct ws_header header;
    const char *reason;
    int size;

    if (have > 0) {
        length = f->left < WS_HEADER_MAX - have ? f->left : WS_HEADER_MAX - have;
        memcpy(r->header + have, f->at, length);
        bytes = r->header;
        length += have;
    }
    size = ws_header_decode(bytes, length, r->deflate, &header, &reason);
    if (size < 0)
        return fail(f, WS_CLOSE_PROTOCOL, reason);
    if (size == 0) {
        if (length >= 2 && !(bytes[1] & 0x80))
            return fail(f, WS_CLOSE_PROTOCOL, "frame is not masked");
        if (have == 0)
            memcpy(r->header, bytes, length);
        r->header_length = (uint8_t)length;
        f->at += f->left;
        f->left = 0;
        return true;
    }
    r->header_length = 0;
    f->at += (size_t)size - have;
    f->left -= (size_t)size - have;
    return begin_frame(f, &header);
}

/* data is outside the receiver or was taken out of it: it outlives whatever the callback does. */
static bool deliver(struct feed *f, const uint8_t *data, size_t length)
{
    struct ws_receiver *r = f->r;
    bool text = r->kind == WS_TEXT;

    if (text && !utf8_is_complete(&r->utf8))
        return fail(f, WS_CLOSE_BAD_DATA, "text ends within a character");
    r->kind = 0;
    return emit(f, text ? WS_EVENT_TEXT : WS_EVENT_BINARY, 0, data, length);
}

static bool deliver_gathered(struct feed *f)
{
    struct buffer whole = f->r->message;
    bool go_on;

    buffer_init(&f->r->message, whole.limit);
    go_on = deliver(f, buffer_bytes(&whole), buffer_length(&whole));
    buffer_release(&whole);
    return go_on;
}

static bool read_plain(struct feed *f, const uint8_t *data, size_t length, bool last)
{
    struct ws_receiver *r = f->r;

    if (r->kind == WS_TEXT && !utf8_feed(&r->utf8, data, length))
        return fail(f, WS_CLOSE_BAD_DATA, "text is not UTF-8");
    if (last && buffer_length(&r->message) == 0)
        return deliver(f, data, length);
    if (length > 0 && !buffer_append(&r->message, data, length))
        return fail(f, WS_CLOSE_INTERNAL, "out of memory");
    return last ? deliver_gathered(f) : true;
}

/* Room for output behind what was inflated so far, or at the limit a byte that must not be needed.
 */
static uint8_t *inflate_room(struct ws_receiver *r, size_t input, uint8_t *spare, size_t *size)
{
    size_t room = r->message.limit - buffer_length(&r->message);
    size_t wanted = input > 4096 ? 16384 : input < 128 ? 512 : 4 * input;

    *size = room == 0 ? 1 : room < wanted ? room : wanted;
    return room == 0 ? spare : buffer_reserve(&r->message, *size);
}

static bool read_compressed(struct feed *f, const uint8_t *data, size_t length, bool last)
{
    struct ws_receiver *r = f->r;
    enum ws_inflate result;
    uint8_t spare, *out;
    size_t size, written;

    r->inflating = r->inflating || length > 0;
    if (!r->inflating) /* nothing came: some senders write an empty message so, against 7.2.3.6 */
        return last ? deliver(f, NULL, 0) : true;
    if (r->inflater == NULL && (r->inflater = ws_inflater_new(r->terms.client_bits)) == NULL)
        return fail(f, WS_CLOSE_INTERNAL, "out of memory");
    do {
        out = inflate_room(r, length, &spare, &size);
        if (out == NULL)
            return fail(f, WS_CLOSE_INTERNAL, "out of memory");
        result = ws_inflater_run(r->inflater, &data, &length, last, out, size, &written);
        if (out == &spare && written > 0) /* before what may be wrong with the bytes behind */
            return fail(f, WS_CLOSE_TOO_BIG, "message is too big");
        if (result == WS_INFLATE_BAD)
            return fail(f, WS_CLOSE_BAD_DATA, "message is not compressed rightly");
        if (result == WS_INFLATE_NO_MEMORY)
            return fail(f, WS_CLOSE_INTERNAL, "out of memory");
        if (r->kind == WS_TEXT && !utf8_feed(&r->utf8, out, written))
            return fail(f, WS_CLOSE_BAD_DATA, "text is not UTF-8");
        if (out != &spare)
            buffer_commit(&r->message, written);
    } while (result == WS_INFLATE_FULL);
    if (!last)
        return true;
    if (!r->terms.client_takeover) {
        ws_inflater_free(r->inflater);
        r->inflater = NULL;
    }
    return deliver_gathered(f);
}

static bool finish_close(struct feed *f, const uint8_t *data, size_t length)
{
    unsigned code = length >= 2 ? get_u16be(data) : WS_CLOSE_NO_CODE;

    if (length == 1)
        return fail(f, WS_CLOSE_PROTOCOL, "close frame of one byte");
    if (length >= 2 && !ws_close_code_is_valid(code))
        return fail(f, WS_CLOSE_PROTOCOL, "close code that may not be sent");
    if (length > 2 && !utf8_is_valid(data + 2, length - 2))
        return fail(f, WS_CLOSE_BAD_DATA, "close reason is not UTF-8");
    ws_receiver_release(f->r);
    return emit(f, WS_EVENT_CLOSE, (uint16_t)code, length > 2 ? data + 2 : NULL,
                length > 2 ? length - 2 : 0);
}

static bool finish_control(struct feed *f, const uint8_t *data, size_t length)
{
    switch (f->r->frame) {
    case WS_PING:
        return emit(f, WS_EVENT_PING, 0, data, length);
    case WS_PONG:
        return emit(f, WS_EVENT_PONG, 0, data, length);
    default:
        return finish_close(f, data, length);
    }
}

static bool read_control(struct feed *f, const uint8_t *data, size_t length, bool last)
{
    struct ws_receiver *r = f->r;
    uint8_t *whole = r->control;
    size_t whole_length;
    bool go_on;

    if (last && whole == NULL)
        return finish_control(f, data, length);
    if (whole == NULL) {
        r->control = whole = malloc(WS_CONTROL_MAX);
        if (whole == NULL)
            return fail(f, WS_CLOSE_INTERNAL, "out of memory");
    }
    memcpy(whole + r->control_length, data, length);
    whole_length = r->control_length + length;
    r->control_length = (uint8_t)whole_length;
    if (!last)
        return true;
    r->control = NULL;
    r->control_length = 0;
    go_on = finish_control(f, whole, whole_length);
    free(whole);
    return go_on;
}

/* Uses what is there of the frame's payload, and ends the frame when that is all of it. */
static bool read_payload(struct feed *f)
{
    struct ws_receiver *r = f->r;
    size_t length = r->left < f->left ? (size_t)r->left : f->left;
    uint8_t *data = f->at;

    ws_mask(data, length, r->mask);
    f->at += length;
    f->left -= length;
    r->left -= length;
    r->in_frame = r->left > 0;
    if (is_control(r->frame))
        return read_control(f, data, length, !r->in_frame);
    if (r->compressed)
        return read_compressed(f, data, length, !r->in_frame && r->fin);
    return read_plain(f, data, length, !r->in_frame && r->fin);
}

size_t ws_receiver_feed(struct ws_receiver *r, uint8_t *bytes, size_t length,
                        ws_event_function *on_event, void *context)
{
    struct feed f = {r, bytes, length, on_event, context};

    while (f.left > 0) {
        if (r->ended)
            return length;
        if (!r->in_frame) {
            if (!read_header(&f))
                return length - f.left;
            if (!r->in_frame || (f.left == 0 && r->left > 0))
                continue;
        }
        if (!read_payload(&f))
            return length - f.left;
    }
    return length;
}
