#include "load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* The nonce of RFC 6455 1.3 and its answer: a constant pair, so that no hash is needed here. */
static const char nonce[] = "dGhlIHNhbXBsZSBub25jZQ==",
                  nonce_answer[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

bool endpoint_parse(struct endpoint *endpoint, const char *url)
{
    char host[64];
    unsigned port;
    int path = 0;
    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->sse = strncmp(url, "sse://", 6) == 0;
    if (!endpoint->sse && strncmp(url, "ws://", 5) != 0)
        return false;
    url += endpoint->sse ? 6 : 5;
    if (sscanf(url, "%63[^:/]:%u%n", host, &port, &path) != 2 || port == 0 || port > 65535)
        return false;
    if (strlen(url + path) >= sizeof(endpoint->path))
        return false;
    strcpy(endpoint->path, url[path] == '\0' ? "/" : url + path);
    endpoint->address.sin_family = AF_INET;
    endpoint->address.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host,
                     &endpoint->address.sin_addr) == 1;
}

static void watch(const struct load *load, struct client *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(load->epoll, operation, c->fd, &event);
}

/* Past the ports of one source address the next ones of 127.0.0.0/8 are used. */
static bool use_source_address(const struct load *load, int fd, unsigned number)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    int one = 1;
    if (load->options->clients <= CLIENTS_PER_ADDRESS)
        return true;
    source.sin_addr.s_addr = htonl(0x7f000002u + number / CLIENTS_PER_ADDRESS);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    return bind(fd, (struct sockaddr *)&source, sizeof(source)) == 0;
}

static bool start_connecting(struct load *load, struct client *c, const struct endpoint *to,
                             unsigned number)
{
    int one = 1;
    *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                         .sse = to->sse,
                         .is_publisher = c == &load->publisher,
                         .receipt.seen = UINT64_MAX};
    if (c->fd < 0)
        return load_fail(load, "socket: %s (ulimit -n?)", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (!use_source_address(load, c->fd, number))
        return load_fail(load, "bind: %s", strerror(errno));
    if (connect(c->fd, (const struct sockaddr *)&to->address, sizeof(to->address)) != 0 &&
        errno != EINPROGRESS)
        return load_fail(load, "connect: %s", strerror(errno));
    watch(load, c, EPOLL_CTL_ADD, EPOLLOUT);
    return true;
}

static bool send_request(const struct load *load, struct client *c)
{
    const struct options *o = load->options;
    const struct endpoint *to = c->is_publisher ? &o->publish_url : &o->url;
    char request[2048], host[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &to->address.sin_addr, host, sizeof(host));
    int n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %s:%u\r\n", to->path, host,
                     ntohs(to->address.sin_port));
    if (c->sse)
        n += snprintf(request + n, sizeof(request) - (size_t)n, "Accept: text/event-stream\r\n");
    else
        n += snprintf(request + n, sizeof(request) - (size_t)n,
                      "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: %s\r\n",
                      nonce);
    if (o->origin != NULL)
        n += snprintf(request + n, sizeof(request) - (size_t)n, "Origin: %.200s\r\n", o->origin);
    if (o->subprotocol != NULL && !c->sse)
        n += snprintf(request + n, sizeof(request) - (size_t)n,
                      "Sec-WebSocket-Protocol: %.200s\r\n", o->subprotocol);
    n += snprintf(request + n, sizeof(request) - (size_t)n, "\r\n");
    return send(c->fd, request, (size_t)n, MSG_NOSIGNAL) == n;
}

static void became_ready(struct load *load, struct client *c)
{
    c->state = CLIENT_READY;
    if (!c->is_publisher)
        load->ready++;
}

static bool has_text(const uint8_t *bytes, size_t length, const char *text)
{
    return text == NULL || memmem(bytes, length, text, strlen(text)) != NULL;
}

/* What a greeted client has received so far says whether it may ask, and whether it is ready. */
static bool greet(struct load *load, struct client *c, const uint8_t *bytes, size_t length)
{
    const struct options *o = load->options;
    if (!c->asked && has_text(bytes, length, o->send_after)) {
        c->asked = true;
        if (o->send_on_open != NULL && !client_send(c, 1, o->send_on_open, strlen(o->send_on_open)))
            return load_fail(load, "send: %s", strerror(errno));
    }
    if (c->asked && has_text(bytes, length, o->ready_when))
        became_ready(load, c);
    return true;
}

