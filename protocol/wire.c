#include "wire.h"
#include "bytes.h"
#include "crc32c.h"

void wire_request_encode(uint8_t *out, const struct wire_request *request)
{
    out[0] = request->version;
    out[1] = request->operation;
    put_u16le(out + 2, request->flags);
    put_u32le(out + 4, request->records);
    put_u64le(out + 8, request->session);
    put_u64le(out + 16, request->position);
}

void wire_reply_encode(uint8_t *out, const struct wire_reply *reply)
{
    out[0] = reply->version;
    out[1] = reply->operation;
    out[2] = reply->status;
    out[3] = reply->flags;
    put_u32le(out + 4, reply->records);
    put_u64le(out + 8, reply->epoch);
    put_u64le(out + 16, reply->head);
    put_u64le(out + 24, reply->value);
}

enum status wire_request_decode(const uint8_t *data, size_t length, struct wire_request *request)
{
    *request = (struct wire_request){0};
    if (length < 2)
        return STATUS_MALFORMED;
    request->version = data[0];
    request->operation = data[1];
    if (request->version != WIRE_VERSION)
        return STATUS_VERSION;
    if (length < WIRE_REQUEST_SIZE)
        return STATUS_MALFORMED;
    request->flags = get_u16le(data + 2);
    request->records = get_u32le(data + 4);
    request->session = get_u64le(data + 8);
    request->position = get_u64le(data + 16);
    return STATUS_OK;
}

enum status wire_reply_decode(const uint8_t *data, size_t length, struct wire_reply *reply)
{
    *reply = (struct wire_reply){0};
    if (length < 2)
        return STATUS_MALFORMED;
    reply->version = data[0];
    reply->operation = data[1];
    if (reply->version != WIRE_VERSION)
        return STATUS_VERSION;
    if (length < WIRE_REPLY_SIZE)
        return STATUS_MALFORMED;
    reply->status = data[2];
    reply->flags = data[3];
    reply->records = get_u32le(data + 4);
    reply->epoch = get_u64le(data + 8);
    reply->head = get_u64le(data + 16);
    reply->value = get_u64le(data + 24);
    return STATUS_OK;
}

/* The two parts behind a fixed block, zeroes to a multiple of 8 behind them. */
static void put_tail(uint8_t *out, const uint8_t *first, size_t first_length, const uint8_t *second,
                     size_t second_length)
{
    size_t length = first_length + second_length;

    if (first_length > 0)
        memcpy(out, first, first_length);
    if (second_length > 0)
        memcpy(out + first_length, second, second_length);
    memset(out + length, 0, size_align8(length) - length);
}

size_t wire_attach_size(const struct wire_attach *attach)
{
    return WIRE_ATTACH_SIZE + size_align8(attach->name_length + attach->proof_length);
}

void wire_attach_encode(uint8_t *out, const struct wire_attach *attach)
{
    put_u64le(out, attach->generation);
    put_u64le(out + 8, attach->epoch);
    put_u64le(out + 16, attach->origin);
    put_u64le(out + 24, attach->unanswered);
    put_u32le(out + 32, attach->pid);
    put_u16le(out + 36, (uint16_t)attach->name_length);
    put_u16le(out + 38, (uint16_t)attach->proof_length);
    put_u64le(out + 40, 0);
    put_tail(out + WIRE_ATTACH_SIZE, attach->name, attach->name_length, attach->proof,
             attach->proof_length);
}

enum status wire_attach_decode(const uint8_t *data, size_t length, struct wire_attach *attach,
                               size_t *used)
{
    *attach = (struct wire_attach){0};
    if (length < WIRE_ATTACH_SIZE)
        return STATUS_MALFORMED;
    attach->generation = get_u64le(data);
    attach->epoch = get_u64le(data + 8);
    attach->origin = get_u64le(data + 16);
    attach->unanswered = get_u64le(data + 24);
    attach->pid = get_u32le(data + 32);
    attach->name_length = get_u16le(data + 36);
    attach->proof_length = get_u16le(data + 38);
    if (attach->name_length > WIRE_NAME_MAX ||
        (attach->proof_length != 0 && attach->proof_length != WIRE_PROOF_SIZE))
        return STATUS_MALFORMED;
    *used = wire_attach_size(attach);
    if (length < *used)
        return STATUS_MALFORMED;
    attach->name = data + WIRE_ATTACH_SIZE;
    attach->proof = attach->name + attach->name_length;
    return STATUS_OK;
}

size_t wire_attach_reply_size(const struct wire_attach_reply *block)
{
    return WIRE_ATTACH_REPLY_SIZE + size_align8(block->proof_length);
}

