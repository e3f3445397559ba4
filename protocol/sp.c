#include "sp.h"
#include "bytes.h"

void sp_hello_encode(uint8_t out[SP_HELLO_SIZE], uint16_t protocol)
{
    memcpy(out, "\0SP\0", 4);
    put_u16be(out + 4, protocol);
    put_u16be(out + 6, 0);
}

enum status sp_hello_check(const uint8_t *data, size_t length, uint16_t wanted)
{
    uint8_t right[SP_HELLO_SIZE];
    size_t compared = length < SP_HELLO_SIZE ? length : SP_HELLO_SIZE;

    sp_hello_encode(right, wanted);
    for (size_t i = 0; i < compared; i++)
        if (data[i] != right[i])
            return STATUS_MALFORMED;
    return length < SP_HELLO_SIZE ? STATUS_TRUNCATED : STATUS_OK;
}

size_t sp_prefix_encode(uint8_t out[SP_PREFIX_MAX], enum sp_transport transport,
                        uint64_t body_length)
{
    size_t size = sp_prefix_size(transport);

    out[0] = 1;
    put_u64be(out + size - 8, body_length);
    return size;
}

enum status sp_prefix_decode(const uint8_t *data, size_t length, enum sp_transport transport,
                             uint64_t limit, uint64_t *body_length)
{
    size_t size = sp_prefix_size(transport);

    if (transport == SP_IPC && length > 0 && data[0] != 1)
        return STATUS_MALFORMED;
    if (length < size)
        return STATUS_TRUNCATED;
    *body_length = get_u64be(data + size - 8);
    return *body_length > limit ? STATUS_TOO_LARGE : STATUS_OK;
}

enum status sp_backtrace_decode(const uint8_t *body, size_t length, size_t *size)
{
    for (size_t at = 0; at + 4 <= length && at < 4 * SP_BACKTRACE_MAX; at += 4) {
        if (body[at] & 0x80) {
            *size = at + 4;
            return STATUS_OK;
        }
    }
    return STATUS_MALFORMED;
}
