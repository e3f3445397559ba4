/*
 * publish, and the argument forms that subscribe and unsubscribe share. publish runs in trap
 * handlers too: nothing on its road takes a Ruby Mutex.
 */
#include "commands.h"
#include "hub.h"
#include "rb_brokerd.h"

enum { MESSAGE_LENGTH_MAX = 8 * 1024 * 1024 }; /* bytes of a published message */

static VALUE cluster, process; /* Brokerd::PubSub::CLUSTER and PROCESS, from Ruby */
static VALUE default_engine;
static ID id_publish, id_engine_failed;

static VALUE publish_here(VALUE to, VALUE message)
{
    struct io_thread *io = runtime_running();
    if (!io && !rb_subscription_any())
        return Qtrue; /* nobody can be subscribed in a process whose I/O thread does not run */
    if (!io && !(io = runtime_io()))
        return Qfalse;
    bool binary;
    message = text_payload(message, &binary);
    bool done = commands_publish_local(io, RSTRING_PTR(to), (size_t)RSTRING_LEN(to),
                                       RSTRING_PTR(message), (size_t)RSTRING_LEN(message), binary);
    RB_GC_GUARD(to);
    RB_GC_GUARD(message);
    return done ? Qtrue : Qfalse;
}

static VALUE publish_everywhere(VALUE to, VALUE message)
{
    bool binary;
    message = text_payload(message, &binary);
    struct io_thread *io = runtime_io();
    if (!io)
        return Qfalse;
    bool done = commands_publish(io, RSTRING_PTR(to), (size_t)RSTRING_LEN(to), RSTRING_PTR(message),
                                 (size_t)RSTRING_LEN(message), binary);
    RB_GC_GUARD(to);
    RB_GC_GUARD(message);
    return done ? Qtrue : Qfalse;
}

static VALUE call_engine(VALUE arguments)
{
    return rb_funcallv(rb_ary_entry(arguments, 0), id_publish, 2, RARRAY_CONST_PTR(arguments) + 1);
}

static VALUE engine_failed(VALUE arguments, VALUE error)
{
    rb_funcall(brokerd_callbacks, id_engine_failed, 3, rb_ary_entry(arguments, 0),
               ID2SYM(id_publish), error);
    return Qfalse;
}

/* A foreign engine's exception is its own matter: logged, and the publish has failed. */
static VALUE publish_through(VALUE engine, VALUE to, VALUE message)
{
    VALUE arguments = rb_ary_new_from_args(3, engine, to, message);
    VALUE result =
        rb_rescue2(call_engine, arguments, engine_failed, arguments, rb_eStandardError, (VALUE)0);
    return RTEST(result) ? Qtrue : Qfalse;
}

VALUE pubsub_publish(int argc, VALUE *argv)
{
    rb_check_arity(argc, 2, 3);
    VALUE to = text_name(argv[0], false);
    VALUE message = argv[1];
    if (!RB_TYPE_P(message, T_STRING))
        rb_raise(rb_eTypeError, "a message is a String, not %" PRIsVALUE " (to_json it?)",
                 rb_obj_class(message));
    if (RSTRING_LEN(message) > MESSAGE_LENGTH_MAX)
        brokerd_check(STATUS_TOO_LARGE);
    VALUE engine = argc == 3 ? argv[2] : Qnil;
    if (NIL_P(engine))
        engine = default_engine;
    if (engine == cluster)
        return publish_everywhere(to, message);
    if (engine == Qfalse || engine == process)
        return publish_here(to, message);
    return publish_through(engine, to, message);
}

static VALUE publish(int argc, VALUE *argv, VALUE module)
{
    (void)module;
    return pubsub_publish(argc, argv);
}

static VALUE cluster_publish(VALUE self, VALUE to, VALUE message)
{
    VALUE argv[3] = {to, message, cluster};
    (void)self;
    return pubsub_publish(3, argv);
}

static VALUE process_publish(VALUE self, VALUE to, VALUE message)
{
    VALUE argv[3] = {to, message, process};
    (void)self;
    return pubsub_publish(3, argv);
}

static VALUE get_default(VALUE module)
{
    (void)module;
    return default_engine;
}

static VALUE set_default(VALUE module, VALUE engine)
{
    (void)module;
    if (NIL_P(engine))
        engine = cluster;
    if (engine == Qfalse)
        engine = process;
    if (!rb_respond_to(engine, id_publish))
        rb_raise(rb_eTypeError,
                 "an engine answers publish(channel, message); %" PRIsVALUE " does not",
                 rb_obj_class(engine));
    return default_engine = engine;
}

