/*
 * The wire codec, and docs/protocol.md: every block marked `wire` is read from that page, decoded,
 * encoded again from what was found, and compared.
 */
#include "bytes.h"
#include "crc32c.h"
#include "sp.h"
#include "wire.h"
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_MAX = 1024, BLOCKS_MAX = 100 };

struct block { /* ```wire FORM NAME */
    char form[24], name[48];
    uint8_t bytes[BLOCK_MAX];
    size_t length;
};

static struct block blocks[BLOCKS_MAX];
static size_t block_count;

static void read_hex(struct block *block, const char *line)
{
    while (*line != 0 && *line != '#' && *line != '\n') {
        unsigned byte;
        if (isspace((unsigned char)*line)) {
            line++;
            continue;
        }
        cr_assert_eq(sscanf(line, "%2x", &byte), 1, "%s: %s", block->name, line);
        cr_assert_lt(block->length, BLOCK_MAX);
        block->bytes[block->length++] = (uint8_t)byte;
        line += 2;
    }
}

static void read_blocks(void)
{
    FILE *page = fopen(SOURCE_DIR "/docs/protocol.md", "r");
    struct block *block = NULL;
    char line[2048];

    cr_assert_not_null(page);
    while (fgets(line, sizeof(line), page) != NULL) {
        if (block == NULL && strncmp(line, "```wire ", 8) == 0) {
            cr_assert_lt(block_count, BLOCKS_MAX);
            block = &blocks[block_count++];
            cr_assert_eq(sscanf(line, "```wire %23s %47s", block->form, block->name), 2);
        } else if (block != NULL && strncmp(line, "```", 3) == 0) {
            block = NULL;
        } else if (block != NULL) {
            read_hex(block, line);
        }
    }
    fclose(page);
    cr_assert_geq(block_count, 30);
}

/* What the blocks of a whole page have been seen to cover. */
static bool seen_request[8], seen_reply[8], seen_record[16];

struct again { /* what was decoded, encoded again */
    uint8_t bytes[BLOCK_MAX];
    size_t length;
};

static void check_records(const struct block *block, size_t at, size_t end, uint32_t count,
                          struct again *again)
{
    struct wire_record record;
    size_t used;

    for (uint32_t i = 0; i < count; i++) {
        for (size_t cut = 0; cut < end - at && i == count - 1; cut++)
            cr_assert_eq(wire_record_decode(block->bytes + at, cut, &record, &used),
                         STATUS_TRUNCATED, "%s, cut at %zu", block->name, cut);
        cr_assert_eq(wire_record_decode(block->bytes + at, end - at, &record, &used), STATUS_OK,
                     "%s", block->name);
        seen_record[record.type] = true;
        if (record.type == WIRE_FILLER) {
            memset(again->bytes + again->length, 0, used);
            wire_filler_encode(again->bytes + again->length, (uint32_t)used);
        } else {
            cr_assert_eq(wire_record_size(record.channel_length, record.payload_length), used);
            wire_record_encode(again->bytes + again->length, &record);
        }
        if (record.type == WIRE_MESSAGE || record.type == WIRE_GAP)
            cr_assert_eq(record.checksum, wire_record_checksum(block->bytes + at), "%s: %08x",
                         block->name, wire_record_checksum(block->bytes + at));
        again->length += used;
        at += used;
    }
    cr_assert_eq(at, end, "%s", block->name);
}

