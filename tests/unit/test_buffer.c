#include "buffer.h"
#include <criterion/criterion.h>
#include <string.h>

Test(buffer, idle_owns_no_memory)
{
    struct buffer b;

    buffer_init(&b, 100);
    cr_assert_null(b.bytes);
    cr_assert_eq(buffer_length(&b), 0);
    cr_assert(buffer_append(&b, "x", 1));
    cr_assert_not_null(b.bytes);
    buffer_release(&b);
    cr_assert_null(b.bytes);
    cr_assert(buffer_append(&b, "y", 1), "usable again after release");
    buffer_release(&b);
}

Test(buffer, limit_holds_and_leaves_what_was_there)
{
    struct buffer b;

    buffer_init(&b, 8);
    cr_assert(buffer_append(&b, "12345", 5));
    cr_assert_not(buffer_append(&b, "6789", 4));
    cr_assert_eq(buffer_length(&b), 5);
    cr_assert(buffer_append(&b, "678", 3));
    cr_assert_not(buffer_append(&b, "9", 1));
    cr_assert_eq(memcmp(buffer_bytes(&b), "12345678", 8), 0);
    buffer_consume(&b, 2);
    cr_assert(buffer_append(&b, "9", 1), "what is consumed makes room");
    cr_assert_eq(memcmp(buffer_bytes(&b), "3456789", 7), 0);
    buffer_release(&b);
}

Test(buffer, a_size_that_overflows_is_refused)
{
    struct buffer b;

    buffer_init(&b, SIZE_MAX);
    cr_assert(buffer_append(&b, "x", 1));
    cr_assert_null(buffer_reserve(&b, SIZE_MAX));
    cr_assert_eq(buffer_length(&b), 1);
    buffer_release(&b);
}

Test(buffer, nothing_may_be_appended)
{
    struct buffer b;

    buffer_init(&b, 4);
    cr_assert(buffer_append(&b, NULL, 0));
    cr_assert_eq(buffer_length(&b), 0);
    buffer_release(&b);
}

Test(buffer, reserve_without_commit_adds_nothing)
{
    struct buffer b;
    uint8_t *at;

    buffer_init(&b, 1000);
    at = buffer_reserve(&b, 600);
    cr_assert_not_null(at);
    memset(at, 'a', 600);
    cr_assert_eq(buffer_length(&b), 0);
    buffer_commit(&b, 3);
    cr_assert_eq(buffer_length(&b), 3);
    cr_assert_eq(memcmp(buffer_bytes(&b), "aaa", 3), 0);
    buffer_release(&b);
}

Test(buffer, random_run_against_a_plain_array)
{
    static uint8_t model[4096], piece[4096];
    size_t length = 0;
    struct buffer b;
    unsigned seed = 7;

    buffer_init(&b, sizeof(model));
    for (int round = 0; round < 200000; round++) {
        size_t size = (size_t)(rand_r(&seed) % (rand_r(&seed) % 8 == 0 ? 4096 : 64));
        if (rand_r(&seed) % 2 == 0) {
            for (size_t i = 0; i < size; i++)
                piece[i] = (uint8_t)rand_r(&seed);
            bool fits = length + size <= sizeof(model);
            cr_assert_eq(buffer_append(&b, piece, size), fits);
            if (fits) {
                memcpy(model + length, piece, size);
                length += size;
            }
        } else {
            size = size > length ? length : size;
            buffer_consume(&b, size);
            memmove(model, model + size, length - size);
            length -= size;
        }
        cr_assert_eq(buffer_length(&b), length);
        cr_assert(length == 0 || memcmp(buffer_bytes(&b), model, length) == 0);
        cr_assert_leq(b.capacity, 2 * sizeof(model), "memory is bounded by the limit");
    }
    buffer_release(&b);
}

Test(buffer, a_queue_that_stays_nearly_full_does_not_move_all_its_bytes_each_time)
{
    enum { LIMIT = 1 << 20, ROUNDS = 400000 };
    static uint8_t zeroes[LIMIT];
    struct buffer b;
    const uint8_t *last = NULL;
    unsigned moves = 0;

    buffer_init(&b, LIMIT);
    cr_assert(buffer_append(&b, zeroes, LIMIT - 64));
    for (int i = 0; i < ROUNDS; i++) {
        buffer_consume(&b, 64);
        cr_assert(buffer_append(&b, zeroes, 64));
        moves += last != NULL && buffer_bytes(&b) < last;
        last = buffer_bytes(&b);
    }
    cr_assert_leq(moves, 40, "25.6 MB went through 1 MiB, %u moves", moves);
    buffer_release(&b);
}
