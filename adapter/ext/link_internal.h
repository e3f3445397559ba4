#ifndef ADAPTER_LINK_INTERNAL_H
#define ADAPTER_LINK_INTERNAL_H

/*
 * The link's struct and what its files ask of each other: link.c (lifecycle, time), link_connect.c
 * (from the URL to the SP hello), link_io.c (bytes in and out), link_tls.c (between those and the
 * socket), link_attach.c (ATTACH and its
 * reply), link_submit.c (what goes up) and link_receive.c (replies, batches). I/O thread only.
 *
 * One rule for ending a connection: only link_down ends it, and only callbacks of the event loop
 * and link_flush call link_down, never something that the hub can be in the middle of. Everything
 * else returns a reason (NULL: go on) or notes one in `doomed`.
 */
#include "buffer.h"
#include "endpoint.h"
#include "hub.h"
#include "io_internal.h"
#include "link.h"
#include "link_tls.h"
#include "tls_filter.h"
#include "unanswered.h"
#include "wire.h"

enum {
    LINK_CREDITS = WIRE_FULL_CREDITS, /* FETCHes parked at the broker: 1 MiB, a client's queue */
    LINK_SMALL_CREDITS = 24,          /* while batches are small: fewer requests for as many */
    LINK_SMALL_FROM = 4,              /* so many in a row are no accident */
    LINK_REFILL_MS = 20,              /* or when half are used */
    LINK_PACED_CREDITS = 4,           /* while clients lag: what they bring fits into the queues */
    LINK_PACE_MS = 1000, /* clients that lag are waited for so long, for each two batches */
    LINK_PACE_LOOK_MS = 2,
    LINK_BEHIND = 1024,            /* messages that the broker has and we have not: not live yet */
    LINK_FAR_BEHIND = 16384,       /* more than a live process ever is */
    LINK_SUBMITS = 16,             /* outstanding at the most; what comes meanwhile gathers */
    LINK_SUBMIT_SIZE = 128 * 1024, /* a batch: larger ones cost the broker more a message */
    LINK_OUT_ENOUGH = 256 * 1024,  /* no new SUBMIT while more than this waits for the socket */
    LINK_CHANGES_MAX =
        8 * 1024 * 1024, /* subscriptions on their way; past it the next ATTACH tells */
    LINK_RECORD_MAX = 256 * 1024 * 1024, /* the largest record that is believed to a broker */
    LINK_ATTACH_MS =
        3000, /* from the start of a connection to the ATTACH reply, and for each part */
    LINK_SILENCE_MS = 15000,
    LINK_BACKOFF_MIN_MS = 50,
    LINK_BACKOFF_MAX_MS = 2000
};

enum link_state {
    LINK_IDLE,      /* between connections */
    LINK_RESOLVING, /* the host's name is being looked up */
    LINK_CONNECTING,
    LINK_GREETING,  /* our hello is sent, the broker's has not come */
    LINK_ATTACHING, /* a part of the ATTACH is not answered */
    LINK_ATTACHED,
    LINK_LEAVING /* the broker said GOING_AWAY: only what was asked is still read */
};

struct link_submit {
    uint32_t request;
    bool publishes; /* else subscriptions */
    uint32_t records;
    uint64_t last;    /* sequence of the last publish, or serial of the last change */
    uint64_t out_end; /* written as a whole once out_written is there */
};

/* Changes of subscriptions on their way up: wire records behind an 8-byte publish sequence each. */
struct link_changes {
    struct buffer records;
    size_t submitted_bytes; /* of them, in SUBMITs */
    uint64_t first;         /* serial of the oldest */
    uint64_t unsubmitted;   /* how many are in no SUBMIT yet */
};

struct link {
    struct io_thread *io;
    struct endpoint endpoint;
    enum link_state state;
    bool stopped; /* link_detach: no reconnecting */

    /* What outlives a connection. */
    uint64_t session, generation, epoch, position, head;
    uint64_t serial; /* of the newest change of a subscription */
    size_t record_max;
    struct unanswered unanswered;
    uint64_t refused;    /* sequence of a publish that the broker refused; 0 none */
    uint64_t one_by_one; /* publishes up to this sequence go alone, to find the refused one */
    unsigned backoff_ms;
    char last_failure[160]; /* logged once, until it changes or the link works */
    uint64_t random;        /* state for jitter */

    /* The connection. */
    struct endpoint_addresses addresses;
    unsigned address; /* the next one to try */
    int fd, resolver; /* -1: none */
    struct event *readable, *writable, *timer, *refill, *resolved;
    bool write_blocked;
    const char *doomed; /* why link_flush is to end this connection, or NULL */
    uint64_t heard_ms, deadline_ms;
    struct buffer in, out;
    uint64_t out_written; /* bytes handed to the kernel */
    size_t message_max;   /* what the broker may send now */
    uint32_t next_request;

    struct buffer list; /* the ATTACH list from the outstanding part on */
    size_t list_part;   /* bytes of that part */
    uint64_t list_serial;
    uint32_t attach_request;         /* 0: none */
    bool attach_is_last;             /* the outstanding part has no MORE */
    struct tls_context *tls_context; /* these two of a connection that speaks TLS, else NULL */
    struct tls_filter *tls;
    char tls_reason[TLS_REASON_MAX];
    struct link_secret *secret; /* the exchange of this connection, or NULL */

    uint32_t fetches[LINK_SMALL_CREDITS];
    unsigned fetch_count;
    unsigned small_batches; /* the latest so many were, and the session was live */
    bool refill_due;
    /* After an absence the broker sends what there is as fast as it can: a browser that reads at
     * its own pace would be taken for one that is too slow. Until it is live again. */
    bool catching_up;
    bool paced;                               /* clients lagged meanwhile */
    uint64_t paced_ms;                        /* since when they are waited for; 0: they are not */
    struct link_submit submits[LINK_SUBMITS]; /* a ring */
    unsigned submit_start, submit_count;
    struct link_changes changes;
};

/* link.c */
void link_down(struct link *link,
               const char *reason);                 /* ends the connection; connects again later */
void link_deadline(struct link *link, unsigned ms); /* the timer ends the connection then */

/* link_connect.c */
void link_connect(struct link *link);      /* begins; state is IDLE */
void link_disconnect(struct link *link);   /* closes and forgets all of the connection */
const char *link_greet(struct link *link); /* the broker's hello, as far as it came; then ATTACH */

/* link_io.c */
const char *link_read(struct link *link);  /* once, and everything whole that came */
const char *link_write(struct link *link); /* as much as the socket takes */
/* Begins a message with that body behind the request header; returns where the body goes (commit it
 * with link_request_end), NULL when memory is out (the link is doomed then). */
uint8_t *link_request(struct link *link, const struct wire_request *request, size_t body,
                      uint32_t *id);
void link_request_end(struct link *link, size_t body);

/* link_attach.c */
const char *link_attach_begin(struct link *link);
const char *link_attach_reply(struct link *link, const struct wire_reply *reply,
                              const uint8_t *body, size_t length);

/* link_submit.c */
void link_submit_more(struct link *link); /* as many SUBMITs as the window allows */
const char *link_submit_reply(struct link *link, const struct wire_reply *reply);
void link_changes_clear(struct link *link);
/* The publishes that left the queue: their bytes go back to the callers' room. */
void link_give_back(struct link *link, struct unanswered_removed removed);

/* link_receive.c */
const char *link_message(struct link *link, const uint8_t *body, size_t length);
void link_fetch_more(struct link *link);

#endif
