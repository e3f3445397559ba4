/* Brokerd::Client#write: one message, or one event with its name, id and retry time. */
#include "commands.h"
#include "frame.h"
#include "rb_brokerd.h"
#include "sse.h"

enum { KEYWORDS = 3 };

static ID keywords[KEYWORDS]; /* event, id, retry */

struct event_options {
    VALUE event, id; /* Strings that cannot forge anything, or nil */
    int64_t retry;   /* milliseconds; -1: none */
};

static VALUE field_option(VALUE value, const char *name)
{
    if (NIL_P(value))
        return Qnil;
    value = rb_obj_as_string(value);
    if (!sse_field_is_valid(RSTRING_PTR(value), (size_t)RSTRING_LEN(value)))
        rb_raise(rb_eArgError, "%s: has a line break, a NUL or invalid UTF-8", name);
    return value;
}

static int64_t retry_option(VALUE value)
{
    if (NIL_P(value))
        return -1;
    if (!RB_INTEGER_TYPE_P(value))
        rb_raise(rb_eTypeError, "retry: is an Integer of milliseconds, not %" PRIsVALUE,
                 rb_obj_class(value));
    if (!RB_FIXNUM_P(value) || FIX2LONG(value) < 0)
        rb_raise(rb_eArgError, "retry: is not a number of milliseconds");
    return FIX2LONG(value);
}

static void event_options(VALUE options, bool websocket, struct event_options *e)
{
    VALUE values[KEYWORDS] = {Qundef, Qundef, Qundef};
    *e = (struct event_options){.event = Qnil, .id = Qnil, .retry = -1};
    if (NIL_P(options))
        return;
    rb_get_kwargs(options, keywords, 0, KEYWORDS, values);
    for (int i = 0; i < KEYWORDS; i++) {
        if (values[i] == Qundef)
            values[i] = Qnil;
        if (websocket && !NIL_P(values[i]))
            rb_raise(rb_eArgError,
                     "%" PRIsVALUE ": is for event streams, this client is a WebSocket",
                     rb_id2str(keywords[i]));
    }
    e->event = field_option(values[0], "event");
    e->id = field_option(values[1], "id");
    e->retry = retry_option(values[2]);
}

static const char *bytes_of(VALUE string)
{
    return NIL_P(string) ? NULL : RSTRING_PTR(string);
}

static size_t length_of(VALUE string)
{
    return NIL_P(string) ? 0 : (size_t)RSTRING_LEN(string);
}

static VALUE client_write(int argc, VALUE *argv, VALUE self)
{
    VALUE data, options;
    bool websocket, binary;
    struct event_options e;
    rb_scan_args(argc, argv, "1:", &data, &options);
    data = text_payload(data, &binary);
    rb_client_open(self, &websocket);
    event_options(options, websocket, &e); /* to_s of theirs may run here */
    struct client *client = rb_client_open(self, &websocket);
    if (!client)
        return Qfalse;
    struct frame *frame;
    if (!websocket)
        frame = frame_sse_event(bytes_of(data), length_of(data), bytes_of(e.event),
                                length_of(e.event), bytes_of(e.id), length_of(e.id), e.retry);
    else if (binary)
        frame = frame_binary(bytes_of(data), length_of(data));
    else
        frame = frame_text(bytes_of(data), length_of(data));
    RB_GC_GUARD(data);
    RB_GC_GUARD(e.event);
    RB_GC_GUARD(e.id);
    if (!frame)
        rb_memerror();
    return commands_write(client, frame) ? Qtrue : Qfalse;
}

void rb_client_write_init(VALUE client_class)
{
    keywords[0] = rb_intern("event");
    keywords[1] = rb_intern("id");
    keywords[2] = rb_intern("retry");
    rb_define_method(client_class, "write", client_write, -1);
}