static void check_request(const struct block *block, size_t at, struct again *again)
{
    struct wire_request request;
    struct wire_attach attach;
    size_t used;
    enum status status = wire_request_decode(block->bytes + at, block->length - at, &request);

    if (strcmp(block->name, "version-2") == 0) {
        cr_assert_eq(status, STATUS_VERSION);
        cr_assert_eq(request.operation, WIRE_FETCH);
        *again = (struct again){.length = block->length};
        memcpy(again->bytes, block->bytes, block->length);
        return;
    }
    cr_assert_eq(status, STATUS_OK, "%s", block->name);
    for (size_t cut = 0; cut < WIRE_REQUEST_SIZE; cut++) {
        struct wire_request part;
        cr_assert_eq(wire_request_decode(block->bytes + at, cut, &part), STATUS_MALFORMED);
    }
    seen_request[request.operation] = true;
    wire_request_encode(again->bytes + again->length, &request);
    again->length += WIRE_REQUEST_SIZE;
    at += WIRE_REQUEST_SIZE;
    if (request.operation == WIRE_ATTACH) {
        cr_assert_eq(wire_attach_decode(block->bytes + at, block->length - at, &attach, &used),
                     STATUS_OK);
        for (size_t cut = 0; cut < used; cut++) {
            size_t ignored;
            struct wire_attach part;
            cr_assert_eq(wire_attach_decode(block->bytes + at, cut, &part, &ignored),
                         STATUS_MALFORMED);
        }
        cr_assert_eq(wire_attach_size(&attach), used);
        wire_attach_encode(again->bytes + again->length, &attach);
        again->length += used;
        at += used;
    }
    check_records(block, at, block->length, request.records, again);
}

static void check_reply(const struct block *block, size_t at, struct again *again)
{
    struct wire_attach_reply attach;
    struct wire_reply reply;
    size_t used;

    for (size_t cut = 0; cut < WIRE_REPLY_SIZE; cut++)
        cr_assert_eq(wire_reply_decode(block->bytes + at, cut, &reply), STATUS_MALFORMED);
    cr_assert_eq(wire_reply_decode(block->bytes + at, block->length - at, &reply), STATUS_OK);
    seen_reply[reply.operation] = true;
    wire_reply_encode(again->bytes + again->length, &reply);
    again->length += WIRE_REPLY_SIZE;
    at += WIRE_REPLY_SIZE;
    if (reply.operation == WIRE_ATTACH && at < block->length) {
        for (size_t cut = 0; cut < block->length - at; cut++)
            cr_assert_eq(wire_attach_reply_decode(block->bytes + at, cut, &attach, &used),
                         STATUS_MALFORMED);
        cr_assert_eq(
            wire_attach_reply_decode(block->bytes + at, block->length - at, &attach, &used),
            STATUS_OK);
        cr_assert_eq(wire_attach_reply_size(&attach), used);
        wire_attach_reply_encode(again->bytes + again->length, &attach);
        again->length += used;
        at += used;
    }
    if (reply.operation == WIRE_QUERY) {
        memcpy(again->bytes + again->length, block->bytes + at, block->length - at);
        again->length += block->length - at;
    } else {
        check_records(block, at, block->length, reply.operation == WIRE_FETCH ? reply.records : 0,
                      again);
    }
}

static void check_message(const struct block *block, enum sp_transport transport,
                          struct again *again)
{
    size_t prefix = sp_prefix_size(transport), backtrace;
    uint64_t length;

    cr_assert_eq(sp_prefix_decode(block->bytes, block->length, transport, 1000, &length),
                 STATUS_OK);
    cr_assert_eq(length, block->length - prefix, "%s", block->name);
    cr_assert_eq(sp_backtrace_decode(block->bytes + prefix, block->length - prefix, &backtrace),
                 STATUS_OK);
    again->length = sp_prefix_encode(again->bytes, transport, length);
    memcpy(again->bytes + prefix, block->bytes + prefix, backtrace);
    again->length += backtrace;
    check_request(block, prefix + backtrace, again);
}

