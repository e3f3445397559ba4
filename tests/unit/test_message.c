#include "message.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

Test(message, holds_copies)
{
    char channel[] = "news", payload[] = "hello";
    struct message *m = message_new(channel, 4, payload, 5, true, 42);

    cr_assert_not_null(m);
    memset(channel, 0, 4);
    memset(payload, 0, 5);
    cr_assert_eq(m->channel_length, 4);
    cr_assert_eq(m->payload_length, 5);
    cr_assert_eq(m->id, 42);
    cr_assert(m->binary);
    cr_assert_eq(memcmp(message_channel(m), "news", 4), 0);
    cr_assert_eq(memcmp(message_payload(m), "hello", 5), 0);
    message_unref(m);
}

Test(message, may_be_empty)
{
    struct message *m = message_new(NULL, 0, NULL, 0, false, 0);

    cr_assert_not_null(m);
    cr_assert_eq(m->channel_length, 0);
    cr_assert_eq(m->payload_length, 0);
    message_unref(m);
}

Test(message, lengths_that_do_not_fit_are_refused)
{
    cr_assert_null(message_new("", 65536, "", 0, false, 0));
    cr_assert_null(message_new("", 0, "", (size_t)1 << 32, false, 0));
    cr_assert_null(message_new("", 0, "", SIZE_MAX, false, 0));
}

Test(message, unref_of_null_is_nothing)
{
    message_unref(NULL);
}

static void *take_and_drop(void *context)
{
    struct message *m = context;

    for (int i = 0; i < 100000; i++)
        message_unref(message_ref(m));
    message_unref(m);
    return NULL;
}

Test(message, references_may_be_dropped_on_any_thread)
{
    struct message *m = message_new("c", 1, "p", 1, false, 1);
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_drop, message_ref(m)), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(__atomic_load_n(&m->references, __ATOMIC_SEQ_CST), 1);
    message_unref(m);
}
