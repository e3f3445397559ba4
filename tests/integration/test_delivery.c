/* The journal and its rules (delivery.md 1 to 16), over restarts, kills and tiny rings. */
#include "harness.h"
#include <sys/epoll.h>

static struct broker b;

TestSuite(delivery, .timeout = 120);

static void publish_many(struct peer *p, uint64_t origin, uint64_t first, unsigned count,
                         const char *channel, size_t size)
{
    char payload[4096] = "";
    struct body body = {0};
    for (unsigned i = 0; i < count; i++) {
        snprintf(payload, sizeof(payload), "%llu", (unsigned long long)(first + i));
        body_publish(&body, origin, first + i, channel, payload, size);
    }
    cr_assert_eq(peer_ask(p, WIRE_SUBMIT, 0, 0, 0, &body).reply.status, STATUS_OK);
    body_reset(&body);
}

/* Fetches until the position reaches `until`; checks that ids only grow and that holes are told.
 * The number of messages; *told: ids in GAPs. */
static uint64_t collect(struct peer *p, uint64_t session, uint64_t position, uint64_t until,
                        uint64_t *told)
{
    uint64_t count = 0, last = position;
    *told = 0;
    while (last < until) {
        struct answer a = peer_ask(p, WIRE_FETCH, 0, session, 0, NULL);
        cr_assert_eq(a.reply.status, STATUS_OK);
        struct wire_record record;
        while (answer_record(&a, &record)) {
            uint64_t first = record.type == WIRE_GAP ? record.sequence : record.id;
            cr_assert_eq(first, last + 1, "ids %llu to %llu vanished", (unsigned long long)last + 1,
                         (unsigned long long)first - 1);
            cr_assert_eq(record.checksum, wire_record_checksum(record.channel - WIRE_RECORD_SIZE));
            if (record.type == WIRE_GAP)
                *told += record.id - record.sequence + 1;
            else
                count++;
            last = record.id;
        }
        cr_assert_eq(a.reply.value, last);
    }
    return count;
}

Test(delivery, rule_5_duplicates_are_only_answered_and_holes_refused)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b);
    peer_join(&p, 9, "x");
    cr_assert_eq(peer_publish(&p, 9, 7, 10, "x", "any sequence begins").reply.value, 1);
    cr_assert_eq(peer_publish(&p, 9, 7, 11, "x", "next").reply.value, 2);
    struct answer a = peer_publish(&p, 9, 7, 11, "x", "again");
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.value, 2);
    cr_assert_eq(a.reply.head, 2, "a duplicate was taken");
    a = peer_publish(&p, 9, 7, 13, "x", "hole");
    cr_assert_eq(a.reply.status, STATUS_OUT_OF_ORDER);
    cr_assert_eq(a.reply.value, 11, "the highest known");
    cr_assert_eq(a.reply.head, 2);
    /* a SUBMIT that overlaps is taken from the first new one on */
    struct body body = {0};
    for (uint64_t i = 10; i <= 13; i++)
        body_publish(&body, 7, i, "x", "o", 1);
    a = peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &body);
    cr_assert_eq(a.reply.value, 4);
    uint64_t told;
    cr_assert_eq(collect(&p, 9, 0, 4, &told), 4);
    broker_end(&b);
}

Test(delivery, rule_5_one_shot_submits_are_deduplicated_too)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b);
    peer_publish(&p, 0, 7, 1, "x", "y");
    cr_assert_eq(peer_publish(&p, 0, 7, 1, "x", "y").reply.head, 1);
    broker_end(&b);
}

static void wait_readable(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&readable, 1, DEADLINE_MS), 1);
}

/* Does the publisher have its answer before the subscriber has the batch? epoll tells who became
 * readable first. */
