/* Holds: the wire codec never reads past its input, what it decodes lies within it, and encoding
 * that again gives something that decodes to the same. */
#include "bytes.h"
#include "fuzz.h"
#include "wire.h"

static bool within(const uint8_t *part, size_t part_length, const uint8_t *bytes, size_t length)
{
    return part_length == 0 || (part >= bytes && part + part_length <= bytes + length);
}

static void request(const uint8_t *bytes, size_t length)
{
    struct wire_request first, second;
    uint8_t again[WIRE_REQUEST_SIZE];
    if (wire_request_decode(bytes, length, &first) != STATUS_OK)
        return;
    check(length >= WIRE_REQUEST_SIZE);
    wire_request_encode(again, &first);
    check(wire_request_decode(again, sizeof(again), &second) == STATUS_OK);
    check(first.operation == second.operation && first.flags == second.flags &&
          first.records == second.records && first.session == second.session &&
          first.position == second.position);
}

static void reply(const uint8_t *bytes, size_t length)
{
    struct wire_reply first, second;
    uint8_t again[WIRE_REPLY_SIZE];
    if (wire_reply_decode(bytes, length, &first) != STATUS_OK)
        return;
    check(length >= WIRE_REPLY_SIZE);
    wire_reply_encode(again, &first);
    check(wire_reply_decode(again, sizeof(again), &second) == STATUS_OK);
    check(first.operation == second.operation && first.status == second.status &&
          first.flags == second.flags && first.records == second.records &&
          first.epoch == second.epoch && first.head == second.head && first.value == second.value);
}

static void attach(const uint8_t *bytes, size_t length)
{
    struct wire_attach first, second;
    size_t used, used_again;
    if (wire_attach_decode(bytes, length, &first, &used) != STATUS_OK)
        return;
    check(used <= length && used % 8 == 0 && first.name_length <= WIRE_NAME_MAX);
    check(first.proof_length == 0 || first.proof_length == WIRE_PROOF_SIZE);
    check(within(first.name, first.name_length, bytes, used));
    check(within(first.proof, first.proof_length, bytes, used));
    size_t size = wire_attach_size(&first);
    check(size == used);
    uint8_t *again = malloc(size);
    check(again != NULL);
    wire_attach_encode(again, &first);
    check(wire_attach_decode(again, size, &second, &used_again) == STATUS_OK && used_again == used);
    check(first.generation == second.generation && first.epoch == second.epoch &&
          first.origin == second.origin && first.unanswered == second.unanswered &&
          first.pid == second.pid && first.name_length == second.name_length &&
          first.proof_length == second.proof_length);
    check(first.name_length == 0 || memcmp(first.name, second.name, first.name_length) == 0);
    free(again);
}

static void attach_reply(const uint8_t *bytes, size_t length)
{
    struct wire_attach_reply first, second;
    size_t used, used_again;
    if (wire_attach_reply_decode(bytes, length, &first, &used) != STATUS_OK)
        return;
    check(used <= length && within(first.proof, first.proof_length, bytes, used));
    size_t size = wire_attach_reply_size(&first);
    uint8_t *again = malloc(size);
    check(again != NULL);
    wire_attach_reply_encode(again, &first);
    check(wire_attach_reply_decode(again, size, &second, &used_again) == STATUS_OK);
    check(first.record_max == second.record_max && first.proof_length == second.proof_length);
    free(again);
}

/* All records one behind the other, as in a batch. */
static void records(const uint8_t *bytes, size_t length)
{
    struct wire_record first, second;
    size_t used, used_again;
    while (wire_record_decode(bytes, length, &first, &used) == STATUS_OK) {
        check(used >= 8 && used <= length && used % 8 == 0);
        if (first.type != WIRE_FILLER) {
            check(within(first.channel, first.channel_length, bytes, used));
            check(within(first.payload, first.payload_length, bytes, used));
            check(wire_record_size(first.channel_length, first.payload_length) == used);
            uint8_t *again = malloc(used);
            check(again != NULL);
            wire_record_encode(again, &first);
            size_t bare = get_u32le(bytes);
            check(memcmp(again, bytes, bare) == 0);
            check(wire_record_checksum(again) == wire_record_checksum(bytes));
            wire_record_stamp(again, 7, 9);
            check(wire_record_decode(again, used, &second, &used_again) == STATUS_OK);
            check(second.id == 7 && second.engine == 9 && second.type == WIRE_MESSAGE &&
                  second.checksum == wire_record_checksum(again));
            free(again);
        }
        bytes += used;
        length -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    size_t length;
    uint8_t *bytes = take_copy(&in, in.left, &length);
    request(bytes, length);
    reply(bytes, length);
    attach(bytes, length);
    attach_reply(bytes, length);
    records(bytes, length);
    free(bytes);
    return 0;
}
