#include "server.h"

#include "admin.h"
#include "glob.h"
#include "secure.h"
#include "tls_filter.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 64, DESCRIPTORS_KEPT = 32 };

static int64_t clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void set_accepting(struct server *server, bool accepting)
{
    bool all = true;
    for (size_t i = 0; i < server->listener_count; i++) {
        if (!accepting)
            event_del(server->listeners[i]->event);
        else
            all &= event_add(server->listeners[i]->event, NULL) == 0;
    }
    server->accept_paused = accepting && all ? 0 : server->now; /* the next tick tries again */
}

/* A full table of descriptors would make the listener readable for ever: it rests until the next
 * tick. */
static void on_accept_failure(struct server *server, const struct listener *listener)
{
    log_limited(&server->accept_limit, 1, LOG_LEVEL_ERROR,
                "cannot accept on %s: %s; trying again in half a second", listener->name,
                strerror(errno));
    server->counters.accept_failures++;
    set_accepting(server, false);
}

static void on_acceptable(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    struct listener *listener = context;
    struct server *server = listener->server;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (peer < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                on_accept_failure(server, listener);
            return;
        }
        if (server->connection_count >= server->connection_max) {
            log_limited(&server->accept_limit, 1, LOG_LEVEL_ERROR,
                        "refused a connection: %zu are open, the limit of open files allows no "
                        "more",
                        server->connection_count);
            close(peer);
            continue;
        }
        connection_accept(server, listener, peer);
    }
}

static void on_signal(evutil_socket_t number, short what, void *context)
{
    (void)what;
    struct server *server = context;
    if (server->drain_until != 0)
        return;
    log_info("ending on signal %d: what is queued is sent, for at most 5 s", (int)number);
    server->drain_until = server->now + DRAIN_TIMEOUT;
    set_accepting(server, false);
    struct connection *c;
    TAILQ_FOREACH(c, &server->connections, entry)
    {
        connection_stop_reading(c);
    }
}

static void forget_secret(struct server *server)
{
    if (server->secret != NULL)
        OPENSSL_cleanse(server->secret, server->secret_length);
    free(server->secret);
}

/* false after one logged line: the secret that was read before stays. */
static bool read_secret(struct server *server)
{
    if (server->options->secret_file == NULL)
        return true;
    size_t length;
    uint8_t *secret = authenticate_read_secret(server->options->secret_file, &length);
    if (secret == NULL)
        return false;
    forget_secret(server);
    server->secret = secret;
    server->secret_length = length;
    return true;
}

/* Files may have been replaced. Without any the signal ends the broker, as it ends most programs
 * whose terminal is closed. */
static void on_hangup(evutil_socket_t number, short what, void *context)
{
    struct server *server = context;
    const struct options *o = server->options;
    if (o->secret_file == NULL && o->tls_cert == NULL) {
        on_signal(number, what, context);
        return;
    }
    bool secret = read_secret(server), certificate = secure_read(server);
    if (secret && certificate)
        log_info("read the %s again: new connections meet what is in there now",
                 o->tls_cert == NULL      ? "secret"
                 : o->secret_file == NULL ? "certificate"
                                          : "certificate and the secret");
    else
        log_error("goes on with the %s that it had", !secret && !certificate
                                                         ? "secret and certificate"
                                                     : secret ? "certificate"
                                                              : "secret");
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    struct server *server = context;
    if (server->accept_paused != 0 && server->drain_until == 0)
        set_accepting(server, true);
    struct connection *next;
    for (struct connection *c = TAILQ_FIRST(&server->connections); c != NULL; c = next) {
        next = TAILQ_NEXT(c, entry);
        struct session *s;
        TAILQ_FOREACH(s, &c->sessions, of_connection)
        {
            session_tick(s);
        }
        connection_tick(c);
    }
    engines_tick(server);
}

/* All with replies to write, or only those at their head whose peers wait for them. */
static void flush_connections(struct server *server, bool only_awaited)
{
    struct connection *c;
    while ((c = TAILQ_FIRST(&server->dirty_connections)) != NULL &&
           (c->is_awaited || !only_awaited)) {
        TAILQ_REMOVE(&server->dirty_connections, c, dirty_entry);
        c->is_dirty = c->is_awaited = false;
        if (!c->is_blocked)
            connection_flush(c);
    }
}