void wire_attach_reply_encode(uint8_t *out, const struct wire_attach_reply *block)
{
    put_u32le(out, block->record_max);
    put_u32le(out + 4, (uint32_t)block->proof_length);
    put_u64le(out + 8, 0);
    put_tail(out + WIRE_ATTACH_REPLY_SIZE, block->proof, block->proof_length, NULL, 0);
}

enum status wire_attach_reply_decode(const uint8_t *data, size_t length,
                                     struct wire_attach_reply *block, size_t *used)
{
    *block = (struct wire_attach_reply){0};
    if (length < WIRE_ATTACH_REPLY_SIZE)
        return STATUS_MALFORMED;
    block->record_max = get_u32le(data);
    block->proof_length = get_u32le(data + 4);
    if (block->proof_length != 0 && block->proof_length != WIRE_NONCE_SIZE)
        return STATUS_MALFORMED;
    *used = wire_attach_reply_size(block);
    if (length < *used)
        return STATUS_MALFORMED;
    block->proof = data + WIRE_ATTACH_REPLY_SIZE;
    return STATUS_OK;
}

size_t wire_record_size(size_t channel_length, size_t payload_length)
{
    if (channel_length > UINT16_MAX ||
        payload_length > (size_t)UINT32_MAX - WIRE_RECORD_SIZE - channel_length)
        return 0;
    return size_align8(WIRE_RECORD_SIZE + channel_length + payload_length);
}

void wire_record_encode(uint8_t *out, const struct wire_record *record)
{
    size_t size = WIRE_RECORD_SIZE + record->channel_length + record->payload_length;

    put_u32le(out, (uint32_t)size);
    out[4] = record->type;
    out[5] = record->flags;
    put_u16le(out + 6, record->channel_length);
    put_u64le(out + 8, record->id);
    put_u64le(out + 16, record->origin);
    put_u64le(out + 24, record->sequence);
    put_u32le(out + 32, record->checksum);
    put_u32le(out + 36, record->engine);
    put_tail(out + WIRE_RECORD_SIZE, record->channel, record->channel_length, record->payload,
             record->payload_length);
}

void wire_filler_encode(uint8_t *out, uint32_t size)
{
    put_u32le(out, size);
    put_u32le(out + 4, WIRE_FILLER); /* the type's byte, then zeroes */
}

enum status wire_record_decode(const uint8_t *data, size_t length, struct wire_record *record,
                               size_t *used)
{
    size_t size, parts;

    *record = (struct wire_record){0};
    if (length < WIRE_FILLER_SIZE)
        return STATUS_TRUNCATED;
    size = get_u32le(data);
    record->type = data[4];
    record->flags = data[5];
    record->channel_length = get_u16le(data + 6);
    if (record->type == WIRE_FILLER) {
        if (size < WIRE_FILLER_SIZE || record->channel_length != 0)
            return STATUS_MALFORMED;
        *used = size_align8(size);
        return *used > length ? STATUS_TRUNCATED : STATUS_OK;
    }
    parts = (size_t)WIRE_RECORD_SIZE + record->channel_length;
    if (record->type == 0 || size < parts)
        return STATUS_MALFORMED;
    *used = size_align8(size);
    if (*used > length)
        return STATUS_TRUNCATED;
    record->id = get_u64le(data + 8);
    record->origin = get_u64le(data + 16);
    record->sequence = get_u64le(data + 24);
    record->checksum = get_u32le(data + 32);
    record->engine = get_u32le(data + 36);
    record->channel = data + WIRE_RECORD_SIZE;
    record->payload = data + parts;
    record->payload_length = size - parts;
    return STATUS_OK;
}

uint32_t wire_record_checksum(const uint8_t *record)
{
    enum { WORDS = WIRE_RECORD_SIZE / 8 };
    uint64_t header[WORDS];

    memcpy(header, record, sizeof(header));
    header[4] &= ~(uint64_t)UINT32_MAX;
    return crc32c(crc32c(0, header, sizeof(header)), record + sizeof(header),
                  (uint32_t)header[0] - sizeof(header));
}

void wire_record_stamp(uint8_t *record, uint64_t id, uint32_t engine)
{
    record[4] = WIRE_MESSAGE;
    put_u64le(record + 8, id);
    put_u32le(record + 36, engine);
    put_u32le(record + 32, wire_record_checksum(record));
}

uint32_t wire_engine_hash(const void *name, size_t length)
{
    const uint8_t *at = name;
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ at[i]) * 16777619u;
    return hash == 0 ? 1 : hash;
}
