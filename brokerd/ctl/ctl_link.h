#ifndef BROKERCTL_CTL_LINK_H
#define BROKERCTL_CTL_LINK_H

/* One connection to the broker, and requests on it. */
#include "ctl.h"
#include "wire.h"
#include <nng/nng.h>
#include <stdint.h>

struct ctl_link {
    const struct ctl_options *options;
    nng_socket socket;
    uint64_t session; /* 0 until ctl_link_attach */
    uint64_t generation;
    nng_msg *answer; /* of the last request; ctl_link_call's reply points into it */
};

struct ctl_reply {
    struct wire_reply header;
    const uint8_t *body; /* behind the header; valid until the next call */
    size_t length;
};

/* Connects, and authenticates when a secret is given. CTL_DONE, or CTL_FAILED with the reason
 * printed. */
int ctl_link_open(struct ctl_link *link, const struct ctl_options *options);
void ctl_link_close(struct ctl_link *link);

/*
 * One request with a body, and its answer within the time-out (wait_ms; 0: the option's). CTL_DONE
 * with any status of the broker in reply->header.status; CTL_FAILED with the reason printed when
 * there was no answer.
 */
int ctl_link_call(struct ctl_link *link, const struct wire_request *request, const void *body,
                  size_t length, unsigned wait_ms, struct ctl_reply *reply);

/*
 * Starts or resumes a session: attach->generation, pid, name are filled here, and proof with a
 * secret. records: the encoded list, count of them. The reply is the last ATTACH's, its status not
 * yet judged.
 */
int ctl_link_attach(struct ctl_link *link, uint64_t epoch, uint64_t position, const void *records,
                    size_t length, uint32_t count, struct ctl_reply *reply);

/* For a status other than STATUS_OK: prints what failed and why; returns CTL_FAILED. */
int ctl_link_refused(const struct ctl_link *link, const char *what, unsigned status);

#endif
