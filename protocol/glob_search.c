#include "bytes.h"
#include "glob.h"
#include "glob_element.h"

enum {
    BLOCK = 512, /* elements that are looked for at once */
    BLOCK_WORDS = BLOCK / 64,
    STARTS_WORDS = CHANNEL_LENGTH_MAX / 64 + 1,
    TEXT_LONG = 64, /* bytes: from here on a text is searched by a rolling hash */
    TRIED = 512     /* steps of trying place by place, and one for each byte */
};

size_t glob_class_bits(const uint8_t *pattern, size_t length, uint64_t bits[4])
{
    size_t at = 1;
    bool negated = length > 1 && pattern[1] == '^';

    memset(bits, 0, 4 * sizeof(bits[0]));
    at += negated;
    while (at < length && pattern[at] != ']') {
        size_t left = length - at;
        unsigned low = pattern[at], high = low;
        if (left >= 2 && pattern[at] == '\\') {
            low = high = pattern[at + 1];
            at += 2;
        } else if (left >= 3 && pattern[at + 1] == '-') {
            high = pattern[at + 2];
            at += 3;
        } else {
            at++;
        }
        if (low > high) {
            unsigned swap = low;
            low = high;
            high = swap;
        }
        for (unsigned w = low / 64; w <= high / 64; w++) {
            uint64_t from = w == low / 64 ? ~(uint64_t)0 << (low % 64) : ~(uint64_t)0;
            uint64_t to = w == high / 64 ? ~(uint64_t)0 >> (63 - high % 64) : ~(uint64_t)0;
            bits[w] |= from & to;
        }
    }
    for (int w = 0; w < 4 && negated; w++)
        bits[w] = ~bits[w];
    return at + 1;
}

/* For each byte the elements of a block that stand for it, one bit each. */
struct block {
    uint64_t rows[256][BLOCK_WORDS];
    size_t count;
};

static const uint8_t *block_build(struct block *block, const uint8_t *p, const uint8_t *end)
{
    uint64_t any[BLOCK_WORDS] = {0};
    size_t i = 0;

    memset(block->rows, 0, sizeof(block->rows));
    for (; i < BLOCK && p < end; i++) {
        size_t left = (size_t)(end - p), w = i / 64;
        uint64_t bit = (uint64_t)1 << (i % 64), bits[4];
        if (*p == '?') {
            any[w] |= bit;
            p++;
        } else if (*p == '[') {
            p += glob_class_bits(p, left, bits);
            for (unsigned n = 0; n < 4; n++)
                for (; bits[n] != 0; bits[n] &= bits[n] - 1)
                    block->rows[64 * n + (unsigned)__builtin_ctzll(bits[n])][w] |= bit;
        } else {
            size_t used = glob_element_length(p, left);
            block->rows[p[used - 1]][w] |= bit;
            p += used;
        }
    }
    for (unsigned byte = 0; byte < 256; byte++)
        for (size_t w = 0; w < BLOCK_WORDS; w++)
            block->rows[byte][w] |= any[w];
    block->count = i;
    return p;
}

/* Shift-And: bit i of the state says that the last i + 1 bytes match the first i + 1 elements.
 * Takes out of starts (of which there are count, one bit each) those where the block does not
 * match; false when none is left. channel is where the block would be for the first start. */
static bool block_search(const struct block *block, const uint8_t *channel, uint64_t *starts,
                         size_t count)
{
    uint64_t state[BLOCK_WORDS] = {0}, left = 0;
    size_t last = block->count - 1;

    for (size_t at = 0; at < last + count; at++) {
        const uint64_t *row = block->rows[channel[at]];
        /* downwards, so that each word still sees its neighbour as it was; always all words: that
         * is a few vector instructions */
        for (size_t w = BLOCK_WORDS - 1; w > 0; w--)
            state[w] = (state[w] << 1 | state[w - 1] >> 63) & row[w];
        state[0] = (state[0] << 1 | 1) & row[0];
        if (at >= last && (state[last / 64] >> (last % 64) & 1) == 0)
            starts[(at - last) / 64] &= ~((uint64_t)1 << ((at - last) % 64));
    }
    for (size_t w = 0; w <= (count - 1) / 64; w++)
        left |= starts[w];
    return left != 0;
}

static const uint8_t *search_in_blocks(const uint8_t *segment, const uint8_t *segment_end,
                                       size_t count, const uint8_t *channel, size_t starts_count)
{
    uint64_t starts[STARTS_WORDS] = {0};
    struct block block;
    size_t before = 0, w = 0;

    for (size_t i = 0; i < starts_count; i++)
        starts[i / 64] |= (uint64_t)1 << (i % 64);
    while (segment < segment_end) {
        segment = block_build(&block, segment, segment_end);
        if (!block_search(&block, channel + before, starts, starts_count))
            return NULL;
        before += block.count;
    }
    while (starts[w] == 0)
        w++;
    return channel + 64 * w + (unsigned)__builtin_ctzll(starts[w]) + count;
}

const uint8_t *glob_search(const uint8_t *segment, const uint8_t *segment_end, size_t count,
                           const uint8_t *channel, const uint8_t *channel_end)
{
    size_t room = (size_t)(channel_end - channel), steps = room + TRIED;

    if (room < count)
        return NULL;
    /* Trying each place costs little for what is usual; who makes it cost more gets the bits. */
    for (; (size_t)(channel_end - channel) >= count; channel++) {
        const uint8_t *p = segment, *c = channel;
        size_t used = 0;
        while (p < segment_end && steps > 0 &&
               glob_element_matches(p, (size_t)(segment_end - p), *c, &used)) {
            p += used;
            c++;
            steps -= used < steps ? used : steps;
        }
        if (p == segment_end)
            return c;
        steps -= used < steps ? used : steps;
        if (steps == 0)
            return search_in_blocks(segment, segment_end, count, channel,
                                    (size_t)(channel_end - channel) - count + 1);
    }
    return NULL;
}

/* A rolling hash finds the places worth a comparison: 1 multiplication for each byte, whatever the
 * text. Who makes hashes collide pays for a memcmp at each place, which is bounded too. */
static const uint8_t *search_long_text(const uint8_t *text, size_t length, const uint8_t *at,
                                       const uint8_t *end)
{
    const uint32_t base = 0x9e3779b1u;
    uint32_t wanted = 0, hash = 0, power = 1;

    for (size_t i = 0; i < length; i++) {
        wanted = wanted * base + text[i];
        hash = hash * base + at[i];
        power *= base;
    }
    for (;; at++) {
        if (hash == wanted && memcmp(at, text, length) == 0)
            return at + length;
        if ((size_t)(end - at) == length)
            return NULL;
        hash = hash * base + at[length] - power * at[0];
    }
}

const uint8_t *glob_search_text(const uint8_t *text, size_t length, const uint8_t *channel,
                                const uint8_t *channel_end)
{
    size_t room = (size_t)(channel_end - channel);
    const uint8_t *found;

    if (room < length)
        return NULL;
    if (*channel == *text && (length == 1 || memcmp(channel, text, length) == 0))
        return channel + length;
    if (length >= TEXT_LONG)
        return search_long_text(text, length, channel, channel_end);
    found = memmem(channel, room, text, length);
    return found != NULL ? found + length : NULL;
}
