/* Holds: utf8_feed in two portions, utf8_valid_prefix and the one-byte steps agree; replaced text
 * is valid. */
#include "sse.h"
#include "utf8.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* Index of the byte that is refused, or size. */
static size_t refused_at(const uint8_t *text, size_t size, struct utf8 *u)
{
    size_t i = 0;

    utf8_init(u);
    while (i < size && utf8_feed(u, text + i, 1))
        i++;
    return i;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *text = data + 1;
    struct utf8 u, steps;
    size_t split, refused, prefix;
    bool first;

    if (size < 1)
        return 0;
    size--;
    split = size > 0 ? data[0] % (size + 1) : 0;
    refused = refused_at(text, size, &steps);
    utf8_init(&u);
    first = utf8_feed(&u, text, split);
    check(first == (refused >= split));
    if (first)
        check(utf8_feed(&u, text + split, size - split) == (refused == size));
    prefix = utf8_valid_prefix(text, size);
    check(prefix <= refused && refused - prefix <= 3);
    check(utf8_is_valid(text, size) == (refused == size && utf8_is_complete(&steps)));
    if (prefix < size) {
        size_t bad = utf8_bad_length(text + prefix, size - prefix);
        check(bad >= 1 && bad <= 3 && bad <= size - prefix);
    }

    struct sse_event e = {.data = text, .length = size, .retry = -1};
    size_t length = sse_event_size(&e);
    uint8_t *out = malloc(length);
    check(out != NULL && length >= 8);
    sse_event_write(&e, out);
    check(utf8_is_valid(out, length));
    free(out);
    return 0;
}
