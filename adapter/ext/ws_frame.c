#include "ws_frame.h"
#include "bytes.h"

enum { FIN = 0x80, RSV1 = 0x40, RSV_OTHER = 0x30, OPCODE = 0x0F, CONTROL = 0x08, MASKED = 0x80 };

size_t ws_header_encode(uint8_t *out, const struct ws_header *header)
{
    uint8_t masked = header->masked ? MASKED : 0;
    size_t size;

    out[0] = (uint8_t)((header->fin ? FIN : 0) | (header->rsv1 ? RSV1 : 0) | header->opcode);
    if (header->length < 126) {
        out[1] = (uint8_t)(masked | header->length);
        size = 2;
    } else if (header->length < 65536) {
        out[1] = masked | 126;
        put_u16be(out + 2, (uint16_t)header->length);
        size = 4;
    } else {
        out[1] = masked | 127;
        put_u64be(out + 2, header->length);
        size = 10;
    }
    if (header->masked) {
        memcpy(out + size, header->mask, 4);
        size += 4;
    }
    return size;
}

/* What is wrong with the first byte, or NULL. */
static const char *first_byte_fault(uint8_t first, bool rsv1_allowed)
{
    uint8_t opcode = first & OPCODE;

    if (first & RSV_OTHER)
        return "a reserved bit is set";
    if (opcode > WS_PONG || (opcode > WS_BINARY && opcode < WS_CLOSE))
        return "reserved opcode";
    if ((first & RSV1) && (!rsv1_allowed || opcode == WS_CONTINUATION || opcode & CONTROL))
        return "a reserved bit is set";
    if ((opcode & CONTROL) && !(first & FIN))
        return "fragmented control frame";
    return NULL;
}

/* What is wrong with the length as far as it is there, or NULL. */
static const char *length_fault(const uint8_t *bytes, size_t length)
{
    uint8_t code = bytes[1] & 0x7F;

    if (code > WS_CONTROL_MAX && (bytes[0] & CONTROL))
        return "control frame of more than 125 bytes";
    if (code == 126 && length >= 4 && get_u16be(bytes + 2) < 126)
        return "length is not in its shortest form";
    if (code == 127 && length >= 3 && (bytes[2] & 0x80))
        return "length has its top bit set";
    if (code == 127 && length >= 10 && get_u64be(bytes + 2) < 65536)
        return "length is not in its shortest form";
    return NULL;
}

int ws_header_decode(const uint8_t *bytes, size_t length, bool rsv1_allowed,
                     struct ws_header *header, const char **reason)
{
    unsigned size, code;

    if (length == 0)
        return 0;
    if ((*reason = first_byte_fault(bytes[0], rsv1_allowed)) != NULL)
        return -1;
    if (length < 2)
        return 0;
    if ((*reason = length_fault(bytes, length)) != NULL)
        return -1;
    code = bytes[1] & 0x7F;
    header->masked = bytes[1] & MASKED;
    size = (code < 126 ? 2 : code == 126 ? 4 : 10) + (header->masked ? 4u : 0u);
    if (length < size)
        return 0;
    header->fin = bytes[0] & FIN;
    header->rsv1 = bytes[0] & RSV1;
    header->opcode = bytes[0] & OPCODE;
    header->length = code < 126 ? code : code == 126 ? get_u16be(bytes + 2) : get_u64be(bytes + 2);
    if (header->masked)
        memcpy(header->mask, bytes + size - 4, 4);
    return (int)size;
}

void ws_mask(uint8_t *bytes, size_t length, uint8_t mask[4])
{
    uint64_t word = get_u32le(mask);
    unsigned turn = (unsigned)(length % 4) * 8;
    size_t i = 0;

    word |= word << 32;
    for (; length - i >= 32; i += 32) {
        put_u64le(bytes + i, get_u64le(bytes + i) ^ word);
        put_u64le(bytes + i + 8, get_u64le(bytes + i + 8) ^ word);
        put_u64le(bytes + i + 16, get_u64le(bytes + i + 16) ^ word);
        put_u64le(bytes + i + 24, get_u64le(bytes + i + 24) ^ word);
    }
    for (; length - i >= 8; i += 8)
        put_u64le(bytes + i, get_u64le(bytes + i) ^ word);
    for (; i < length; i++)
        bytes[i] = (uint8_t)(bytes[i] ^ mask[i % 4]);
    put_u32le(mask, (uint32_t)(word >> turn));
}

bool ws_close_code_is_valid(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}