/* The response's head is whole in held. */
static bool check_response(struct load *load, struct client *c, size_t head)
{
    char *text = (char *)c->held;
    text[head - 1] = '\0';
    bool right = c->sse
                     ? strncmp(text, "HTTP/1.1 200", 12) == 0
                     : strncmp(text, "HTTP/1.1 101", 12) == 0 && strstr(text, nonce_answer) != NULL;
    if (!right)
        return load_fail(load, "the server answered: %.60s", text);
    c->held_length -= (uint32_t)head;
    memmove(c->held, c->held + head, c->held_length);
    c->state = CLIENT_GREETED;
    if (!c->sse)
        return greet(load, c, c->held, c->held_length);
    became_ready(load, c);
    return true;
}

static bool read_response(struct load *load, struct client *c)
{
    ssize_t n = recv(c->fd, load->buffer, 16384, 0);
    if (n <= 0)
        return load_fail(load, "connection closed during the handshake");
    c->held = realloc(c->held, c->held_length + (size_t)n);
    memcpy(c->held + c->held_length, load->buffer, (size_t)n);
    c->held_length += (uint32_t)n;
    const uint8_t *end = memmem(c->held, c->held_length, "\r\n\r\n", 4);
    if (end == NULL)
        return c->held_length < 16384 || load_fail(load, "the response's head does not end");
    return check_response(load, c, (size_t)(end - c->held) + 4);
}

/* Looks at what comes without taking it; it is talk, and taken as such. */
static bool read_greeting(struct load *load, struct client *c)
{
    size_t held = c->held_length;
    if (held > 0)
        memcpy(load->buffer, c->held, held);
    ssize_t n = recv(c->fd, load->buffer + held, 16384, MSG_PEEK);
    if (n > 0 && !greet(load, c, load->buffer, held + (size_t)n))
        return false;
    return client_read(load, c) || load_fail(load, "connection closed before it was ready");
}

void client_close(struct load *load, struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->fd >= 0)
        close(c->fd);
    free(c->held);
    c->held = NULL;
    c->fd = -1;
    c->state = CLIENT_CLOSED;
    if (!c->is_publisher)
        load->closed++;
}

void client_handle(struct load *load, struct client *c, uint32_t events)
{
    bool right = true;
    switch (c->state) {
    case CLIENT_CONNECTING:
        right = (events & (EPOLLERR | EPOLLHUP)) == 0 && send_request(load, c);
        if (!right)
            load_fail(load, "the connection was refused");
        c->state = CLIENT_HANDSHAKE;
        watch(load, c, EPOLL_CTL_MOD, EPOLLIN);
        break;
    case CLIENT_HANDSHAKE:
        right = read_response(load, c);
        break;
    case CLIENT_GREETED:
        right = read_greeting(load, c);
        break;
    case CLIENT_READY:
        if (c->is_publisher && (events & EPOLLOUT) != 0)
            right = load_publish_flush(load);
        if (right && (events & ~(uint32_t)EPOLLOUT) != 0)
            right = client_read(load, c);
        break;
    case CLIENT_CLOSED:
        break;
    }
    if (!right)
        client_close(load, c);
}

bool load_open(struct load *load, unsigned count)
{
    uint64_t last_change = now_ns();
    unsigned ready = load->ready;
    while (load->ready < count) {
        while (load->opened < count && load->opened - load->ready < OPENING_AT_A_TIME) {
            if (!start_connecting(load, &load->client[load->opened], &load->options->url,
                                  load->opened))
                return false;
            load->opened++;
        }
        if (!load_turn(load, 100000000) || load->problem[0] != '\0')
            return false;
        if (load->ready != ready)
            last_change = now_ns();
        else if (now_ns() - last_change > STALL_SECONDS * UINT64_C(1000000000))
            return load_fail(load, "%u of %u clients are ready, and no more", ready, count);
        ready = load->ready;
        progress(load, "clients open", ready, count);
    }
    return true;
}

bool load_open_publisher(struct load *load)
{
    uint64_t start = now_ns();
    struct client *p = &load->publisher;
    if (!start_connecting(load, p, &load->options->publish_url, 0))
        return false;
    while (p->state != CLIENT_READY) {
        if (!load_turn(load, 100000000) || load->problem[0] != '\0')
            return false;
        if (now_ns() - start > STALL_SECONDS * UINT64_C(1000000000))
            return load_fail(load, "the publisher's connection was not answered");
    }
    return true;
}