static bool answer_is_first(uint16_t flags)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer publisher = peer_open(&b), subscriber = peer_open(&b);
    struct body body = {0};
    struct epoll_event events[2];
    int ready = epoll_create1(EPOLL_CLOEXEC);
    peer_join(&publisher, 8, NULL);
    peer_join(&subscriber, 9, "x");
    peer_request(&subscriber, WIRE_FETCH, 0, 9, 0, NULL);
    peer_ask(&subscriber, WIRE_QUERY, WIRE_PING, 0, 0, NULL); /* the FETCH is parked */
    for (int i = 0; i < 2; i++) {
        int fd = i == 0 ? publisher.fd : subscriber.fd;
        struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fd};
        cr_assert_eq(epoll_ctl(ready, EPOLL_CTL_ADD, fd, &wanted), 0);
    }
    body_publish(&body, 7, 1, "x", "y", 1);
    peer_request(&publisher, WIRE_SUBMIT, flags, 8, 0, &body);
    wait_readable(publisher.fd);
    wait_readable(subscriber.fd);
    cr_assert_eq(epoll_wait(ready, events, 2, 0), 2);
    close(ready);
    body_reset(&body);
    broker_end(&b);
    return events[0].data.fd == publisher.fd;
}

Test(delivery, an_answer_that_is_waited_for_goes_out_before_the_batches)
{
    cr_assert_not(answer_is_first(0));
    cr_assert(answer_is_first(WIRE_ANSWER_FIRST));
}

/* So many sessions' origins that the table forgets the one that was quiet. */
static void crowd_out(struct peer *p, uint64_t session)
{
    enum { TABLE = 65536, AT_ONCE = 256 };
    uint32_t ids[AT_ONCE];
    for (unsigned i = 0; i <= TABLE; i += AT_ONCE) {
        for (unsigned k = 0; k < AT_ONCE; k++) {
            struct body body = {0};
            body_publish(&body, 1000 + i + k, 1, "y", "", 0);
            ids[k] = peer_request(p, WIRE_SUBMIT, 0, session, 0, &body);
            body_reset(&body);
        }
        for (unsigned k = 0; k < AT_ONCE; k++)
            cr_assert_eq(peer_answer(p, ids[k]).reply.status, STATUS_OK);
    }
}

Test(delivery, rules_5_and_16_a_session_repeats_a_submit_after_its_origin_was_forgotten)
{
    broker_start(&b, (const char *[]){"--no-journal", "--journal-size", "64K", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_attach(&p, &(struct attaching){.session = 9, .generation = 1, .origin = 7}, NULL);
    peer_join(&other, 8, NULL);
    peer_publish(&p, 9, 7, 1, "x", "once");
    crowd_out(&other, 8);
    uint64_t head = peer_ask(&p, WIRE_QUERY, WIRE_PING, 0, 0, NULL).reply.head;
    struct answer a = peer_publish(&p, 9, 7, 1, "x", "once");
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.head, head, "a duplicate was taken");
    cr_assert_eq(a.reply.value, 1);
    crowd_out(&other, 8);
    a = peer_attach(&p,
                    &(struct attaching){.session = 9,
                                        .generation = 2,
                                        .epoch = p.epoch,
                                        .position = head,
                                        .origin = 7,
                                        .unanswered = 1},
                    NULL);
    cr_assert_eq(a.reply.flags, 0, "what the session knows is not unsure");
    cr_assert_eq(a.reply.value, 1);
    broker_end(&b);
}

Test(delivery, rule_4_record_over_a_quarter_of_the_ring_is_refused)
{
    broker_start(&b, (const char *[]){"--no-journal", "--journal-size", "256K", NULL});
    struct peer p = peer_open(&b);
    struct answer a = peer_join(&p, 9, "x");
    struct wire_attach_reply block;
    size_t used;
    cr_assert_eq(wire_attach_reply_decode(a.bytes, a.length, &block, &used), STATUS_OK);
    cr_assert_eq(block.record_max, 64u << 10);
    static char payload[65536];
    struct body body = {0};
    body_publish(&body, 7, 1, "x", payload, 65536 - 41);
    cr_assert_eq(peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &body).reply.status, STATUS_OK);
    body_reset(&body);
    body_publish(&body, 7, 2, "x", payload, 65536 - 40);
    cr_assert_eq(peer_ask(&p, WIRE_SUBMIT, 0, 9, 0, &body).reply.status, STATUS_TOO_LARGE);
    broker_end(&b);
}

