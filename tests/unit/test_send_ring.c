/* Many sends at once, through the ring and without one: the results are the same. Criterion's
 * parameters are the two; where the kernel gives no ring, only one is tried. */
#include "send_ring.h"
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct send_ring *ring;
static int near[SEND_ALL_MOST], far[SEND_ALL_MOST];
static struct send_request requests[SEND_ALL_MOST];

ParameterizedTestParameters(send_ring, each_gets_its_own)
{
    static bool with[] = {false, true};
    return cr_make_param_array(bool, with, 2);
}

static void begin(bool with_ring)
{
    ring = with_ring ? send_ring_new() : NULL;
    if (with_ring && ring == NULL)
        fprintf(stderr, "without a ring: %s\n", strerror(errno));
    for (int i = 0; i < SEND_ALL_MOST; i++) {
        int pair[2];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
        near[i] = pair[0];
        far[i] = pair[1];
    }
}

static void end(void)
{
    for (int i = 0; i < SEND_ALL_MOST; i++) {
        close(near[i]);
        close(far[i]);
    }
    send_ring_free(ring);
}

static ssize_t take(int i, char *out, size_t size)
{
    return recv(far[i], out, size, 0);
}

ParameterizedTest(const bool *with, send_ring, each_gets_its_own)
{
    char texts[SEND_ALL_MOST][16], got[16];
    begin(*with);
    for (unsigned count = 0; count <= SEND_ALL_MOST; count++) {
        for (unsigned i = 0; i < count; i++) {
            int length = snprintf(texts[i], sizeof(texts[i]), "%u of %u", i, count);
            requests[i] = (struct send_request){
                .fd = near[i], .bytes = texts[i], .length = (size_t)length, .result = 1};
        }
        send_all(ring, requests, count);
        for (unsigned i = 0; i < count; i++) {
            cr_assert_eq(requests[i].result, (ssize_t)requests[i].length);
            cr_assert_eq(take((int)i, got, sizeof(got)), requests[i].result);
            cr_assert_arr_eq(got, texts[i], requests[i].length);
        }
    }
    end();
}

ParameterizedTestParameters(send_ring, a_full_a_closed_and_a_slow_one_harm_nobody)
{
    static bool with[] = {false, true};
    return cr_make_param_array(bool, with, 2);
}

ParameterizedTest(const bool *with, send_ring, a_full_a_closed_and_a_slow_one_harm_nobody)
{
    enum { FULL, GONE, SHUT, SLOW, SMALL, FINE, COUNT };
    static char large[8 << 20];
    begin(*with);
    while (send(near[FULL], large, sizeof(large), MSG_DONTWAIT) > 0)
        ;
    close(far[GONE]);
    far[GONE] = -1;
    shutdown(near[SHUT], SHUT_WR);
    for (int i = 0; i < COUNT; i++)
        requests[i] = (struct send_request){
            .fd = near[i], .bytes = large, .length = i == SLOW ? sizeof(large) : 5};
    requests[SMALL].length = 0;
    for (int times = 0; times < 2; times++) { /* what went wrong once leaves nothing behind */
        send_all(ring, requests, COUNT);
        cr_assert_eq(requests[FULL].result, -EAGAIN);
        cr_assert_eq(requests[GONE].result, -EPIPE);
        cr_assert_eq(requests[SHUT].result, -EPIPE);
        if (times == 0)
            cr_assert(requests[SLOW].result > 0 && requests[SLOW].result < (ssize_t)sizeof(large));
        else
            cr_assert_eq(requests[SLOW].result, -EAGAIN);
        cr_assert_eq(requests[SMALL].result, 0);
        cr_assert_eq(requests[FINE].result, 5);
    }
    char got[16];
    cr_assert_eq(take(FINE, got, sizeof(got)), 10);
    end();
}

/* The ring's descriptor, or -1. */
static int ring_descriptor(void)
{
    char path[32], target[64];
    for (int fd = 3; fd < 1000; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        if (strcmp(target, "anon_inode:[io_uring]") == 0)
            return fd;
    }
    return -1;
}

Test(send_ring, when_the_ring_fails_all_is_sent_without)
{
    char got[16];
    begin(true);
    cr_assert_eq(ring != NULL, ring_descriptor() >= 0);
    close(ring_descriptor());
    for (int i = 0; i < SEND_ALL_MOST; i++)
        requests[i] = (struct send_request){.fd = near[i], .bytes = "some", .length = 4};
    cr_assert_eq(send_all(ring, requests, SEND_ALL_MOST), ring == NULL);
    for (int i = 0; i < SEND_ALL_MOST; i++) {
        cr_assert_eq(requests[i].result, 4);
        cr_assert_eq(take(i, got, sizeof(got)), 4);
    }
    end();
}

Test(send_ring, freeing_none_is_nothing)
{
    send_ring_free(NULL);
}