/* Writes what this turn brought. Whether something of it was held for the next turn. */
static bool flush(struct server *server)
{
    struct session *s;
    flush_connections(server, true);
    while ((s = TAILQ_FIRST(&server->dirty_sessions)) != NULL) {
        TAILQ_REMOVE(&server->dirty_sessions, s, dirty_entry);
        s->is_dirty = false;
        session_flush(s);
    }
    flush_connections(server, false);
    bool holds = !TAILQ_EMPTY(&server->held_sessions);
    TAILQ_CONCAT(&server->dirty_sessions, &server->held_sessions, dirty_entry);
    return holds;
}

/* Rule 19: queues are sent as far as credits go, the other credits are told that no more will come.
 * True when nobody waits for anything. */
static bool drain(struct server *server)
{
    bool done = true;
    for (size_t i = 0; i < server->sessions.bucket_count; i++)
        for (struct session *s = server->sessions.buckets[i]; s != NULL; s = s->chain) {
            bool more = s->mode == SESSION_CATCHUP || session_has_output(s);
            while (s->credit_count > 0 && !more)
                session_answer_empty(s, STATUS_GOING_AWAY);
            done &= s->credit_count == 0;
        }
    struct connection *c;
    TAILQ_FOREACH(c, &server->connections, entry)
    {
        done &= secure_is_opening(c) || (buffer_length(&c->out) == 0 && !secure_is_pending(c));
    }
    return done;
}

static bool is_over(struct server *server)
{
    if (server->drain_until != 0)
        return drain(server) || server->now >= server->drain_until;
    int64_t idle = server->now - server->idle_since;
    if (server->options->exit_when_idle == 0 || server->sessions.count > 0 ||
        idle < (int64_t)server->options->exit_when_idle * 1000)
        return false;
    log_info("ending: no session for %u s", server->options->exit_when_idle);
    return true;
}

bool server_turn(struct server *server, bool waits)
{
    uint64_t before = server->counters.bytes_in;
    event_base_loop(server->base, EVLOOP_ONCE | (waits ? 0 : EVLOOP_NONBLOCK));
    server->turn_bytes = server->counters.bytes_in - before;
    server->now = clock_ms();
    bool more = catchup_step(server);
    more |= flush(server);
    session_end_step(server);
    connection_reap(server);
    return more || !TAILQ_EMPTY(&server->leaving);
}

static bool open_journal(struct server *server)
{
    const struct options *o = server->options;
    static char beside[sizeof(o->listen[0].path) + 16];
    const char *path = o->journal;
    for (unsigned i = 0; i < o->listen_count && path == NULL; i++)
        if (o->listen[i].transport == SP_IPC) {
            strcpy(beside, o->listen[i].path);
            path = strcat(beside, ".journal");
        }
    bool in_memory = o->no_journal || path == NULL;
    bool ok = in_memory
                  ? journal_open_memory(&server->journal, o->journal_size)
                  : journal_open_file(&server->journal, path, o->journal_size, server->origins);
    if (!ok) {
        if (in_memory)
            log_error("cannot get %llu bytes for the journal: %s",
                      (unsigned long long)o->journal_size, strerror(errno));
        return false;
    }
    size_t largest = wire_record_size(CHANNEL_LENGTH_MAX, o->max_message);
    if (server->journal.record_max > largest)
        server->journal.record_max = (uint32_t)largest;
    server->request_max = server->journal.record_max + 2 * WIRE_ATTACH_PART_SIZE;
    return true;
}

static bool open_listeners(struct server *server)
{
    for (unsigned i = 0; i < server->options->listen_count; i++) {
        struct listener *l = listener_new(&server->options->listen[i]);
        if (l == NULL)
            return false;
        l->server = server;
        server->listeners[server->listener_count++] = l;
    }
    return true;
}

static bool start_listening(struct server *server)
{
    for (size_t i = 0; i < server->listener_count; i++) {
        struct listener *l = server->listeners[i];
        l->event = event_new(server->base, l->fd, EV_READ | EV_PERSIST, on_acceptable, l);
        if (l->event == NULL || event_add(l->event, NULL) != 0)
            return false;
        log_info("listening on %s", l->name);
        if (l->url->tls && server->secret == NULL && server->options->tls_client_ca == NULL &&
            !listen_is_loopback(l->url))
            log_warn("%s lets in everybody who reaches it: give --secret-file or --tls-client-ca",
                     l->name);
    }
    return true;
}

static void count_descriptors(struct server *server)
{
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
    server->connection_max =
        limit.rlim_cur > 2 * DESCRIPTORS_KEPT ? (size_t)limit.rlim_cur - DESCRIPTORS_KEPT : 1;
}

