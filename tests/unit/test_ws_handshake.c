/* The opening handshake, RFC 6455 4.2, and the negotiation of RFC 7692 5 and 7.1. */
#include "ws_handshake.h"
#include <criterion/criterion.h>
#include <string.h>

#define TEXT(s) ((struct ws_text){(s), sizeof(s) - 1})
#define NONE    ((struct ws_text){NULL, 0})

static struct ws_text text(const char *s)
{
    return s != NULL ? (struct ws_text){s, strlen(s)} : NONE;
}

static struct ws_request good_request(void)
{
    return (struct ws_request){
        .method = TEXT("GET"),
        .server_protocol = TEXT("HTTP/1.1"),
        .host = TEXT("server.example.com"),
        .upgrade = TEXT("websocket"),
        .connection = TEXT("Upgrade"),
        .version = TEXT("13"),
        .key = TEXT("dGhlIHNhbXBsZSBub25jZQ=="),
    };
}

static enum ws_verdict check(const struct ws_request *r)
{
    const char *reason;
    enum ws_verdict verdict = ws_request_check(r, &reason);

    cr_assert_eq(reason != NULL, verdict == WS_BAD_VERSION || verdict == WS_BAD_REQUEST);
    return verdict;
}

#define VERDICT(field, value, expected)                                                            \
    do {                                                                                           \
        struct ws_request r = good_request();                                                      \
        r.field = text(value);                                                                     \
        cr_assert_eq(check(&r), expected, #field " %s", (const char *)(value));                    \
    } while (0)

Test(ws_handshake, rfc6455_1_3_the_example)
{
    struct ws_request r = good_request();
    char accept[WS_ACCEPT_SIZE];

    cr_assert_eq(check(&r), WS_UPGRADE);
    cr_assert(ws_accept(r.key, accept));
    cr_assert_arr_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WS_ACCEPT_SIZE);
    cr_assert(ws_accept(TEXT(" \tdGhlIHNhbXBsZSBub25jZQ== "), accept));
    cr_assert_arr_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WS_ACCEPT_SIZE);
    cr_assert_not(ws_accept(NONE, accept));
}

Test(ws_handshake, rfc6455_4_2_1_tokens_in_any_case_and_company)
{
    VERDICT(upgrade, "WebSocket", WS_UPGRADE);
    VERDICT(upgrade, "h2c , WEBSOCKET", WS_UPGRADE);
    VERDICT(connection, "keep-alive, Upgrade", WS_UPGRADE);
    VERDICT(connection, "keep-alive,\tuPGRADE ,x", WS_UPGRADE);
    VERDICT(connection, ",,upgrade", WS_UPGRADE);
}

Test(ws_handshake, s3_what_is_no_attempt_is_an_ordinary_request)
{
    VERDICT(method, "POST", WS_NOT_WEBSOCKET);
    VERDICT(method, "get", WS_NOT_WEBSOCKET);
    VERDICT(method, "HEAD", WS_NOT_WEBSOCKET);
    VERDICT(upgrade, NULL, WS_NOT_WEBSOCKET);
    VERDICT(upgrade, "", WS_NOT_WEBSOCKET);
    VERDICT(upgrade, "websockets", WS_NOT_WEBSOCKET);
    VERDICT(upgrade, "web socket", WS_NOT_WEBSOCKET);
    VERDICT(upgrade, "websocket/13", WS_NOT_WEBSOCKET);
    VERDICT(connection, NULL, WS_NOT_WEBSOCKET);
    VERDICT(connection, "keep-alive", WS_NOT_WEBSOCKET);
    VERDICT(connection, "upgraded", WS_NOT_WEBSOCKET);
}

Test(ws_handshake, rfc6455_4_4_wrong_version_is_426)
{
    VERDICT(version, "8", WS_BAD_VERSION);
    VERDICT(version, "14", WS_BAD_VERSION);
    VERDICT(version, "013", WS_BAD_VERSION);
    VERDICT(version, "13, 8", WS_BAD_VERSION);
    VERDICT(version, "", WS_BAD_VERSION);
    VERDICT(version, NULL, WS_BAD_VERSION);
    VERDICT(version, " 13 ", WS_UPGRADE);
}