static void check_block(const struct block *block)
{
    struct again again = {.length = 0};

    if (strcmp(block->form, "hello") == 0) {
        uint16_t protocol = get_u16be(block->bytes + 4);
        cr_assert_eq(protocol, strcmp(block->name, "hello-req") == 0 ? SP_REQ : SP_REP);
        cr_assert_eq(sp_hello_check(block->bytes, block->length, protocol), STATUS_OK);
        sp_hello_encode(again.bytes, protocol);
        again.length = SP_HELLO_SIZE;
    } else if (strcmp(block->form, "message-ipc") == 0) {
        check_message(block, SP_IPC, &again);
    } else if (strcmp(block->form, "message-tcp") == 0) {
        check_message(block, SP_TCP, &again);
    } else if (strcmp(block->form, "request") == 0) {
        check_request(block, 0, &again);
    } else if (strcmp(block->form, "reply") == 0) {
        check_reply(block, 0, &again);
    } else if (strcmp(block->form, "record") == 0) {
        check_records(block, 0, block->length, 1, &again);
    } else {
        cr_assert_fail("%s: unknown form %s", block->name, block->form);
    }
    cr_assert_eq(again.length, block->length, "%s: %zu", block->name, again.length);
    for (size_t i = 0; i < again.length; i++)
        cr_assert_eq(again.bytes[i], block->bytes[i], "%s: byte %zu is %02x again", block->name, i,
                     again.bytes[i]);
}

Test(wire, examples_of_the_protocol_page_are_exact_and_complete)
{
    read_blocks();
    for (size_t i = 0; i < block_count; i++)
        check_block(&blocks[i]);
    for (int operation = WIRE_ATTACH; operation <= WIRE_QUERY; operation++)
        cr_expect(seen_request[operation] && seen_reply[operation], "operation %d", operation);
    for (int type = WIRE_SUBSCRIBE; type <= WIRE_FILLER; type++)
        cr_expect(seen_record[type], "record type %d", type);
}

Test(wire, request_has_the_exact_bytes)
{
    const uint8_t right[] = {1, 5, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12, 8, 7, 6, 5,
                             4, 3, 2,    1,    0xef, 0xcd, 0xab, 0x89, 0, 0, 0, 0x80};
    uint8_t out[WIRE_REQUEST_SIZE];

    wire_request_encode(out, &(struct wire_request){.version = 1,
                                                    .operation = WIRE_FETCH,
                                                    .flags = 0x1234,
                                                    .records = 0x12345678,
                                                    .session = 0x0102030405060708,
                                                    .position = 0x8000000089abcdef});
    cr_assert_eq(memcmp(out, right, sizeof(right)), 0);
}

Test(wire, another_version_is_told_from_garbage)
{
    struct wire_request request;
    struct wire_reply reply;

    cr_assert_eq(wire_request_decode((const uint8_t *)"\2\5", 2, &request), STATUS_VERSION);
    cr_assert_eq(request.version, 2);
    cr_assert_eq(request.operation, 5);
    cr_assert_eq(wire_request_decode((const uint8_t *)"\2", 1, &request), STATUS_MALFORMED);
    cr_assert_eq(wire_request_decode(NULL, 0, &request), STATUS_MALFORMED);
    cr_assert_eq(wire_reply_decode((const uint8_t *)"\0\5", 2, &reply), STATUS_VERSION);
}

Test(wire, attach_with_a_wrong_length_is_refused)
{
    uint8_t bytes[WIRE_ATTACH_SIZE + 400] = {0};
    struct wire_attach attach;
    size_t used;

    put_u16le(bytes + 36, 256);
    cr_assert_eq(wire_attach_decode(bytes, sizeof(bytes), &attach, &used), STATUS_MALFORMED);
    put_u16le(bytes + 36, 255);
    cr_assert_eq(wire_attach_decode(bytes, sizeof(bytes), &attach, &used), STATUS_OK);
    cr_assert_eq(used, WIRE_ATTACH_SIZE + 256);
    for (uint16_t length = 1; length < 200; length++) {
        put_u16le(bytes + 38, length);
        cr_assert_eq(wire_attach_decode(bytes, sizeof(bytes), &attach, &used),
                     length == WIRE_PROOF_SIZE ? STATUS_OK : STATUS_MALFORMED);
    }
}

