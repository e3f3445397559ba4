/*
 * The callback threads: a few Ruby threads that run what the mailboxes hold.
 *
 * A thread without work blocks in read(pipe) without the interpreter lock; with work it keeps
 * the lock from one callback to the next (Ruby's own time slices still let others in). Each step
 * into Ruby code is protected: an exception is reported and the thread goes on; a kill, a throw or
 * SystemExit ends the thread, and another takes its place.
 */
#include "rb_brokerd.h"
#include <errno.h>
#include <ruby/thread.h>
#include <unistd.h>

enum { RUN_LENGTH = 16 }; /* callbacks of one mailbox before the next has its turn */

/* One set of callback threads; lives until the last of them has ended. */
struct crew {
    struct callback_pool *pool;
    unsigned epoch;
    unsigned running; /* threads that have not ended */
    bool stopping;
};

static struct crew *crew; /* of the running I/O thread, or NULL */
static VALUE executor;    /* Rails' executor, or nil: callbacks run inside its wrap */
static ID id_open, id_message, id_drained, id_shutdown, id_close, id_call, id_wrap;
static ID id_failed, id_log, id_gap, id_report, id_interest;

/* One callback thread. */
struct worker {
    struct crew *crew;
    int fd;
    bool asleep; /* the pool counts it as asleep */
};

static void *wait_for_work(void *data)
{
    struct worker *worker = data;
    uint8_t token;
    if (read(worker->fd, &token, sizeof(token)) == sizeof(token))
        worker->asleep = false;
    return NULL;
}

/* What one protected step does. */
struct step {
    struct callback *callback;
    struct rb_client *client; /* or NULL */
    VALUE handler;
    ID method;
};

static VALUE call_handler(struct step *step)
{
    VALUE arguments[2] = {rb_client_self(step->client), Qnil};
    int count = 1;
    if (step->method == id_message) {
        const struct message *m = step->callback->message;
        arguments[1] = m->binary
                           ? rb_str_new((const char *)message_payload(m), (long)m->payload_length)
                           : text_valid_string(message_payload(m), m->payload_length);
        count = 2;
    }
    rb_check_funcall(step->handler, step->method, count, arguments);
    return Qnil;
}

static VALUE call_block(struct step *step)
{
    const struct message *m = step->callback->message;
    struct rb_subscription *s = (struct rb_subscription *)step->callback->block->handle;
    VALUE arguments[2];
    arguments[0] = text_string(message_channel(m), m->channel_length, false);
    arguments[1] = text_string(message_payload(m), m->payload_length, m->binary);
    VALUE callable = rb_subscription_callable(s);
    if (rb_obj_is_proc(callable))
        rb_proc_call_kw(callable, rb_ary_new_from_values(2, arguments), RB_NO_KEYWORDS);
    else
        rb_funcallv(callable, id_call, 2, arguments);
    return Qnil;
}

static VALUE call_gap(struct step *step)
{
    struct callback *c = step->callback;
    VALUE subscription =
        c->block ? rb_subscription_self((struct rb_subscription *)c->block->handle) : Qnil;
    uint64_t count = c->kind == CALLBACK_DROPPED ? c->last : c->last - c->first + 1;
    return rb_funcall(brokerd_callbacks, id_gap, 3, subscription, ULL2NUM(count),
                      c->kind == CALLBACK_DROPPED ? Qtrue : Qfalse);
}

static VALUE call_notice(struct step *step)
{
    struct callback *c = step->callback;
    const struct message *m = c->message;
    switch (c->kind) {
    case CALLBACK_LOG:
        return rb_funcall(brokerd_callbacks, id_log, 2, ULL2NUM(c->first),
                          text_string(message_payload(m), m->payload_length, false));
    case CALLBACK_REPORT:
        return rb_funcall(brokerd_callbacks, id_report, 1, ULL2NUM(c->first));
    default:
        return rb_funcall(brokerd_callbacks, id_interest, 4, ULL2NUM(c->first),
                          text_string(message_channel(m), m->channel_length, false),
                          m->binary ? Qtrue : Qfalse,
                          c->kind == CALLBACK_INTEREST ? Qtrue : Qfalse);
    }
}

static VALUE step_body(VALUE data)
{
    struct step *step = (struct step *)data;
    switch (step->callback->kind) {
    case CALLBACK_DELIVERY:
        return call_block(step);
    case CALLBACK_GAP:
    case CALLBACK_DROPPED:
        return call_gap(step);
    case CALLBACK_LOG:
    case CALLBACK_REPORT:
    case CALLBACK_INTEREST:
    case CALLBACK_NO_INTEREST:
        return call_notice(step);
    default:
        return call_handler(step);
    }
}

