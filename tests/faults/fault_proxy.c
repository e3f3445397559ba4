/*
 * fault_proxy SEED LISTEN=TARGET...: forwards bytes between processes and the broker, one route for
 * each argument, and does harm when told to. LISTEN and TARGET are unix:PATH or tcp:HOST:PORT (an
 * IPv4 address). `ready` on standard output when all listen. Lines on standard input:
 *
 *   cut N       each connection of route N gets a random prefix of what lies ready in either
 *               direction, and is closed; one in four is half open for up to two seconds first, one
 *               in four is reset instead of closed. Three in four are mute before, for up to a
 * tenth of a second: in one direction, or in both, bytes are taken and not sent on, so that
 *               requests or answers are under way when the cut comes
 *   hold N MS   a partition: nothing moves on route N, in neither direction, nobody is let in
 *   delay N MS  from now on every byte of route N is that much later
 *   calm        no delay and no hold any more
 *
 * At the end of standard input it prints `cuts N` and ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    ROUTES_MAX = 16,
    PAIRS_MAX = 64,
    FLOW_SIZE = 256 * 1024,
    STAMPS = 256,
    HALF_OPEN_MS = 2000,
    MUTE_MS = 100
};

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_in inet;
    } socket;
    socklen_t length;
};

struct route {
    struct address listen, target;
    int listener;
    int64_t held_until, delay;
};

/* Bytes on their way in one direction, in the order of their arrival. */
struct flow {
    size_t length; /* in bytes[] */
    unsigned stamps;
    struct {
        int64_t due;
        size_t size;
    } stamp[STAMPS];
    uint8_t bytes[FLOW_SIZE];
};

struct pair {
    bool used, deaf;
    bool mute[2];   /* what comes from that side is not sent on */
    int64_t cut_at; /* of one that was told to be cut; 0: none */
    int64_t end;    /* of a half-open one; 0: none */
    struct route *route;
    int fd[2];           /* 0: the process's side, 1: the broker's */
    struct flow flow[2]; /* from that side */
};

static struct route routes[ROUTES_MAX];
static struct pair pairs[PAIRS_MAX];
static unsigned route_count, seed;
static unsigned long cuts;

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static size_t random_below(size_t n)
{
    return n > 0 ? (size_t)rand_r(&seed) % n : 0;
}

static bool parse(struct address *a, char *text)
{
    memset(a, 0, sizeof(*a));
    if (strncmp(text, "unix:", 5) == 0 && strlen(text) < sizeof(a->socket.local.sun_path)) {
        a->socket.local.sun_family = AF_UNIX;
        strcpy(a->socket.local.sun_path, text + 5);
        a->length = sizeof(a->socket.local);
        return true;
    }
    char *port = strrchr(text, ':');
    if (strncmp(text, "tcp:", 4) != 0 || port == text + 3)
        return false;
    *port = '\0';
    a->socket.inet.sin_family = AF_INET;
    a->socket.inet.sin_port = htons((uint16_t)atoi(port + 1));
    a->length = sizeof(a->socket.inet);
    return inet_pton(AF_INET, text + 4, &a->socket.inet.sin_addr) == 1;
}