Test(ws_handshake, rfc6455_4_2_1_other_faults_are_400)
{
    VERDICT(server_protocol, "HTTP/1.0", WS_BAD_REQUEST);
    VERDICT(server_protocol, "HTTP/2", WS_BAD_REQUEST);
    VERDICT(server_protocol, NULL, WS_UPGRADE);
    VERDICT(http_version, "HTTP/1.0", WS_BAD_REQUEST);
    VERDICT(http_version, "HTTP/1.1", WS_UPGRADE);
    VERDICT(host, NULL, WS_BAD_REQUEST);
    VERDICT(key, NULL, WS_BAD_REQUEST);
    VERDICT(key, "", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZSBub25jZQ=", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZSBub25jZQ", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZSBub25jZQ==,dGhlIHNhbXBsZSBub25jZQ==", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZSBub25jZ===", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZSBub25jZQAA", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZS!ub25jZQ==", WS_BAD_REQUEST);
    VERDICT(key, "dGhlIHNhbXBsZS-ub25jZQ==", WS_BAD_REQUEST);
    VERDICT(key, " +/++++++++++++++++++++== ", WS_UPGRADE);
}

Test(ws_handshake, rfc6455_9_1_malformed_extensions_are_400)
{
    VERDICT(extensions, "", WS_UPGRADE);
    VERDICT(extensions, ", ,foo,", WS_UPGRADE);
    VERDICT(extensions, "foo; bar; baz=2, bar; baz=\"x\"", WS_UPGRADE);
    VERDICT(extensions, "foo;bar = b\t; x", WS_UPGRADE);
    VERDICT(extensions, "foo bar", WS_BAD_REQUEST);
    VERDICT(extensions, "foo;", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; =2", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; a=", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; a=\"b c\"", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; a=\"\"", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; a=\"b", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; a=\"b\\", WS_BAD_REQUEST);
    VERDICT(extensions, "foo; a=\"\\b\"", WS_UPGRADE);
    VERDICT(extensions, "@", WS_BAD_REQUEST);
}

Test(ws_handshake, rfc6455_4_2_2_subprotocol_must_have_been_offered)
{
    cr_assert(ws_protocol_offered(TEXT("chat, superchat"), "superchat", 9));
    cr_assert(ws_protocol_offered(TEXT("chat"), "chat", 4));
    cr_assert_not(ws_protocol_offered(TEXT("chat, superchat"), "Chat", 4));
    cr_assert_not(ws_protocol_offered(TEXT("chat, superchat"), "super", 5));
    cr_assert_not(ws_protocol_offered(TEXT("chat,,x"), "", 0));
    cr_assert_not(ws_protocol_offered(NONE, "chat", 4));
}

/* NULL expected: declined. */
static struct ws_deflate_terms offer(const char *extensions, bool takeover, const char *expected)
{
    struct ws_deflate_terms terms = {0};
    char response[WS_DEFLATE_RESPONSE_MAX];
    bool agreed = ws_deflate_negotiate(text(extensions), takeover, &terms, response);

    cr_assert_eq(agreed, expected != NULL, "%s", extensions);
    if (agreed)
        cr_assert_str_eq(response, expected);
    return terms;
}

#define PLAIN "permessage-deflate; server_no_context_takeover"

Test(ws_handshake, rfc7692_7_1_1_context_takeover)
{
    struct ws_deflate_terms t;

    t = offer("permessage-deflate", true, PLAIN);
    cr_assert(t.client_takeover && t.client_bits == 15 && t.server_bits == 15);
    t = offer("permessage-deflate", false, PLAIN "; client_no_context_takeover");
    cr_assert_not(t.client_takeover);
    t = offer("Permessage-Deflate; client_no_context_takeover; server_no_context_takeover", true,
              PLAIN "; client_no_context_takeover");
    cr_assert_not(t.client_takeover);
    offer("permessage-deflate; client_no_context_takeover=1", true, NULL);
    offer("permessage-deflate; server_no_context_takeover=1", true, NULL);
    offer("permessage-deflate; server_no_context_takeover; server_no_context_takeover", true, NULL);
    offer("permessage-deflate; client_no_context_takeover; client_no_context_takeover", true, NULL);
}

