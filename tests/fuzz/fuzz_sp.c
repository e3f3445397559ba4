/* Holds: SP framing says TRUNCATED only for what can still become right, never reads past its
 * input, and gives back what was encoded. */
#include "fuzz.h"
#include "sp.h"

static void hello(const uint8_t *bytes, size_t length, uint16_t wanted)
{
    uint8_t right[SP_HELLO_SIZE];
    enum status status = sp_hello_check(bytes, length, wanted);
    sp_hello_encode(right, wanted);
    if (status == STATUS_TRUNCATED)
        check(length < SP_HELLO_SIZE);
    if (status == STATUS_OK)
        check(length >= SP_HELLO_SIZE && memcmp(bytes, right, 6) == 0);
    if (length > 0 && status != STATUS_MALFORMED) /* what is right began right */
        check(sp_hello_check(bytes, length - 1, wanted) != STATUS_MALFORMED);
}

static void prefix(const uint8_t *bytes, size_t length, enum sp_transport transport, uint64_t limit)
{
    uint64_t body = 0;
    uint8_t again[SP_PREFIX_MAX];
    size_t size = sp_prefix_size(transport);
    switch (sp_prefix_decode(bytes, length, transport, limit, &body)) {
    case STATUS_OK:
        check(length >= size && body <= limit);
        check(sp_prefix_encode(again, transport, body) == size);
        check(memcmp(again, bytes, size) == 0);
        break;
    case STATUS_TRUNCATED:
        check(length < size);
        break;
    case STATUS_MALFORMED:
        check(transport == SP_IPC && bytes[0] != 1);
        break;
    case STATUS_TOO_LARGE:
        check(length >= size);
        break;
    default:
        check(false);
    }
}

static void backtrace(const uint8_t *bytes, size_t length)
{
    size_t size = 0;
    if (sp_backtrace_decode(bytes, length, &size) != STATUS_OK)
        return;
    check(size >= 4 && size % 4 == 0 && size <= 4 * SP_BACKTRACE_MAX && size <= length);
    check((bytes[size - 4] & 0x80) != 0);
    for (size_t i = 0; i + 4 < size; i += 4)
        check((bytes[i] & 0x80) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint64_t limit = take(&in, 4);
    uint8_t options = (uint8_t)take(&in, 1);
    size_t length;
    uint8_t *bytes = take_copy(&in, in.left, &length);
    hello(bytes, length, options & 1 ? SP_REQ : SP_REP);
    prefix(bytes, length, options & 2 ? SP_IPC : SP_TCP, limit);
    backtrace(bytes, length);
    free(bytes);
    return 0;
}