Test(delivery, rules_12_and_13_a_session_that_lags_is_told_a_gap_and_goes_on)
{
    broker_start(&b, (const char *[]){"--no-journal", "--journal-size", "64K", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    uint64_t sequence = 1, told, sum = 0;
    for (int round = 0; round < 50; round++) { /* wraps many times, at every offset */
        publish_many(&other, 7, sequence, 500, "x", (size_t)(100 + round));
        sequence += 500;
        sum += collect(&p, 9, sequence - 501, sequence - 1, &told);
        sum += told;
        cr_assert_gt(told, 0);
    }
    cr_assert_eq(sum, sequence - 1);
    broker_end(&b);
}

Test(delivery, journal_wraps_without_loss_for_a_session_that_keeps_up)
{
    broker_start(&b, (const char *[]){"--no-journal", "--journal-size", "64K", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    uint64_t told;
    for (unsigned i = 0; i < 3000; i++) {
        publish_many(&other, 7, 1 + 20 * i, 20, "x", i % 1200);
        cr_assert_eq(collect(&p, 9, 20 * i, 20 * (i + 1), &told), 20);
    }
    broker_end(&b);
}

Test(delivery, rule_12_attach_again_resumes_behind_the_position)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    struct answer a = peer_join(&p, 9, "x");
    uint64_t epoch = a.reply.epoch, told;
    peer_close(&p);
    publish_many(&other, 7, 1, 10000, "x", 10);
    p = peer_open(&b);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false);
    struct attaching attach = {.session = 9, .generation = 2, .epoch = epoch, .position = 400};
    a = peer_attach(&p, &attach, &list);
    cr_assert_eq(a.reply.status, STATUS_OK);
    cr_assert_eq(a.reply.flags, 0);
    cr_assert_eq(collect(&p, 9, 400, 10000, &told), 9600);
    publish_many(&other, 7, 10001, 5, "x", 10);
    cr_assert_eq(collect(&p, 9, 10000, 10005, &told), 5);
    broker_end(&b);
}

Test(delivery, rule_12_another_epoch_or_a_position_above_head_is_flagged)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b);
    peer_publish(&p, 0, 7, 1, "x", "y");
    struct attaching attach = {.session = 9, .generation = 1, .epoch = p.epoch + 1, .position = 1};
    cr_assert_eq(peer_attach(&p, &attach, NULL).reply.flags, WIRE_NEW_EPOCH);
    attach = (struct attaching){.session = 9, .generation = 2, .epoch = p.epoch, .position = 2};
    cr_assert_eq(peer_attach(&p, &attach, NULL).reply.flags, WIRE_NEW_EPOCH);
    attach = (struct attaching){.session = 9, .generation = 3, .epoch = p.epoch, .position = 1};
    cr_assert_eq(peer_attach(&p, &attach, NULL).reply.flags, 0);
    broker_end(&b);
}

Test(delivery, rule_8_unsure_when_origin_and_ring_are_gone)
{
    broker_start(&b, (const char *[]){"--no-journal", "--journal-size", "64K", NULL});
    struct peer p = peer_open(&b);
    publish_many(&p, 7, 1, 2000, "x", 100);
    struct attaching attach = {.session = 9,
                               .generation = 1,
                               .epoch = p.epoch,
                               .position = 2000,
                               .origin = 55,
                               .unanswered = 3};
    struct answer a = peer_attach(&p, &attach, NULL);
    cr_assert_eq(a.reply.flags, WIRE_UNSURE);
    attach.generation++;
    attach.unanswered = 1999;
    cr_assert_eq(peer_attach(&p, &attach, NULL).reply.flags, 0);
    attach.generation++;
    attach.origin = 7; /* known: its fate is certain */
    attach.unanswered = 3;
    a = peer_attach(&p, &attach, NULL);
    cr_assert_eq(a.reply.flags, 0);
    cr_assert_eq(a.reply.value, 2000);
    broker_end(&b);
}

