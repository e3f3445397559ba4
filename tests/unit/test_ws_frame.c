/* Frame headers and masking, RFC 6455 5.2, 5.3, 5.5, 7.4. */
#include "ws_frame.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const char *why;

static int decode(const void *bytes, size_t length, struct ws_header *header)
{
    return ws_header_decode(bytes, length, false, header, &why);
}

Test(ws_frame, rfc6455_5_7_examples)
{
    static const uint8_t hello[] = {0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d};
    struct ws_header h;

    cr_assert_eq(decode(hello, sizeof(hello), &h), 6);
    cr_assert(h.fin && h.masked && !h.rsv1);
    cr_assert_eq(h.opcode, WS_TEXT);
    cr_assert_eq(h.length, 5);
    cr_assert_arr_eq(h.mask, hello + 2, 4);
    cr_assert_eq(decode("\x01\x03", 2, &h), 2);
    cr_assert(!h.fin && !h.masked && h.length == 3);
    cr_assert_eq(decode("\x82\x7E\x01\x00", 4, &h), 4);
    cr_assert_eq(h.length, 256);
    cr_assert_eq(decode("\x82\x7F\0\0\0\0\0\x01\0\0", 10, &h), 10);
    cr_assert_eq(h.length, 65536);
}

Test(ws_frame, rfc6455_5_2_encode_and_decode_agree_at_every_boundary)
{
    static const uint64_t lengths[] = {
        0, 1, 125, 126, 127, 65535, 65536, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX};
    uint8_t bytes[WS_HEADER_MAX];

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (int bits = 0; bits < 8; bits++) {
            struct ws_header in = {.fin = bits & 1, .rsv1 = bits & 2, .masked = bits & 4}, out;
            size_t size;

            in.opcode = WS_BINARY;
            in.length = lengths[i];
            memcpy(in.mask, "\x01\x02\x03\x04", 4);
            size = ws_header_encode(bytes, &in);
            cr_assert_eq(size, ws_header_size(in.length, in.masked));
            for (size_t part = 0; part < size; part++)
                cr_assert_eq(ws_header_decode(bytes, part, true, &out, &why), 0);
            cr_assert_eq(ws_header_decode(bytes, size, true, &out, &why), (int)size);
            cr_assert(out.fin == in.fin && out.rsv1 == in.rsv1 && out.masked == in.masked);
            cr_assert(out.length == in.length && out.opcode == WS_BINARY);
            if (in.masked)
                cr_assert_arr_eq(out.mask, in.mask, 4);
        }
}

Test(ws_frame, rfc6455_5_2_exact_bytes)
{
    struct ws_header h = {.fin = true, .opcode = WS_TEXT};
    uint8_t out[WS_HEADER_MAX];

    h.length = 125;
    cr_assert_eq(ws_header_encode(out, &h), 2);
    cr_assert_arr_eq(out, "\x81\x7D", 2);
    h.length = 126;
    cr_assert_eq(ws_header_encode(out, &h), 4);
    cr_assert_arr_eq(out, "\x81\x7E\x00\x7E", 4);
    h.length = 0x12345;
    cr_assert_eq(ws_header_encode(out, &h), 10);
    cr_assert_arr_eq(out, "\x81\x7F\0\0\0\0\0\x01\x23\x45", 10);
}

/* Refused when exactly `at` bytes are there, and not before. */
static void refused(const char *bytes, size_t at)
{
    struct ws_header h;

    for (size_t i = 0; i < at; i++)
        cr_assert_eq(decode(bytes, i, &h), 0, "%02x refused too early, after %zu",
                     (uint8_t)bytes[0], i);
    cr_assert_eq(decode(bytes, at, &h), -1, "%02x %02x", (uint8_t)bytes[0], (uint8_t)bytes[1]);
    cr_assert_not_null(why);
}

Test(ws_frame, rfc6455_5_2_reserved_bits_and_opcodes_at_the_first_byte)
{
    struct ws_header h;

    for (unsigned first = 0; first < 256; first++) {
        char bytes[2] = {(char)first, (char)0x80};
        unsigned opcode = first & 15;
        bool control = opcode >= 8;
        bool good = !(first & 0x70) && (opcode <= 2 || (opcode >= 8 && opcode <= 10)) &&
                    (!control || first & 0x80);
        if (good)
            cr_assert_eq(decode(bytes, 2, &h), 0, "%02x", first); /* the mask is missing */
        else
            refused(bytes, 1);
        /* RFC 7692 6: RSV1 only on the first frame of a message */
        if (first & 0x40)
            cr_assert_eq(ws_header_decode((uint8_t *)bytes, 2, true, &h, &why) == 0,
                         !(first & 0x30) && (opcode == 1 || opcode == 2), "%02x", first);
    }
}

Test(ws_frame, rfc6455_5_2_lengths)
{
    refused("\x82\xFE\x00\x7D", 4);              /* 125 in 16 bits */
    refused("\x82\xFF\0\0\0\0\0\0\xFF\xFF", 10); /* 65535 in 64 bits */
    refused("\x82\xFF\x80\0\0\0\0\x01\0\0", 3);  /* top bit */
}

Test(ws_frame, rfc6455_5_5_control_frames)
{
    static const uint8_t opcodes[] = {0x88, 0x89, 0x8A};
    struct ws_header h;

    for (size_t i = 0; i < 3; i++) {
        char bytes[6] = {(char)opcodes[i], (char)(0x80 | 125)};
        cr_assert_eq(decode(bytes, 6, &h), 6);
        bytes[1] = (char)(0x80 | 126);
        refused(bytes, 2);
        bytes[1] = (char)(0x80 | 127);
        refused(bytes, 2);
    }
    refused("\x08\x80", 1);
    refused("\x09\x80", 1);
    refused("\x0A\x80", 1);
}

Test(ws_frame, rfc6455_5_3_masking_of_every_length_place_and_split)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t plain[200], work[216];

    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i * 7);
    for (size_t offset = 0; offset < 9; offset++)
        for (size_t length = 0; length <= 140; length++)
            for (size_t split = 0; split <= length; split += 1 + length / 9) {
                uint8_t turned[4];
                memcpy(turned, mask, 4);
                memset(work, 0xEE, sizeof(work));
                memcpy(work + offset, plain, length);
                ws_mask(work + offset, split, turned);
                ws_mask(work + offset + split, length - split, turned);
                for (size_t i = 0; i < length; i++)
                    cr_assert_eq(work[offset + i], plain[i] ^ mask[i % 4]);
                cr_assert_eq(work[offset + length], 0xEE);
                for (size_t i = 0; i < 4; i++)
                    cr_assert_eq(turned[i], mask[(length + i) % 4]);
            }
}

Test(ws_frame, rfc6455_7_4_every_close_code)
{
    for (unsigned code = 0; code < 65536; code++) {
        bool good = code >= 3000 && code < 5000;
        switch (code) {
        case 1000:
        case 1001:
        case 1002:
        case 1003:
        case 1007:
        case 1008:
        case 1009:
        case 1010:
        case 1011:
        case 1012:
        case 1013:
        case 1014:
            good = true;
        }
        cr_assert_eq(ws_close_code_is_valid(code), good, "%u", code);
    }
}
