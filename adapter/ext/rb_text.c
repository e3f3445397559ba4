/* Between Ruby's Strings and bytes: kinds of payload, names of channels. */
#include "glob.h"
#include "rb_brokerd.h"
#include <ruby/encoding.h>

static rb_encoding *utf8, *ascii, *binary8;

void rb_text_init(void)
{
    utf8 = rb_utf8_encoding();
    ascii = rb_usascii_encoding();
    binary8 = rb_ascii8bit_encoding();
}

static bool is_known(const rb_encoding *encoding)
{
    return encoding == utf8 || encoding == ascii || encoding == binary8;
}

static VALUE transcoded(VALUE string)
{
    return rb_str_encode(string, rb_enc_from_encoding(utf8), 0, Qnil);
}

VALUE text_payload(VALUE data, bool *binary)
{
    if (!RB_TYPE_P(data, T_STRING))
        rb_raise(rb_eTypeError, "a message is a String, not %" PRIsVALUE " (to_json it?)",
                 rb_obj_class(data));
    rb_encoding *encoding = rb_enc_get(data);
    if (!is_known(encoding)) {
        *binary = false;
        return transcoded(data);
    }
    *binary = encoding == binary8 || rb_enc_str_coderange(data) == ENC_CODERANGE_BROKEN;
    return data;
}

VALUE text_name(VALUE name, bool is_pattern)
{
    if (RB_SYMBOL_P(name))
        name = rb_sym2str(name);
    if (!RB_TYPE_P(name, T_STRING))
        rb_raise(rb_eTypeError, "a channel is a String or a Symbol, not %" PRIsVALUE,
                 rb_obj_class(name));
    if (!is_known(rb_enc_get(name)))
        name = transcoded(name);
    size_t length = (size_t)RSTRING_LEN(name);
    if (is_pattern)
        brokerd_check(glob_check(RSTRING_PTR(name), length));
    else if (length > CHANNEL_LENGTH_MAX)
        brokerd_check(STATUS_CHANNEL_LENGTH);
    return name;
}

VALUE text_string(const uint8_t *bytes, size_t length, bool binary)
{
    VALUE string = rb_enc_str_new((const char *)bytes, (long)length, binary ? binary8 : utf8);
    if (!binary && rb_enc_str_coderange(string) == ENC_CODERANGE_BROKEN)
        rb_enc_associate(string, binary8);
    return string;
}

VALUE text_valid_string(const uint8_t *bytes, size_t length)
{
    return rb_enc_str_new((const char *)bytes, (long)length, utf8);
}

VALUE text_key(VALUE name, bool is_pattern)
{
    long length = RSTRING_LEN(name);
    VALUE key = rb_enc_str_new(NULL, length + 1, binary8);
    char *at = RSTRING_PTR(key);
    at[0] = is_pattern ? 'p' : 'c';
    memcpy(at + 1, RSTRING_PTR(name), (size_t)length);
    RB_GC_GUARD(name);
    return rb_str_to_interned_str(key);
}