static VALUE step_wrapped(RB_BLOCK_CALL_FUNC_ARGLIST(unused, data))
{
    (void)unused;
    (void)argc;
    (void)argv;
    (void)blockarg;
    return step_body(data);
}

static VALUE step_in_executor(VALUE data)
{
    if (NIL_P(executor))
        return step_body(data);
    return rb_block_call(executor, id_wrap, 0, NULL, step_wrapped, data);
}

struct failure {
    VALUE target, where, error;
};

static VALUE report_failure(VALUE data)
{
    struct failure *failure = (struct failure *)data;
    return rb_funcall(brokerd_callbacks, id_failed, 3, failure->target, failure->where,
                      failure->error);
}

/* Exceptions that are not one callback's failure but someone's wish to end the thread or the
 * process. */
static bool ends_thread(VALUE error)
{
    return !rb_obj_is_kind_of(error, rb_eException) || rb_obj_is_kind_of(error, rb_eSystemExit) ||
           rb_obj_is_kind_of(error, rb_eSignal);
}

/* Runs one step. Returns 0, or the state with which the thread has to end. */
static int run_step(struct step *step)
{
    int state = 0;
    rb_protect(step_in_executor, (VALUE)step, &state);
    if (!state)
        return 0;
    VALUE error = rb_errinfo();
    if (RB_SPECIAL_CONST_P(error) || ends_thread(error))
        return state;
    rb_set_errinfo(Qnil);
    struct callback *c = step->callback;
    struct failure failure = {Qnil, ID2SYM(step->method), error};
    if (step->client)
        failure.target = rb_client_self(step->client);
    else if (c->block && !block_is_cancelled(c->block))
        failure.target = rb_subscription_self((struct rb_subscription *)c->block->handle);
    rb_protect(report_failure, (VALUE)&failure, &state);
    if (!state)
        return 0;
    error = rb_errinfo();
    if (RB_SPECIAL_CONST_P(error) || ends_thread(error))
        return state;
    rb_set_errinfo(Qnil); /* reporting failed: there is nobody left to tell */
    return 0;
}

static int run_handler(struct rb_client *client, struct callback *callback, VALUE handler,
                       ID method)
{
    struct step step = {callback, client, handler, method};
    return run_step(&step);
}

/* A new handler was set: the old one's on_close, then the new one's on_open. */
static int run_switches(struct rb_client *client)
{
    struct callback nothing = {.kind = CALLBACK_OPEN};
    VALUE old;
    while (rb_client_switch(client, &old)) {
        int state = run_handler(client, &nothing, old, id_close);
        if (!state)
            state = run_handler(client, &nothing, rb_client_handler(client), id_open);
        if (state)
            return state;
    }
    return 0;
}

static ID method_of(enum callback_kind kind)
{
    switch (kind) {
    case CALLBACK_OPEN:
        return id_open;
    case CALLBACK_MESSAGE:
        return id_message;
    case CALLBACK_DRAINED:
        return id_drained;
    case CALLBACK_SHUTDOWN:
        return id_shutdown;
    default:
        return id_close;
    }
}

static int run_client(struct rb_client *client, struct callback *callback)
{
    VALUE self = rb_client_self(client); /* on this stack: lives to the end of this callback */
    unsigned epoch = runtime_epoch();
    int state = run_switches(client);
    bool is_nudge = callback->kind == CALLBACK_OPEN && callback->first != 0;
    if (!state && !is_nudge)
        state = run_handler(client, callback, rb_client_handler(client), method_of(callback->kind));
    if (!state)
        state = run_switches(client);
    if (epoch != runtime_epoch())
        return state; /* stopped or forked meanwhile: the client was forgotten */
    if (is_nudge)
        rb_client_nudged(client);
    if (callback->kind == CALLBACK_SHUTDOWN)
        rb_client_end_shutdown(client);
    if (callback->kind == CALLBACK_CLOSE)
        rb_client_closed(client);
    RB_GC_GUARD(self);
    return state;
}

static int run_callback(struct mailbox *mailbox, struct callback *callback)
{
    if (callback->block) {
        if (block_is_cancelled(callback->block))
            return 0;
    } else if (mailbox_owner(mailbox)) {
        return run_client((struct rb_client *)mailbox_owner(mailbox), callback);
    }
    struct step step = {callback, NULL, Qnil, id_call};
    return run_step(&step);
}

/* A block of a client is one of its callbacks too: a switch may have been asked for in it. */
static int run_and_switch(struct mailbox *mailbox, struct callback *callback)
{
    int state = run_callback(mailbox, callback);
    if (!state && callback->block && mailbox_owner(mailbox))
        state = run_switches((struct rb_client *)mailbox_owner(mailbox));
    return state;
}

