#ifndef WS_CHECK_SOCKET_H
#define WS_CHECK_SOCKET_H

/* One WebSocket to 127.0.0.1, with nothing of the code under test. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HELD_MAX = 256, READ_SIZE = 256 * 1024 };

struct web_socket {
    int fd;
    size_t held_length; /* of a frame that is not whole yet */
    uint8_t held[HELD_MAX];
};

typedef void message_function(const uint8_t *payload, size_t length, void *context);

/* Connects and upgrades, blocking; the socket does not block afterwards. */
bool web_socket_open(struct web_socket *s, unsigned port);

/* Reads once and hands on each text message. buffer: of READ_SIZE + HELD_MAX. false: the peer
 * closed, or sent what is no right frame; the socket is closed then. */
bool web_socket_read(struct web_socket *s, uint8_t *buffer, message_function *message,
                     void *context);

#endif
