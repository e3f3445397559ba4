/*
 * This process's I/O thread: started on first need, found stale after a fork, stopped at exit.
 * Every function holds the interpreter lock, which is what serialises starts and stops.
 */
#include "commands.h"
#include "rb_brokerd.h"
#include <ruby/thread.h>

static struct {
    struct io_thread *io;
    unsigned generation; /* io_generation() when it was started */
    unsigned epoch;
} current;

static unsigned epochs;
static bool is_stopping; /* an I/O thread of this process is being joined without the lock */
static unsigned stopping_generation;
static ID id_settings, id_started, id_start_failed;

struct io_thread *runtime_running(void)
{
    return current.io && current.generation == io_generation() ? current.io : NULL;
}

unsigned runtime_epoch(void)
{
    return runtime_running() ? current.epoch : 0;
}

static VALUE setting(VALUE settings, const char *name)
{
    return rb_hash_lookup2(settings, ID2SYM(rb_intern(name)), Qnil);
}

/* The strings belong to settings, which the caller keeps alive; io_thread_start copies them. */
static const char *string_setting(VALUE settings, const char *name)
{
    VALUE value = setting(settings, name);
    return NIL_P(value) ? NULL : StringValueCStr(value);
}

static void size_setting(VALUE settings, const char *name, size_t *size)
{
    VALUE value = setting(settings, name);
    if (!NIL_P(value))
        *size = NUM2SIZET(value);
}

static void unsigned_setting(VALUE settings, const char *name, unsigned *number)
{
    VALUE value = setting(settings, name);
    if (!NIL_P(value))
        *number = NUM2UINT(value);
}

static void configure(VALUE settings, struct io_config *config)
{
    io_config_init(config);
    config->url = string_setting(settings, "url");
    config->name = string_setting(settings, "name");
    config->secret_file = string_setting(settings, "secret_file");
    config->ca_file = string_setting(settings, "ca_file");
    config->crl_file = string_setting(settings, "crl_file");
    config->cert_file = string_setting(settings, "cert_file");
    config->key_file = string_setting(settings, "key_file");
    config->program = string_setting(settings, "program");
    config->deflate = RTEST(setting(settings, "deflate"));
    config->io_uring = RTEST(setting(settings, "io_uring"));
    size_setting(settings, "max_message", &config->max_message);
    size_setting(settings, "max_pending", &config->max_pending);
    unsigned_setting(settings, "ping", &config->ping_seconds);
    unsigned_setting(settings, "pong_timeout", &config->pong_seconds);
    unsigned_setting(settings, "stall_timeout", &config->stall_seconds);
}

static struct io_thread *start(void)
{
    VALUE settings = rb_funcall(brokerd_module, id_settings, 0);
    struct io_config config;
    configure(settings, &config);
    unsigned threads = NUM2UINT(setting(settings, "callback_threads"));
    if (runtime_running())
        return current.io; /* another thread was faster while Ruby code ran */
    if (is_stopping && stopping_generation == io_generation())
        return NULL;
    if (current.io)
        rb_client_forget(true);
    char error[256];
    struct io_thread *io = io_thread_start(&config, error, sizeof(error));
    RB_GC_GUARD(settings);
    if (!io) {
        rb_funcall(brokerd_callbacks, id_start_failed, 1, rb_str_new_cstr(error));
        return NULL;
    }
    current.io = io;
    current.generation = io_generation();
    current.epoch = ++epochs;
    rb_subscription_attach_all(io);
    callbacks_start(io_callbacks(io), threads);
    rb_funcall(brokerd_callbacks, id_started, 0);
    return runtime_running();
}

struct io_thread *runtime_io(void)
{
    struct io_thread *io = runtime_running();
    return io ? io : start();
}

static VALUE runtime_start(VALUE module)
{
    (void)module;
    return runtime_io() ? Qtrue : Qfalse;
}

static VALUE runtime_is_running(VALUE module)
{
    (void)module;
    return runtime_running() ? Qtrue : Qfalse;
}

/* What was registered before a fork is taken up; engines: is one attached? */
static VALUE runtime_take_up(VALUE module, VALUE engines)
{
    (void)module;
    if (!runtime_running() && (RTEST(engines) || rb_subscription_any()))
        runtime_io();
    return Qnil;
}

static VALUE runtime_begin_shutdown(VALUE module)
{
    (void)module;
    struct io_thread *io = runtime_running();
    return io && commands_shutdown(io) ? Qtrue : Qfalse;
}

struct waiting {
    struct io_thread *io;
    bool (*wait)(struct io_thread *io, unsigned timeout_ms);
    bool reached;
};

enum { WAIT_SLICE_MS = 50 }; /* between two looks at the interpreter's interrupts */

static void *wait_slice(void *data)
{
    struct waiting *w = data;
    w->reached = w->wait(w->io, WAIT_SLICE_MS);
    return NULL;
}

static VALUE wait_bounded(bool (*wait)(struct io_thread *, unsigned), VALUE seconds)
{
    /* by the clock: threads that compete for the interpreter make a slice take many times as long
     */
    double wanted = NUM2DBL(seconds) * 1000;
    uint64_t deadline = rb_clock_ms() + (wanted > 0 ? (uint64_t)wanted : 0);
    do {
        struct waiting w = {runtime_running(), wait, true};
        if (!w.io)
            return Qtrue;
        rb_thread_call_without_gvl(wait_slice, &w, NULL, NULL);
        if (w.reached)
            return Qtrue;
    } while (rb_clock_ms() < deadline);
    return Qfalse;
}

