#include "listen.h"

#include "log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BACKLOG = 1024, LOCK_TRIES = 150, LOCK_PAUSE_NS = 20 * 1000 * 1000 };

const char *listen_host_port_parse(struct listen_url *url, const char *text)
{
    *url = (struct listen_url){.transport = SP_TCP};
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text)
        return "it needs the form HOST:PORT, for example 127.0.0.1:7000 or [::1]:7000";
    size_t length = (size_t)(colon - text);
    if (text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    }
    if (length == 0 || length >= sizeof(url->host))
        return "the host is empty or too long";
    memcpy(url->host, text, length);
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != 0 || port > 65535)
        return "the port must be a number from 0 to 65535";
    snprintf(url->port, sizeof(url->port), "%lu", port);
    return NULL;
}

const char *listen_url_parse(struct listen_url *url, const char *text)
{
    bool tls = strncmp(text, "tls+tcp://", 10) == 0;
    if (tls || strncmp(text, "tcp://", 6) == 0) {
        const char *fault = listen_host_port_parse(url, text + (tls ? 10 : 6));
        url->tls = tls;
        return fault;
    }
    if (strncmp(text, "ipc://", 6) != 0)
        return "it must begin with ipc://, tcp:// or tls+tcp://, for example "
               "ipc:///run/brokerd/brokerd.sock";
    *url = (struct listen_url){.transport = SP_IPC};
    size_t length = strlen(text + 6);
    if (length == 0)
        return "the path is missing, for example ipc:///run/brokerd/brokerd.sock";
    if (length >= sizeof(url->path))
        return "the path is too long: a unix socket's has at most 107 bytes";
    memcpy(url->path, text + 6, length);
    return NULL;
}

static struct addrinfo *resolve(const struct listen_url *url, int flags, int *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    bool any = strcmp(url->host, "*") == 0;
    *error = getaddrinfo(any ? NULL : url->host, url->port, &hints, &list);
    return *error == 0 ? list : NULL;
}

bool listen_is_loopback(const struct listen_url *url)
{
    int error;
    struct addrinfo *list = resolve(url, AI_PASSIVE, &error);
    bool loopback = true;
    for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        if (a->ai_family == AF_INET)
            loopback &= ntohl(((struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr) >> 24 == 127;
        else
            loopback &= IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr) != 0;
    }
    if (list != NULL)
        freeaddrinfo(list);
    return loopback;
}

static bool open_tcp(struct listener *l)
{
    const char *scheme = l->url->tls ? "tls+tcp" : "tcp";
    int error;
    struct addrinfo *list = resolve(l->url, AI_PASSIVE, &error);
    if (list == NULL) {
        log_error("cannot listen on %s://%s:%s: %s", scheme, l->url->host, l->url->port,
                  gai_strerror(error));
        return false;
    }
    int one = 1;
    l->fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = l->fd >= 0;
    if (ok)
        setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    ok = ok && bind(l->fd, list->ai_addr, list->ai_addrlen) == 0 && listen(l->fd, BACKLOG) == 0;
    freeaddrinfo(list);
    if (!ok) {
        log_error("cannot listen on %s://%s:%s: %s", scheme, l->url->host, l->url->port,
                  strerror(errno));
        return false;
    }
    struct sockaddr_storage bound = {0};
    socklen_t size = sizeof(bound);
    char port[6] = "";
    if (getsockname(l->fd, (struct sockaddr *)&bound, &size) == 0)
        getnameinfo((struct sockaddr *)&bound, size, NULL, 0, port, sizeof(port), NI_NUMERICSERV);
    bool v6 = strchr(l->url->host, ':') != NULL;
    snprintf(l->name, sizeof(l->name), "%s://%s%s%s:%s", scheme, v6 ? "[" : "", l->url->host,
             v6 ? "]" : "", port);
    return true;
}

static struct sockaddr_un ipc_address(const struct listen_url *url)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, url->path, sizeof(address.sun_path));
    return address;
}

/* Does somebody answer on that path? */
static bool is_served(const struct listen_url *url)
{
    struct sockaddr_un address = ipc_address(url);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    bool served = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
                  errno == EAGAIN; /* its backlog is full: somebody is there */
    close(fd);
    return served;
}

/* Takes PATH.lock. A broker that holds it and does not answer is starting or going: wait for it. */
static bool take_lock(struct listener *l)
{
    char path[sizeof(l->url->path) + 8];
    snprintf(path, sizeof(path), "%s.lock", l->url->path);
    l->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (l->lock < 0) {
        log_error("cannot open %s: %s", path, strerror(errno));
        return false;
    }
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(l->lock, LOCK_EX | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR) {
            log_error("cannot lock %s: %s", path, strerror(errno));
            return false;
        }
        if (is_served(l->url))
            break;
        nanosleep(&(struct timespec){0, LOCK_PAUSE_NS}, NULL);
    }
    log_error("cannot listen on ipc://%s: another broker serves it", l->url->path);
    return false;
}

/* With the lock held: a socket file that is left there is dead, unless a program without lock
 * serves it. */
static bool clear_path(const struct listen_url *url)
{
    struct stat file;
    if (lstat(url->path, &file) != 0)
        return true;
    if (!S_ISSOCK(file.st_mode)) {
        log_error("cannot listen on ipc://%s: the file there is not a socket", url->path);
        return false;
    }
    if (is_served(url)) {
        log_error("cannot listen on ipc://%s: another program serves it", url->path);
        return false;
    }
    log_info("replacing the socket file %s, left by a broker that is gone", url->path);
    unlink(url->path);
    return true;
}

static bool open_ipc(struct listener *l)
{
    if (!take_lock(l) || !clear_path(l->url))
        return false;
    struct sockaddr_un address = ipc_address(l->url);
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mask = umask(0);
    umask(mask | 0117);
    bool ok = l->fd >= 0 && bind(l->fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    umask(mask);
    if (!ok || listen(l->fd, BACKLOG) != 0) {
        log_error("cannot listen on ipc://%s: %s", l->url->path, strerror(errno));
        return false;
    }
    snprintf(l->name, sizeof(l->name), "ipc://%s", l->url->path);
    return true;
}

struct listener *listener_new(const struct listen_url *url)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (l == NULL)
        return NULL;
    l->url = url;
    l->fd = l->lock = -1;
    if (url->transport == SP_IPC ? open_ipc(l) : open_tcp(l))
        return l;
    if (l->fd >= 0)
        close(l->fd);
    if (l->lock >= 0)
        close(l->lock);
    free(l);
    return NULL;
}

void listener_free(struct listener *l)
{
    if (l->url->transport == SP_IPC)
        unlink(l->url->path);
    close(l->fd);
    if (l->lock >= 0)
        close(l->lock);
    free(l);
}
