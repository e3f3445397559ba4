#ifndef BROKERCTL_CTL_TLS_H
#define BROKERCTL_CTL_TLS_H

/* TLS for tls+tcp://, by libnng: the broker's certificate is checked against --ca-file, else the
 * system's authorities, their revocation lists in --crl-file, and the URL's host; --cert-file and
 * --key-file are our own. */
#include "ctl.h"
#include <nng/nng.h>

bool ctl_tls_is_wanted(const struct ctl_options *options);

/* Gives the dialer of that URL its files. CTL_DONE, or CTL_FAILED with the reason printed. */
int ctl_tls_configure(nng_dialer dialer, const struct ctl_options *options);

#endif
