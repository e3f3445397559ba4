#include "load.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

size_t frame_encode(uint8_t *out, uint8_t opcode, const char *text, size_t length)
{
    static uint64_t state;
    size_t at = 2;
    if (state == 0 && getrandom(&state, sizeof(state), 0) != sizeof(state))
        abort();
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint8_t mask[4];
    memcpy(mask, (uint8_t *)&state + 4, 4);
    out[0] = 0x80 | opcode;
    if (length < 126) {
        out[1] = (uint8_t)(0x80 | length);
    } else {
        unsigned bytes = length < 65536 ? 2 : 8;
        out[1] = (uint8_t)(0x80 | (bytes == 2 ? 126 : 127));
        for (unsigned i = 0; i < bytes; i++)
            out[at++] = (uint8_t)(length >> 8 * (bytes - 1 - i));
    }
    memcpy(out + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < length; i++)
        out[at + i] = (uint8_t)text[i] ^ mask[i & 3];
    return at + length;
}

bool client_send(struct client *c, uint8_t opcode, const char *text, size_t length)
{
    uint8_t out[2048], *frame = length + 14 <= sizeof(out) ? out : malloc(length + 14);
    size_t size = frame_encode(frame, opcode, text, length);
    ssize_t n = send(c->fd, frame, size, MSG_NOSIGNAL);
    if (frame != out)
        free(frame);
    return n == (ssize_t)size;
}

static void deliver(struct load *load, struct client *c, const uint8_t *payload, size_t length,
                    uint64_t now)
{
    uint64_t sequence, sent_at;
    if (message_find(payload, length, &sequence, &sent_at))
        load_deliver(load, c, sequence, sent_at, now);
}

/* Bytes of the first frame, 0 when it is not whole yet, SIZE_MAX when it is none. */
static size_t frame_size(const uint8_t *at, size_t length, size_t *header)
{
    if (length < 2)
        return 0;
    uint8_t code = at[1];
    if ((at[0] & 0x70) != 0 || (code & 0x80) != 0)
        return SIZE_MAX; /* no extension was offered, and a server does not mask */
    *header = code == 126 ? 4 : code == 127 ? 10 : 2;
    if (length < *header)
        return 0;
    uint64_t payload = code;
    if (code >= 126) {
        payload = 0;
        for (size_t i = 2; i < *header; i++)
            payload = payload << 8 | at[i];
    }
    if (payload > HELD_MAX - 16)
        return SIZE_MAX;
    return length >= *header + payload ? *header + (size_t)payload : 0;
}

/* Returns the bytes that were used, SIZE_MAX when the connection is over. */
static size_t take_frames(struct load *load, struct client *c, const uint8_t *at, size_t length,
                          uint64_t now)
{
    size_t used = 0, header = 0, size;
    while ((size = frame_size(at + used, length - used, &header)) != 0) {
        if (size == SIZE_MAX) {
            load->faults.foreign++;
            return SIZE_MAX;
        }
        uint8_t opcode = at[used] & 15;
        const uint8_t *payload = at + used + header;
        if (opcode <= 2) /* the message's head is in its first fragment; the rest is padding */
            deliver(load, c, payload, size - header, now);
        else if (opcode == PING)
            client_send(c, PONG, (const char *)payload, size - header);
        else if (opcode == CLOSE)
            return SIZE_MAX;
        used += size;
    }
    return used;
}

static size_t take_lines(struct load *load, struct client *c, const uint8_t *at, size_t length,
                         uint64_t now)
{
    size_t used = 0;
    const uint8_t *end;
    while ((end = memchr(at + used, '\n', length - used)) != NULL) {
        size_t line = (size_t)(end - at) - used;
        if (line > 5 && memcmp(at + used, "data:", 5) == 0)
            deliver(load, c, at + used + 5, line - 5, now);
        used += line + 1;
    }
    return used;
}

/* Keeps what is not used yet in the client: most clients hold nothing. */
static bool hold(struct client *c, const uint8_t *rest, size_t length)
{
    if (length > HELD_MAX)
        return false;
    if (length == 0) {
        free(c->held);
        c->held = NULL;
    } else {
        c->held = realloc(c->held, length);
        memcpy(c->held, rest, length);
    }
    c->held_length = (uint32_t)length;
    return true;
}

static size_t take(struct load *load, struct client *c, const uint8_t *at, size_t length)
{
    uint64_t now = now_ns();
    return c->sse ? take_lines(load, c, at, length, now) : take_frames(load, c, at, length, now);
}

bool client_read(struct load *load, struct client *c)
{
    size_t held = c->held_length;
    uint8_t *buffer = load->buffer;
    if (held > READ_BUFFER_SIZE / 2) { /* one huge message */
        c->held = realloc(c->held, held + READ_BUFFER_SIZE);
        buffer = c->held;
    } else if (held > 0) {
        memcpy(buffer, c->held, held);
    }
    ssize_t n = recv(c->fd, buffer + held, READ_BUFFER_SIZE - (buffer == c->held ? 0 : held), 0);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    size_t length = held + (size_t)n;
    size_t used = take(load, c, buffer, length);
    if (used == SIZE_MAX)
        return false;
    if (buffer == c->held) {
        c->held_length = (uint32_t)(length - used);
        memmove(c->held, c->held + used, length - used);
        return length - used <= HELD_MAX;
    }
    return hold(c, buffer + used, length - used);
}

void clients_read(struct load *load, struct client **clients, unsigned count)
{
    enum { SLOT = READ_BUFFER_SIZE / READ_ALL_MOST };
    struct read_request requests[READ_ALL_MOST];
    for (unsigned i = 0; i < count; i++)
        requests[i] = (struct read_request){
            .fd = clients[i]->fd, .bytes = load->buffer + i * SLOT, .size = SLOT};
    read_all(load->ring, requests, count);
    for (unsigned i = 0; i < count; i++) {
        ssize_t n = requests[i].result;
        size_t used = n > 0 ? take(load, clients[i], requests[i].bytes, (size_t)n) : SIZE_MAX;
        bool waits = n == -EAGAIN || n == -EINTR;
        if (!waits && (used == SIZE_MAX ||
                       !hold(clients[i], (uint8_t *)requests[i].bytes + used, (size_t)n - used)))
            client_close(load, clients[i]);
    }
}
