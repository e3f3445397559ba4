/* Strict UTF-8 (RFC 3629), whole and in portions, against a slow model written from the definition.
 */
#include "utf8.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* Length of the valid character at p, 0 if there is none: decodes and asks the definition. */
static size_t model_character(const uint8_t *p, size_t length)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = p[0] < 0x80             ? 1
                  : (p[0] & 0xE0) == 0xC0 ? 2
                  : (p[0] & 0xF0) == 0xE0 ? 3
                  : (p[0] & 0xF8) == 0xF0 ? 4
                                          : 0;
    uint32_t point;

    if (size == 0 || size > length)
        return 0;
    point = size == 1 ? p[0] : p[0] & (0x7Fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        point = point << 6 | (p[i] & 0x3F);
    }
    if (point < least[size] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
        return 0;
    return size;
}

static size_t model_prefix(const uint8_t *p, size_t length)
{
    size_t i = 0, size;

    while (i < length && (size = model_character(p + i, length - i)) > 0)
        i += size;
    return i;
}

/* Can these bytes still become valid text? Tries every way to go on. */
static bool model_may_go_on(const uint8_t *p, size_t length)
{
    static const uint8_t ends[] = {0x80, 0x90, 0xA0, 0xBF};
    size_t start = model_prefix(p, length), rest = length - start;
    uint8_t bytes[8];

    if (rest == 0)
        return true;
    if (rest > 3)
        return false;
    memcpy(bytes, p + start, rest);
    for (unsigned a = 0; a < 4; a++)
        for (unsigned b = 0; b < 4; b++)
            for (unsigned c = 0; c < 4; c++) {
                bytes[rest] = ends[a];
                bytes[rest + 1] = ends[b];
                bytes[rest + 2] = ends[c];
                for (size_t more = 1; more <= 3; more++)
                    if (model_prefix(bytes, rest + more) == rest + more)
                        return true;
            }
    return false;
}

/* Index of the byte that one-at-a-time feeding refuses, or length. */
static size_t refused_at(const uint8_t *p, size_t length)
{
    struct utf8 u;

    utf8_init(&u);
    for (size_t i = 0; i < length; i++)
        if (!utf8_feed(&u, p + i, 1))
            return i;
    return length;
}

Test(utf8, rfc3629_every_code_point_and_every_three_bytes)
{
    uint8_t p[3];

    for (uint32_t n = 0; n < 1u << 24; n++) {
        size_t expected;
        p[0] = (uint8_t)(n >> 16);
        p[1] = (uint8_t)(n >> 8);
        p[2] = (uint8_t)n;
        if (p[0] >= 1 && p[0] < 0x7F) /* plain ASCII starts say nothing new */
            continue;
        expected = model_prefix(p, 3);
        if (utf8_valid_prefix(p, 3) != expected) /* asserting 16 million times takes too long */
            cr_assert(false, "%02x %02x %02x", p[0], p[1], p[2]);
    }
}

Test(utf8, rfc3629_four_bytes)
{
    static const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};

    for (unsigned a = 0xE0; a < 0x100; a++)
        for (unsigned b = 0; b < 0x100; b++)
            for (unsigned c = 0; c < sizeof(edges); c++)
                for (unsigned d = 0; d < sizeof(edges); d++) {
                    uint8_t p[4] = {(uint8_t)a, (uint8_t)b, edges[c], edges[d]};
                    cr_assert_eq(utf8_valid_prefix(p, 4), model_prefix(p, 4), "%02x %02x %02x %02x",
                                 a, b, p[2], p[3]);
                }
}

Test(utf8, rfc6455_8_1_refuses_at_the_first_bad_byte)
{
    static const uint8_t late[] = {0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xcf, 0x83, 0xce, 0xbc,
                                   0xce, 0xb5, 0xf4, 0x90, 0x80, 0x80, 'e',  'd'};

    cr_assert_eq(refused_at(late, sizeof(late)), 12);
    cr_assert_eq(refused_at((const uint8_t *)"\xC0\x80", 2), 0);
    cr_assert_eq(refused_at((const uint8_t *)"\xE0\x9F\x80", 3), 1);
    cr_assert_eq(refused_at((const uint8_t *)"\xED\xA0\x80", 3), 1);
    cr_assert_eq(refused_at((const uint8_t *)"\xF0\x8F\x80\x80", 4), 1);
    cr_assert_eq(refused_at((const uint8_t *)"\xF5\x80\x80\x80", 4), 0);
    cr_assert_eq(refused_at((const uint8_t *)"ab\x80", 3), 2);
    cr_assert_eq(refused_at((const uint8_t *)"\xE2\x82g", 3), 2);
}

Test(utf8, random_text_in_random_portions_agrees_with_the_model)
{
    static const uint8_t likely[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F,
                                     0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1,
                                     0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
    uint8_t p[64];

    srand(1);
    for (int round = 0; round < 300000; round++) {
        size_t length = (size_t)rand() % 12, at = 0, good = 0;
        struct utf8 u = {0};
        bool fine = true;

        for (size_t i = 0; i < length; i++)
            p[i] = likely[(size_t)rand() % sizeof(likely)];
        while (good < length && model_may_go_on(p, good + 1))
            good++;
        cr_assert_eq(refused_at(p, length), good);
        while (fine && at < length) {
            size_t portion = 1 + (size_t)rand() % (length - at);
            fine = utf8_feed(&u, p + at, portion);
            at += portion;
            cr_assert_eq(fine, at <= good);
        }
        if (fine)
            cr_assert_eq(utf8_is_complete(&u), model_prefix(p, length) == length);
        cr_assert_eq(utf8_is_valid(p, length), model_prefix(p, length) == length);
    }
}

Test(utf8, one_bad_byte_anywhere_in_ascii_is_found)
{
    uint8_t p[160];

    for (size_t offset = 0; offset < 8; offset++)
        for (size_t length = 1; length <= 128; length++)
            for (size_t bad = 0; bad < length; bad++) {
                memset(p, 'a', sizeof(p));
                p[offset + bad] = 0x80 | (uint8_t)bad;
                cr_assert_eq(utf8_valid_prefix(p + offset, length), bad);
                p[offset + bad] = 'a';
                p[offset + length] = 0xFF; /* just outside */
                cr_assert(utf8_is_valid(p + offset, length));
            }
}

Test(utf8, whatwg_encoding_8_1_1_replaced_parts)
{
    static const struct {
        const char *bytes;
        size_t length, bad;
    } cases[] = {
        {"\xF0\x80\x80\x41", 4, 1},
        {"\xF1\x80\x80\x41", 4, 3},
        {"\xE2\x82", 2, 2},
        {"\xED\xA0\x80", 3, 1},
        {"\xF4\x90\x80\x80", 4, 1},
        {"\xFF", 1, 1},
        {"\xC3(", 2, 1},
        {"\x80\x80", 2, 1},
        {"\xE1\x80\xE1\x80\x80", 5, 2},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        cr_assert_eq(utf8_bad_length(cases[i].bytes, cases[i].length), cases[i].bad, "case %zu", i);
}