static bool open_loop(struct server *server)
{
    struct event_config *config = event_config_new();
    if (config == NULL)
        return false;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    server->base = event_base_new_with_config(config);
    event_config_free(config);
    if (server->base == NULL)
        return false;
    static const struct timeval every = {.tv_usec = TICK * 1000};
    server->tick = event_new(server->base, -1, EV_PERSIST, on_tick, server);
    server->on_sigterm = evsignal_new(server->base, SIGTERM, on_signal, server);
    server->on_sigint = evsignal_new(server->base, SIGINT, on_signal, server);
    server->on_sighup = evsignal_new(server->base, SIGHUP, on_hangup, server);
    return server->tick != NULL && server->on_sigterm != NULL && server->on_sigint != NULL &&
           server->on_sighup != NULL && event_add(server->tick, &every) == 0 &&
           event_add(server->on_sigterm, NULL) == 0 && event_add(server->on_sigint, NULL) == 0 &&
           event_add(server->on_sighup, NULL) == 0;
}

static bool open_state(struct server *server)
{
    uint8_t seed[16];
    if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        return false;
    server->subscriptions = subscriptions_new(seed);
    server->origins = origins_new();
    server->read_buffer = malloc(2 * READ_SIZE);
    server->iov = malloc(IOV_COUNT * sizeof(*server->iov));
    server->scratch = malloc(WIRE_BATCH_SIZE + 4096);
    return server->subscriptions != NULL && server->origins != NULL &&
           server->read_buffer != NULL && server->iov != NULL && server->scratch != NULL;
}

static void tell_ready(const struct options *options)
{
    if (options->ready_fd < 0)
        return;
    if (write(options->ready_fd, "\n", 1) != 1)
        log_warn("cannot write to --ready-fd %d: %s", options->ready_fd, strerror(errno));
    close(options->ready_fd);
}

bool server_open(struct server *server, const struct options *options)
{
    *server = (struct server){.options = options};
    server->started = server->now = server->idle_since = clock_ms();
    TAILQ_INIT(&server->connections);
    TAILQ_INIT(&server->dirty_connections);
    TAILQ_INIT(&server->doomed);
    TAILQ_INIT(&server->dirty_sessions);
    TAILQ_INIT(&server->held_sessions);
    TAILQ_INIT(&server->catching_up);
    TAILQ_INIT(&server->leaving);
    engines_init(&server->engines);
    server->engines.lingering_second = server->now / 1000;
    count_descriptors(server);
    if (!read_secret(server) || !secure_read(server))
        return false;
    if (!open_state(server) || !open_loop(server)) {
        log_error("cannot start: %s", strerror(errno));
        return false;
    }
    /* the locks of the sockets first: who holds them may touch the journal beside them */
    if (!open_listeners(server) || !open_journal(server) || !start_listening(server))
        return false;
    if (server->options->admin_given &&
        (server->admin = admin_new(server, &server->options->admin)) == NULL)
        return false;
    return true;
}

void server_close(struct server *server)
{
    struct connection *c;
    while ((c = TAILQ_FIRST(&server->connections)) != NULL)
        connection_close(c, CLOSE_SHUTDOWN, NULL);
    connection_reap(server);
    while (session_end_step(server))
        ;
    connection_reap(server);
    admin_free(server->admin);
    if (server->journal.header != NULL)
        journal_close(&server->journal);
    for (size_t i = 0; i < server->listener_count; i++) {
        if (server->listeners[i]->event != NULL)
            event_free(server->listeners[i]->event);
        listener_free(server->listeners[i]);
    }
    struct event *events[] = {server->tick, server->on_sigterm, server->on_sigint,
                              server->on_sighup};
    for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
        if (events[i] != NULL)
            event_free(events[i]);
    if (server->base != NULL)
        event_base_free(server->base);
    if (server->subscriptions != NULL)
        subscriptions_free(server->subscriptions);
    origins_free(server->origins);
    free(server->sessions.buckets);
    free(server->matched);
    forget_secret(server);
    tls_context_free(server->tls);
    free(server->read_buffer);
    free(server->iov);
    free(server->scratch);
}

int server_run(const struct options *options)
{
    static struct server server;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error to be told, not an end */
    bool ok = server_open(&server, options);
    if (ok) {
        log_info("brokerd " BROKERD_VERSION " is ready, pid %d", getpid());
        tell_ready(options);
        bool more = false;
        while (!is_over(&server))
            more = server_turn(&server, !more);
    }
    server_close(&server);
    if (ok)
        log_info("ended");
    return ok ? 0 : 1;
}
