/* Frames ready for the socket: exact bytes (RFC 6455 5.7), shared by reference. */
#include "frame.h"
#include "utf8.h"
#include "ws_frame.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void is(struct frame *f, const char *expected, size_t length)
{
    cr_assert_not_null(f);
    cr_assert_eq(f->length, length);
    cr_assert_arr_eq(f->bytes, expected, length);
    frame_unref(f);
}

#define IS(frame, expected) is(frame, expected, sizeof(expected) - 1)

Test(frame, rfc6455_5_7_examples)
{
    IS(frame_text("Hello", 5), "\x81\x05Hello");
    IS(frame_text(NULL, 0), "\x81\x00");
    IS(frame_binary("\0\xFF", 2), "\x82\x02\0\xFF");
    IS(frame_ping("Hello", 5), "\x89\x05Hello");
    IS(frame_ping(NULL, 0), "\x89\x00");
    IS(frame_pong("Hello", 5), "\x8A\x05Hello");
    IS(frame_raw("HTTP/1.1 101", 12), "HTTP/1.1 101");
    IS(frame_raw(NULL, 0), "");
}

Test(frame, rfc6455_5_2_lengths)
{
    static const size_t lengths[] = {125, 126, 127, 65535, 65536, 1 << 24};
    char *data = calloc(1, 1 << 24);

    data[0] = 'a';
    for (size_t i = 0; i < 6; i++) {
        struct frame *f = frame_binary(data, lengths[i]);
        size_t head = lengths[i] < 126 ? 2 : lengths[i] < 65536 ? 4 : 10;
        struct ws_header h;
        const char *reason;
        cr_assert_eq(f->length, head + lengths[i]);
        cr_assert_eq(ws_header_decode(f->bytes, f->length, false, &h, &reason), (int)head);
        cr_assert(h.fin && !h.masked && h.opcode == WS_BINARY && h.length == lengths[i]);
        cr_assert_eq(memcmp(f->bytes + head, data, lengths[i]), 0);
        frame_unref(f);
    }
    free(data);
    cr_assert_null(frame_binary("", SIZE_MAX - 4)); /* does not fit, is not read */
}

Test(frame, rfc6455_5_5_control_frames_are_cut_at_125)
{
    char data[200];
    struct frame *f;

    memset(data, 'x', sizeof(data));
    f = frame_ping(data, 200);
    cr_assert_eq(f->length, 127);
    cr_assert_arr_eq(f->bytes, "\x89\x7Dxx", 4);
    frame_unref(f);
    f = frame_pong(data, 125);
    cr_assert_eq(f->length, 127);
    frame_unref(f);
}

Test(frame, rfc6455_5_5_1_close)
{
    char reason[200];

    IS(frame_close(1000, NULL, 0), "\x88\x02\x03\xE8");
    IS(frame_close(1009, "too big", 7), "\x88\x09\x03\xF1too big");
    IS(frame_close(WS_CLOSE_NO_CODE, "ignored", 7), "\x88\x00");
    for (size_t i = 0; i < sizeof(reason); i++) /* three-byte characters, out of step by one */
        reason[i] = "\xE2\x82\xAC"[(i + 2) % 3];
    for (size_t skip = 1; skip <= 3; skip++) {
        char shifted[200];
        struct frame *f;
        memset(shifted, 'x', skip);
        memcpy(shifted + skip, reason + 1, sizeof(reason) - 3);
        f = frame_close(1001, shifted, 190);
        cr_assert_leq(f->length, 127);
        cr_assert_geq(f->length, 125);
        cr_assert_eq(f->bytes[1], f->length - 2);
        cr_assert(utf8_is_valid(f->bytes + 4, f->length - 4));
        frame_unref(f);
    }
}

Test(frame, rfc7692_6_deflated_or_plain)
{
    struct ws_deflater *d = ws_deflater_new(15);
    struct frame *f;

    IS(frame_deflated(d, false, "Hello", 5), "\x81\x05Hello");
    IS(frame_deflated(d, true, NULL, 0), "\x82\x00");
    f = frame_deflated(d, false, "HelloHelloHelloHelloHello", 25);
    cr_assert_eq(f->bytes[0], 0xC1);
    cr_assert_eq(f->bytes[1], f->length - 2);
    cr_assert_lt(f->length, 20);
    frame_unref(f);
    f = frame_deflated(d, true, "HelloHelloHelloHelloHello", 25);
    cr_assert_eq(f->bytes[0], 0xC2);
    frame_unref(f);
    ws_deflater_free(d);
}

Test(frame, s45_sse)
{
    IS(frame_sse_event("a\nb", 3, NULL, 0, NULL, 0, -1), "data: a\ndata: b\n\n");
    IS(frame_sse_event("a", 1, "e", 1, "i", 1, 5), "event: e\nid: i\nretry: 5\ndata: a\n\n");
    IS(frame_sse_event(NULL, 0, NULL, 0, NULL, 0, -1), "data: \n\n");
    cr_assert_null(frame_sse_event("a", 1, "e\n", 2, NULL, 0, -1));
    IS(frame_sse_comment(NULL, 0), ":\n\n");
    IS(frame_sse_comment("still here", 10), ": still here\n\n");
}

static pthread_barrier_t start;

static void *ref_and_unref(void *f)
{
    pthread_barrier_wait(&start);
    for (int i = 0; i < 1000000; i++)
        frame_unref(frame_ref(f));
    return NULL;
}

Test(frame, references_from_several_threads)
{
    struct frame *f = frame_text("shared", 6);
    pthread_t threads[4];

    cr_assert_eq(frame_ref(f), f);
    pthread_barrier_init(&start, NULL, 4);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, ref_and_unref, f);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(f->references, 2);
    frame_unref(f);
    cr_assert_eq(f->references, 1);
    IS(f, "\x81\x06shared");
    frame_unref(NULL);
}
