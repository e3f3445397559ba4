#ifndef ADAPTER_UTF8_H
#define ADAPTER_UTF8_H

/*
 * Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. Bytes may come
 * in any portions; the first byte that cannot belong to valid text is refused when it arrives, as
 * RFC 6455 8.1 asks of text messages. Pure, any thread; a struct utf8 belongs to one user at a
 * time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Between two portions: how many continuation bytes are missing and what the next one may be. All
 * zero is the state between two characters: `struct utf8 state = {0}` or utf8_init. */
struct utf8 {
    uint8_t needed; /* 0 to 3 */
    uint8_t low;    /* bounds of the next continuation byte while needed is not 0 */
    uint8_t high;
};

static inline void utf8_init(struct utf8 *u)
{
    *u = (struct utf8){0};
}

/* The next length bytes of a text. False at the first byte that makes it invalid; *u must then not
 * be used again before utf8_init. A character that is cut off at the end is fine (yet). */
bool utf8_feed(struct utf8 *u, const void *bytes, size_t length);

/* Does what was fed end between two characters? */
static inline bool utf8_is_complete(const struct utf8 *u)
{
    return u->needed == 0;
}

/* Is the whole of it valid? An empty text is. */
bool utf8_is_valid(const void *bytes, size_t length);

/* Number of bytes before the first that is not part of a whole valid character; length when all is
 * valid. */
size_t utf8_valid_prefix(const void *bytes, size_t length);

/*
 * bytes does not begin with a whole valid character (and length is not 0): how many bytes one
 * U+FFFD stands for, 1 to 3. It is the longest start of a valid character that lies there, or one
 * byte: what the WHATWG UTF-8 decoder (Encoding, 8.1.1) does.
 */
size_t utf8_bad_length(const void *bytes, size_t length);

#endif
