/*
 * Brokerd::Subscription: a block that is called for each message of one channel or pattern.
 *
 * Those outside clients stand in the registry: a global one (Brokerd.subscribe) under its name, so
 * that the same name replaces it, and it survives fork since the child attaches it anew; one of a
 * foreign client under itself, which a fork ends. Those of our own clients belong to the client.
 */
#include "commands.h"
#include "rb_brokerd.h"

struct rb_subscription {
    VALUE self; /* not marked: follows the object when it is moved */
    VALUE name;
    VALUE callable;
    VALUE on_gap;
    struct block *block; /* a reference while attached */
    unsigned epoch;      /* of the I/O thread that the block belongs to */
    bool is_pattern;
    bool cancelled;
};

static VALUE subscription_class;
static VALUE registry; /* name's key, or the subscription itself => subscription */

static void subscription_mark(void *data)
{
    struct rb_subscription *s = data;
    rb_gc_mark_movable(s->name);
    rb_gc_mark_movable(s->callable);
    rb_gc_mark_movable(s->on_gap);
}

static void subscription_compact(void *data)
{
    struct rb_subscription *s = data;
    s->self = rb_gc_location(s->self);
    s->name = rb_gc_location(s->name);
    s->callable = rb_gc_location(s->callable);
    s->on_gap = rb_gc_location(s->on_gap);
}

static void drop_block(struct rb_subscription *s)
{
    /* A block of an older epoch belongs to a thread that is gone, perhaps with its memory. */
    if (s->block && s->epoch == runtime_epoch()) {
        block_cancel(s->block);
        block_unref(s->block);
    }
    s->block = NULL;
}

static void subscription_free(void *data)
{
    drop_block(data);
    xfree(data);
}

static size_t subscription_size(const void *data)
{
    (void)data;
    return sizeof(struct rb_subscription);
}

static const rb_data_type_t subscription_type = {
    .wrap_struct_name = "Brokerd::Subscription",
    .function = {.dmark = subscription_mark,
                 .dfree = subscription_free,
                 .dsize = subscription_size,
                 .dcompact = subscription_compact},
    .flags = RUBY_TYPED_FREE_IMMEDIATELY | RUBY_TYPED_WB_PROTECTED,
};

static struct rb_subscription *get(VALUE self)
{
    return rb_check_typeddata(self, &subscription_type);
}

VALUE rb_subscription_self(const struct rb_subscription *s)
{
    return s->self;
}

VALUE rb_subscription_callable(const struct rb_subscription *s)
{
    return s->callable;
}

VALUE rb_subscription_new(VALUE name, bool is_pattern, VALUE callable)
{
    struct rb_subscription *s;
    VALUE self =
        TypedData_Make_Struct(subscription_class, struct rb_subscription, &subscription_type, s);
    s->self = self;
    s->name = s->callable = s->on_gap = Qnil;
    s->is_pattern = is_pattern;
    RB_OBJ_WRITE(self, &s->name, rb_str_new_frozen(name));
    RB_OBJ_WRITE(self, &s->callable, callable);
    return self;
}

struct block *rb_subscription_block(VALUE self, struct mailbox *mailbox)
{
    struct rb_subscription *s = get(self);
    s->block = block_new(mailbox, (uintptr_t)s);
    s->epoch = runtime_epoch();
    return s->block;
}

/* Gives a subscription outside any client a mailbox of its own and tells the hub. */
static bool attach(struct io_thread *io, VALUE self)
{
    struct rb_subscription *s = get(self);
    struct mailbox *mailbox = mailbox_new(io_callbacks(io), 0);
    if (!mailbox)
        return false;
    struct block *block = rb_subscription_block(self, mailbox);
    mailbox_unref(mailbox);
    if (!block)
        return false;
    if (commands_subscribe_block(io, block, RSTRING_PTR(s->name), (size_t)RSTRING_LEN(s->name),
                                 s->is_pattern))
        return true;
    drop_block(s);
    return false;
}

void rb_subscription_cancel(VALUE self)
{
    struct rb_subscription *s = get(self);
    s->cancelled = true;
    drop_block(s);
}

/* Cancels and takes off the hub and the registry; false when it was cancelled before. */
static bool withdraw(VALUE key, VALUE self)
{
    struct rb_subscription *s = get(self);
    if (s->cancelled)
        return false;
    struct io_thread *io = runtime_running();
    if (io && s->block && s->epoch == runtime_epoch())
        commands_unsubscribe_block(io, s->block);
    rb_subscription_cancel(self);
    if (rb_hash_lookup2(registry, key, Qnil) == self)
        rb_hash_delete(registry, key);
    return true;
}

