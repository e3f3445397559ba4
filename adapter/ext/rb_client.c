/*
 * Brokerd::Client: the object that an application's callbacks get.
 *
 * It stands in `live` from its creation until its on_close has run, so C may keep a pointer to its
 * struct for that long. Afterwards, and in a forked child, it is a closed client and nothing more.
 */
#include "commands.h"
#include "hub.h"
#include "rb_brokerd.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

struct rb_client {
    VALUE self; /* not marked: follows the object when it is moved */
    VALUE env;  /* nil until somebody asks for it; kept from the start where it cannot be packed */
    VALUE handler;
    VALUE switches;            /* Array of handlers to come, or nil */
    VALUE subscriptions;       /* of rb_subscriptions_add */
    struct packed_env *packed; /* what env is made of; NULL: of nothing, or it was made */
    struct client *client;     /* a reference; NULL once closed */
    unsigned epoch;            /* of the I/O thread that serves it */
    unsigned slot;             /* in live */
    unsigned nudges;           /* that wait in the mailbox */
    unsigned timeout;          /* as set; NO_TIMEOUT: as configured */
    bool websocket;
    bool closed; /* on_close has run */
};

enum { NO_TIMEOUT = UINT32_MAX };
enum { SPARE_OBJECTS = 256 }; /* made at once; less than a page of the heap, 10 KiB */

static VALUE client_class;
static ID id_on_drained, id_websocket, id_sse;
static VALUE upgrade_key, upgrade_kind_key;

static VALUE spare; /* Array of objects for clients to come */
static VALUE live;  /* Array: slot => client, or nil */
static unsigned *free_slots;
static unsigned free_count, free_capacity, live_count;

static void client_mark(void *data)
{
    struct rb_client *c = data;
    rb_gc_mark_movable(c->env);
    rb_gc_mark_movable(c->handler);
    rb_gc_mark_movable(c->switches);
    rb_gc_mark_movable(c->subscriptions);
    rb_env_mark(c->packed);
}

static void client_compact(void *data)
{
    struct rb_client *c = data;
    c->self = rb_gc_location(c->self);
    c->env = rb_gc_location(c->env);
    c->handler = rb_gc_location(c->handler);
    c->switches = rb_gc_location(c->switches);
    c->subscriptions = rb_gc_location(c->subscriptions);
    rb_env_compact(c->packed);
}

static void client_free(void *data)
{
    struct rb_client *c = data;
    /* What belongs to an I/O thread of before a fork is not ours to touch. */
    if (c->client && c->epoch == runtime_epoch())
        client_unref(c->client);
    xfree(c->packed);
    xfree(c);
}

static size_t client_size(const void *data)
{
    const struct rb_client *c = data;
    return sizeof(*c) + rb_env_size(c->packed);
}

static const rb_data_type_t client_type = {
    .wrap_struct_name = "Brokerd::Client",
    .function = {.dmark = client_mark,
                 .dfree = client_free,
                 .dsize = client_size,
                 .dcompact = client_compact},
    .flags = RUBY_TYPED_FREE_IMMEDIATELY | RUBY_TYPED_WB_PROTECTED,
};

static struct rb_client *get(VALUE self)
{
    return rb_check_typeddata(self, &client_type);
}

/* The C client while this process serves it, or NULL. */
static struct client *serving(struct rb_client *c)
{
    return c->client && c->epoch == runtime_epoch() ? c->client : NULL;
}

static struct client *open_client(struct rb_client *c)
{
    struct client *client = serving(c);
    return client && client_is_open(client) ? client : NULL;
}

/*
 * A client lives long, the objects of the request that made it do not: made one at a time, clients
 * would stand a few to each page of the heap, so that no page is ever full, which a collection
 * passes over, or empty, which it gives back. So their objects are made many at a time, and hidden
 * (without a class) while they wait.
 */
static VALUE new_object(VALUE class, struct rb_client **c)
{
    if (RARRAY_LEN(spare) == 0) {
        for (int i = 0; i < SPARE_OBJECTS; i++)
            rb_ary_push(spare, TypedData_Wrap_Struct(0, &client_type, NULL));
    }
    *c = ZALLOC(struct rb_client);
    VALUE self = rb_ary_pop(spare);
    RTYPEDDATA_DATA(self) = *c;
    return rb_obj_reveal(self, class);
}

