/* Holds: any header values end in a verdict, read nothing outside, and what is agreed is within the
 * RFCs. */
#include "ws_handshake.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* The input up to the next LF, in memory of its own; an empty line is an absent header. */
static struct ws_text next_line(const uint8_t **at, size_t *left)
{
    const uint8_t *end = *left > 0 ? memchr(*at, '\n', *left) : NULL;
    size_t length = end != NULL ? (size_t)(end - *at) : *left;
    char *copy = NULL;

    if (length > 0) {
        copy = malloc(length);
        check(copy != NULL);
        memcpy(copy, *at, length);
        *at += length;
        *left -= length;
    }
    if (*left > 0) {
        (*at)++;
        (*left)--;
    }
    return (struct ws_text){copy, length};
}

static void check_deflate(struct ws_text extensions, bool takeover)
{
    struct ws_deflate_terms terms, again;
    char response[WS_DEFLATE_RESPONSE_MAX], second[WS_DEFLATE_RESPONSE_MAX];
    size_t length;

    if (!ws_deflate_negotiate(extensions, takeover, &terms, response))
        return;
    length = strnlen(response, sizeof(response));
    check(length < sizeof(response));
    check(terms.server_bits >= 9 && terms.server_bits <= 15);
    check(terms.client_bits >= 8 && terms.client_bits <= 15);
    check(takeover || !terms.client_takeover);
    /* an answer is an offer that gets the same answer */
    check(ws_deflate_negotiate((struct ws_text){response, length}, takeover, &again, second));
    check(strcmp(response, second) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ws_request r;
    struct ws_text fields[10];
    const char *reason;
    char accept[WS_ACCEPT_SIZE];
    enum ws_verdict verdict;

    for (int i = 0; i < 10; i++)
        fields[i] = next_line(&data, &size);
    r = (struct ws_request){fields[0], fields[1], fields[2], fields[3], fields[4],
                            fields[5], fields[6], fields[7], fields[8]};
    verdict = ws_request_check(&r, &reason);
    check((reason != NULL) == (verdict == WS_BAD_VERSION || verdict == WS_BAD_REQUEST));
    if (verdict == WS_UPGRADE)
        check(ws_accept(r.key, accept));
    else
        ws_accept(r.key, accept);
    check_deflate(r.extensions, true);
    check_deflate(r.extensions, false);
    ws_protocol_offered(r.extensions, "chat", 4);
    sse_accepts(fields[9]);
    for (int i = 0; i < 10; i++)
        free((void *)(uintptr_t)fields[i].bytes);
    return 0;
}
