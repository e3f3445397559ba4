/* A turn in which very many clients have something to be written: with the ring and without. */
#include "client_fixture.h"
#include "hub.h"
#include "send_ring.h"
#include <sys/resource.h>

TestSuite(io_flush, .init = setup, .fini = teardown, .timeout = 60);

enum { CLIENTS = 2 * SEND_ALL_MOST + 9, SLOW = 3, GONE = 70, TIMES = 60, LENGTH = 8000 };

static struct peer peers[CLIENTS];
static char text[LENGTH + 1];

static const char *numbered(int n)
{
    memset(text, 'x', LENGTH);
    text[snprintf(text, LENGTH, "%d", n)] = ' ';
    return text;
}

static void expect_frame(int fd, int n)
{
    struct frame *frame = frame_text(numbered(n), LENGTH);
    harness_expect(fd, frame->bytes, frame->length);
    frame_unref(frame);
}

static bool ring_is_to_be_had(void)
{
    struct send_ring *ring = send_ring_new();
    send_ring_free(ring);
    return ring != NULL;
}

/* All but the slow one read each message before the next, and one goes in the middle. What the slow
 * one's socket does not take waits for it. */
static void broadcast(bool io_uring)
{
    config.io_uring = io_uring;
    restart();
    for (int i = 0; i < CLIENTS; i++) {
        peers[i] = websocket();
        commands_subscribe_client(peers[i].client, "a", 1, false, NULL, &HUB_DIRECT_AUTO);
    }
    for (int n = 0; n < TIMES; n++) {
        if (n == TIMES / 2) {
            close(peers[GONE].fd);
            peers[GONE].fd = -1;
        }
        commands_publish_local(io, "a", 1, numbered(n), LENGTH, false);
        for (int i = 0; i < CLIENTS; i++)
            if (i != SLOW && peers[i].fd >= 0)
                expect_frame(peers[i].fd, n);
    }
    for (int n = 0; n < TIMES; n++)
        expect_frame(peers[SLOW].fd, n);
    expect_only_close();
    cr_assert_eq(stats().frames_out, CLIENTS + CLIENTS * TIMES - TIMES / 2);
    cr_assert_eq(io->ring != NULL, io_uring && ring_is_to_be_had());
    for (int i = 0; i < CLIENTS; i++)
        harness_leave(&peers[i]);
}

Test(io_flush, through_the_ring_everybody_gets_everything)
{
    broadcast(true);
}

Test(io_flush, one_by_one_everybody_gets_everything)
{
    broadcast(false);
}

Test(io_flush, few_clients_need_no_ring)
{
    struct peer peer = websocket();
    harness_write(&peer, "1");
    harness_expect(peer.fd,
                   "\x81\x01"
                   "1",
                   3);
    cr_assert_null(io->ring);
    harness_leave(&peer);
}

static void broadcast_small(void)
{
    commands_publish_local(io, "a", 1, "x", 1, false);
    for (int i = 0; i < CLIENTS; i++)
        harness_expect(peers[i].fd, "\x81\x01x", 3);
}

Test(io_flush, a_ring_that_descriptors_were_too_few_for_is_made_when_there_are_enough)
{
    struct rlimit enough, none;
    restart();
    for (int i = 0; i < CLIENTS; i++) {
        peers[i] = websocket();
        commands_subscribe_client(peers[i].client, "a", 1, false, NULL, &HUB_DIRECT_AUTO);
    }
    getrlimit(RLIMIT_NOFILE, &enough);
    none = enough;
    none.rlim_cur = 1;
    setrlimit(RLIMIT_NOFILE, &none);
    broadcast_small();
    cr_assert_null(io->ring);
    setrlimit(RLIMIT_NOFILE, &enough);
    for (int i = 0; i < WAIT_MS && io->ring == NULL && ring_is_to_be_had(); i++) {
        poll(NULL, 0, 1);
        broadcast_small();
    }
    cr_assert_eq(io->ring != NULL, ring_is_to_be_had());
    for (int i = 0; i < CLIENTS; i++)
        harness_leave(&peers[i]);
}