static void live_add(struct rb_client *c)
{
    c->slot = free_count ? free_slots[--free_count] : (unsigned)RARRAY_LEN(live);
    rb_ary_store(live, (long)c->slot, c->self);
    live_count++;
}

static void live_remove(struct rb_client *c)
{
    if (free_count == free_capacity) {
        free_capacity = free_capacity ? free_capacity * 2 : 64;
        REALLOC_N(free_slots, unsigned, free_capacity);
    }
    rb_ary_store(live, (long)c->slot, Qnil);
    free_slots[free_count++] = c->slot;
    live_count--;
}

struct client *rb_client_open(VALUE self, bool *websocket)
{
    struct rb_client *c = get(self);
    *websocket = c->websocket;
    return open_client(c);
}

VALUE rb_client_self(const struct rb_client *c)
{
    return c->self;
}

VALUE rb_client_handler(const struct rb_client *c)
{
    return c->handler;
}

unsigned rb_client_live(void)
{
    return live_count;
}

void rb_client_closed(struct rb_client *c)
{
    c->closed = true;
    rb_subscriptions_drop(&c->subscriptions);
    c->switches = Qnil;
    client_unref(c->client);
    c->client = NULL;
    if (c->nudges == 0)
        live_remove(c);
}

void rb_client_nudged(struct rb_client *c)
{
    c->nudges--;
    if (c->closed && c->nudges == 0)
        live_remove(c);
}

void rb_client_end_shutdown(struct rb_client *c)
{
    struct client *client = open_client(c);
    if (client)
        commands_close(client, 1001);
}

void rb_client_forget(bool in_child)
{
    for (long i = 0; i < RARRAY_LEN(live); i++) {
        VALUE self = RARRAY_AREF(live, i);
        if (NIL_P(self))
            continue;
        struct rb_client *c = get(self);
        rb_subscriptions_drop(&c->subscriptions);
        c->switches = Qnil;
        if (c->client && !in_child)
            client_unref(c->client);
        c->client = NULL;
        c->closed = true;
    }
    rb_ary_clear(live);
    free_count = live_count = 0;
}

bool rb_client_switch(struct rb_client *c, VALUE *old)
{
    if (NIL_P(c->switches) || RARRAY_LEN(c->switches) == 0)
        return false;
    *old = c->handler;
    RB_OBJ_WRITE(c->self, &c->handler, rb_ary_shift(c->switches));
    return true;
}

static bool wants_drained(VALUE handler)
{
    return rb_obj_respond_to(handler, id_on_drained, 1);
}

