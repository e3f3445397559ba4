#include "ws_deflate.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    TAIL_SIZE = 4,
    LEVEL = 4, /* more costs twice the time for a few percent */
    KEPT_OUTPUT = 64 * 1024,
    AT_BLOCK_END = 128 /* in data_type, see inflate in zlib.h */
};

static const uint8_t tail[TAIL_SIZE] = {0x00, 0x00, 0xff, 0xff};

/* As zlib would do it, but by our name for it, where tests let it fail. */
static voidpf allocate(voidpf unused, uInt count, uInt size)
{
    (void)unused;
    return malloc((size_t)count * size);
}

static void release(voidpf unused, voidpf bytes)
{
    (void)unused;
    free(bytes);
}

struct ws_inflater {
    z_stream z;
    size_t tail_used;
    bool pending;   /* zlib may hold output that had no room */
    bool block_end; /* what was inflated so far ends where a block ends */
    bool final;     /* a block marked as the last has just ended (7.2.3.4) */
};

struct ws_inflater *ws_inflater_new(unsigned bits)
{
    struct ws_inflater *i = calloc(1, sizeof(*i));

    if (i == NULL)
        return NULL;
    i->z.zalloc = allocate;
    i->z.zfree = release;
    if (inflateInit2(&i->z, -(int)bits) != Z_OK) {
        free(i);
        return NULL;
    }
    return i;
}

void ws_inflater_free(struct ws_inflater *i)
{
    if (i == NULL)
        return;
    inflateEnd(&i->z);
    free(i);
}

/* One call of zlib with n bytes at from; *used tells how many it took. */
static int inflate_step(struct ws_inflater *i, const uint8_t *from, size_t n, size_t *used)
{
    uInt given = n > UINT_MAX ? UINT_MAX : (uInt)n;
    int result;

    i->z.next_in = (z_const Bytef *)(uintptr_t)from;
    i->z.avail_in = given;
    result = inflate(&i->z, Z_SYNC_FLUSH);
    *used = given - i->z.avail_in;
    i->pending = i->z.avail_out == 0;
    if (*used > 0)
        i->final = false;
    if (result == Z_OK) /* a call without progress leaves data_type without a meaning */
        i->block_end = i->z.data_type & AT_BLOCK_END;
    if (result == Z_STREAM_END) {
        /* keeps the window, to which later blocks may refer, and costs nothing per call */
        result = inflateResetKeep(&i->z);
        i->final = true;
    }
    return result;
}

/* The message is over: does it end where a block ends? */
static enum ws_inflate finish_message(struct ws_inflater *i)
{
    bool whole = i->final || i->block_end;

    i->tail_used = 0;
    i->final = false;
    return whole ? WS_INFLATE_DONE : WS_INFLATE_BAD;
}

enum ws_inflate ws_inflater_run(struct ws_inflater *i, const uint8_t **input, size_t *length,
                                bool last, uint8_t *out, size_t size, size_t *written)
{
    uInt room = size > UINT_MAX ? UINT_MAX : (uInt)size;
    size_t n, used;
    int result;

    i->z.next_out = out;
    i->z.avail_out = room;
    for (;;) {
        bool in_tail = *length == 0;

        n = *length;
        if (in_tail && last && !(i->final && i->tail_used == 0))
            n = TAIL_SIZE - i->tail_used;
        if (n == 0 && !i->pending)
            break;
        result = inflate_step(i, in_tail ? tail + i->tail_used : *input, n, &used);
        if (in_tail) {
            i->tail_used += used;
        } else {
            *input += used;
            *length -= used;
        }
        *written = room - i->z.avail_out;
        if (result == Z_MEM_ERROR)
            return WS_INFLATE_NO_MEMORY;
        if (result != Z_OK && result != Z_BUF_ERROR)
            return WS_INFLATE_BAD;
        if (i->z.avail_out == 0)
            return WS_INFLATE_FULL;
    }
    *written = room - i->z.avail_out;
    return last ? finish_message(i) : WS_INFLATE_DONE;
}

struct ws_deflater {
    z_stream z;
    uint8_t *out;
    size_t capacity;
};

struct ws_deflater *ws_deflater_new(unsigned bits)
{
    struct ws_deflater *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->z.zalloc = allocate;
    d->z.zfree = release;
    if (deflateInit2(&d->z, LEVEL, Z_DEFLATED, -(int)bits, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(d);
        return NULL;
    }
    return d;
}

void ws_deflater_free(struct ws_deflater *d)
{
    if (d == NULL)
        return;
    deflateEnd(&d->z);
    free(d->out);
    free(d);
}

/* Output room of size bytes; large room is not kept for small messages. */
static bool reserve_output(struct ws_deflater *d, size_t size)
{
    size_t capacity = size < KEPT_OUTPUT ? KEPT_OUTPUT : size;

    if (d->capacity >= size && d->capacity <= capacity)
        return true;
    free(d->out);
    d->out = malloc(capacity);
    d->capacity = d->out != NULL ? capacity : 0;
    return d->out != NULL;
}

bool ws_deflater_compress(struct ws_deflater *d, const void *data, size_t length,
                          const uint8_t **out, size_t *out_length)
{
    /* room for one byte less than the message, the tail, and one that stays free: a flush that
     * fills its room may not be complete */
    size_t room = length + TAIL_SIZE;

    if (length == 0 || length > INT_MAX - TAIL_SIZE || !reserve_output(d, room) ||
        deflateReset(&d->z) != Z_OK)
        return false;
    d->z.next_in = (z_const Bytef *)(uintptr_t)data;
    d->z.avail_in = (uInt)length;
    d->z.next_out = d->out;
    d->z.avail_out = (uInt)room;
    if (deflate(&d->z, Z_SYNC_FLUSH) != Z_OK || d->z.avail_in != 0 || d->z.avail_out == 0)
        return false;
    *out = d->out;
    *out_length = room - d->z.avail_out - TAIL_SIZE;
    return true;
}
