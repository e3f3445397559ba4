#ifndef BROKERD_LISTEN_H
#define BROKERD_LISTEN_H

/*
 * Listening sockets: what a URL means, and who may serve an ipc path.
 *
 * An ipc path is served by one broker: it holds flock on PATH.lock as long as it lives. A socket
 * file that nobody answers on is left by a dead broker and replaced; one that is answered is
 * refused.
 */
#include "sp.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

struct event;
struct server;

struct listen_url {
    enum sp_transport transport;
    bool tls;                                               /* tls+tcp: SP_TCP inside TLS */
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* ipc */
    char host[256];                                         /* tcp: numeric or a name */
    char port[6];
};

struct listener {
    struct server *server;
    struct event *event; /* owned by server.c */
    const struct listen_url *url;
    int fd;
    int lock;       /* descriptor of PATH.lock, -1 for tcp */
    char name[300]; /* the URL with the port that was bound */
};

/* Reads ipc:///absolute/path (or ipc://relative), tcp://host:port and tls+tcp://host:port. NULL, or
 * what is wrong. */
const char *listen_url_parse(struct listen_url *url, const char *text);

/* host:port, as --admin has it. */
const char *listen_host_port_parse(struct listen_url *url, const char *text);

/* Is every address that the host stands for a loopback address? */
bool listen_is_loopback(const struct listen_url *url);

/* Binds and listens; NULL after one logged line. ipc sockets are mode 0660 or stricter from the
 * first moment on. Waits up to 3 s for a broker that is just going away. */
struct listener *listener_new(const struct listen_url *url);

/* Closes; an ipc socket file is removed while the lock is held. */
void listener_free(struct listener *l);

#endif
