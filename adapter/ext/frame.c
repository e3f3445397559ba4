#include "frame.h"
#include "bytes.h"
#include "sse.h"
#include "utf8.h"
#include "ws_frame.h"
#include <stdlib.h>

/* A frame whose bytes are not written yet. */
static struct frame *frame_alloc(size_t head, size_t length)
{
    struct frame *f;
    size_t size;

    if (!size_add(sizeof(*f) + head, length, &size))
        return NULL;
    f = malloc(size);
    if (f == NULL)
        return NULL;
    f->references = f->count = 1;
    f->length = head + length;
    return f;
}

struct frame *frame_ref(struct frame *f)
{
    __atomic_fetch_add(&f->references, 1, __ATOMIC_RELAXED);
    return f;
}

void frame_unref(struct frame *f)
{
    if (f != NULL && __atomic_fetch_sub(&f->references, 1, __ATOMIC_ACQ_REL) == 1)
        free(f);
}

static struct frame *ws_build(uint8_t opcode, bool rsv1, const void *data, size_t length)
{
    struct ws_header header = {.fin = true, .rsv1 = rsv1, .opcode = opcode, .length = length};
    size_t head = ws_header_size(length, false);
    struct frame *f = frame_alloc(head, length);

    if (f == NULL)
        return NULL;
    ws_header_encode(f->bytes, &header);
    if (length > 0)
        memcpy(f->bytes + head, data, length);
    return f;
}

struct frame *frame_text(const void *data, size_t length)
{
    return ws_build(WS_TEXT, false, data, length);
}

struct frame *frame_binary(const void *data, size_t length)
{
    return ws_build(WS_BINARY, false, data, length);
}

struct frame *frame_deflated(struct ws_deflater *d, bool binary, const void *data, size_t length)
{
    uint8_t opcode = binary ? WS_BINARY : WS_TEXT;
    const uint8_t *compressed;
    size_t compressed_length;

    if (!ws_deflater_compress(d, data, length, &compressed, &compressed_length))
        return ws_build(opcode, false, data, length);
    return ws_build(opcode, true, compressed, compressed_length);
}

struct frame *frame_joined(struct frame *const *frames, unsigned count)
{
    size_t length = 0;
    for (unsigned i = 0; i < count; i++)
        if (!size_add(length, frames[i]->length, &length))
            return NULL;
    struct frame *f = frame_alloc(0, length);
    if (f == NULL)
        return NULL;
    uint8_t *at = f->bytes;
    f->count = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(at, frames[i]->bytes, frames[i]->length);
        at += frames[i]->length;
        f->count += frames[i]->count;
    }
    return f;
}

static size_t control_length(size_t length)
{
    return length < WS_CONTROL_MAX ? length : WS_CONTROL_MAX;
}

struct frame *frame_ping(const void *data, size_t length)
{
    return ws_build(WS_PING, false, data, control_length(length));
}

struct frame *frame_pong(const void *data, size_t length)
{
    return ws_build(WS_PONG, false, data, control_length(length));
}

struct frame *frame_close(uint16_t code, const char *reason, size_t length)
{
    uint8_t payload[WS_CONTROL_MAX];

    if (code == WS_CLOSE_NO_CODE)
        return ws_build(WS_CLOSE, false, NULL, 0);
    if (length > sizeof(payload) - 2)
        length = utf8_valid_prefix(reason, sizeof(payload) - 2);
    put_u16be(payload, code);
    if (length > 0)
        memcpy(payload + 2, reason, length);
    return ws_build(WS_CLOSE, false, payload, length + 2);
}

struct frame *frame_raw(const void *data, size_t length)
{
    struct frame *f = frame_alloc(0, length);

    if (f != NULL && length > 0)
        memcpy(f->bytes, data, length);
    return f;
}

struct frame *frame_sse_event(const void *data, size_t length, const char *event,
                              size_t event_length, const char *id, size_t id_length, int64_t retry)
{
    struct sse_event e = {data, length, event, event_length, id, id_length, retry};
    size_t size = sse_event_size(&e);
    struct frame *f = size > 0 ? frame_alloc(0, size) : NULL;

    if (f != NULL)
        sse_event_write(&e, f->bytes);
    return f;
}

struct frame *frame_sse_comment(const void *text, size_t length)
{
    size_t size = sse_comment_size(text, length);
    struct frame *f = size > 0 ? frame_alloc(0, size) : NULL;

    if (f != NULL)
        sse_comment_write(text, length, f->bytes);
    return f;
}
