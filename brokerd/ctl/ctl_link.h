#ifndef BROKERCTL_CTL_LINK_H
#define BROKERCTL_CTL_LINK_H

/*
 * One connection to the broker, and requests on it, one at a time. libnng connects again and
 * repeats a request by itself; with a secret the new connection proves it again.
 */
#include "ctl.h"
#include "ctl_dial.h"
#include "wire.h"
#include <nng/nng.h>
#include <stdint.h>

struct ctl_link {
    const struct ctl_options *options;
    nng_socket socket;
    struct ctl_dial dial;
    uint64_t session; /* 0 until the first ATTACH */
    uint64_t generation;
    bool is_proven;  /* with a secret: this connection has proved it, both ways */
    nng_msg *answer; /* of the last request; ctl_link_call's reply points into it */
};

struct ctl_reply {
    struct wire_reply header;
    const uint8_t *body; /* behind the header; valid until the next call */
    size_t length;
};

/* Connects within the time-out, and authenticates when a secret is given. CTL_DONE, or CTL_FAILED
 * with the reason printed. */
int ctl_link_open(struct ctl_link *link, const struct ctl_options *options);
void ctl_link_close(struct ctl_link *link);

/*
 * One request with a body, and its answer within the time-out (wait_ms; 0: the option's). CTL_DONE
 * with any status of the broker in reply->header.status; CTL_FAILED with the reason printed when
 * there was no answer: what the request was to do may then have been done or not.
 */
int ctl_link_call(struct ctl_link *link, const struct wire_request *request, const void *body,
                  size_t length, unsigned wait_ms, struct ctl_reply *reply);

/*
 * Starts or resumes a session with the encoded list of `count` SUBSCRIBE records; a broker that has
 * not shown that it knows the secret is not told the list. Results as of ctl_link_call.
 */
int ctl_link_attach(struct ctl_link *link, uint64_t epoch, uint64_t position, const void *records,
                    size_t length, uint32_t count, struct ctl_reply *reply);

/* For a status other than STATUS_OK: prints what failed, why, what to do; returns CTL_FAILED. */
int ctl_link_refused(const struct ctl_link *link, const char *what, const struct ctl_reply *reply);

#endif