Test(ws_handshake, rfc7692_7_1_2_window_bits)
{
    struct ws_deflate_terms t;

    t = offer("permessage-deflate; client_max_window_bits", true, PLAIN);
    cr_assert_eq(t.client_bits, 15);
    t = offer("permessage-deflate; client_max_window_bits=10", true,
              PLAIN "; client_max_window_bits=10");
    cr_assert_eq(t.client_bits, 10);
    t = offer("permessage-deflate; server_max_window_bits=\"9\"", true,
              PLAIN "; server_max_window_bits=9");
    cr_assert_eq(t.server_bits, 9);
    t = offer("permessage-deflate; server_max_window_bits=15; client_max_window_bits=8", false,
              PLAIN "; client_no_context_takeover; server_max_window_bits=15; "
                    "client_max_window_bits=8");
    cr_assert(t.server_bits == 15 && t.client_bits == 8);
    offer("permessage-deflate; server_max_window_bits", true, NULL);
    offer("permessage-deflate; server_max_window_bits=8", true, NULL);
    offer("permessage-deflate; server_max_window_bits=16", true, NULL);
    offer("permessage-deflate; server_max_window_bits=010", true, NULL);
    offer("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", true, NULL);
    offer("permessage-deflate; client_max_window_bits=7", true, NULL);
    offer("permessage-deflate; client_max_window_bits=1", true, NULL);
    offer("permessage-deflate; client_max_window_bits=150000000000", true, NULL);
    offer("permessage-deflate; client_max_window_bits=x", true, NULL);
    offer("permessage-deflate; client_max_window_bits; client_max_window_bits=9", true, NULL);
}

Test(ws_handshake, rfc7692_5_1_the_first_acceptable_offer)
{
    offer(NULL, true, NULL);
    offer("", true, NULL);
    offer("x-webkit-deflate-frame", true, NULL);
    offer("permessage-deflate; unknown", true, NULL);
    offer("permessage-deflate; unknown, permessage-deflate; client_max_window_bits", true, PLAIN);
    offer("permessage-deflate; server_max_window_bits=8, foo; a=\"b\\\"\", permessage-deflate",
          true, PLAIN);
    offer("permessage-deflate; server_max_window_bits=9, permessage-deflate", true,
          PLAIN "; server_max_window_bits=9");
    offer("foo bar, permessage-deflate", true, NULL);
}

Test(ws_handshake, s2_accept_of_event_streams)
{
    static const char *const yes[] = {
        "text/event-stream",
        "TEXT/Event-Stream",
        "text/html, text/event-stream",
        "text/event-stream;q=0.001",
        "text/event-stream ; q=1.000",
        "text/event-stream; charset=\"a,b\", */*",
        "*/*;q=0, text/event-stream;charset=utf-8;Q=0.5",
        "text/event-stream;q=0, text/event-stream",
        "rubbish;;, text/event-stream",
        "@@, text/event-stream",
    };
    static const char *const no[] = {
        "",
        "*/*",
        "text/*",
        "text/html",
        "text/event-stream;q=0",
        "text/event-stream; q=0.000",
        "text/event-streams",
        "xtext/event-stream",
        "text/event",
        "application/x; a=\"text/event-stream\"",
        "application/x; a=\", text/event-stream\"",
        "text / event-stream",
    };

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        cr_assert(sse_accepts(text(yes[i])), "%s", yes[i]);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        cr_assert_not(sse_accepts(text(no[i])), "%s", no[i]);
    cr_assert_not(sse_accepts(NONE));
}
