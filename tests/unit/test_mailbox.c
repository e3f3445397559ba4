#include "callback_pool.h"
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { LIMIT = 10000 };

static struct callback_pool *pool;

static void setup(void)
{
    cr_assert_not_null(pool = callback_pool_new(LIMIT));
}

static void teardown(void)
{
    callback_pool_free(pool);
}

TestSuite(mailbox, .init = setup, .fini = teardown, .timeout = 20);

static struct message *message_of(size_t size)
{
    static const uint8_t zeros[LIMIT * 2];
    struct message *m = message_new("c", 1, zeros, size, false, 0);
    cr_assert_not_null(m);
    return m;
}

static void post(struct mailbox *m, uint64_t number)
{
    cr_assert(mailbox_post(m, CALLBACK_MESSAGE, NULL, NULL, number, 0));
    callback_pool_dispatch(pool);
}

static void expect_next(struct mailbox *m, uint64_t number)
{
    struct callback *c = mailbox_next(m);
    cr_assert_not_null(c);
    cr_assert_eq(c->first, number);
    callback_free(c);
}

static bool is_signalled(void)
{
    struct pollfd p = {.fd = callback_pool_fd(pool), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void sleep_and_be_woken(void)
{
    uint8_t token;
    cr_assert_eq(read(callback_pool_fd(pool), &token, sizeof(token)), (ssize_t)sizeof(token));
}

Test(mailbox, callbacks_come_in_order_and_a_running_mailbox_is_not_taken_again)
{
    struct mailbox *m = mailbox_new(pool, 42);
    struct callback *c;
    post(m, 1);
    post(m, 2);
    cr_assert_eq(mailbox_length(m), 2);
    cr_assert_eq(callback_pool_take(pool, &c), m);
    cr_assert_eq(c->first, 1);
    callback_free(c);
    cr_assert_eq(mailbox_owner(m), 42);
    cr_assert_null(callback_pool_take(pool, &c), "S-27: never two of one mailbox at a time");
    post(m, 3);
    cr_assert_null(callback_pool_take(pool, &c));
    mailbox_done(m);
    cr_assert_eq(callback_pool_take(pool, &c), m);
    cr_assert_eq(c->first, 2);
    callback_free(c);
    expect_next(m, 3);
    cr_assert_null(mailbox_next(m));
    mailbox_done(m);
    mailbox_unref(m);
}

Test(mailbox, mailboxes_take_turns)
{
    struct mailbox *a = mailbox_new(pool, 0), *b = mailbox_new(pool, 0);
    struct callback *c;
    for (uint64_t i = 0; i < 3; i++) {
        post(a, i);
        post(b, 10 + i);
    }
    for (int i = 0; i < 6; i++) {
        struct mailbox *m = callback_pool_take(pool, &c);
        cr_assert_eq(m, i % 2 == 0 ? a : b);
        callback_free(c);
        mailbox_done(m);
    }
    mailbox_unref(a);
    mailbox_unref(b);
}

Test(mailbox, only_a_sleeping_thread_is_woken_and_once_for_each_mailbox)
{
    struct mailbox *m = mailbox_new(pool, 0), *other = mailbox_new(pool, 0);
    struct callback *c;
    post(m, 1);
    cr_assert_not(is_signalled(), "nobody sleeps");
    cr_assert_eq(callback_pool_take(pool, &c), m);
    callback_free(c);
    mailbox_done(m);
    cr_assert_null(callback_pool_take(pool, &c), "one thread sleeps from here on");
    post(m, 2);
    post(m, 3);
    post(other, 4);
    sleep_and_be_woken();
    cr_assert_not(is_signalled(), "one thread was asleep, one token");
    mailbox_unref(m);
    mailbox_unref(other);
}

/* A thread comes, finds nothing and sleeps. */
static void enter_and_sleep(void)
{
    struct callback *c;
    callback_pool_enter(pool);
    cr_assert_null(callback_pool_take(pool, &c));
}

Test(mailbox, while_one_thread_is_awake_no_other_is_woken)
{
    struct mailbox *m = mailbox_new(pool, 0), *other = mailbox_new(pool, 0);
    struct callback *c;
    enter_and_sleep();
    enter_and_sleep();
    mailbox_post(m, CALLBACK_MESSAGE, NULL, NULL, 1, 0);
    cr_assert_not(is_signalled(), "posting wakes nobody");
    cr_assert(callback_pool_dispatch(pool));
    sleep_and_be_woken();
    post(other, 2);
    cr_assert_not(is_signalled(), "the first one will take it");
    cr_assert_eq(callback_pool_take(pool, &c), m);
    callback_free(c);
    mailbox_done(m);
    cr_assert_eq(callback_pool_take(pool, &c), other);
    callback_free(c);
    mailbox_done(other);
    cr_assert_null(callback_pool_take(pool, &c));
    cr_assert_not(callback_pool_dispatch(pool), "nothing waits");
    post(m, 3);
    cr_assert(is_signalled(), "both sleep again");
    mailbox_unref(m);
    mailbox_unref(other);
}

Test(mailbox, a_check_wakes_another_when_the_one_awake_is_held_up)
{
    struct mailbox *m = mailbox_new(pool, 0), *other = mailbox_new(pool, 0);
    struct callback *c;
    enter_and_sleep();
    enter_and_sleep();
    post(m, 1);
    sleep_and_be_woken();
    cr_assert_eq(callback_pool_take(pool, &c), m);
    mailbox_post(other, CALLBACK_MESSAGE, NULL, NULL, 2, 0);
    cr_assert(callback_pool_dispatch(pool));
    cr_assert(callback_pool_check(pool));
    sleep_and_be_woken();
    cr_assert_not(callback_pool_check(pool), "nobody sleeps any more");
    cr_assert_not(is_signalled());
    callback_free(c);
    mailbox_done(m);
    mailbox_unref(m);
    mailbox_unref(other);
}

Test(mailbox, a_check_wakes_another_when_work_waits_for_long_though_some_is_done)
{
    struct mailbox *m = mailbox_new(pool, 0), *other = mailbox_new(pool, 0);
    struct callback *c;
    enter_and_sleep();
    enter_and_sleep();
    for (uint64_t i = 0; i <= 10; i++)
        post(m, i);
    sleep_and_be_woken();
    cr_assert_eq(callback_pool_take(pool, &c), m);
    mailbox_post(other, CALLBACK_MESSAGE, NULL, NULL, 0, 0);
    cr_assert(callback_pool_dispatch(pool));
    unsigned checks = 0;
    for (; !is_signalled(); checks++) {
        callback_free(c);
        cr_assert_not_null(c = mailbox_next(m));
        cr_assert(callback_pool_check(pool));
    }
    cr_assert_eq(checks, 6);
    callback_free(c);
    mailbox_done(m);
    mailbox_unref(m);
    mailbox_unref(other);
}

Test(mailbox, a_thread_that_ends_leaves_no_work_behind)
{
    struct mailbox *m = mailbox_new(pool, 0);
    enter_and_sleep();
    enter_and_sleep();
    post(m, 1);
    sleep_and_be_woken();
    callback_pool_leave(pool);
    cr_assert(is_signalled(), "what it was woken for is another's now");
    mailbox_unref(m);
}

Test(mailbox, an_interrupted_sleeper_takes_its_token_with_it)
{
    struct mailbox *m = mailbox_new(pool, 0);
    enter_and_sleep();
    callback_pool_rouse(pool);
    post(m, 1);
    cr_assert_not(is_signalled(), "it is awake");
    struct callback *c;
    cr_assert_eq(callback_pool_take(pool, &c), m);
    callback_free(c);
    mailbox_done(m);
    cr_assert_null(callback_pool_take(pool, &c));
    post(m, 2);
    cr_assert(is_signalled());
    callback_pool_rouse(pool);
    cr_assert_not(is_signalled(), "woken and interrupted at once");
    mailbox_unref(m);
}

Test(mailbox, wake_ends_sleepers)
{
    struct callback *c;
    cr_assert_null(callback_pool_take(pool, &c));
    cr_assert_null(callback_pool_take(pool, &c));
    callback_pool_wake(pool, 2);
    sleep_and_be_woken();
    sleep_and_be_woken();
    struct mailbox *m = mailbox_new(pool, 0);
    post(m, 1);
    cr_assert_not(is_signalled(), "both were woken already");
    mailbox_unref(m);
}

static void count_call(void *context)
{
    ++*(int *)context;
}

Test(mailbox, notify_comes_once_when_the_length_has_fallen)
{
    struct mailbox *m = mailbox_new(pool, 0);
    struct callback *c;
    int calls = 0;
    for (uint64_t i = 1; i <= 4; i++)
        post(m, i);
    mailbox_notify_below(m, 2, count_call, &calls);
    cr_assert_eq(callback_pool_take(pool, &c), m);
    callback_free(c);
    cr_assert_eq(calls, 0);
    expect_next(m, 2);
    cr_assert_eq(calls, 1);
    expect_next(m, 3);
    cr_assert_eq(calls, 1);
    mailbox_notify_below(m, 2, count_call, &calls);
    cr_assert_eq(calls, 2, "already below: at once");
    mailbox_notify_below(m, 0, count_call, &calls);
    mailbox_notify_below(m, 0, NULL, NULL);
    expect_next(m, 4);
    cr_assert_eq(calls, 2, "taken back");
    mailbox_done(m);
    mailbox_unref(m);
}

Test(mailbox, a_drained_behind_a_drained_says_nothing_new)
{
    struct mailbox *m = mailbox_new(pool, 0);
    cr_assert(mailbox_post(m, CALLBACK_DRAINED, NULL, NULL, 0, 0));
    cr_assert(mailbox_post(m, CALLBACK_DRAINED, NULL, NULL, 0, 0));
    cr_assert_eq(mailbox_length(m), 1);
    post(m, 1);
    cr_assert(mailbox_post(m, CALLBACK_DRAINED, NULL, NULL, 0, 0));
    cr_assert_eq(mailbox_length(m), 3);
    mailbox_unref(m);
}

static void deliver(struct block *b, uint64_t number, size_t size)
{
    cr_assert(
        mailbox_post(b->mailbox, CALLBACK_DELIVERY, block_ref(b), message_of(size), number, 0));
}

static void expect(struct callback *c, enum callback_kind kind, struct block *b, uint64_t first,
                   uint64_t last)
{
    cr_assert_not_null(c);
    cr_assert_eq(c->kind, kind);
    cr_assert_eq(c->block, b);
    cr_assert_eq(c->first, first);
    cr_assert_eq(c->last, last);
    callback_free(c);
}

Test(mailbox, a_block_over_its_limit_loses_its_oldest_and_is_told_how_many)
{
    struct mailbox *m = mailbox_new(pool, 0);
    struct block *slow = block_new(m, 1), *other = block_new(m, 2);
    struct callback *c;
    deliver(other, 100, 10);
    deliver(slow, 1, LIMIT / 3);
    deliver(other, 101, 10);
    deliver(slow, 2, LIMIT / 3);
    deliver(slow, 3, LIMIT / 3);
    deliver(other, 102, 10);
    deliver(slow, 4, LIMIT / 3);
    cr_assert_eq(callback_pool_dropped(pool), 2);
    cr_assert_eq(callback_pool_take(pool, &c), m);
    expect(c, CALLBACK_DELIVERY, other, 100, 0);
    expect(mailbox_next(m), CALLBACK_DROPPED, slow, 1, 2);
    expect(mailbox_next(m), CALLBACK_DELIVERY, other, 101, 0);
    expect(mailbox_next(m), CALLBACK_DELIVERY, slow, 3, 0);
    deliver(slow, 5, LIMIT / 3);
    deliver(slow, 6, LIMIT / 3);
    expect(mailbox_next(m), CALLBACK_DELIVERY, other, 102, 0);
    expect(mailbox_next(m), CALLBACK_DROPPED, slow, 1, 1);
    expect(mailbox_next(m), CALLBACK_DELIVERY, slow, 5, 0);
    expect(mailbox_next(m), CALLBACK_DELIVERY, slow, 6, 0);
    cr_assert_null(mailbox_next(m));
    cr_assert_eq(slow->waiting, 0);
    mailbox_done(m);
    block_unref(slow);
    block_unref(other);
    mailbox_unref(m);
}

Test(mailbox, a_message_larger_than_the_limit_still_gets_through_alone)
{
    struct mailbox *m = mailbox_new(pool, 0);
    struct block *b = block_new(m, 1);
    struct callback *c;
    deliver(b, 1, 10);
    deliver(b, 2, LIMIT + 10);
    cr_assert_eq(callback_pool_take(pool, &c), m);
    expect(c, CALLBACK_DROPPED, b, 1, 1);
    expect(mailbox_next(m), CALLBACK_DELIVERY, b, 2, 0);
    mailbox_done(m);
    block_unref(b);
    mailbox_unref(m);
}

Test(mailbox, empty_deliveries_are_not_free)
{
    struct mailbox *m = mailbox_new(pool, 0);
    struct block *b = block_new(m, 1);
    for (uint64_t i = 0; i < LIMIT; i++)
        deliver(b, i, 0);
    cr_assert_lt(mailbox_length(m), LIMIT / 50);
    block_unref(b);
    mailbox_unref(m);
}

Test(mailbox, a_cancelled_block_says_so)
{
    struct mailbox *m = mailbox_new(pool, 0);
    struct block *b = block_new(m, 7);
    cr_assert_not(block_is_cancelled(b));
    block_cancel(b);
    cr_assert(block_is_cancelled(b));
    block_unref(b);
    mailbox_unref(m);
}

Test(mailbox, outlives_its_pool_and_then_refuses)
{
    struct callback_pool *own = callback_pool_new(LIMIT);
    struct mailbox *m = mailbox_new(own, 0);
    struct block *b = block_new(m, 1);
    deliver(b, 1, 10);
    callback_pool_free(own);
    cr_assert_not(mailbox_post(m, CALLBACK_DELIVERY, block_ref(b), message_of(10), 2, 0));
    cr_assert_eq(mailbox_length(m), 0);
    block_unref(b);
    mailbox_unref(m);
}

enum { POSTERS = 3, RUNNERS = 3, EACH = 20000 };

struct order {
    struct mailbox *mailbox;
    uint64_t seen[POSTERS]; /* number of the last callback run, by poster */
    uint64_t running;       /* atomic */
    uint64_t total;         /* atomic */
};

struct poster {
    struct order *order;
    uint64_t index;
};

static void *post_many(void *argument)
{
    struct poster *p = argument;
    for (uint64_t i = 1; i <= EACH; i++) {
        mailbox_post(p->order->mailbox, CALLBACK_MESSAGE, NULL, NULL, p->index, i);
        callback_pool_dispatch(pool);
    }
    return NULL;
}

static void run_one(struct order *order, struct callback *c)
{
    cr_assert_eq(__atomic_add_fetch(&order->running, 1, __ATOMIC_SEQ_CST), 1);
    cr_assert_eq(c->last, order->seen[c->first] + 1);
    order->seen[c->first] = c->last;
    __atomic_sub_fetch(&order->running, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&order->total, 1, __ATOMIC_SEQ_CST);
    callback_free(c);
}

static void *run_many(void *argument)
{
    struct order *order = argument;
    while (__atomic_load_n(&order->total, __ATOMIC_SEQ_CST) < POSTERS * EACH) {
        struct callback *c;
        struct mailbox *m = callback_pool_take(pool, &c);
        if (m == NULL) {
            uint8_t token;
            cr_assert_gt(read(callback_pool_fd(pool), &token, sizeof(token)), 0);
            continue;
        }
        run_one(order, c);
        if ((c = mailbox_next(m)) != NULL)
            run_one(order, c);
        mailbox_done(m);
    }
    callback_pool_wake(pool, RUNNERS);
    return NULL;
}

Test(mailbox, threads_keep_the_order_and_nobody_oversleeps)
{
    struct order order = {.mailbox = mailbox_new(pool, 0)};
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS + RUNNERS];
    for (unsigned i = 0; i < RUNNERS; i++)
        pthread_create(&threads[i], NULL, run_many, &order);
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){&order, i};
        pthread_create(&threads[RUNNERS + i], NULL, post_many, &posters[i]);
    }
    for (unsigned i = 0; i < POSTERS + RUNNERS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(order.total, POSTERS * EACH);
    mailbox_unref(order.mailbox);
}
