/* Compression of messages, RFC 7692 7.2. */
#include "ws_deflate.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Inflates one message in portions of input and output; returns the last result, *length the size.
 */
static enum ws_inflate inflate_all(struct ws_inflater *i, const uint8_t *in, size_t in_length,
                                   size_t portion, size_t room, uint8_t *out, size_t *length)
{
    enum ws_inflate result = WS_INFLATE_DONE;
    size_t written;

    *length = 0;
    do {
        size_t n = in_length < portion ? in_length : portion;
        bool last = n == in_length;
        in_length -= n;
        do {
            result = ws_inflater_run(i, &in, &n, last, out + *length, room, &written);
            *length += written;
        } while (result == WS_INFLATE_FULL);
        if (last)
            break;
    } while (result == WS_INFLATE_DONE);
    return result;
}

static void inflates_to(const void *in, size_t in_length, const char *expected)
{
    uint8_t out[256];
    size_t length;

    for (size_t portion = 1; portion <= in_length; portion++)
        for (size_t room = 1; room < 20; room++) {
            struct ws_inflater *i = ws_inflater_new(15);
            for (int again = 0; again < 2; again++) {
                cr_assert_eq(inflate_all(i, in, in_length, portion, room, out, &length),
                             WS_INFLATE_DONE);
                cr_assert_eq(length, strlen(expected));
                cr_assert_arr_eq(out, expected, length);
            }
            ws_inflater_free(i);
        }
}

Test(ws_deflate, rfc7692_7_2_3_examples_in_any_portions)
{
    inflates_to("\xF2\x48\xCD\xC9\xC9\x07\x00", 7, "Hello");
    inflates_to("\x00\x05\x00\xFA\xFF\x48\x65\x6C\x6C\x6F\x00", 11, "Hello");
    inflates_to("\xF3\x48\xCD\xC9\xC9\x07\x00\x00", 8, "Hello");
    inflates_to("\xF3\x48\xCD\xC9\xC9\x07\x00", 7, "Hello");
    inflates_to("\xF2\x48\x05\x00\x00\x00\xFF\xFF\xCA\xC9\xC9\x07\x00", 13, "Hello");
    inflates_to("\x02\x00", 2, "");
    inflates_to("\x00", 1, "");
}

Test(ws_deflate, rfc7692_7_2_1_the_tail_is_removed)
{
    struct ws_deflater *d = ws_deflater_new(15);
    const uint8_t *out;
    size_t length;

    cr_assert(ws_deflater_compress(d, "HelloHelloHelloHello", 20, &out, &length));
    cr_assert_lt(length, 20);
    cr_assert_neq(memcmp(out + length - 4, "\x00\x00\xFF\xFF", 4), 0);
    inflates_to(out, length, "HelloHelloHelloHello");
    ws_deflater_free(d);
}

Test(ws_deflate, done_means_that_all_output_was_written)
{
    struct ws_deflater *d = ws_deflater_new(15);
    uint8_t data[300] = {0}, out[400];
    const uint8_t *compressed;
    size_t length;

    cr_assert(ws_deflater_compress(d, data, sizeof(data), &compressed, &length));
    for (size_t cut = 1; cut <= length;
         cut++) { /* what these bytes stand for, in large room and small */
        size_t written, total[2] = {0, 0};
        for (size_t small = 0; small < 2; small++) {
            struct ws_inflater *i = ws_inflater_new(15);
            const uint8_t *in = compressed;
            size_t left = cut;
            enum ws_inflate result;
            do {
                result = ws_inflater_run(i, &in, &left, false, out, small ? 1 : 400, &written);
                total[small] += written;
            } while (result == WS_INFLATE_FULL);
            cr_assert_eq(result, WS_INFLATE_DONE);
            ws_inflater_free(i);
        }
        cr_assert_eq(total[0], total[1], "%zu bytes", cut);
    }
    ws_deflater_free(d);
}

Test(ws_deflate, the_verdict_does_not_hang_on_the_room_for_output)
{
    /* its last symbols lie in the tail, so that one call uses up the tail and fills its room */
    static const uint8_t odd[] = {0xEC, 0xC1, 0x31, 0x01, 0x00, 0x00, 0x00, 0xC2, 0xA0, 0xF5,
                                  0x4F, 0x6D, 0x0D, 0x0F, 0xA0, 0x00, 0x05, 0xFF, 0x0E};
    uint8_t out[3000];
    size_t length;

    for (size_t room = 1; room <= 2300; room = room < 8 ? room + 1 : room + 191) {
        struct ws_inflater *i = ws_inflater_new(15);
        enum ws_inflate r = inflate_all(i, odd, sizeof(odd), 100, room, out, &length);
        cr_assert_eq(length, 2212);
        cr_assert_eq(r, WS_INFLATE_DONE, "room %zu", room);
        ws_inflater_free(i);
    }
}

