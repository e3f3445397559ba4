#ifndef TESTS_INTEGRATION_PROXY_H
#define TESTS_INTEGRATION_PROXY_H

/*
 * A proxy between processes and the broker that cuts connections after a random prefix of the
 * bytes, on a thread of its own. Each connection gets a budget of bytes for each direction and a
 * lifetime; what runs out first cuts it. Some stop forwarding one direction first and are cut later
 * (a half-open link). Header only; needs harness.h.
 */
#include "harness.h"
#include <pthread.h>

enum { PROXY_PAIRS_MAX = 16, PROXY_CHUNK = 16384 };

struct proxy_pair {
    int fd[2]; /* 0: the process's side, 1: the broker's; -1: free */
    int64_t budget[2];
    int64_t until;
    bool deaf[2]; /* nothing is forwarded from that side any more */
};

struct proxy {
    char path[108], broker[108];
    int listener;
    pthread_t thread;
    bool stop, calm; /* atomic; calm: no more cuts */
    unsigned cuts;   /* atomic */
    unsigned seed;
    int64_t lifetime_ms;
    struct proxy_pair pairs[PROXY_PAIRS_MAX];
};

static inline unsigned proxy_random(struct proxy *p, unsigned n)
{
    return (unsigned)rand_r(&p->seed) % n;
}

static inline void proxy_cut(struct proxy *p, struct proxy_pair *pair)
{
    for (int i = 0; i < 2; i++) {
        close(pair->fd[i]);
        pair->fd[i] = -1;
    }
    __atomic_add_fetch(&p->cuts, 1, __ATOMIC_RELAXED);
}

static inline void proxy_accept(struct proxy *p)
{
    int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct proxy_pair *pair = NULL;
    for (int i = 0; i < PROXY_PAIRS_MAX; i++) {
        if (p->pairs[i].fd[0] < 0)
            pair = &p->pairs[i];
    }
    memcpy(address.sun_path, p->broker, sizeof(p->broker));
    int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !pair || connect(other, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        close(other);
        return;
    }
    *pair = (struct proxy_pair){.fd = {fd, other}};
    for (int i = 0; i < 2; i++) {
        /* Often so few that a handshake or an ATTACH is cut, sometimes many. */
        unsigned scale = 1u << (6 + proxy_random(p, 16));
        pair->budget[i] = proxy_random(p, scale);
    }
    pair->until = now_ms() + 1 + proxy_random(p, (unsigned)p->lifetime_ms);
}

/* Forwards once from one side; false: the pair is over. */
static inline bool proxy_forward(struct proxy *p, struct proxy_pair *pair, int from)
{
    uint8_t bytes[PROXY_CHUNK];
    bool calm = __atomic_load_n(&p->calm, __ATOMIC_RELAXED);
    size_t most = sizeof(bytes);
    if (!calm && pair->budget[from] < (int64_t)most) /* below 0 after a calm time */
        most = pair->budget[from] > 0 ? (size_t)pair->budget[from] : 0;
    ssize_t n = most > 0 ? recv(pair->fd[from], bytes, most, MSG_DONTWAIT) : 0;
    if (n < 0)
        return errno == EAGAIN;
    if (n == 0 && most > 0)
        return false;
    pair->budget[from] -= n;
    for (ssize_t at = 0; at < n;) {
        struct pollfd room = {.fd = pair->fd[1 - from], .events = POLLOUT};
        poll(&room, 1, 1000); /* who does not read for a second is cut */
        ssize_t m =
            send(pair->fd[1 - from], bytes + at, (size_t)(n - at), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (m <= 0)
            return false;
        at += m;
    }
    if (calm || pair->budget[from] > 0)
        return true;
    pair->deaf[from] = proxy_random(p, 4) == 0; /* half open until its lifetime ends */
    return pair->deaf[from];
}

static inline void *proxy_run(void *context)
{
    struct proxy *p = context;
    while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
        struct pollfd polls[1 + 2 * PROXY_PAIRS_MAX];
        polls[0] = (struct pollfd){.fd = p->listener, .events = POLLIN};
        for (int i = 0; i < PROXY_PAIRS_MAX; i++) {
            for (int side = 0; side < 2; side++)
                polls[1 + 2 * i + side] = (struct pollfd){
                    .fd = p->pairs[i].deaf[side] ? -1 : p->pairs[i].fd[side], .events = POLLIN};
        }
        poll(polls, 1 + 2 * PROXY_PAIRS_MAX, 5);
        for (int i = 0; i < PROXY_PAIRS_MAX; i++) {
            struct proxy_pair *pair = &p->pairs[i];
            bool lives = true;
            for (int side = 0; lives && side < 2; side++) {
                if (pair->fd[0] >= 0 && polls[1 + 2 * i + side].revents)
                    lives = proxy_forward(p, pair, side);
            }
            bool calm = __atomic_load_n(&p->calm, __ATOMIC_RELAXED);
            if (pair->fd[0] >= 0 && (pair->deaf[0] || pair->deaf[1] || !calm) &&
                now_ms() > pair->until)
                lives = false;
            if (!lives)
                proxy_cut(p, pair);
        }
        if (polls[0].revents)
            proxy_accept(p);
    }
    return NULL;
}

static inline void proxy_start(struct proxy *p, const struct broker *b, unsigned seed,
                               unsigned lifetime_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memset(p, 0, sizeof(*p));
    snprintf(p->path, sizeof(p->path), "%s/proxy.sock", b->dir);
    snprintf(p->broker, sizeof(p->broker), "%s", b->path);
    for (int i = 0; i < PROXY_PAIRS_MAX; i++)
        p->pairs[i].fd[0] = p->pairs[i].fd[1] = -1;
    p->seed = seed;
    p->lifetime_ms = lifetime_ms;
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, p->path, sizeof(p->path));
    cr_assert(bind(p->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    cr_assert(listen(p->listener, 64) == 0);
    cr_assert(pthread_create(&p->thread, NULL, proxy_run, p) == 0);
}

static inline void proxy_stop(struct proxy *p)
{
    __atomic_store_n(&p->stop, true, __ATOMIC_RELEASE);
    pthread_join(p->thread, NULL);
    for (int i = 0; i < PROXY_PAIRS_MAX; i++) {
        if (p->pairs[i].fd[0] >= 0)
            proxy_cut(p, &p->pairs[i]);
    }
    close(p->listener);
}

#endif
