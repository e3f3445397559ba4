#ifndef ADAPTER_ENDPOINT_H
#define ADAPTER_ENDPOINT_H

/*
 * Where the broker is: the URL taken apart, and a non-blocking connection to it. I/O thread, but
 * for endpoint_parse, which is pure.
 */
#include "sp.h"
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

enum endpoint_kind { ENDPOINT_IPC, ENDPOINT_TCP, ENDPOINT_TLS };

struct endpoint {
    enum endpoint_kind kind;
    char path[108]; /* ipc: fits a sockaddr_un with its zero byte */
    char host[256]; /* tcp, tls: a name or an address, without brackets */
    char port[6];   /* tcp, tls: 1 to 65535 in digits */
};

enum { ENDPOINT_ADDRESSES = 4 };

/* What a name stands for; error is a getaddrinfo code, then count is 0. */
struct endpoint_addresses {
    int error;
    unsigned count;
    struct {
        socklen_t length;
        struct sockaddr_storage address;
    } list[ENDPOINT_ADDRESSES];
};

/* ipc:///path, tcp://host:port, tls+tcp://host:port, [v6] in brackets. false with a reason in
 * error. */
bool endpoint_parse(const char *url, struct endpoint *endpoint, char *error, size_t error_size);

/* ipc has a byte 01 before each length; tls is tcp inside. */
enum sp_transport endpoint_transport(const struct endpoint *endpoint);

/* The address of an ipc endpoint, or of a host given as a number: at once, without asking anyone.
 * false: endpoint_resolve has to look the name up. */
bool endpoint_address(const struct endpoint *endpoint, struct endpoint_addresses *addresses);

/*
 * Looks the host's name up on a short-lived thread, since the resolver blocks and the loop may not.
 * Returns a descriptor (in the descriptor table, the caller's to close) that becomes readable with
 * exactly one struct endpoint_addresses; -1 with errno. Closing it early is fine.
 */
int endpoint_resolve(const struct endpoint *endpoint);

/*
 * Begins to connect: a non-blocking socket (in the descriptor table, the caller's to close with
 * descriptors_close) that becomes writable when it is connected or failed; SO_ERROR tells. -1 with
 * errno when it fails at once.
 */
int endpoint_connect(const struct sockaddr *address, socklen_t length);

#endif