static bool route_open(struct route *r, char *text)
{
    char *target = strchr(text, '=');
    int one = 1;
    if (target == NULL)
        return false;
    *target = '\0';
    if (!parse(&r->listen, text) || !parse(&r->target, target + 1))
        return false;
    r->listener =
        socket(r->listen.socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(r->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return bind(r->listener, &r->listen.socket.any, r->listen.length) == 0 &&
           listen(r->listener, 64) == 0;
}

static void pair_close(struct pair *p, bool reset)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    for (int side = 0; side < 2; side++) {
        if (reset)
            setsockopt(p->fd[side], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        close(p->fd[side]);
    }
    p->used = false;
}

static void accept_one(struct route *r)
{
    int one = 1, fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct pair *p = pairs;
    while (p < pairs + PAIRS_MAX && p->used)
        p++;
    if (fd < 0)
        return;
    int other =
        socket(r->target.socket.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (p == pairs + PAIRS_MAX || other < 0 ||
        (connect(other, &r->target.socket.any, r->target.length) != 0 && errno != EINPROGRESS)) {
        close(fd);
        close(other);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(other, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    p->used = true;
    p->deaf = p->mute[0] = p->mute[1] = false;
    p->cut_at = p->end = 0;
    p->route = r;
    p->fd[0] = fd;
    p->fd[1] = other;
    p->flow[0].length = p->flow[1].length = 0;
    p->flow[0].stamps = p->flow[1].stamps = 0;
}

static bool has_room(const struct flow *f)
{
    return f->length < FLOW_SIZE && f->stamps < STAMPS;
}

/* false: that side is over. */
static bool take_in(struct pair *p, int side, int64_t now)
{
    struct flow *f = &p->flow[side];
    if (!has_room(f))
        return true;
    ssize_t n = recv(p->fd[side], f->bytes + f->length, FLOW_SIZE - f->length, 0);
    if (n < 0)
        return errno == EAGAIN || errno == ENOTCONN; /* still connecting */
    if (n == 0)
        return false;
    f->length += (size_t)n;
    f->stamp[f->stamps].due = now + p->route->delay;
    f->stamp[f->stamps++].size = (size_t)n;
    return true;
}

/* Sends up to `most` bytes; false: the other side is over. */
static bool send_some(struct pair *p, int side, size_t most)
{
    struct flow *f = &p->flow[side];
    ssize_t n = most > 0 ? send(p->fd[1 - side], f->bytes, most, MSG_NOSIGNAL) : 0;
    if (n <= 0)
        return n == 0 || errno == EAGAIN || errno == ENOTCONN;
    f->length -= (size_t)n;
    memmove(f->bytes, f->bytes + n, f->length);
    unsigned gone = 0;
    for (size_t left = (size_t)n; left > 0;) {
        size_t part = left < f->stamp[gone].size ? left : f->stamp[gone].size;
        f->stamp[gone].size -= part;
        left -= part;
        gone += f->stamp[gone].size == 0;
    }
    f->stamps -= gone;
    memmove(f->stamp, f->stamp + gone, f->stamps * sizeof(f->stamp[0]));
    return true;
}

static size_t due(const struct flow *f, int64_t now)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < f->stamps && f->stamp[i].due <= now; i++)
        bytes += f->stamp[i].size;
    return bytes;
}

static void mute(struct pair *p, int64_t now)
{
    size_t sides = random_below(4);
    p->mute[0] = sides & 1;
    p->mute[1] = sides & 2;
    p->cut_at = now + (sides != 0 ? (int64_t)random_below(MUTE_MS) : 0);
    cuts++;
}

static void cut(struct pair *p, int64_t now)
{
    p->cut_at = 0;
    for (int side = 0; side < 2; side++) {
        take_in(p, side, now);
        send_some(p, side, random_below(p->flow[side].length + 1));
    }
    size_t kind = random_below(4);
    if (kind == 0) {
        p->deaf = true;
        p->end = now + 1 + (int64_t)random_below(HALF_OPEN_MS);
        return;
    }
    pair_close(p, kind == 1);
}

static void command(char *line)
{
    unsigned n = 0;
    long ms = 0;
    if (strncmp(line, "calm", 4) == 0) {
        for (unsigned i = 0; i < route_count; i++)
            routes[i].delay = routes[i].held_until = 0;
    } else if (sscanf(line, "cut %u", &n) == 1 && n < route_count) {
        for (struct pair *p = pairs; p < pairs + PAIRS_MAX; p++) {
            if (p->used && p->end == 0 && p->cut_at == 0 && p->route == &routes[n])
                mute(p, now_ms());
        }
    } else if (sscanf(line, "hold %u %ld", &n, &ms) == 2 && n < route_count) {
        routes[n].held_until = now_ms() + ms;
    } else if (sscanf(line, "delay %u %ld", &n, &ms) == 2 && n < route_count) {
        routes[n].delay = ms;
    }
}

/* A few whole lines; false at the end. */
static bool commands(void)
{
    static char held[4096];
    static size_t length;
    ssize_t n = read(STDIN_FILENO, held + length, sizeof(held) - 1 - length);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    length += (size_t)n;
    held[length] = '\0';
    char *at = held, *end;
    for (; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        *end = '\0';
        command(at);
    }
    length -= (size_t)(at - held);
    memmove(held, at, length);
    return length < sizeof(held) - 1;
}

static void pair_serve(struct pair *p, const struct pollfd *polls, int64_t now)
{
    if (p->end != 0 && now >= p->end) {
        pair_close(p, false);
        return;
    }
    if (p->cut_at != 0 && now >= p->cut_at) {
        cut(p, now);
        return;
    }
    if (p->deaf || now < p->route->held_until)
        return;
    for (int side = 0; side < 2; side++) {
        bool over = polls[side].revents != 0 && !take_in(p, side, now);
        if (!send_some(p, side, p->mute[side] ? 0 : due(&p->flow[side], now)) ||
            (over && due(&p->flow[side], INT64_MAX) == 0)) {
            pair_close(p, false);
            return;
        }
    }
}

static int timeout(void)
{
    int ms = 200;
    for (const struct pair *p = pairs; p < pairs + PAIRS_MAX; p++) {
        if (p->used && (p->end != 0 || p->cut_at != 0 ||
                        p->flow[0].length + p->flow[1].length > 0 || p->route->held_until != 0))
            ms = 2;
    }
    return ms;
}

static short events_of(const struct pair *p, int side, int64_t now)
{
    short events = 0;
    if (p->deaf || now < p->route->held_until)
        return 0;
    if (has_room(&p->flow[side]))
        events |= POLLIN;
    if (!p->mute[1 - side] && due(&p->flow[1 - side], now) > 0)
        events |= POLLOUT;
    return events;
}

/* false: standard input is at its end. */
static bool turn(void)
{
    static struct pollfd polls[1 + ROUTES_MAX + 2 * PAIRS_MAX];
    int64_t now = now_ms();
    polls[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    for (unsigned i = 0; i < ROUTES_MAX; i++)
        polls[1 + i] = (struct pollfd){
            .fd = i < route_count && now >= routes[i].held_until ? routes[i].listener : -1,
            .events = POLLIN};
    for (unsigned i = 0; i < PAIRS_MAX; i++) {
        for (int side = 0; side < 2; side++) {
            short events = pairs[i].used ? events_of(&pairs[i], side, now) : 0;
            polls[1 + ROUTES_MAX + 2 * i + (unsigned)side] =
                (struct pollfd){.fd = events != 0 ? pairs[i].fd[side] : -1, .events = events};
        }
    }
    poll(polls, sizeof(polls) / sizeof(polls[0]), timeout());
    now = now_ms();
    for (unsigned i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].used)
            pair_serve(&pairs[i], &polls[1 + ROUTES_MAX + 2 * i], now);
    }
    for (unsigned i = 0; i < route_count; i++) {
        if (polls[1 + i].revents != 0)
            accept_one(&routes[i]);
    }
    return polls[0].revents == 0 || commands();
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
    for (int i = 2; i < argc && route_count < ROUTES_MAX; i++) {
        if (!route_open(&routes[route_count++], argv[i])) {
            fprintf(stderr, "fault_proxy: cannot open route %d: %s\n", i - 1, strerror(errno));
            return 2;
        }
    }
    puts("ready");
    fflush(stdout);
    while (turn())
        ;
    printf("cuts %lu\n", cuts);
    return 0;
}
