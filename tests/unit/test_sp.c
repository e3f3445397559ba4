#include "sp.h"
#include <criterion/criterion.h>
#include <string.h>

Test(sp, hello_has_the_exact_bytes)
{
    uint8_t out[SP_HELLO_SIZE];

    sp_hello_encode(out, SP_REQ);
    cr_assert_eq(memcmp(out, "\0SP\0\0\x30\0\0", 8), 0);
    sp_hello_encode(out, SP_REP);
    cr_assert_eq(memcmp(out, "\0SP\0\0\x31\0\0", 8), 0);
}

Test(sp, hello_one_byte_at_a_time)
{
    const uint8_t *hello = (const uint8_t *)"\0SP\0\0\x30\0\0";

    for (size_t length = 0; length < 8; length++)
        cr_assert_eq(sp_hello_check(hello, length, SP_REQ), STATUS_TRUNCATED);
    cr_assert_eq(sp_hello_check(hello, 8, SP_REQ), STATUS_OK);
    cr_assert_eq(sp_hello_check(hello, 9, SP_REQ), STATUS_OK, "what follows is not looked at");
}

Test(sp, hello_is_refused_at_its_first_wrong_byte)
{
    const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};

    for (size_t wrong = 0; wrong < 8; wrong++) {
        uint8_t bad[8];
        memcpy(bad, hello, 8);
        bad[wrong] ^= 0x40;
        cr_assert_eq(sp_hello_check(bad, wrong, SP_REQ), STATUS_TRUNCATED);
        cr_assert_eq(sp_hello_check(bad, wrong + 1, SP_REQ), STATUS_MALFORMED);
    }
    cr_assert_eq(sp_hello_check((const uint8_t *)"GET", 3, SP_REQ), STATUS_MALFORMED);
    cr_assert_eq(sp_hello_check(hello, 8, SP_REP), STATUS_MALFORMED, "a REQ at a REQ");
}

Test(sp, prefix_has_the_exact_bytes)
{
    uint8_t out[SP_PREFIX_MAX];

    cr_assert_eq(sp_prefix_encode(out, SP_TCP, 0x0102030405060708u), 8);
    cr_assert_eq(memcmp(out, "\1\2\3\4\5\6\7\x8", 8), 0);
    cr_assert_eq(sp_prefix_encode(out, SP_IPC, 28), 9);
    cr_assert_eq(memcmp(out, "\1\0\0\0\0\0\0\0\x1c", 9), 0);
}

Test(sp, prefix_one_byte_at_a_time)
{
    enum sp_transport transports[] = {SP_TCP, SP_IPC};

    for (int t = 0; t < 2; t++) {
        uint8_t bytes[SP_PREFIX_MAX];
        uint64_t length = 0;
        size_t size = sp_prefix_encode(bytes, transports[t], 70000);

        cr_assert_eq(size, sp_prefix_size(transports[t]));
        for (size_t i = 0; i < size; i++)
            cr_assert_eq(sp_prefix_decode(bytes, i, transports[t], 70000, &length),
                         STATUS_TRUNCATED);
        cr_assert_eq(sp_prefix_decode(bytes, size, transports[t], 70000, &length), STATUS_OK);
        cr_assert_eq(length, 70000);
    }
}

Test(sp, prefix_over_the_limit_is_refused)
{
    uint8_t bytes[SP_PREFIX_MAX];
    uint64_t length;

    sp_prefix_encode(bytes, SP_TCP, 101);
    cr_assert_eq(sp_prefix_decode(bytes, 8, SP_TCP, 100, &length), STATUS_TOO_LARGE);
    sp_prefix_encode(bytes, SP_TCP, UINT64_MAX);
    cr_assert_eq(sp_prefix_decode(bytes, 8, SP_TCP, 100, &length), STATUS_TOO_LARGE);
}

Test(sp, ipc_message_type_other_than_1_is_refused)
{
    uint64_t length;

    cr_assert_eq(sp_prefix_decode((const uint8_t *)"\2", 1, SP_IPC, 100, &length),
                 STATUS_MALFORMED);
    cr_assert_eq(sp_prefix_decode((const uint8_t *)"\0\0\0\0\0\0\0\0\1", 9, SP_IPC, 100, &length),
                 STATUS_MALFORMED);
}

Test(sp, backtrace_ends_at_the_top_bit)
{
    const uint8_t body[] = {0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 9, 0xff};
    size_t size = 0;

    cr_assert_eq(sp_backtrace_decode(body + 8, 5, &size), STATUS_OK);
    cr_assert_eq(size, 4, "no device in between");
    cr_assert_eq(sp_backtrace_decode(body, sizeof(body), &size), STATUS_OK);
    cr_assert_eq(size, 12, "two devices in between");
}

Test(sp, backtrace_of_more_than_eight_words_is_refused)
{
    uint8_t body[4 * 9] = {0};
    size_t size;

    body[4 * 7] = 0x80;
    cr_assert_eq(sp_backtrace_decode(body, sizeof(body), &size), STATUS_OK);
    cr_assert_eq(size, 32);
    body[4 * 7] = 0;
    body[4 * 8] = 0x80;
    cr_assert_eq(sp_backtrace_decode(body, sizeof(body), &size), STATUS_MALFORMED);
}

Test(sp, backtrace_cut_short_is_refused)
{
    const uint8_t body[] = {0, 0, 0, 1, 0x80, 0, 0};
    size_t size;

    for (size_t length = 0; length <= sizeof(body); length++)
        cr_assert_eq(sp_backtrace_decode(body, length, &size), STATUS_MALFORMED);
}