static int attach_each(VALUE key, VALUE self, VALUE io)
{
    if (!RB_TYPE_P(key, T_STRING)) {
        get(self)->cancelled = true;
        return ST_DELETE;
    }
    get(self)->block = NULL;
    if (!attach((struct io_thread *)io, self))
        rb_warn("brokerd: out of memory, a subscription is not served");
    return ST_CONTINUE;
}

void rb_subscription_attach_all(struct io_thread *io)
{
    rb_hash_foreach(registry, attach_each, (VALUE)io);
}

static int detach_each(VALUE key, VALUE self, VALUE unused)
{
    (void)key;
    (void)unused;
    drop_block(get(self));
    return ST_CONTINUE;
}

void rb_subscription_detach_all(void)
{
    rb_hash_foreach(registry, detach_each, Qnil);
}

bool rb_subscription_any(void)
{
    return RHASH_SIZE(registry) > 0;
}

/* Puts it into the registry in place of an older one and attaches it, unless this process is one
 * that will fork its workers: then they do. nil: known to fail. */
static VALUE enter(VALUE key, VALUE self)
{
    struct io_thread *io = runtime_running();
    if (!io && !RTEST(rb_funcall(brokerd_module, rb_intern("preloading?"), 0))) {
        io = runtime_io();
        if (!io)
            return Qnil;
    }
    if (io && !attach(io, self))
        return Qnil;
    VALUE older = rb_hash_lookup2(registry, key, Qnil);
    if (!NIL_P(older))
        withdraw(key, older);
    rb_hash_aset(registry, key, self);
    return self;
}

static VALUE subscribe(int argc, VALUE *argv, VALUE module)
{
    (void)module;
    struct subscribe_arguments a;
    pubsub_subscribe_arguments(argc, argv, &a);
    if (NIL_P(a.block))
        rb_raise(rb_eArgError, "subscribe outside a client needs a block");
    VALUE self = rb_subscription_new(a.name, a.is_pattern, a.block);
    return enter(text_key(a.name, a.is_pattern), self);
}

static VALUE unsubscribe(int argc, VALUE *argv, VALUE module)
{
    (void)module;
    struct subscribe_arguments a;
    pubsub_unsubscribe_arguments(argc, argv, &a);
    VALUE key = text_key(a.name, a.is_pattern);
    VALUE self = rb_hash_lookup2(registry, key, Qnil);
    return !NIL_P(self) && withdraw(key, self) ? Qtrue : Qfalse;
}

/* For foreign clients: a subscription of its own, beside others of the same name. */
static VALUE subscription_open(VALUE class, VALUE name, VALUE is_pattern, VALUE callable)
{
    (void)class;
    VALUE self =
        rb_subscription_new(text_name(name, RTEST(is_pattern)), RTEST(is_pattern), callable);
    return enter(self, self);
}

static VALUE subscription_cancel(VALUE self)
{
    struct rb_subscription *s = get(self);
    VALUE key = text_key(s->name, s->is_pattern);
    if (rb_hash_lookup2(registry, key, Qnil) != self)
        key = self;
    return withdraw(key, self) ? Qtrue : Qfalse;
}

static VALUE subscription_name(VALUE self)
{
    return get(self)->name;
}

static VALUE subscription_is_pattern(VALUE self)
{
    return get(self)->is_pattern ? Qtrue : Qfalse;
}

static VALUE subscription_is_active(VALUE self)
{
    return get(self)->cancelled ? Qfalse : Qtrue;
}

static VALUE subscription_on_gap(VALUE self)
{
    struct rb_subscription *s = get(self);
    if (!rb_block_given_p())
        return s->on_gap;
    RB_OBJ_WRITE(self, &s->on_gap, rb_block_proc());
    return self;
}

void rb_subscription_init(void)
{
    registry = rb_hash_new();
    rb_gc_register_address(&registry);
    subscription_class = rb_define_class_under(brokerd_module, "Subscription", rb_cObject);
    rb_gc_register_address(&subscription_class);
    rb_undef_alloc_func(subscription_class);
    rb_undef_method(rb_singleton_class(subscription_class), "new");
    rb_define_singleton_method(subscription_class, "open", subscription_open, 3);
    rb_define_method(subscription_class, "cancel", subscription_cancel, 0);
    rb_define_method(subscription_class, "name", subscription_name, 0);
    rb_define_method(subscription_class, "pattern?", subscription_is_pattern, 0);
    rb_define_method(subscription_class, "active?", subscription_is_active, 0);
    rb_define_method(subscription_class, "on_gap", subscription_on_gap, 0);

    rb_define_singleton_method(brokerd_module, "subscribe", subscribe, -1);
    rb_define_singleton_method(brokerd_module, "unsubscribe", unsubscribe, -1);
    rb_define_singleton_method(brokerd_pubsub, "subscribe", subscribe, -1);
    rb_define_singleton_method(brokerd_pubsub, "unsubscribe", unsubscribe, -1);
}