/* The two engines that are made here; lib/brokerd/pubsub.rb gives them their names. */
static VALUE set_builtin(VALUE module, VALUE for_cluster, VALUE for_process)
{
    (void)module;
    default_engine = cluster = for_cluster;
    process = for_process;
    rb_define_singleton_method(cluster, "publish", cluster_publish, 2);
    rb_define_singleton_method(process, "publish", process_publish, 2);
    return Qnil;
}

static bool pattern_argument(VALUE match)
{
    if (!RTEST(match))
        return false;
    if (match == Qtrue)
        return true;
    ID id = RB_SYMBOL_P(match) ? SYM2ID(match) : 0;
    if (id != rb_intern("redis") && id != rb_intern("glob"))
        rb_raise(rb_eArgError, "match: is :redis, :glob, true or nil, not %+" PRIsVALUE, match);
    return true;
}

static void *as_argument(VALUE as)
{
    if (NIL_P(as) || as == Qundef)
        return &HUB_DIRECT_AUTO;
    ID id = RB_SYMBOL_P(as) ? SYM2ID(as) : 0;
    if (id == rb_intern("text"))
        return &HUB_DIRECT_TEXT;
    if (id == rb_intern("binary"))
        return &HUB_DIRECT_BINARY;
    rb_raise(rb_eArgError, "as: is :text, :binary or nil, not %+" PRIsVALUE, as);
}

/* to and is_pattern, positional or as the keywords to: and match:. */
static void name_arguments(VALUE to, VALUE is_pattern, VALUE key_to, VALUE match,
                           struct subscribe_arguments *a)
{
    if (key_to != Qundef)
        to = key_to;
    if (to == Qundef)
        rb_raise(rb_eArgError, "missing argument: to");
    a->is_pattern = RTEST(is_pattern) || (match != Qundef && pattern_argument(match));
    a->name = text_name(to, a->is_pattern);
}

static void scan(int argc, VALUE *argv, const ID *keys, VALUE *values, int count,
                 struct subscribe_arguments *a, VALUE *block)
{
    VALUE to, is_pattern, options;
    int given = rb_scan_args(argc, argv, "02:&", &to, &is_pattern, &options, block);
    for (int i = 0; i < count; i++)
        values[i] = Qundef;
    if (!NIL_P(options))
        rb_get_kwargs(options, keys, 0, count, values);
    name_arguments(given ? to : Qundef, is_pattern, values[0], values[1], a);
}

void pubsub_subscribe_arguments(int argc, VALUE *argv, struct subscribe_arguments *a)
{
    static ID keys[4];
    VALUE values[4];
    if (!keys[0]) {
        keys[1] = rb_intern("match");
        keys[2] = rb_intern("as");
        keys[3] = rb_intern("handler");
        keys[0] = rb_intern("to");
    }
    scan(argc, argv, keys, values, 4, a, &a->block);
    a->as = as_argument(values[2]);
    if (NIL_P(a->block) && values[3] != Qundef && !NIL_P(values[3])) {
        if (!rb_respond_to(values[3], rb_intern("call")))
            rb_raise(rb_eTypeError, "handler: answers call(channel, message)");
        a->block = values[3];
    }
}

void pubsub_unsubscribe_arguments(int argc, VALUE *argv, struct subscribe_arguments *a)
{
    static ID keys[2];
    VALUE values[2], block;
    if (!keys[0]) {
        keys[1] = rb_intern("match");
        keys[0] = rb_intern("to");
    }
    scan(argc, argv, keys, values, 2, a, &block);
}

void rb_pubsub_init(void)
{
    id_publish = rb_intern("publish");
    id_engine_failed = rb_intern("engine_failed");
    cluster = process = default_engine = Qnil;
    rb_gc_register_address(&cluster);
    rb_gc_register_address(&process);
    rb_gc_register_address(&default_engine);
    rb_define_singleton_method(brokerd_module, "publish", publish, -1);
    rb_define_singleton_method(brokerd_pubsub, "publish", publish, -1);
    rb_define_singleton_method(brokerd_pubsub, "default", get_default, 0);
    rb_define_singleton_method(brokerd_pubsub, "default=", set_default, 1);
    rb_define_singleton_method(brokerd_pubsub, "builtin_engines", set_builtin, 2);
}
