#ifndef BROKERCTL_CTL_DIAL_H
#define BROKERCTL_CTL_DIAL_H

/*
 * The connection of a socket to the broker: the first one, whose failure is told with its reason,
 * and those after it. libnng connects again by itself, but before 1.6 (Debian 12 has 1.5.2) gives
 * that up for good when the broker dies during the handshake; so a dialer that has had no
 * connection twice in a row, looked at once a second, is replaced.
 */
#include "ctl.h"
#include <nng/nng.h>
#include <stdatomic.h>

struct ctl_dial {
    const struct ctl_options *options;
    nng_socket socket;
    nng_dialer dialer;
    nng_aio *sleep;        /* ends once a second, on a thread of libnng's */
    atomic_int connection; /* its id in libnng, 0: none */
    bool was_apart;        /* at the last look; libnng's thread alone */
};

/* Connects the socket to the URL of the options, which are kept, within their time-out. CTL_DONE,
 * or CTL_FAILED with the reason printed. A dialer's start has no time-out of its own: past it the
 * process prints the line and ends here with CTL_FAILED. *dial stays where it is until ctl_undial.
 */
int ctl_dial(struct ctl_dial *dial, nng_socket socket, const struct ctl_options *options);

/* Closes the socket, also after a ctl_dial that failed. */
void ctl_undial(struct ctl_dial *dial);

#endif
