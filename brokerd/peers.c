#include "peers.h"

#include "server.h"
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static const char *const texts[] = {
    [PEER_CONNECTIONS] = "connections",
    [PEER_SESSIONS] = "sessions",
    [PEER_SUBSCRIPTIONS] = "subscriptions",
    [PEER_BYTES] = "bytes of names, requests and replies",
};

/* The family, then what tells peers apart in it. */
static void make_key(int fd, uint8_t key[17])
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof(address);
    memset(key, 0, 17);
    getpeername(fd, (struct sockaddr *)&address, &size);
    key[0] = (uint8_t)address.ss_family;
    if (address.ss_family == AF_INET) {
        memcpy(key + 1, &((struct sockaddr_in *)&address)->sin_addr, 4);
    } else if (address.ss_family == AF_INET6) {
        const struct in6_addr *in6 = &((struct sockaddr_in6 *)&address)->sin6_addr;
        memcpy(key + 1, in6, IN6_IS_ADDR_V4MAPPED(in6) ? 16 : 8);
    } else {
        struct ucred peer = {.uid = (uid_t)-1};
        size = sizeof(peer);
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
        memcpy(key + 1, &peer.uid, sizeof(peer.uid));
    }
}

static struct peer_account **bucket_of(struct peer_table *table, const uint8_t key[17])
{
    uint32_t hash = 2166136261u; /* FNV-1a: a bad mix costs time only, and addresses are dear */
    for (int i = 0; i < 17; i++)
        hash = (hash ^ key[i]) * 16777619u;
    return &table->buckets[hash % 1024];
}

static struct peer_account *find_or_add(struct peer_table *table, const uint8_t key[17])
{
    struct peer_account **bucket = bucket_of(table, key), *account = *bucket;
    while (account != NULL && memcmp(account->key, key, 17) != 0)
        account = account->chain;
    if (account != NULL || (account = calloc(1, sizeof(*account))) == NULL)
        return account;
    memcpy(account->key, key, 17);
    account->chain = *bucket;
    *bucket = account;
    table->count++;
    return account;
}

static void remove_if_empty(struct peer_table *table, struct peer_account *account)
{
    if (account->held[PEER_CONNECTIONS] > 0)
        return;
    struct peer_account **link = bucket_of(table, account->key);
    while (*link != account)
        link = &(*link)->chain;
    *link = account->chain;
    table->count--;
    free(account);
}

struct peer_account *peers_enter(struct server *server, int fd, const char *name)
{
    uint8_t key[17];
    make_key(fd, key);
    struct peer_account *account = find_or_add(&server->peers, key);
    if (account == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    if (peers_take(server, account, PEER_CONNECTIONS, 1, name))
        return account;
    remove_if_empty(&server->peers, account);
    errno = EUSERS;
    return NULL;
}

void peers_leave(struct server *server, struct peer_account *account)
{
    if (account == NULL)
        return;
    account->held[PEER_CONNECTIONS]--;
    remove_if_empty(&server->peers, account);
}

bool peers_may_take(const struct server *server, const struct peer_account *account,
                    enum peer_limit limit, uint64_t amount)
{
    uint64_t most = server->options->peer_max[limit];
    return amount <= most && account->held[limit] <= most - amount;
}

bool peers_take(struct server *server, struct peer_account *account, enum peer_limit limit,
                uint64_t amount, const char *name)
{
    static struct log_limit limits[PEER_LIMITS];
    uint64_t most = server->options->peer_max[limit];
    uint64_t *counters[] = {
        &server->counters.peer_connections_refused, &server->counters.peer_sessions_refused,
        &server->counters.peer_subscriptions_refused, &server->counters.peer_bytes_refused};
    if (peers_may_take(server, account, limit, amount)) {
        account->held[limit] += amount;
        return true;
    }
    ++*counters[limit];
    log_limited(&limits[limit], 1, LOG_LEVEL_WARN,
                "%s is refused more %s: its address or user holds %llu, and --peer-%s is %llu",
                name, texts[limit], (unsigned long long)account->held[limit],
                limit == PEER_BYTES ? "bytes" : texts[limit], (unsigned long long)most);
    return false;
}

void peers_give(struct peer_account *account, enum peer_limit limit, uint64_t amount)
{
    account->held[limit] -= amount;
}

void peers_move(struct peer_account *from, struct peer_account *to, enum peer_limit limit,
                uint64_t amount)
{
    from->held[limit] -= amount;
    to->held[limit] += amount;
}

bool peers_change(struct server *server, struct peer_account *account, uint64_t before,
                  uint64_t now, const char *name)
{
    if (now > before)
        return peers_take(server, account, PEER_BYTES, now - before, name);
    peers_give(account, PEER_BYTES, before - now);
    return true;
}
