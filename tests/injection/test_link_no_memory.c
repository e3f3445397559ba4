/* Each allocation of the adapter's link, hub and mailboxes fails, one after the other, alone and
 * with all that follow: a connection or a delivery may be lost and is told, the rest goes on; and
 * when there is memory again the link attaches and delivers. */
#include "no_memory.h"

#include "../unit/link_fixture.h"

TestSuite(link_no_memory, .init = no_memory_of_libevent, .timeout = 250);

static unsigned turns;

static void on_turn_limit(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what, (void)context;
    turns++;
}

/* Answers whatever the link asks, as a broker does, for some turns of the loop. */
static void serve(unsigned milliseconds, bool *delivered)
{
    struct timeval limit = {.tv_sec = milliseconds / 1000,
                            .tv_usec = (suseconds_t)(milliseconds % 1000) * 1000};
    long after = no_memory_pause();
    struct event *timer = evtimer_new(f.io.base, on_turn_limit, NULL);
    bool greeted = false;
    unsigned last = f.connections;
    event_add(timer, &limit);
    no_memory_resume(after);
    link_tick(f.io.link); /* the I/O thread's, once a second */
    for (turns = 0; turns == 0;) {
        link_flush(f.io.link);
        one_turn();
        if (f.connections != last) {
            last = f.connections;
            greeted = false;
        }
        if (f.fd >= 0 && !f.closed && !greeted && buffer_length(&f.in) >= SP_HELLO_SIZE) {
            buffer_consume(&f.in, SP_HELLO_SIZE);
            (void)!send(f.fd, "\0SP\0\0\x31\0\0", 8, MSG_NOSIGNAL);
            greeted = true;
        }
        while (f.fd >= 0 && !f.closed && greeted && has_message()) {
            const uint8_t *bytes = buffer_bytes(&f.in);
            size_t size = 9 + (size_t)get_u64be(bytes + 1);
            struct wire_request request;
            uint8_t out[512];
            struct wire_reply reply = {.version = WIRE_VERSION, .epoch = f.epoch, .head = f.head};
            size_t body = 0;
            cr_assert_eq(wire_request_decode(bytes + 13, size - 13, &request), STATUS_OK);
            reply.operation = request.operation;
            if (request.operation == WIRE_ATTACH) {
                wire_attach_reply_encode(out + 45,
                                         &(struct wire_attach_reply){.record_max = 1 << 20});
                body = WIRE_ATTACH_REPLY_SIZE;
            } else if (request.operation == WIRE_FETCH) {
                struct wire_record r = {.type = WIRE_MESSAGE,
                                        .id = ++f.head,
                                        .channel = (const uint8_t *)"a.b",
                                        .channel_length = 3,
                                        .payload = (const uint8_t *)"hello",
                                        .payload_length = 5};
                if (f.head > 6) { /* enough: the credit stays */
                    f.head--;
                    buffer_consume(&f.in, size);
                    continue;
                }
                reply.records = 1;
                reply.value = reply.head = f.head;
                wire_record_encode(out + 45, &r);
                body = wire_record_size(3, 5);
            }
            out[0] = 1;
            put_u64be(out + 1, 36 + body);
            memcpy(out + 9, bytes + 9, 4);
            wire_reply_encode(out + 13, &reply);
            (void)!send(f.fd, out, 45 + body, MSG_NOSIGNAL);
            buffer_consume(&f.in, size);
        }
        enum callback_kind kind;
        char text[200];
        while (next_callback(&kind, text))
            if (delivered != NULL && kind == CALLBACK_DELIVERY && strcmp(text, "hello") == 0)
                *delivered = true;
        if (delivered != NULL && *delivered && link_unanswered(f.io.link) == 0)
            break;
    }
    event_free(timer);
}

static struct block *try_subscribe(const char *name, bool is_pattern)
{
    struct mailbox *mailbox = mailbox_new(f.io.callbacks, 0);
    struct block *block = mailbox != NULL ? block_new(mailbox, 0) : NULL;
    if (mailbox != NULL)
        mailbox_unref(mailbox);
    if (block != NULL)
        hub_subscribe_block(f.io.hub, block, name, strlen(name), is_pattern);
    return block;
}

static void leave(struct block *block)
{
    if (block == NULL)
        return;
    hub_unsubscribe_block(f.io.hub, block);
    block_unref(block);
}

static bool run_once(long n, bool stays)
{
    fixture_open(NULL);
    buffer_reserve(&f.in, 1 << 16); /* the broker's part of the test must not fail */
    no_memory_begin(n, stays);
    link_start(f.io.link);
    struct block *blocks[] = {try_subscribe("a.b", false), try_subscribe("a.*", true)};
    publish("up", "one");
    serve(15, NULL);
    publish("up", "two");
    leave(blocks[1]);
    serve(5, NULL);
    bool failed = no_memory_end();

    leave(blocks[0]);
    struct block *block = subscribe_to("a.b");
    publish("up", "three");
    f.head = 0;
    f.epoch++; /* what was taken meanwhile is of no interest */
    broker_hang_up();
    bool delivered = false;
    serve(10000, &delivered);
    cr_assert(delivered, "%s %ld: no delivery when there is memory again",
              stays ? "from allocation" : "allocation", n);
    cr_assert_eq(link_unanswered(f.io.link), 0, "%s %ld: a publish is not answered",
                 stays ? "from allocation" : "allocation", n);
    cr_assert_eq(f.io.unanswered_bytes, 0, "%s %ld: %llu bytes of the publish buffer are lost",
                 stays ? "from allocation" : "allocation", n,
                 (unsigned long long)f.io.unanswered_bytes);
    leave(block);
    fixture_close();
    return failed;
}

Test(link_no_memory, P1_any_allocation_may_fail_and_the_link_comes_back)
{
    long n = 0;
    while (run_once(n, false))
        n++;
    cr_assert_gt(n, 20, "only %ld allocations", n);
}

Test(link_no_memory, P1_no_memory_for_a_while_and_the_link_comes_back)
{
    for (long n = 0; run_once(n, true); n++)
        ;
}