Test(delivery, rule_16_simple_fetch_sends_what_is_above_its_position_each_time)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false);
    struct attaching attach = {.session = 9, .generation = 1, .flags = WIRE_SIMPLE};
    peer_attach(&p, &attach, &list);
    publish_many(&other, 7, 1, 5, "x", 10);
    for (int i = 0; i < 3; i++) {
        struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
        cr_assert_eq(a.reply.records, 5);
        cr_assert_eq(a.reply.value, 5);
    }
    struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 2, NULL);
    cr_assert_eq(a.reply.records, 3);
    /* a FETCH that is given up and asked again under another id leaves no credit behind */
    peer_request(&p, WIRE_FETCH, 0, 9, 5, NULL);
    uint32_t second = peer_request(&p, WIRE_FETCH, 0, 9, 5, NULL);
    publish_many(&other, 7, 6, 1, "x", 10);
    a = peer_answer(&p, second);
    cr_assert_eq(a.reply.records, 1);
    broker_end(&b);
}

Test(delivery, rules_2_and_3_sigkill_keeps_everything_that_was_answered_P4)
{
    broker_start(&b, NULL);
    struct peer p = peer_open(&b);
    struct answer a = peer_join(&p, 9, "x");
    uint64_t epoch = a.reply.epoch, sequence = 1, told;
    for (int kills = 0; kills < 5; kills++) {
        publish_many(&p, 7, sequence, 3000, "x", 100);
        sequence += 3000;
        broker_signal(&b, SIGKILL);
        peer_close(&p);
        broker_run(&b);
        p = peer_open(&b);
        cr_assert_eq(peer_publish(&p, 0, 7, sequence - 1, "x", "again").reply.head, sequence - 1,
                     "the origin's sequence was forgotten");
        cr_assert_eq(p.epoch, epoch);
    }
    struct body list = {0};
    body_name(&list, WIRE_SUBSCRIBE, "x", false);
    struct attaching attach = {.session = 9, .generation = 2, .epoch = epoch, .position = 0};
    cr_assert_eq(peer_attach(&p, &attach, &list).reply.flags, 0);
    cr_assert_eq(collect(&p, 9, 0, 15000, &told), 15000);
    broker_log_has(&b, "took over the journal");
    broker_end(&b);
}

Test(delivery, rule_2_a_wrapped_journal_is_recovered)
{
    broker_start(&b, (const char *[]){"--journal-size", "64K", NULL});
    struct peer p = peer_open(&b);
    uint64_t sequence = 1, told;
    for (int i = 0; i < 40; i++) {
        publish_many(&p, 7, sequence, 97, "x", (size_t)(30 + 7 * i));
        sequence += 97;
        uint64_t epoch = p.epoch;
        broker_signal(&b, i % 2 == 0 ? SIGKILL : SIGTERM);
        peer_close(&p);
        broker_run(&b);
        p = peer_open(&b);
        struct body list = {0};
        body_name(&list, WIRE_SUBSCRIBE, "x", false);
        struct attaching attach = {.session = 9, .generation = 2, .epoch = epoch, .position = 0};
        struct answer a = peer_attach(&p, &attach, &list);
        cr_assert_eq(a.reply.flags, 0);
        cr_assert_eq(a.reply.head, sequence - 1);
        cr_assert_eq(collect(&p, 9, 0, sequence - 1, &told) + told, sequence - 1);
    }
    broker_end(&b);
}

