#ifndef ADAPTER_WS_FRAME_H
#define ADAPTER_WS_FRAME_H

/*
 * The header of a WebSocket frame and its masking (RFC 6455 5.2, 5.3). Pure, any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* RFC 6455 5.2; the other values are reserved. Bit 3 tells control frames. */
enum ws_opcode {
    WS_CONTINUATION = 0x0,
    WS_TEXT = 0x1,
    WS_BINARY = 0x2,
    WS_CLOSE = 0x8,
    WS_PING = 0x9,
    WS_PONG = 0xA
};

/* Close codes (RFC 6455 7.4.1) that this project sends or reports. */
enum ws_close_code {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_NO_CODE = 1005,  /* never sent: the peer's close frame was empty */
    WS_CLOSE_ABNORMAL = 1006, /* never sent: there was no close frame */
    WS_CLOSE_BAD_DATA = 1007,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL = 1011
};

enum {
    WS_HEADER_MAX = 14,        /* bytes, masked */
    WS_SERVER_HEADER_MAX = 10, /* bytes, unmasked */
    WS_CONTROL_MAX = 125       /* payload bytes of a control frame (5.5) */
};

struct ws_header {
    bool fin;
    bool rsv1; /* the first frame of a compressed message (RFC 7692 6) */
    bool masked;
    uint8_t opcode; /* enum ws_opcode */
    uint8_t mask[4];
    uint64_t length; /* of the payload, below 2^63 */
};

/* Size of the header for a payload of that length: 2, 4 or 10, and 4 more when masked. */
static inline size_t ws_header_size(uint64_t length, bool masked)
{
    return (length < 126 ? 2 : length < 65536 ? 4 : 10) + (masked ? 4u : 0u);
}

/* Writes the header, with the shortest form of the length; returns its size, ws_header_size. out
 * has room for that many bytes. Masked headers are for tests and clients: a server never masks
 * (5.1). */
size_t ws_header_encode(uint8_t *out, const struct ws_header *header);

/*
 * Reads a header from the start of bytes. Returns its size in bytes (2 to 14) when it is whole and
 * right; 0 when more bytes are needed; -1 when no right header starts so, found at the first wrong
 * byte: RSV2, RSV3 or a reserved opcode; RSV1 on a control frame or a continuation (or at all when
 * rsv1_allowed is false); a control frame that is fragmented or longer than 125; a length that is
 * not in its shortest form or has its top bit set. *reason is then a static text. A missing mask is
 * not refused here (masked tells): the side that reads decides (5.1).
 */
int ws_header_decode(const uint8_t *bytes, size_t length, bool rsv1_allowed,
                     struct ws_header *header, const char **reason);

/*
 * Masks or unmasks in place (5.3, the same operation). mask is advanced by length: given again with
 * the next portion of the same payload, it goes on where this one ended.
 */
void ws_mask(uint8_t *bytes, size_t length, uint8_t mask[4]);

/* May this code stand in a close frame (7.4)? 1000 to 1003, 1007 to 1014, 3000 to 4999. */
bool ws_close_code_is_valid(unsigned code);

#endif
