#ifndef BROKERCTL_CTL_DIAL_H
#define BROKERCTL_CTL_DIAL_H

/* The first connection, whose failure is told with its reason. */
#include "ctl.h"
#include <nng/nng.h>

/* Connects the socket to the URL of the options within their time-out. CTL_DONE, or CTL_FAILED with
 * the reason printed. nng_dial has no time-out of its own: past it the process prints the line and
 * ends here with CTL_FAILED. */
int ctl_dial(nng_socket socket, const struct ctl_options *options);

#endif