/* A server's sockets may block and may wait to fill segments; ours must not. */
static void prepare_socket(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    int one = 1;
    if (flags >= 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on a unix socket */
}

static void deflate_options(VALUE terms, struct client_options *options)
{
    if (NIL_P(terms))
        return;
    Check_Type(terms, T_ARRAY);
    options->deflate = true;
    options->deflate_takeover = RTEST(rb_ary_entry(terms, 0));
    options->client_bits = (uint8_t)NUM2UINT(rb_ary_entry(terms, 1));
    options->server_bits = (uint8_t)NUM2UINT(rb_ary_entry(terms, 2));
}

/*
 * Brokerd::Client.take(fd, protocol, head, received, env, handler, deflate): a client on a
 * duplicate of that descriptor, which stays the caller's. deflate: nil, or the terms from
 * Handshake.deflate. nil when it could not be made.
 */
static VALUE client_take(int argc, VALUE *argv, VALUE class)
{
    rb_check_arity(argc, 7, 7);
    int from = NUM2INT(argv[0]);
    VALUE head = rb_str_to_str(argv[2]), received = rb_str_to_str(argv[3]);
    bool drained = wants_drained(argv[5]); /* may run Ruby code */
    struct io_thread *io = runtime_io();
    if (!io)
        return Qnil;
    struct rb_client *c;
    VALUE self = new_object(class, &c);
    c->self = self;
    c->env = c->switches = c->subscriptions = Qnil;
    RB_OBJ_WRITE(self, &c->handler, argv[5]);
    if (!NIL_P(argv[4]) && !rb_env_pack(self, &c->packed, argv[4]))
        RB_OBJ_WRITE(self, &c->env, argv[4]);
    c->websocket = argv[1] == ID2SYM(id_websocket);
    c->timeout = NO_TIMEOUT;
    c->epoch = runtime_epoch();
    struct client_options options = {
        .protocol = c->websocket ? CLIENT_WEBSOCKET : CLIENT_SSE,
        .response = RSTRING_PTR(head),
        .response_length = (size_t)RSTRING_LEN(head),
        .received = RSTRING_PTR(received),
        .received_length = (size_t)RSTRING_LEN(received),
        .wants_drained = drained,
    };
    deflate_options(argv[6], &options);
    options.fd = fcntl(from, F_DUPFD_CLOEXEC, 0); /* nothing raises from here on */
    if (options.fd < 0)
        rb_sys_fail("fcntl(F_DUPFD_CLOEXEC)");
    prepare_socket(options.fd);
    c->client = client_new(io, &options, (uintptr_t)c);
    RB_GC_GUARD(head);
    RB_GC_GUARD(received);
    if (!c->client) {
        close(options.fd);
        return Qnil;
    }
    live_add(c);
    if (commands_open(c->client))
        return self;
    rb_client_closed(c);
    return Qnil;
}

static VALUE client_close_method(VALUE self)
{
    struct client *client = open_client(get(self));
    if (client)
        commands_close(client, 1000);
    return Qnil;
}

static VALUE client_is_open_method(VALUE self)
{
    return open_client(get(self)) ? Qtrue : Qfalse;
}

static VALUE client_pending_method(VALUE self)
{
    struct client *client = serving(get(self));
    return client ? LL2NUM(client_pending(client)) : INT2FIX(-1);
}

static VALUE client_protocol_method(VALUE self)
{
    return ID2SYM(get(self)->websocket ? id_websocket : id_sse);
}

static VALUE client_handler(VALUE self)
{
    struct rb_client *c = get(self);
    if (NIL_P(c->switches) || RARRAY_LEN(c->switches) == 0)
        return c->handler;
    return rb_ary_entry(c->switches, -1);
}

/* Made when it is asked for: ten thousand Hashes less. Of a request of which nothing is kept it has
 * what is known anyway. */
static VALUE client_env(VALUE self)
{
    struct rb_client *c = get(self);
    if (!NIL_P(c->env))
        return c->env;
    VALUE env = c->packed ? rb_env_unpack(c->packed) : rb_hash_new();
    rb_hash_aset(env, upgrade_key, client_handler(self));
    rb_hash_aset(env, upgrade_kind_key, client_protocol_method(self));
    RB_OBJ_WRITE(self, &c->env, env);
    xfree(c->packed);
    c->packed = NULL;
    return env;
}

static VALUE client_set_handler(VALUE self, VALUE handler)
{
    struct rb_client *c = get(self);
    bool drained = wants_drained(handler);
    if (RB_TYPE_P(c->env, T_HASH) && !RB_OBJ_FROZEN(c->env))
        rb_hash_aset(c->env, upgrade_key, handler);
    struct client *client = serving(c);
    if (!client) {
        RB_OBJ_WRITE(self, &c->handler, handler);
        return handler;
    }
    if (NIL_P(c->switches))
        RB_OBJ_WRITE(self, &c->switches, rb_ary_new());
    rb_ary_push(c->switches, handler);
    client_set_wants_drained(client, drained);
    if (mailbox_post(client_mailbox(client), CALLBACK_OPEN, NULL, NULL, 1, 0)) {
        c->nudges++;
        callback_pool_hurry(io_callbacks(runtime_running()));
    }
    return handler;
}

static VALUE client_timeout_method(VALUE self)
{
    struct rb_client *c = get(self);
    if (c->timeout != NO_TIMEOUT)
        return UINT2NUM(c->timeout);
    struct client *client = serving(c);
    return UINT2NUM(client ? client_timeout(client) : 0);
}

static VALUE client_set_timeout_method(VALUE self, VALUE seconds)
{
    struct rb_client *c = get(self);
    long value = NUM2LONG(seconds);
    if (value < 0 || value > 86400)
        rb_raise(rb_eArgError, "a timeout is 0 (never) to 86400 seconds");
    c->timeout = (unsigned)value;
    struct client *client = open_client(c);
    if (client)
        commands_set_timeout(client, (unsigned)value);
    return seconds;
}

static VALUE client_pubsub(VALUE self)
{
    (void)self;
    return INT2FIX(0);
}

static VALUE client_subscribe(int argc, VALUE *argv, VALUE self)
{
    struct rb_client *c = get(self);
    struct subscribe_arguments a;
    pubsub_subscribe_arguments(argc, argv, &a);
    struct client *client = open_client(c);
    if (!client)
        return Qnil;
    VALUE subscription = Qtrue;
    struct block *block = NULL;
    if (!NIL_P(a.block)) {
        subscription = rb_subscription_new(a.name, a.is_pattern, a.block);
        block = rb_subscription_block(subscription, client_mailbox(client));
        if (!block)
            rb_memerror();
    }
    VALUE key = text_key(a.name, a.is_pattern);
    bool done = commands_subscribe_client(client, RSTRING_PTR(a.name), (size_t)RSTRING_LEN(a.name),
                                          a.is_pattern, block, block ? NULL : a.as);
    RB_GC_GUARD(a.name);
    if (!done)
        return Qnil;
    rb_subscriptions_add(self, &c->subscriptions, key, subscription);
    return Qtrue;
}

static VALUE client_unsubscribe(int argc, VALUE *argv, VALUE self)
{
    struct rb_client *c = get(self);
    struct subscribe_arguments a;
    pubsub_unsubscribe_arguments(argc, argv, &a);
    struct client *client = serving(c);
    if (!client || !rb_subscriptions_remove(&c->subscriptions, text_key(a.name, a.is_pattern)))
        return Qfalse;
    commands_unsubscribe_client(client, RSTRING_PTR(a.name), (size_t)RSTRING_LEN(a.name),
                                a.is_pattern);
    RB_GC_GUARD(a.name);
    return Qtrue;
}

static VALUE client_publish(int argc, VALUE *argv, VALUE self)
{
    (void)self;
    return pubsub_publish(argc, argv);
}

static VALUE client_inspect(VALUE self)
{
    struct rb_client *c = get(self);
    return rb_sprintf("#<%" PRIsVALUE " %s %s>", rb_obj_class(self),
                      c->websocket ? "websocket" : "sse", open_client(c) ? "open" : "closed");
}

void rb_client_init(void)
{
    id_on_drained = rb_intern("on_drained");
    id_websocket = rb_intern("websocket");
    id_sse = rb_intern("sse");
    upgrade_key = rb_str_freeze(rb_str_new_cstr("rack.upgrade"));
    rb_gc_register_address(&upgrade_key);
    upgrade_kind_key = rb_str_freeze(rb_str_new_cstr("rack.upgrade?"));
    rb_gc_register_address(&upgrade_kind_key);
    spare = rb_obj_hide(rb_ary_new_capa(SPARE_OBJECTS));
    rb_gc_register_address(&spare);
    live = rb_ary_new();
    rb_gc_register_address(&live);

    client_class = rb_define_class_under(brokerd_module, "Client", rb_cObject);
    rb_gc_register_address(&client_class);
    rb_undef_alloc_func(client_class);
    rb_undef_method(rb_singleton_class(client_class), "new");
    rb_define_singleton_method(client_class, "take", client_take, -1);
    rb_define_method(client_class, "close", client_close_method, 0);
    rb_define_method(client_class, "open?", client_is_open_method, 0);
    rb_define_method(client_class, "pending", client_pending_method, 0);
    rb_define_method(client_class, "env", client_env, 0);
    rb_define_method(client_class, "protocol", client_protocol_method, 0);
    rb_define_method(client_class, "handler", client_handler, 0);
    rb_define_method(client_class, "handler=", client_set_handler, 1);
    rb_define_method(client_class, "timeout", client_timeout_method, 0);
    rb_define_method(client_class, "timeout=", client_set_timeout_method, 1);
    rb_define_method(client_class, "pubsub?", client_pubsub, 0);
    rb_define_method(client_class, "subscribe", client_subscribe, -1);
    rb_define_method(client_class, "unsubscribe", client_unsubscribe, -1);
    rb_define_method(client_class, "publish", client_publish, -1);
    rb_define_method(client_class, "inspect", client_inspect, 0);
    rb_client_write_init(client_class);
}
