#include "status.h"
#include <criterion/criterion.h>

Test(status, numbers_never_change)
{
    cr_assert_eq(STATUS_OK, 0);
    cr_assert_eq(STATUS_MALFORMED, 1);
    cr_assert_eq(STATUS_VERSION, 2);
    cr_assert_eq(STATUS_UNKNOWN_OPERATION, 3);
    cr_assert_eq(STATUS_NOT_ATTACHED, 4);
    cr_assert_eq(STATUS_OUT_OF_ORDER, 5);
    cr_assert_eq(STATUS_AUTH, 6);
    cr_assert_eq(STATUS_DENIED, 7);
    cr_assert_eq(STATUS_STALE, 8);
    cr_assert_eq(STATUS_TOO_LARGE, 9);
    cr_assert_eq(STATUS_CHANNEL_LENGTH, 10);
    cr_assert_eq(STATUS_PATTERN, 11);
    cr_assert_eq(STATUS_WEAK_PATTERN, 12);
    cr_assert_eq(STATUS_FULL, 13);
    cr_assert_eq(STATUS_GOING_AWAY, 14);
    cr_assert_eq(STATUS_UNKNOWN_NAME, 15);
    cr_assert_eq(STATUS_TRUNCATED, 16);
    cr_assert_eq(STATUS_NO_MEMORY, 17);
}

Test(status, each_has_a_text_of_its_own)
{
    static const unsigned numbers[] = {
#define NUMBER(name, number, text) number,
        STATUS_LIST(NUMBER)
#undef NUMBER
    };
    size_t count = sizeof(numbers) / sizeof(numbers[0]);

    for (size_t i = 0; i < count; i++) {
        cr_assert_str_neq(status_text(numbers[i]), "unknown status");
        for (size_t j = 0; j < i; j++)
            cr_assert_str_neq(status_text(numbers[i]), status_text(numbers[j]));
    }
}

Test(status, a_number_of_a_newer_peer_has_a_text)
{
    cr_assert_str_eq(status_text(18), "unknown status");
    cr_assert_str_eq(status_text(255), "unknown status");
    cr_assert_str_eq(status_text(4000000000u), "unknown status");
}
