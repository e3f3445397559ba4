#ifndef TESTS_SUBSCRIPTIONS_FIXTURE_H
#define TESTS_SUBSCRIPTIONS_FIXTURE_H

/*
 * A table of subscriptions with a seed that is known, and what asks it.
 */
#include "subscriptions.h"
#include <criterion/criterion.h>
#include <string.h>

static const uint8_t seed[16] = "0123456789abcde";

static inline struct subscription *subscribe(struct subscriptions *table, const char *name,
                                             bool is_pattern, struct subscriber *subscriber,
                                             void *context)
{
    struct subscription *result;
    bool created;
    enum status status = subscriptions_subscribe(table, name, strlen(name), is_pattern, subscriber,
                                                 context, &result, &created);

    cr_assert_eq(status, STATUS_OK, "%s: %s", name, status_text(status));
    cr_assert(created, "%s", name);
    return result;
}

static inline struct subscriptions_ahead ahead_of(const void *channel, size_t length)
{
    return (struct subscriptions_ahead){.channel = channel, .length = length};
}

#endif
