/* Holds: inflating is the same in any portions and never writes outside; what we compress comes
 * back. */
#include "ws_deflate.h"
#include <stdlib.h>
#include <string.h>

enum { OUTPUT_MAX = 1 << 13 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

struct output {
    uint8_t *bytes;
    size_t length;
    enum ws_inflate result; /* FULL: stopped at OUTPUT_MAX */
};

/* Two messages, so that the second may refer to the first. */
static struct output run(const uint8_t *data, size_t size, size_t portion, size_t room)
{
    struct ws_inflater *i = ws_inflater_new(15);
    struct output o = {malloc(OUTPUT_MAX), 0, WS_INFLATE_DONE};
    size_t n, written;

    check(i != NULL && o.bytes != NULL);
    for (int message = 0; message < 2 && o.result == WS_INFLATE_DONE; message++) {
        const uint8_t *at = data;
        size_t left = size;
        bool last = false;
        while (!last && o.result == WS_INFLATE_DONE) {
            n = left < portion ? left : portion;
            last = n == left;
            left -= n;
            do {
                size_t space = OUTPUT_MAX - o.length < room ? OUTPUT_MAX - o.length : room;
                uint8_t *out = malloc(space);
                if (space == 0) {
                    free(out);
                    break;
                }
                check(out != NULL);
                o.result = ws_inflater_run(i, &at, &n, last, out, space, &written);
                check(written <= space);
                memcpy(o.bytes + o.length, out, written);
                o.length += written;
                free(out);
            } while (o.result == WS_INFLATE_FULL);
        }
    }
    ws_inflater_free(i);
    return o;
}

static void round_trip(const uint8_t *data, size_t size, unsigned bits)
{
    static struct ws_deflater
        *deflaters[16]; /* kept: what a message leaves behind must not matter */
    struct ws_deflater *d = deflaters[bits];
    struct ws_inflater *i = ws_inflater_new(bits);
    uint8_t *out = malloc(size + 1);
    const uint8_t *compressed;
    size_t length, written;

    if (d == NULL)
        d = deflaters[bits] = ws_deflater_new(bits);
    check(d != NULL && i != NULL && out != NULL);
    if (ws_deflater_compress(d, data, size, &compressed, &length)) {
        check(length < size);
        check(ws_inflater_run(i, &compressed, &length, true, out, size + 1, &written) ==
              WS_INFLATE_DONE);
        check(written == size && memcmp(out, data, size) == 0);
    }
    free(out);
    ws_inflater_free(i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct output whole, parts;

    if (size < 3)
        return 0;
    whole = run(data + 2, size - 2, SIZE_MAX, OUTPUT_MAX);
    parts = run(data + 2, size - 2, 1 + data[0] % 16u, 1 + data[1]);
    /* a stream that goes wrong may have given more or less output before it was noticed */
    if (whole.result == WS_INFLATE_DONE || parts.result == WS_INFLATE_DONE) {
        check(whole.result == parts.result && whole.length == parts.length);
        check(memcmp(whole.bytes, parts.bytes, whole.length) == 0);
    }
    free(whole.bytes);
    free(parts.bytes);
    round_trip(data + 2, size - 2, 9 + data[0] % 7u);
    return 0;
}