static VALUE runtime_wait_clients(VALUE module, VALUE seconds)
{
    (void)module;
    return wait_bounded(io_wait_clients, seconds);
}

static VALUE runtime_wait_published(VALUE module, VALUE seconds)
{
    (void)module;
    return wait_bounded(io_wait_published, seconds);
}

/* Runtime.epoch: which I/O thread of this process runs, another number for each; 0 none. */
static VALUE runtime_epoch_method(VALUE module)
{
    (void)module;
    return UINT2NUM(runtime_epoch());
}

static VALUE runtime_live(VALUE module)
{
    (void)module;
    return UINT2NUM(runtime_running() ? rb_client_live() : 0);
}

static void *stop_thread(void *io)
{
    io_thread_stop(io);
    return NULL;
}

/* Ends callback threads and I/O thread; a callback that still runs after that many seconds keeps
 * both. */
static VALUE runtime_stop(VALUE module, VALUE seconds)
{
    (void)module;
    struct io_thread *io = runtime_running();
    if (!io)
        return Qtrue;
    bool ended = callbacks_stop(NUM2DBL(seconds));
    if (io != runtime_running())
        return Qtrue;
    rb_subscription_detach_all();
    rb_client_forget(false);
    current.io = NULL;
    if (ended) {
        stopping_generation = io_generation();
        is_stopping = true;
        rb_thread_call_without_gvl2(stop_thread, io, NULL, NULL);
        is_stopping = false;
    }
    return ended ? Qtrue : Qfalse;
}

#define STATS(X)                                                                                   \
    X(clients)                                                                                     \
    X(messages_in)                                                                                 \
    X(deliveries)                                                                                  \
    X(frames_out)                                                                                  \
    X(bytes_out)                                                                                   \
    X(flushes)                                                                                     \
    X(evicted_slow)                                                                                \
    X(evicted_stalled)                                                                             \
    X(ping_timeouts)                                                                               \
    X(protocol_errors)                                                                             \
    X(publishes)                                                                                   \
    X(publishes_refused)                                                                           \
    X(publishes_unsure)                                                                            \
    X(subscriptions_refused)                                                                       \
    X(unanswered)                                                                                  \
    X(unanswered_bytes)                                                                            \
    X(gaps)                                                                                        \
    X(gap_messages)                                                                                \
    X(blocks_dropped)                                                                              \
    X(link_connects)                                                                               \
    X(channels)                                                                                    \
    X(patterns)

static VALUE runtime_stats(VALUE module)
{
    (void)module;
    struct io_stats stats = {0};
    struct io_thread *io = runtime_running();
    if (io)
        io_stats(io, &stats);
    VALUE hash = rb_hash_new();
#define STATS_SET(member) rb_hash_aset(hash, ID2SYM(rb_intern(#member)), ULL2NUM(stats.member));
    STATS(STATS_SET)
#undef STATS_SET
    rb_hash_aset(hash, ID2SYM(rb_intern("connected")), stats.connected ? Qtrue : Qfalse);
    rb_hash_aset(hash, ID2SYM(rb_intern("running")), io ? Qtrue : Qfalse);
    return hash;
}

static VALUE runtime_watch(VALUE module, VALUE watch)
{
    (void)module;
    struct io_thread *io = runtime_running();
    return io && commands_watch(io, RTEST(watch)) ? Qtrue : Qfalse;
}

static VALUE runtime_report(VALUE module, VALUE token)
{
    (void)module;
    struct io_thread *io = runtime_running();
    return io && commands_report(io, NUM2ULL(token)) ? Qtrue : Qfalse;
}

/* Numbers for Runtime.report, each given once. */
static VALUE runtime_next_token(VALUE module)
{
    static uint64_t token;
    (void)module;
    return ULL2NUM(++token);
}

void rb_runtime_init(void)
{
    id_settings = rb_intern("runtime_settings");
    id_started = rb_intern("started");
    id_start_failed = rb_intern("start_failed");
    VALUE runtime = rb_define_module_under(brokerd_module, "Runtime");
    rb_define_singleton_method(runtime, "start", runtime_start, 0);
    rb_define_singleton_method(runtime, "running?", runtime_is_running, 0);
    rb_define_singleton_method(runtime, "take_up", runtime_take_up, 1);
    rb_define_singleton_method(runtime, "begin_shutdown", runtime_begin_shutdown, 0);
    rb_define_singleton_method(runtime, "wait_clients", runtime_wait_clients, 1);
    rb_define_singleton_method(runtime, "wait_published", runtime_wait_published, 1);
    rb_define_singleton_method(runtime, "live_clients", runtime_live, 0);
    rb_define_singleton_method(runtime, "epoch", runtime_epoch_method, 0);
    rb_define_singleton_method(runtime, "stop", runtime_stop, 1);
    rb_define_singleton_method(runtime, "stats", runtime_stats, 0);
    rb_define_singleton_method(runtime, "watch", runtime_watch, 1);
    rb_define_singleton_method(runtime, "next_token", runtime_next_token, 0);
    rb_define_singleton_method(runtime, "report", runtime_report, 1);
}