Test(wire, attach_reply_with_a_wrong_proof_length_is_refused)
{
    uint8_t bytes[WIRE_ATTACH_REPLY_SIZE + 64] = {0};
    struct wire_attach_reply block;
    size_t used;

    for (uint32_t length = 0; length < 64; length++) {
        put_u32le(bytes + 4, length);
        cr_assert_eq(wire_attach_reply_decode(bytes, sizeof(bytes), &block, &used),
                     length == 0 || length == 32 ? STATUS_OK : STATUS_MALFORMED);
    }
    put_u32le(bytes + 4, 0xffffffe0);
    cr_assert_eq(wire_attach_reply_decode(bytes, sizeof(bytes), &block, &used), STATUS_MALFORMED);
}

Test(wire, record_whose_size_lies_is_refused)
{
    uint8_t bytes[64];
    struct wire_record record = {.type = WIRE_PUBLISH,
                                 .channel = (const uint8_t *)"abcd",
                                 .channel_length = 4,
                                 .payload = (const uint8_t *)"xyz",
                                 .payload_length = 3};
    size_t used;

    cr_assert_eq(wire_record_size(4, 3), 48);
    wire_record_encode(bytes, &record);
    cr_assert_eq(bytes[47], 0, "padding is zero");
    for (uint32_t size = 0; size < 44; size++) {
        put_u32le(bytes, size);
        cr_assert_eq(wire_record_decode(bytes, 48, &record, &used), STATUS_MALFORMED);
    }
    put_u32le(bytes, 44);
    cr_assert_eq(wire_record_decode(bytes, 48, &record, &used), STATUS_OK);
    cr_assert_eq(record.payload_length, 0);
    put_u32le(bytes, 49);
    cr_assert_eq(wire_record_decode(bytes, 48, &record, &used), STATUS_TRUNCATED);
    put_u32le(bytes, UINT32_MAX);
    cr_assert_eq(wire_record_decode(bytes, 48, &record, &used), STATUS_TRUNCATED);
    put_u32le(bytes, 47);
    bytes[4] = 0;
    cr_assert_eq(wire_record_decode(bytes, 48, &record, &used), STATUS_MALFORMED, "no type");
    bytes[4] = 200;
    cr_assert_eq(wire_record_decode(bytes, 48, &record, &used), STATUS_OK,
                 "a type of a later version can be passed over");
}

Test(wire, filler_that_lies_is_refused)
{
    uint8_t bytes[8] = {7, 0, 0, 0, WIRE_FILLER};
    struct wire_record record;
    size_t used;

    cr_assert_eq(wire_record_decode(bytes, 8, &record, &used), STATUS_MALFORMED);
    bytes[0] = 8;
    cr_assert_eq(wire_record_decode(bytes, 8, &record, &used), STATUS_OK);
    cr_assert_eq(used, 8);
    bytes[0] = 16;
    cr_assert_eq(wire_record_decode(bytes, 8, &record, &used), STATUS_TRUNCATED);
    bytes[0] = 8;
    bytes[6] = 1;
    cr_assert_eq(wire_record_decode(bytes, 8, &record, &used), STATUS_MALFORMED);
}

Test(wire, record_sizes_that_do_not_fit_are_zero)
{
    cr_assert_eq(wire_record_size(0, 0), 40);
    cr_assert_eq(wire_record_size(0, 1), 48);
    cr_assert_eq(wire_record_size(65535, 0), 65576);
    cr_assert_eq(wire_record_size(65536, 0), 0);
    cr_assert_eq(wire_record_size(0, UINT32_MAX - 40), 0x100000000u);
    cr_assert_eq(wire_record_size(0, UINT32_MAX - 39), 0);
    cr_assert_eq(wire_record_size(0, SIZE_MAX), 0);
}

