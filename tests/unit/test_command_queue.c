#include "command_queue.h"
#include "frame.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { PAYLOAD_MAX = 200 * 1000, MANY = 20000 };

static struct command_queue queue;
static uint8_t payload[PAYLOAD_MAX];

static void setup(void)
{
    queue = (struct command_queue){0};
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(i * 7);
}

static void teardown(void)
{
    command_queue_release(&queue);
}

TestSuite(command_queue, .init = setup, .fini = teardown, .timeout = 60);

static size_t length_of(uint64_t number)
{
    return number % 997 == 0 ? PAYLOAD_MAX - number % 1000 : number * 31 % 600;
}

static void add(uint64_t number)
{
    char name[16];
    int length = snprintf(name, sizeof(name), "%llu", (unsigned long long)number);
    const struct command command = {.kind = COMMAND_PUBLISH,
                                    .number = number,
                                    .name_length = (uint32_t)length,
                                    .payload_length = (uint32_t)length_of(number)};
    if (!command_is_large(&command)) {
        cr_assert(command_queue_add(&queue, &command, name, payload));
        return;
    }
    struct command_block *own = command_block_new(&command, name, payload);
    cr_assert_not_null(own);
    memset(name, '?', sizeof(name)); /* it has its copy */
    command_queue_link(&queue, own);
}

static void expect(const struct command *command, uint64_t number)
{
    char name[16];
    int length = snprintf(name, sizeof(name), "%llu", (unsigned long long)number);
    cr_assert_eq(command->number, number);
    cr_assert_eq(command->kind, COMMAND_PUBLISH);
    cr_assert_eq((uintptr_t)command % _Alignof(struct command), 0);
    cr_assert_eq(command->name_length, (uint32_t)length);
    cr_assert_eq(memcmp(command->bytes, name, (size_t)length), 0);
    cr_assert_eq(command->payload_length, length_of(number));
    cr_assert_eq(memcmp(command->bytes + length, payload, command->payload_length), 0);
}

/* Takes all; returns the number behind the last. */
static uint64_t take_all(uint64_t next)
{
    struct command_block *chain = command_queue_take(&queue);
    for (struct command_block *b = chain; b != NULL; b = command_block_following(b)) {
        size_t at = 0;
        for (struct command *c; (c = command_block_next(b, &at)) != NULL;)
            expect(c, next++);
    }
    command_queue_give_back(&queue, chain);
    return next;
}

Test(command_queue, small_and_large_ones_come_whole_and_in_the_order_in_which_they_were_added)
{
    for (uint64_t n = 0; n < MANY; n++)
        add(n);
    cr_assert_eq(take_all(0), MANY);
    cr_assert(command_queue_is_empty(&queue));
    cr_assert_eq(queue.bytes, 0);
}

Test(command_queue, what_is_added_while_others_are_walked_comes_with_the_next)
{
    uint64_t added = 0, taken = 0;
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < round % 50; i++)
            add(added++);
        struct command_block *chain = command_queue_take(&queue);
        for (int i = 0; i < 7; i++)
            add(added++);
        for (struct command_block *b = chain; b != NULL; b = command_block_following(b)) {
            size_t at = 0;
            for (struct command *c; (c = command_block_next(b, &at)) != NULL;)
                expect(c, taken++);
        }
        command_queue_give_back(&queue, chain);
    }
    cr_assert_eq(take_all(taken), added);
}

Test(command_queue, few_blocks_stay_when_a_burst_is_over_and_are_used_again)
{
    for (uint64_t n = 0; n < MANY; n++)
        add(n);
    take_all(0);
    unsigned kept = queue.spares;
    cr_assert(kept > 0 && kept <= 8, "%u blocks", kept);
    const struct command small = {.kind = COMMAND_RESUME};
    for (int i = 0; i < 1000; i++) {
        cr_assert(command_queue_add(&queue, &small, NULL, NULL));
        cr_assert_eq(queue.spares, kept - 1, "turn %d", i);
        command_queue_give_back(&queue, command_queue_take(&queue));
    }
    cr_assert_eq(queue.spares, kept);
}

Test(command_queue, frames_count_as_what_it_holds)
{
    struct frame *frame = frame_binary(payload, 50000);
    const struct command command = {.kind = COMMAND_WRITE, .frame = frame};
    cr_assert(command_queue_add(&queue, &command, NULL, NULL));
    cr_assert_eq(queue.bytes, sizeof(command) + frame->length);
    add(997);
    cr_assert_gt(queue.bytes, sizeof(command) + frame->length + length_of(997));
    command_queue_give_back(&queue, command_queue_take(&queue));
    frame_unref(frame);
}
