/*
 * Brokerd::Handshake: what a Rack request asks for, and the values of the answer. The judgement
 * itself is ws_handshake.c's; here a Rack env is taken apart.
 */
#include "rb_brokerd.h"
#include "ws_handshake.h"

static VALUE key_method, key_protocol, key_version, key_host, key_upgrade, key_rack_protocol,
    key_connection, key_ws_version, key_ws_key, key_ws_extensions, key_accept;

static struct ws_text text_of(VALUE value)
{
    if (!RB_TYPE_P(value, T_STRING))
        return (struct ws_text){NULL, 0};
    return (struct ws_text){RSTRING_PTR(value), (size_t)RSTRING_LEN(value)};
}

static struct ws_text header(VALUE env, VALUE key)
{
    return text_of(rb_hash_lookup(env, key));
}

/* rack.protocol is what newer servers make of the Upgrade header: an Array or a String. */
static struct ws_text upgrade_of(VALUE env)
{
    struct ws_text upgrade = header(env, key_upgrade);
    if (upgrade.bytes)
        return upgrade;
    VALUE protocol = rb_hash_lookup(env, key_rack_protocol);
    if (RB_TYPE_P(protocol, T_ARRAY))
        protocol = rb_ary_entry(protocol, 0);
    return text_of(protocol);
}

/*
 * Handshake.check(env): nil for an ordinary request, :websocket, or [status, reason] for an attempt
 * that has to be refused.
 */
static VALUE handshake_check(VALUE module, VALUE env)
{
    (void)module;
    struct ws_request request = {
        .method = header(env, key_method),
        .server_protocol = header(env, key_protocol),
        .http_version = header(env, key_version),
        .host = header(env, key_host),
        .upgrade = upgrade_of(env),
        .connection = header(env, key_connection),
        .version = header(env, key_ws_version),
        .key = header(env, key_ws_key),
        .extensions = header(env, key_ws_extensions),
    };
    /* A server that took the Upgrade header away took Connection: upgrade with it. */
    if (!header(env, key_upgrade).bytes && request.upgrade.bytes && !request.connection.bytes)
        request.connection = (struct ws_text){"upgrade", 7};
    const char *reason;
    enum ws_verdict verdict = ws_request_check(&request, &reason);
    RB_GC_GUARD(env);
    switch (verdict) {
    case WS_UPGRADE:
        return ID2SYM(rb_intern("websocket"));
    case WS_BAD_VERSION:
        return rb_ary_new_from_args(2, INT2FIX(426), rb_str_new_cstr(reason));
    case WS_BAD_REQUEST:
        return rb_ary_new_from_args(2, INT2FIX(400), rb_str_new_cstr(reason));
    default:
        return Qnil;
    }
}

/* Handshake.event_stream?(env): does a GET ask for an event stream? */
static VALUE handshake_is_event_stream(VALUE module, VALUE env)
{
    (void)module;
    struct ws_text method = header(env, key_method);
    if (method.length != 3 || memcmp(method.bytes, "GET", 3) != 0)
        return Qfalse;
    return sse_accepts(header(env, key_accept)) ? Qtrue : Qfalse;
}

/* Handshake.accept(key): the value of Sec-WebSocket-Accept. */
static VALUE handshake_accept(VALUE module, VALUE key)
{
    (void)module;
    char accept[WS_ACCEPT_SIZE];
    StringValue(key);
    if (!ws_accept(text_of(key), accept))
        rb_raise(brokerd_error, "OpenSSL refuses SHA-1, which WebSockets need");
    return rb_str_new(accept, sizeof(accept));
}

/* Handshake.offered?(offer, protocol): may the application choose that subprotocol? */
static VALUE handshake_is_offered(VALUE module, VALUE offer, VALUE protocol)
{
    (void)module;
    StringValue(protocol);
    return ws_protocol_offered(text_of(offer), RSTRING_PTR(protocol), (size_t)RSTRING_LEN(protocol))
               ? Qtrue
               : Qfalse;
}

/* Handshake.deflate(extensions): nil, or [response, terms] with terms for Client.take. */
static VALUE handshake_deflate(VALUE module, VALUE extensions)
{
    (void)module;
    struct ws_deflate_terms terms;
    char response[WS_DEFLATE_RESPONSE_MAX];
    if (!RB_TYPE_P(extensions, T_STRING) ||
        !ws_deflate_negotiate(text_of(extensions), true, &terms, response))
        return Qnil;
    return rb_ary_new_from_args(2, rb_str_new_cstr(response),
                                rb_ary_new_from_args(3, terms.client_takeover ? Qtrue : Qfalse,
                                                     INT2FIX(terms.client_bits),
                                                     INT2FIX(terms.server_bits)));
}

static void define_key(VALUE *key, const char *name)
{
    rb_gc_register_address(key);
    *key = rb_str_freeze(rb_str_new_cstr(name));
}

void rb_handshake_init(void)
{
    define_key(&key_method, "REQUEST_METHOD");
    define_key(&key_protocol, "SERVER_PROTOCOL");
    define_key(&key_version, "HTTP_VERSION");
    define_key(&key_host, "HTTP_HOST");
    define_key(&key_upgrade, "HTTP_UPGRADE");
    define_key(&key_rack_protocol, "rack.protocol");
    define_key(&key_connection, "HTTP_CONNECTION");
    define_key(&key_ws_version, "HTTP_SEC_WEBSOCKET_VERSION");
    define_key(&key_ws_key, "HTTP_SEC_WEBSOCKET_KEY");
    define_key(&key_ws_extensions, "HTTP_SEC_WEBSOCKET_EXTENSIONS");
    define_key(&key_accept, "HTTP_ACCEPT");

    VALUE handshake = rb_define_module_under(brokerd_module, "Handshake");
    rb_define_singleton_method(handshake, "check", handshake_check, 1);
    rb_define_singleton_method(handshake, "event_stream?", handshake_is_event_stream, 1);
    rb_define_singleton_method(handshake, "accept", handshake_accept, 1);
    rb_define_singleton_method(handshake, "offered?", handshake_is_offered, 2);
    rb_define_singleton_method(handshake, "deflate", handshake_deflate, 1);
}
