#ifndef NNG_DIAL_H
#define NNG_DIAL_H

/*
 * nng_dial that stays at it. libnng before 1.6 (Debian 12 has 1.5.2) dials no more, for good, when
 * the other side ends during the handshake, as a broker does that dies just then: it takes that for
 * its own dialer's end, and tells nobody. So look once a second, and dial anew when nothing was
 * connected twice in a row.
 */
#include <nng/nng.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { LOOK_EVERY_MS = 1000 };

static struct {
    nng_socket socket;
    const char *url;
    nng_dialer dialer;
    nng_aio *sleep;        /* ends once a second, on a thread of libnng's */
    atomic_int connection; /* its id, 0: none */
    bool was_apart;        /* at the last look */
} dial;

static void note_connection(nng_pipe pipe, nng_pipe_ev event, void *unused)
{
    (void)unused;
    int id = nng_pipe_id(pipe);
    if (event == NNG_PIPE_EV_ADD_PRE)
        atomic_store(&dial.connection, id);
    else
        atomic_compare_exchange_strong(&dial.connection, &id, 0);
}

static void look_after_dialer(void *unused)
{
    (void)unused;
    bool is_apart = atomic_load(&dial.connection) == 0;
    if (is_apart && dial.was_apart) {
        nng_dialer_close(dial.dialer);
        nng_dial(dial.socket, dial.url, &dial.dialer, NNG_FLAG_NONBLOCK);
        is_apart = false;
    }
    dial.was_apart = is_apart;
    nng_sleep_aio(LOOK_EVERY_MS, dial.sleep);
}

/* As nng_dial with NNG_FLAG_NONBLOCK, for one socket in a program and until that ends; the URL is
 * not copied. An error of libnng's, or 0. */
static int dial_for_good(nng_socket socket, const char *url)
{
    int error;
    dial.socket = socket;
    dial.url = url;
    if ((error = nng_aio_alloc(&dial.sleep, look_after_dialer, NULL)) != 0 ||
        (error = nng_pipe_notify(socket, NNG_PIPE_EV_ADD_PRE, note_connection, NULL)) != 0 ||
        (error = nng_pipe_notify(socket, NNG_PIPE_EV_REM_POST, note_connection, NULL)) != 0 ||
        (error = nng_dial(socket, url, &dial.dialer, NNG_FLAG_NONBLOCK)) != 0)
        return error;
    nng_sleep_aio(LOOK_EVERY_MS, dial.sleep);
    return 0;
}

#endif
