#include "socket.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10, WAIT_MS = 20000 };

/* The nonce of RFC 6455 1.3 and its answer. */
static const char request[] = "GET /chaos HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                              "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
static const char answer[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

static bool upgrade(struct web_socket *s)
{
    char head[HELD_MAX + 1024];
    size_t length = 0;
    if (send(s->fd, request, sizeof(request) - 1, MSG_NOSIGNAL) != sizeof(request) - 1)
        return false;
    for (;;) {
        struct pollfd wait = {.fd = s->fd, .events = POLLIN};
        if (poll(&wait, 1, WAIT_MS) != 1)
            return false;
        ssize_t n = recv(s->fd, head + length, sizeof(head) - 1 - length, 0);
        if (n <= 0)
            return false;
        length += (size_t)n;
        head[length] = '\0';
        const char *end = strstr(head, "\r\n\r\n");
        if (end == NULL)
            continue;
        s->held_length = length - (size_t)(end + 4 - head);
        if (s->held_length > HELD_MAX)
            return false;
        memcpy(s->held, end + 4, s->held_length);
        return strncmp(head, "HTTP/1.1 101", 12) == 0 && strstr(head, answer) != NULL;
    }
}

bool web_socket_open(struct web_socket *s, unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0)
        return false;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(s->fd, (struct sockaddr *)&address, sizeof(address)) == 0 && upgrade(s) &&
        fcntl(s->fd, F_SETFL, O_NONBLOCK) == 0)
        return true;
    close(s->fd);
    s->fd = -1;
    return false;
}

/* A frame of at most 125 bytes; a client masks, and a mask of zeros is one. */
static void send_small(struct web_socket *s, uint8_t opcode, const uint8_t *payload, size_t length)
{
    uint8_t frame[6 + 125] = {(uint8_t)(0x80 | opcode), (uint8_t)(0x80 | length)};
    memcpy(frame + 6, payload, length);
    (void)!send(s->fd, frame, 6 + length, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Takes whole frames; the bytes used, or SIZE_MAX. All frames here are short: no lengths of 16 or
 * 64 bits, no fragments. */
static size_t take(struct web_socket *s, const uint8_t *at, size_t length,
                   message_function *message, void *context)
{
    size_t used = 0;
    while (length - used >= 2) {
        uint8_t opcode = at[used] & 15;
        size_t payload = at[used + 1];
        if ((at[used] & 0xf0) != 0x80 || payload > 125 || opcode == CLOSE)
            return SIZE_MAX;
        if (length - used < 2 + payload)
            break;
        if (opcode == TEXT)
            message(at + used + 2, payload, context);
        else if (opcode == PING)
            send_small(s, PONG, at + used + 2, payload);
        used += 2 + payload;
    }
    return used;
}

bool web_socket_read(struct web_socket *s, uint8_t *buffer, message_function *message,
                     void *context)
{
    memcpy(buffer, s->held, s->held_length);
    ssize_t n = recv(s->fd, buffer + s->held_length, READ_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n > 0) {
        size_t length = s->held_length + (size_t)n;
        size_t used = take(s, buffer, length, message, context);
        if (used != SIZE_MAX) {
            s->held_length = length - used;
            memcpy(s->held, buffer + used, s->held_length);
            return true;
        }
    }
    close(s->fd);
    s->fd = -1;
    return false;
}
