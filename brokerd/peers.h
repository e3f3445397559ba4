#ifndef BROKERD_PEERS_H
#define BROKERD_PEERS_H

/*
 * What each peer holds of the broker, and how much of it one may hold: a peer is an address (of
 * IPv6 its first 64 bits, since a host has all of those) or, on ipc, a user. So one of them cannot
 * take what all share. A peer exists as long as it has a connection.
 */
#include "log.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct server;

enum peer_limit {
    PEER_CONNECTIONS,   /* past it: closed as soon as it is accepted */
    PEER_SESSIONS,      /* past it: ATTACH is answered FULL */
    PEER_SUBSCRIPTIONS, /* past it: SUBSCRIBE is answered FULL */
    PEER_BYTES,         /* names of channels, requests half read, replies and batches not read; past
                           it: the connection that needs more is closed */
    PEER_LIMITS
};

struct peer_account {
    struct peer_account *chain;
    uint8_t key[17];
    uint64_t held[PEER_LIMITS];
};

/* By key. Zeroed is empty. */
struct peer_table {
    struct peer_account *buckets[1024];
    size_t count;
};

/* The account of the peer behind an accepted descriptor, with one connection more. NULL: it has as
 * many as it may (counted; logged with `name`), or memory is out (errno ENOMEM). */
struct peer_account *peers_enter(struct server *server, int fd, const char *name);

/* One connection less; the account may be gone afterwards. NULL is nothing. */
void peers_leave(struct server *server, struct peer_account *account);

/* Would peers_take give it? */
bool peers_may_take(const struct server *server, const struct peer_account *account,
                    enum peer_limit limit, uint64_t amount);

/* Takes `amount` more of something. false: the limit is passed, nothing was taken; counted, and
 * logged at most once a second. */
bool peers_take(struct server *server, struct peer_account *account, enum peer_limit limit,
                uint64_t amount, const char *name);

void peers_give(struct peer_account *account, enum peer_limit limit, uint64_t amount);

/* A session goes to another connection: what it holds goes along, past a limit too. */
void peers_move(struct peer_account *from, struct peer_account *to, enum peer_limit limit,
                uint64_t amount);

/* What a connection's buffers hold now instead of `before`: false as of peers_take. */
bool peers_change(struct server *server, struct peer_account *account, uint64_t before,
                  uint64_t now, const char *name);

#endif
