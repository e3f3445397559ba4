#include "ctl_dial.h"
#include "ctl_tls.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { LOOK_EVERY_MS = 1000 };

static char late_line[512];

static void give_up(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, late_line, strlen(late_line));
    (void)written;
    _exit(CTL_FAILED);
}

static void set_alarm(unsigned ms)
{
    struct itimerval timer = {.it_value = {ms / 1000, (suseconds_t)(ms % 1000) * 1000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static const char *reason(int error, const char *url)
{
    switch (error) {
    case NNG_ECONNREFUSED: /* libnng says so of a missing file, too */
        if (strncmp(url, "ipc://", 6) == 0 && access(url + 6, F_OK) != 0)
            return strerror(errno);
        return "nobody listens there";
    case NNG_EPERM:
        return "this user may not use the socket";
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
        return "the URL is not of the form ipc:///path, tcp://host:port or tls+tcp://host:port";
    case NNG_ENOTSUP:
        return "the libnng of this brokerctl does not speak that transport (tls+tcp:// wants one "
               "that was built with TLS)";
    case NNG_EPEERAUTH:
    case NNG_ECRYPTO: /* libnng tells no more */
        return "TLS failed: its certificate is refused (--ca-file names who may have signed it; it "
               "must be for the URL's host, by name, and in no list of --crl-file, which must not "
               "have expired), or it refused us, which its log tells";
    default:
        return nng_strerror(error);
    }
}

static void note_connection(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct ctl_dial *dial = arg;
    int id = nng_pipe_id(pipe);
    if (event == NNG_PIPE_EV_ADD_PRE)
        atomic_store(&dial->connection, id);
    else
        atomic_compare_exchange_strong(&dial->connection, &id, 0);
}

/* A dialer that is not started. An error of libnng's, 0, or -1 with the reason printed. */
static int new_dialer(struct ctl_dial *dial)
{
    int error = nng_dialer_create(&dial->dialer, dial->socket, dial->options->url);
    if (error == 0 && ctl_tls_is_wanted(dial->options) &&
        ctl_tls_configure(dial->dialer, dial->options) != CTL_DONE)
        return -1;
    return error;
}

static void look_after_dialer(void *arg)
{
    struct ctl_dial *dial = arg;
    if (nng_aio_result(dial->sleep) != 0)
        return; /* ctl_undial */
    bool is_apart = atomic_load(&dial->connection) == 0;
    if (is_apart && dial->was_apart) {
        nng_dialer_close(dial->dialer);
        if (new_dialer(dial) == 0)
            nng_dialer_start(dial->dialer, NNG_FLAG_NONBLOCK);
        is_apart = false;
    }
    dial->was_apart = is_apart;
    nng_sleep_aio(LOOK_EVERY_MS, dial->sleep);
}

static int watch(struct ctl_dial *dial)
{
    int error = nng_aio_alloc(&dial->sleep, look_after_dialer, dial);
    if (error == 0)
        error = nng_pipe_notify(dial->socket, NNG_PIPE_EV_ADD_PRE, note_connection, dial);
    if (error == 0)
        error = nng_pipe_notify(dial->socket, NNG_PIPE_EV_REM_POST, note_connection, dial);
    return error;
}

int ctl_dial(struct ctl_dial *dial, nng_socket socket, const struct ctl_options *options)
{
    *dial = (struct ctl_dial){.options = options, .socket = socket};
    snprintf(late_line, sizeof(late_line),
             "brokerctl: no broker at %.400s: no connection within %g s (--timeout sets the "
             "limit)\n",
             options->url, options->timeout_ms / 1000.0);
    struct sigaction action = {.sa_handler = give_up};
    sigaction(SIGALRM, &action, NULL);
    set_alarm(options->timeout_ms);
    int error = watch(dial);
    if (error == 0 && (error = new_dialer(dial)) == -1)
        return CTL_FAILED;
    if (error == 0)
        error = nng_dialer_start(dial->dialer, 0);
    set_alarm(0);
    if (error != 0)
        return ctl_fail("no broker at %s: %s. Is brokerd running? --url or BROKERD_URL names "
                        "another place",
                        options->url, reason(error, options->url));
    nng_sleep_aio(LOOK_EVERY_MS, dial->sleep);
    return CTL_DONE;
}

void ctl_undial(struct ctl_dial *dial)
{
    nng_aio_stop(dial->sleep);
    nng_close(dial->socket);
    nng_aio_free(dial->sleep);
}