static uint8_t *some_bytes(size_t length, unsigned variety)
{
    uint8_t *p = malloc(length + 1);

    for (size_t i = 0; i < length; i++)
        p[i] = (uint8_t)("abcdefghijklmnopqrstuvwxyz0123456789"[(unsigned)rand() % variety]);
    return p;
}

Test(ws_deflate, rfc7692_7_1_1_every_message_stands_alone_in_every_window)
{
    srand(3);
    for (unsigned bits = 9; bits <= 15; bits++) {
        struct ws_deflater *d = ws_deflater_new(bits);
        for (int round = 0; round < 200; round++) {
            size_t length = (size_t)rand() % 60000, out_length, inflated_length;
            uint8_t *data = some_bytes(length, 1 + (unsigned)rand() % 36), *inflated;
            struct ws_inflater *i = ws_inflater_new(bits); /* new: knows no earlier message */
            const uint8_t *out;
            if (ws_deflater_compress(d, data, length, &out, &out_length)) {
                cr_assert_lt(out_length, length);
                inflated = malloc(length + 5000);
                cr_assert_eq(
                    inflate_all(i, out, out_length, 5000, 5000, inflated, &inflated_length),
                    WS_INFLATE_DONE);
                cr_assert_eq(inflated_length, length);
                cr_assert_eq(memcmp(inflated, data, length), 0);
                free(inflated);
            }
            ws_inflater_free(i);
            free(data);
        }
        ws_deflater_free(d);
    }
}

Test(ws_deflate, what_does_not_get_smaller_is_refused)
{
    struct ws_deflater *d = ws_deflater_new(15);
    uint8_t noise[5000];
    const uint8_t *out;
    size_t length;

    srand(4);
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)rand();
    cr_assert_not(ws_deflater_compress(d, "", 0, &out, &length));
    cr_assert_not(ws_deflater_compress(d, "x", 1, &out, &length));
    cr_assert_not(ws_deflater_compress(d, "Hello", 5, &out, &length));
    cr_assert_not(ws_deflater_compress(d, noise, sizeof(noise), &out, &length));
    /* a refusal leaves nothing behind */
    cr_assert(ws_deflater_compress(d, "aaaaaaaaaaaaaaaaaaaa", 20, &out, &length));
    inflates_to(out, length, "aaaaaaaaaaaaaaaaaaaa");
    ws_deflater_free(d);
}

Test(ws_deflate, large_output_room_is_not_kept_for_small_messages)
{
    struct ws_deflater *d = ws_deflater_new(15);
    uint8_t *data = some_bytes(5 << 20, 4);
    const uint8_t *out;
    size_t length;

    cr_assert(ws_deflater_compress(d, data, 5 << 20, &out, &length));
    cr_assert(ws_deflater_compress(d, "aaaaaaaaaaaaaaaaaaaa", 20, &out, &length));
    inflates_to(out, length, "aaaaaaaaaaaaaaaaaaaa");
    free(data);
    ws_deflater_free(d);
}

Test(ws_deflate, bad_streams_are_told)
{
    static const struct {
        const char *bytes;
        size_t length;
    } bad[] = {{"\xFF\xFF", 2},
               {"\xF2\x48\xCD", 3},
               {"\x00\x05\x00\xFA\xFE", 5},
               {"\xF2\x00\x11\x00\x00", 5},
               {"\x00\x10\x00\xEF\xFF\x48", 6}};
    uint8_t out[256];
    size_t length;

    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        struct ws_inflater *i = ws_inflater_new(15);
        cr_assert_eq(
            inflate_all(i, (const uint8_t *)bad[n].bytes, bad[n].length, 2, 8, out, &length),
            WS_INFLATE_BAD, "%zu", n);
        ws_inflater_free(i);
    }
    ws_inflater_free(NULL);
    ws_deflater_free(NULL);
}

Test(ws_deflate, rfc7692_7_2_3_4_many_final_blocks_cost_no_more_than_other_bytes, .timeout = 30)
{
    enum { BLOCKS = 1 << 20 };
    struct ws_inflater *i = ws_inflater_new(15);
    uint8_t *data = malloc(2 * BLOCKS), out[16];
    size_t length = 0;

    for (size_t n = 0; n < BLOCKS; n++)
        memcpy(data + 2 * n, "\x03\x00", 2);
    cr_assert_eq(inflate_all(i, data, 2 * BLOCKS, 2 * BLOCKS, sizeof(out), out, &length),
                 WS_INFLATE_DONE);
    cr_assert_eq(length, 0);
    ws_inflater_free(i);
    free(data);
}
