#include "ws_handshake.h"
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { KEY_SIZE = 24, VALUE_MAX = 8 };

/* Reads through a header's value. */
struct cursor {
    const char *at;
    const char *end;
};

static struct cursor cursor_of(struct ws_text text)
{
    return (struct cursor){text.bytes, text.bytes != NULL ? text.bytes + text.length : NULL};
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* tchar, RFC 9110 5.6.2 */
static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool skip_blanks(struct cursor *c)
{
    while (c->at < c->end && is_blank(*c->at))
        c->at++;
    return true;
}

static bool skip_char(struct cursor *c, char wanted)
{
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool take_token(struct cursor *c, struct ws_text *token)
{
    token->bytes = c->at;
    while (c->at < c->end && is_token_char(*c->at))
        c->at++;
    token->length = (size_t)(c->at - token->bytes);
    return token->length > 0;
}

static struct ws_text trim(struct ws_text text)
{
    while (text.length > 0 && is_blank(text.bytes[text.length - 1]))
        text.length--;
    while (text.length > 0 && is_blank(text.bytes[0])) {
        text.bytes++;
        text.length--;
    }
    return text;
}

static bool text_is(struct ws_text text, const char *wanted)
{
    return text.length == strlen(wanted) && strncasecmp(text.bytes, wanted, text.length) == 0;
}

static bool text_is_exactly(struct ws_text text, const char *wanted)
{
    return text.length == strlen(wanted) && memcmp(text.bytes, wanted, text.length) == 0;
}

/* The next element of a comma-separated list, without blanks around it; false at its end. */
static bool next_element(struct cursor *c, struct ws_text *element)
{
    const char *comma;

    if (c->at == c->end)
        return false;
    comma = memchr(c->at, ',', (size_t)(c->end - c->at));
    if (comma == NULL)
        comma = c->end;
    *element = trim((struct ws_text){c->at, (size_t)(comma - c->at)});
    c->at = comma < c->end ? comma + 1 : comma;
    return true;
}

bool ws_list_has(struct ws_text list, const char *token)
{
    struct cursor c = cursor_of(list);
    struct ws_text element;

    while (next_element(&c, &element))
        if (text_is(element, token))
            return true;
    return false;
}

bool ws_protocol_offered(struct ws_text offered, const char *protocol, size_t length)
{
    struct cursor c = cursor_of(offered);
    struct ws_text element;

    while (length > 0 && next_element(&c, &element))
        if (element.length == length && memcmp(element.bytes, protocol, length) == 0)
            return true;
    return false;
}

/* One parameter of an extension or a media range, `; name` or `; name=value`. */
struct parameter {
    struct ws_text name;
    bool has_value;
    bool value_is_token;       /* after unquoting, as RFC 6455 9.1 demands of extensions */
    char value[VALUE_MAX + 1]; /* its start, NUL-terminated; all values that mean something fit */
    size_t value_length;
};

static void value_char(struct parameter *p, char c)
{
    if (p->value_length < VALUE_MAX)
        p->value[p->value_length] = c;
    p->value_length++;
    p->value_is_token = p->value_is_token && is_token_char(c);
}

static bool take_quoted(struct cursor *c, struct parameter *p)
{
    while (c->at < c->end && *c->at != '"') {
        if (*c->at == '\\' && ++c->at == c->end)
            return false;
        value_char(p, *c->at++);
    }
    return skip_char(c, '"');
}

static bool take_value(struct cursor *c, struct parameter *p)
{
    if (skip_char(c, '"'))
        return take_quoted(c, p);
    while (c->at < c->end && is_token_char(*c->at))
        value_char(p, *c->at++);
    return p->value_length > 0;
}

/* 1: a parameter, 0: the element ends here (its comma is skipped), -1: malformed. */
static int next_parameter(struct cursor *c, struct parameter *p)
{
    *p = (struct parameter){.value_is_token = true};
    skip_blanks(c);
    if (c->at == c->end || skip_char(c, ','))
        return 0;
    if (!skip_char(c, ';') || !skip_blanks(c) || !take_token(c, &p->name))
        return -1;
    skip_blanks(c);
    if (!skip_char(c, '='))
        return 1;
    skip_blanks(c);
    p->has_value = true;
    return take_value(c, p) ? 1 : -1;
}

/* The name of the next extension: 1, 0 at the end of the list, -1 malformed. */
static int next_extension(struct cursor *c, struct ws_text *name)
{
    do
        skip_blanks(c);
    while (skip_char(c, ','));
    if (c->at == c->end)
        return 0;
    return take_token(c, name) ? 1 : -1;
}

/* RFC 6455 9.1: a value that does not conform to the grammar fails the handshake. */
static bool extensions_are_wellformed(struct ws_text extensions)
{
    struct cursor c = cursor_of(extensions);
    struct parameter p;
    struct ws_text name;
    int more;

    while ((more = next_extension(&c, &name)) > 0) {
        while ((more = next_parameter(&c, &p)) > 0)
            if (p.has_value && (!p.value_is_token || p.value_length == 0))
                return false;
        if (more < 0)
            return false;
    }
    return more == 0;
}

/* base64 of 16 bytes: 22 digits and two pads */
static bool key_is_valid(struct ws_text key)
{
    key = trim(key);
    if (key.length != KEY_SIZE || memcmp(key.bytes + KEY_SIZE - 2, "==", 2) != 0)
        return false;
    for (size_t i = 0; i < KEY_SIZE - 2; i++) {
        char c = key.bytes[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/'))
            return false;
    }
    return true;
}

static bool is_http_1_1(struct ws_text version)
{
    return version.bytes == NULL || text_is_exactly(version, "HTTP/1.1");
}

enum ws_verdict ws_request_check(const struct ws_request *request, const char **reason)
{
    *reason = NULL;
    if (!text_is_exactly(request->method, "GET") || !ws_list_has(request->upgrade, "websocket") ||
        !ws_list_has(request->connection, "upgrade"))
        return WS_NOT_WEBSOCKET;
    *reason = "WebSocket needs HTTP/1.1";
    if (!is_http_1_1(request->server_protocol) || !is_http_1_1(request->http_version))
        return WS_BAD_REQUEST;
    *reason = "only WebSocket version 13 is spoken here";
    if (!text_is_exactly(trim(request->version), "13"))
        return WS_BAD_VERSION;
    *reason = "the Host header is missing";
    if (request->host.bytes == NULL)
        return WS_BAD_REQUEST;
    *reason = "Sec-WebSocket-Key is not 16 bytes in base64";
    if (!key_is_valid(request->key))
        return WS_BAD_REQUEST;
    *reason = "Sec-WebSocket-Extensions is malformed";
    if (!extensions_are_wellformed(request->extensions))
        return WS_BAD_REQUEST;
    *reason = NULL;
    return WS_UPGRADE;
}

bool ws_accept(struct ws_text key, char out[WS_ACCEPT_SIZE])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char text[KEY_SIZE + sizeof(guid) - 1], digest[SHA_DIGEST_LENGTH];
    unsigned char encoded[WS_ACCEPT_SIZE + 1]; /* EVP_EncodeBlock adds a NUL */

    key = trim(key);
    if (key.length != KEY_SIZE)
        return false;
    memcpy(text, key.bytes, KEY_SIZE);
    memcpy(text + KEY_SIZE, guid, sizeof(guid) - 1);
    if (SHA1(text, sizeof(text), digest) == NULL)
        return false;
    EVP_EncodeBlock(encoded, digest, SHA_DIGEST_LENGTH);
    memcpy(out, encoded, WS_ACCEPT_SIZE);
    return true;
}

/* An offer of permessage-deflate as far as it was read. Bits are 0 while not mentioned. */
struct offer {
    bool server_no_takeover;
    bool client_no_takeover;
    bool client_bits_allowed; /* client_max_window_bits was there, with a value or without */
    uint8_t server_bits;
    uint8_t client_bits;
};

/* 8 to 15, without leading zeros (RFC 7692 7.1.2); else 0. */
static uint8_t window_bits(const struct parameter *p)
{
    if (p->value_length == 1 && (p->value[0] == '8' || p->value[0] == '9'))
        return (uint8_t)(p->value[0] - '0');
    if (p->value_length == 2 && p->value[0] == '1' && p->value[1] >= '0' && p->value[1] <= '5')
        return (uint8_t)(10 + p->value[1] - '0');
    return 0;
}

static bool set_once(bool *flag)
{
    bool was = *flag;

    *flag = true;
    return !was;
}

/* False: with this parameter the offer must be declined (RFC 7692 7.1). */
static bool offer_parameter(struct offer *o, const struct parameter *p)
{
    if (text_is(p->name, "server_no_context_takeover"))
        return !p->has_value && set_once(&o->server_no_takeover);
    if (text_is(p->name, "client_no_context_takeover"))
        return !p->has_value && set_once(&o->client_no_takeover);
    if (text_is(p->name, "server_max_window_bits")) {
        bool first = o->server_bits == 0;
        o->server_bits = p->has_value ? window_bits(p) : 0;
        return first && o->server_bits > 8;
    }
    if (text_is(p->name, "client_max_window_bits")) {
        o->client_bits = p->has_value ? window_bits(p) : WS_DEFLATE_BITS_MAX;
        return set_once(&o->client_bits_allowed) && o->client_bits > 0;
    }
    return false;
}

static void accept_offer(const struct offer *o, bool allow_takeover, struct ws_deflate_terms *terms,
                         char response[WS_DEFLATE_RESPONSE_MAX])
{
    char server_bits[32] = "", client_bits[32] = "";

    terms->client_takeover = allow_takeover && !o->client_no_takeover;
    terms->server_bits = o->server_bits > 0 ? o->server_bits : WS_DEFLATE_BITS_MAX;
    terms->client_bits = o->client_bits_allowed ? o->client_bits : WS_DEFLATE_BITS_MAX;
    if (o->server_bits > 0)
        snprintf(server_bits, sizeof(server_bits), "; server_max_window_bits=%u", o->server_bits);
    if (terms->client_bits < WS_DEFLATE_BITS_MAX)
        snprintf(client_bits, sizeof(client_bits), "; client_max_window_bits=%u", o->client_bits);
    snprintf(
        response, WS_DEFLATE_RESPONSE_MAX, "permessage-deflate; server_no_context_takeover%s%s%s",
        terms->client_takeover ? "" : "; client_no_context_takeover", server_bits, client_bits);
}

bool ws_deflate_negotiate(struct ws_text extensions, bool allow_takeover,
                          struct ws_deflate_terms *terms, char response[WS_DEFLATE_RESPONSE_MAX])
{
    struct cursor c = cursor_of(extensions);
    struct parameter p;
    struct ws_text name;

    while (next_extension(&c, &name) > 0) {
        struct offer o = {0};
        bool acceptable = text_is(name, "permessage-deflate");
        int more;

        while ((more = next_parameter(&c, &p)) > 0)
            acceptable = acceptable && offer_parameter(&o, &p);
        if (more < 0)
            return false;
        if (acceptable) {
            accept_offer(&o, allow_takeover, terms, response);
            return true;
        }
    }
    return false;
}

/* q, RFC 9110 12.4.2: 0 to 1 with up to three decimals; zero means "not this". */
static bool weight_is_zero(const struct parameter *p)
{
    return text_is(p->name, "q") && strpbrk(p->value, "123456789") == NULL;
}

bool sse_accepts(struct ws_text accept)
{
    struct cursor c = cursor_of(accept);
    struct ws_text type, subtype;
    struct parameter p;

    while (c.at < c.end) {
        bool wanted;
        int more;

        skip_blanks(&c);
        wanted = take_token(&c, &type) && skip_char(&c, '/') && take_token(&c, &subtype) &&
                 text_is(type, "text") && text_is(subtype, "event-stream");
        while ((more = next_parameter(&c, &p)) > 0)
            wanted = wanted && !weight_is_zero(&p);
        if (wanted && more == 0)
            return true;
        while (more < 0 && c.at < c.end && !skip_char(&c, ',')) /* malformed: the next element */
            c.at++;
    }
    return false;
}
