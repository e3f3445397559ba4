/* The extension's entry, and the one translation of statuses into exceptions. */
#include "rb_brokerd.h"

VALUE brokerd_module, brokerd_error, brokerd_pubsub, brokerd_callbacks;

static VALUE authentication_error, limit_error, protocol_error;

static VALUE exception_class(enum status status)
{
    switch (status) {
    case STATUS_TOO_LARGE:
    case STATUS_CHANNEL_LENGTH:
    case STATUS_PATTERN:
        return rb_eArgError;
    case STATUS_NO_MEMORY:
        return rb_eNoMemError;
    case STATUS_AUTH:
    case STATUS_DENIED:
        return authentication_error;
    case STATUS_WEAK_PATTERN:
    case STATUS_FULL:
        return limit_error;
    case STATUS_MALFORMED:
    case STATUS_VERSION:
    case STATUS_UNKNOWN_OPERATION:
    case STATUS_TRUNCATED:
        return protocol_error;
    default:
        return brokerd_error;
    }
}

void brokerd_check(enum status status)
{
    if (status != STATUS_OK)
        rb_raise(exception_class(status), "%s", status_text(status));
}

__attribute__((visibility("default"))) void Init_brokerd_ext(void);

void Init_brokerd_ext(void)
{
    brokerd_module = rb_define_module("Brokerd");
    rb_gc_register_address(&brokerd_module);
    brokerd_error = rb_define_class_under(brokerd_module, "Error", rb_eStandardError);
    rb_gc_register_address(&brokerd_error);
    authentication_error =
        rb_define_class_under(brokerd_module, "AuthenticationError", brokerd_error);
    rb_gc_register_address(&authentication_error);
    limit_error = rb_define_class_under(brokerd_module, "LimitError", brokerd_error);
    rb_gc_register_address(&limit_error);
    protocol_error = rb_define_class_under(brokerd_module, "ProtocolError", brokerd_error);
    rb_gc_register_address(&protocol_error);
    brokerd_pubsub = rb_define_module_under(brokerd_module, "PubSub");
    rb_gc_register_address(&brokerd_pubsub);
    brokerd_callbacks = rb_define_module_under(brokerd_module, "Callbacks");
    rb_gc_register_address(&brokerd_callbacks);

    rb_text_init();
    rb_runtime_init();
    rb_callbacks_init();
    rb_subscription_init();
    rb_client_init();
    rb_pubsub_init();
    rb_handshake_init();
}