static void damage(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    cr_assert(pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    cr_assert(pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

Test(delivery, rule_2_a_damaged_journal_is_moved_aside_and_a_new_epoch_begins)
{
    broker_start(&b, NULL);
    struct peer p = peer_open(&b);
    peer_publish(&p, 0, 7, 5, "x", "abc");
    uint64_t epoch = p.epoch;
    broker_signal(&b, SIGKILL);
    peer_close(&p);
    char journal[128];
    snprintf(journal, sizeof(journal), "%s.journal", b.path);
    damage(journal, 4096 + WIRE_RECORD_SIZE + 2);
    broker_run(&b);
    broker_log_has(&b, "cannot be used: a record with a wrong checksum");
    p = peer_open(&b);
    struct answer a = peer_publish(&p, 0, 7, 1, "x", "the origin is unknown again");
    cr_assert_neq(p.epoch, epoch);
    cr_assert_eq(a.reply.value, 1, "ids start at 1");
    strcat(journal, ".aside-1");
    cr_assert(access(journal, F_OK) == 0);
    broker_end(&b);
}

Test(delivery, rule_2_a_foreign_file_is_moved_aside)
{
    broker_prepare(&b, NULL);
    char journal[128];
    snprintf(journal, sizeof(journal), "%s.journal", b.path);
    int fd = open(journal, O_WRONLY | O_CREAT, 0600);
    cr_assert(write(fd, "precious", 8) == 8);
    close(fd);
    broker_run(&b);
    broker_log_has(&b, "it is now");
    strcat(journal, ".aside-1");
    cr_assert(access(journal, F_OK) == 0);
    broker_end(&b);
}

Test(delivery, rule_1_journal_is_private_and_belongs_to_one_broker)
{
    broker_start(&b, NULL);
    char journal[128];
    snprintf(journal, sizeof(journal), "%s.journal", b.path);
    struct stat file;
    cr_assert(stat(journal, &file) == 0);
    cr_assert_eq(file.st_mode & 0777, 0600);
    cr_assert_geq(file.st_blocks * 512, 64 << 20, "allocated in full");
    struct broker second;
    int status;
    broker_prepare(&second, (const char *[]){"--journal", journal, NULL});
    cr_assert(!broker_try(&second, &status));
    cr_assert_eq(WEXITSTATUS(status), 1);
    broker_log_has(&second, "belongs to another broker");
    broker_end(&second);
    broker_end(&b);
}

Test(delivery, rule_13_many_scattered_messages_overflow_the_queue_and_lose_nothing)
{
    broker_start(&b, (const char *[]){"--no-journal", NULL});
    struct peer p = peer_open(&b), other = peer_open(&b);
    peer_join(&p, 9, "x");
    struct body body = {0};
    for (uint64_t i = 1; i <= 20000; i++) /* every second one: no two are neighbours */
        body_publish(&body, 7, i, i % 2 == 0 ? "x" : "other", "y", 1);
    cr_assert_eq(peer_ask(&other, WIRE_SUBMIT, 0, 0, 0, &body).reply.value, 20000);
    uint64_t last = 0, count = 0;
    while (last < 20000) {
        struct answer a = peer_ask(&p, WIRE_FETCH, 0, 9, 0, NULL);
        struct wire_record record;
        while (answer_record(&a, &record)) {
            cr_assert_eq(record.id, last + 2);
            last = record.id;
            count++;
        }
    }
    cr_assert_eq(count, 10000);
    struct answer a = peer_ask(&p, WIRE_QUERY, WIRE_STATS, 0, 0, NULL);
    cr_assert(memmem(a.bytes, a.length, "\noverflows\t0\n", 13) == NULL,
              "the queue never overflowed");
    broker_end(&b);
}

Test(delivery, rule_15_a_session_that_does_not_read_pins_nothing_and_hurts_nobody)
{
    broker_start(&b, (const char *[]){"--no-journal", "--journal-size", "4M", NULL});
    struct peer lazy = peer_open(&b), good = peer_open(&b), other = peer_open(&b);
    peer_join(&lazy, 8, "x");
    peer_join(&good, 9, "x");
    for (int i = 0; i < 8; i++)
        peer_request(&lazy, WIRE_FETCH, 0, 8, 0, NULL);
    uint64_t told;
    for (unsigned i = 0; i < 200; i++) {
        publish_many(&other, 7, 1 + 100 * i, 100, "x", 1000);
        cr_assert_eq(collect(&good, 9, 100 * i, 100 * (i + 1), &told), 100);
    }
    /* what it reads at last is whole, in order, and its holes are told */
    uint64_t last = 0, gaps = 0;
    for (int parked = 8; last < 20000; parked--) {
        struct answer a;
        if (parked == 0)
            parked++, peer_request(&lazy, WIRE_FETCH, 0, 8, 0, NULL);
        cr_assert(peer_next(&lazy, &a));
        struct wire_record record;
        while (answer_record(&a, &record)) {
            cr_assert_eq(record.type == WIRE_GAP ? record.sequence : record.id, last + 1);
            gaps += record.type == WIRE_GAP;
            last = record.id;
        }
    }
    cr_assert_geq(gaps, 1);
    broker_end(&b);
}