Test(wire, stamp_makes_a_publish_the_message_of_the_journal)
{
    uint8_t bytes[48];
    struct wire_record record = {.type = WIRE_PUBLISH,
                                 .flags = WIRE_BINARY,
                                 .channel = (const uint8_t *)"a",
                                 .channel_length = 1,
                                 .payload = (const uint8_t *)"b",
                                 .payload_length = 1,
                                 .origin = 5,
                                 .sequence = 6};
    size_t used;

    wire_record_encode(bytes, &record);
    wire_record_stamp(bytes, 77, 88);
    cr_assert_eq(wire_record_decode(bytes, sizeof(bytes), &record, &used), STATUS_OK);
    cr_assert_eq(record.type, WIRE_MESSAGE);
    cr_assert_eq(record.flags, WIRE_BINARY);
    cr_assert_eq(record.id, 77);
    cr_assert_eq(record.engine, 88);
    cr_assert_eq(record.origin, 5);
    cr_assert_eq(record.sequence, 6);
    cr_assert_eq(record.checksum, wire_record_checksum(bytes));
    for (size_t i = 0; i < 42; i++) { /* the padding does not count */
        if (i < 4 || (i >= 32 && i < 36))
            continue;
        bytes[i] ^= 1;
        cr_assert_neq(record.checksum, wire_record_checksum(bytes), "byte %zu", i);
        bytes[i] ^= 1;
    }
}

Test(wire, engine_hash_is_fnv1a_and_never_zero)
{
    cr_assert_eq(wire_engine_hash("", 0), 0x811c9dc5);
    cr_assert_eq(wire_engine_hash("a", 1), 0xe40c292c);
    cr_assert_eq(wire_engine_hash("foobar", 6), 0xbf9cf968);
    cr_assert_eq(wire_engine_hash("\xcc\x24\x31\xc4", 4), 1, "a name whose FNV-1a is 0");
}

Test(wire, decoders_never_read_past_the_length_nor_trust_random_bytes)
{
    unsigned seed = 3;

    for (int round = 0; round < 200000; round++) {
        size_t length = (size_t)rand_r(&seed) % 120, used = 0;
        uint8_t *bytes = malloc(length + 1); /* exact, so that a sanitizer sees a byte too far */
        struct wire_attach_reply attach_reply;
        struct wire_request request;
        struct wire_record record;
        struct wire_attach attach;
        struct wire_reply reply;

        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(rand_r(&seed) % 4 == 0 ? rand_r(&seed) : rand_r(&seed) % 3);
        uint8_t *at = realloc(bytes, length > 0 ? length : 1);
        wire_request_decode(at, length, &request);
        wire_reply_decode(at, length, &reply);
        if (wire_attach_decode(at, length, &attach, &used) == STATUS_OK)
            cr_assert_leq(used, length);
        if (wire_attach_reply_decode(at, length, &attach_reply, &used) == STATUS_OK)
            cr_assert_leq(used, length);
        if (wire_record_decode(at, length, &record, &used) == STATUS_OK) {
            cr_assert_leq(used, length);
            cr_assert(record.type == WIRE_FILLER ||
                      record.payload + record.payload_length <= at + length);
        }
        free(at);
    }
}

Test(crc32c, known_values)
{
    uint8_t bytes[48];

    cr_assert_eq(crc32c(0, "123456789", 9), 0xe3069283);
    cr_assert_eq(crc32c(0, "", 0), 0);
    memset(bytes, 0, 32);
    cr_assert_eq(crc32c(0, bytes, 32), 0x8a9136aa, "RFC 3720 B.4");
    memset(bytes, 0xff, 32);
    cr_assert_eq(crc32c(0, bytes, 32), 0x62a8ab43, "RFC 3720 B.4");
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    cr_assert_eq(crc32c(0, bytes, 32), 0x46dd794e, "RFC 3720 B.4");
    cr_assert_eq(crc32c_portable(0, bytes, 32), 0x46dd794e);
}

Test(crc32c, tables_and_instruction_agree_for_all_lengths_and_in_pieces)
{
    static uint8_t bytes[300];
    unsigned seed = 9;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)rand_r(&seed);
    for (size_t from = 0; from < 9; from++)
        for (size_t length = 0; length < sizeof(bytes) - 9; length++) {
            uint32_t crc = crc32c(0, bytes + from, length);
            size_t half = length / 3;
            cr_assert_eq(crc32c_portable(0, bytes + from, length), crc);
            cr_assert_eq(crc32c(crc32c(0, bytes + from, half), bytes + from + half, length - half),
                         crc);
        }
}