static int run_mailbox(struct mailbox *mailbox, struct callback *callback)
{
    unsigned generation = io_generation();
    int state = 0;
    for (int n = 0; callback; n++) {
        state = run_and_switch(mailbox, callback);
        if (generation != io_generation())
            return state; /* the callback forked and this is the child: the pool is its parent's */
        callback_free(callback);
        if (state || n == RUN_LENGTH)
            break;
        callback = mailbox_next(mailbox);
    }
    mailbox_done(mailbox);
    return state;
}

static bool over(const struct crew *c)
{
    return c->stopping || c->epoch != runtime_epoch();
}

/* After a sleep that something else than work ended. */
static void rouse(struct worker *worker)
{
    if (worker->asleep && !over(worker->crew))
        callback_pool_rouse(worker->crew->pool);
    worker->asleep = false;
}

static VALUE thread_loop(VALUE data)
{
    struct worker *worker = (struct worker *)data;
    struct crew *c = worker->crew;
    callback_pool_enter(c->pool);
    while (!over(c)) {
        struct callback *callback;
        struct mailbox *mailbox = callback_pool_take(c->pool, &callback);
        if (!mailbox) {
            worker->asleep = true;
            rb_thread_call_without_gvl(wait_for_work, worker, RUBY_UBF_IO, NULL);
            rouse(worker);
            continue;
        }
        int state = run_mailbox(mailbox, callback);
        if (state)
            rb_jump_tag(state);
        rb_thread_check_ints();
    }
    return Qnil;
}

static void start_thread(struct crew *c);

/* The interpreter ends (an at_exit may have been interrupted, so that nobody stopped us): it kills
 * every thread, and would wait for ever for one that is started now. */
static bool interpreter_ends(void)
{
    return !RTEST(rb_funcall(rb_thread_main(), rb_intern("alive?"), 0));
}

static VALUE thread_ended(VALUE data)
{
    struct worker *worker = (struct worker *)data;
    struct crew *c = worker->crew;
    c->running--;
    rouse(worker);
    if (!over(c))
        callback_pool_leave(c->pool);
    if (!over(c) && !interpreter_ends()) {
        start_thread(c);
    } else if (c->running == 0 && c != crew) {
        xfree(c);
    }
    return Qnil;
}

static VALUE thread_main(void *data)
{
    struct crew *c = data;
    struct worker worker = {.crew = c, .fd = callback_pool_fd(c->pool)};
    return rb_ensure(thread_loop, (VALUE)&worker, thread_ended, (VALUE)&worker);
}

static void start_thread(struct crew *c)
{
    c->running++;
    VALUE thread = rb_thread_create(thread_main, c);
    rb_funcall(thread, rb_intern("thread_variable_set"), 2, ID2SYM(rb_intern("fork_safe")), Qtrue);
    rb_funcall(thread, rb_intern("name="), 1, rb_str_new_cstr("brokerd callbacks"));
}

void callbacks_start(struct callback_pool *pool, unsigned threads)
{
    crew = ALLOC(struct crew);
    *crew = (struct crew){.pool = pool, .epoch = runtime_epoch()};
    for (unsigned i = 0; i < threads; i++)
        start_thread(crew);
}

bool callbacks_stop(double timeout)
{
    if (!crew)
        return true;
    struct crew *c = crew;
    c->stopping = true;
    callback_pool_wake(c->pool, c->running);
    uint64_t deadline = rb_clock_ms() + (timeout > 0 ? (uint64_t)(timeout * 1000) : 0);
    while (c->running > 0 && rb_clock_ms() < deadline)
        rb_thread_wait_for((struct timeval){0, 1000});
    crew = NULL;
    if (c->running > 0)
        return false; /* the last thread frees it */
    xfree(c);
    return true;
}

static VALUE set_executor(VALUE module, VALUE object)
{
    (void)module;
    return executor = object;
}

void rb_callbacks_init(void)
{
    id_open = rb_intern("on_open");
    id_message = rb_intern("on_message");
    id_drained = rb_intern("on_drained");
    id_shutdown = rb_intern("on_shutdown");
    id_close = rb_intern("on_close");
    id_call = rb_intern("call");
    id_wrap = rb_intern("wrap");
    id_failed = rb_intern("failed");
    id_log = rb_intern("log");
    id_gap = rb_intern("gap");
    id_report = rb_intern("report");
    id_interest = rb_intern("interest");
    executor = Qnil;
    rb_gc_register_address(&executor);
    rb_define_singleton_method(brokerd_callbacks, "executor=", set_executor, 1);
}
