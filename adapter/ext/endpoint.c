#include "endpoint.h"
#include "descriptors.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* What the look-up thread owns: its copy of the question and its end of the pair. */
struct lookup {
    int fd;
    struct endpoint endpoint;
};

static bool refuse(char *error, size_t size, const char *url, const char *reason)
{
    snprintf(error, size, "broker URL %s: %s", url, reason);
    return false;
}

static bool parse_path(const char *url, const char *path, struct endpoint *endpoint, char *error,
                       size_t error_size)
{
    if (path[0] != '/')
        return refuse(error, error_size, url,
                      "ipc:// needs an absolute path, as in ipc:///run/b.sock");
    if (strlen(path) >= sizeof(endpoint->path))
        return refuse(error, error_size, url, "the socket's path is longer than 107 bytes");
    strcpy(endpoint->path, path);
    return true;
}

static bool parse_port(const char *text, char port[6])
{
    size_t length = strlen(text);
    if (length == 0 || length > 5 || strspn(text, "0123456789") != length)
        return false;
    long number = strtol(text, NULL, 10);
    if (number < 1 || number > 65535)
        return false;
    snprintf(port, 6, "%u", (unsigned)number & 0xffff);
    return true;
}

static bool parse_host_and_port(const char *url, const char *text, struct endpoint *endpoint,
                                char *error, size_t error_size)
{
    const char *host = text;
    const char *end;
    const char *port;
    if (*text == '[') {
        host = text + 1;
        end = strchr(host, ']');
        port = end && end[1] == ':' ? end + 2 : NULL;
    } else {
        end = strchr(host, ':');
        port = end ? end + 1 : NULL;
    }
    if (!port || !parse_port(port, endpoint->port))
        return refuse(error, error_size, url,
                      "needs a port from 1 to 65535, as in tcp://host:5555");
    size_t length = (size_t)(end - host);
    if (length == 0 || length >= sizeof(endpoint->host))
        return refuse(error, error_size, url, "needs a host of 1 to 255 bytes");
    memcpy(endpoint->host, host, length);
    return true;
}

bool endpoint_parse(const char *url, struct endpoint *endpoint, char *error, size_t error_size)
{
    memset(endpoint, 0, sizeof(*endpoint));
    if (strncmp(url, "ipc://", 6) == 0) {
        endpoint->kind = ENDPOINT_IPC;
        return parse_path(url, url + 6, endpoint, error, error_size);
    }
    if (strncmp(url, "tcp://", 6) == 0) {
        endpoint->kind = ENDPOINT_TCP;
        return parse_host_and_port(url, url + 6, endpoint, error, error_size);
    }
    if (strncmp(url, "tls+tcp://", 10) == 0) {
        endpoint->kind = ENDPOINT_TLS;
        return parse_host_and_port(url, url + 10, endpoint, error, error_size);
    }
    return refuse(error, error_size, url, "must begin with ipc://, tcp:// or tls+tcp://");
}

enum sp_transport endpoint_transport(const struct endpoint *endpoint)
{
    return endpoint->kind == ENDPOINT_IPC ? SP_IPC : SP_TCP;
}

static void look_up(const struct endpoint *endpoint, int flags,
                    struct endpoint_addresses *addresses)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    memset(addresses, 0, sizeof(*addresses));
    addresses->error = getaddrinfo(endpoint->host, endpoint->port, &hints, &found);
    if (addresses->error)
        return;
    for (struct addrinfo *a = found; a && addresses->count < ENDPOINT_ADDRESSES; a = a->ai_next) {
        if (a->ai_addrlen > sizeof(addresses->list[0].address))
            continue;
        memcpy(&addresses->list[addresses->count].address, a->ai_addr, a->ai_addrlen);
        addresses->list[addresses->count++].length = a->ai_addrlen;
    }
    freeaddrinfo(found);
}

bool endpoint_address(const struct endpoint *endpoint, struct endpoint_addresses *addresses)
{
    if (endpoint->kind != ENDPOINT_IPC) {
        look_up(endpoint, AI_NUMERICHOST, addresses);
        return addresses->error == 0 && addresses->count > 0;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, endpoint->path, sizeof(endpoint->path));
    memset(addresses, 0, sizeof(*addresses));
    memcpy(&addresses->list[0].address, &address, sizeof(address));
    addresses->list[0].length = sizeof(address);
    addresses->count = 1;
    return true;
}

static void *lookup_thread(void *argument)
{
    struct lookup *lookup = argument;
    struct endpoint_addresses addresses;
    look_up(&lookup->endpoint, AI_ADDRCONFIG, &addresses);
    /* The reader may have gone: then nobody wants to know, and MSG_NOSIGNAL keeps it at that. */
    (void)!send(lookup->fd, &addresses, sizeof(addresses), MSG_NOSIGNAL);
    descriptors_close(lookup->fd, false);
    free(lookup);
    return NULL;
}

static int start_lookup(struct lookup *lookup)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, &attributes, lookup_thread, lookup);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}

int endpoint_resolve(const struct endpoint *endpoint)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    struct lookup *lookup = malloc(sizeof(*lookup));
    bool first = descriptors_add(pair[0]), second = descriptors_add(pair[1]);
    int error = !lookup ? ENOMEM : first && second ? 0 : EMFILE;
    if (!error) {
        lookup->fd = pair[1];
        lookup->endpoint = *endpoint;
        error = start_lookup(lookup);
    }
    if (!error)
        return pair[0];
    descriptors_close(pair[0], false);
    descriptors_close(pair[1], false);
    free(lookup);
    errno = error;
    return -1;
}

int endpoint_connect(const struct sockaddr *address, socklen_t length)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (!descriptors_add(fd)) {
        close(fd);
        errno = EMFILE;
        return -1;
    }
    if (address->sa_family != AF_UNIX) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    if (connect(fd, address, length) < 0 && errno != EINPROGRESS) {
        int error = errno;
        descriptors_close(fd, true);
        errno = error;
        return -1;
    }
    return fd;
}
