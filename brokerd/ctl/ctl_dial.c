#include "ctl_dial.h"
#include "ctl_tls.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

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
               "must be for the URL's host, by name), or it refused us, which its log tells";
    default:
        return nng_strerror(error);
    }
}

int ctl_dial(nng_socket socket, const struct ctl_options *options)
{
    snprintf(late_line, sizeof(late_line),
             "brokerctl: no broker at %.400s: no connection within %g s (--timeout sets the "
             "limit)\n",
             options->url, options->timeout_ms / 1000.0);
    struct sigaction action = {.sa_handler = give_up};
    sigaction(SIGALRM, &action, NULL);
    set_alarm(options->timeout_ms);
    nng_dialer dialer;
    int error = nng_dialer_create(&dialer, socket, options->url);
    if (error == 0 && ctl_tls_is_wanted(options) && ctl_tls_configure(dialer, options) != CTL_DONE)
        return CTL_FAILED;
    if (error == 0)
        error = nng_dialer_start(dialer, 0);
    set_alarm(0);
    if (error != 0)
        return ctl_fail("no broker at %s: %s. Is brokerd running? --url or BROKERD_URL names "
                        "another place",
                        options->url, reason(error, options->url));
    return CTL_DONE;
}
