#ifndef PROTOCOL_WIRE_H
#define PROTOCOL_WIRE_H

/*
 * The brokerd protocol, version 1: what stands in the body of an SP message behind the REQ header.
 * Little-endian. docs/protocol.md is the full text with byte-exact examples; this codec and that
 * text are checked against each other by tests/unit/test_wire.c. Decoders never read past length,
 * keep pointers into the given bytes and allocate nothing. Any thread.
 */
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    WIRE_REQUEST_SIZE = 24,
    WIRE_REPLY_SIZE = 32,
    WIRE_RECORD_SIZE = 40, /* a record's header, before channel and payload */
    WIRE_FILLER_SIZE = 8,  /* of a FILLER at the least: it has the first 8 bytes of a header */
    WIRE_ATTACH_SIZE = 48, /* ATTACH's own block, before name and proof */
    WIRE_ATTACH_REPLY_SIZE = 16, /* its reply's own block, before the proof */
    WIRE_NONCE_SIZE = 32,
    WIRE_PROOF_SIZE = 64, /* client nonce and HMAC-SHA-256 */
    WIRE_NAME_MAX = 255,
    WIRE_BATCH_SIZE = 128 * 1024,       /* one FETCH reply, unless a single record is larger */
    WIRE_FULL_CREDITS = 8,              /* of a session's parked FETCHes, those for such replies */
    WIRE_SMALL_BATCH = 4096,            /* what the others are for */
    WIRE_ATTACH_PART_SIZE = 1024 * 1024 /* one part of an ATTACH list at the most */
};

enum wire_operation {
    WIRE_ATTACH = 1, /* start or resume a session: attach block, then SUBSCRIBE records */
    WIRE_DETACH = 2, /* end a session: its own, or the engine that its one record names */
    WIRE_RESET = 3,  /* tell an engine all interest again; which one as for DETACH */
    WIRE_SUBMIT = 4, /* records going up: publishes or subscriptions, never both */
    WIRE_FETCH = 5,  /* a credit: answered with one batch of records going down */
    WIRE_QUERY = 6   /* what brokerctl shows; the topic stands in flags */
};

/* Of ATTACH. */
enum wire_request_flag {
    WIRE_SIMPLE = 1, /* a plain req0: one FETCH and one SUBMIT outstanding, FETCH has a position */
    WIRE_MORE = 2,   /* more parts of the subscription list follow */
    WIRE_ENGINE = 4  /* the role is engine, else member */
};

/* Of SUBMIT with publishes. */
enum wire_submit_flag {
    WIRE_ANSWER_FIRST = 1 /* the sender waits for the answer: before the batches that it causes */
};

/* The flags of QUERY. The reply's body is text: a header line, then rows, tab-separated. */
enum wire_topic {
    WIRE_PING = 0,
    WIRE_STATS = 1,
    WIRE_SESSIONS = 2,
    WIRE_CHANNELS = 3, /* an optional SUBSCRIBE record with a pattern filters the names */
    WIRE_ENGINES = 4
};

/* Of ATTACH's reply. */
enum wire_reply_flag {
    WIRE_NEW_EPOCH = 1, /* the epoch or position that the process named is not of this journal */
    WIRE_UNSURE = 2     /* the fate of what was sent and not answered cannot be known any more */
};

enum wire_record_type {
    WIRE_SUBSCRIBE = 1,   /* up */
    WIRE_UNSUBSCRIBE = 2, /* up */
    WIRE_PUBLISH = 3,     /* up */
    WIRE_MESSAGE = 4,     /* down, and in the journal */
    WIRE_GAP = 5,         /* down: ids sequence..id can no longer be had */
    WIRE_INTEREST = 6,    /* down, to engines */
    WIRE_NO_INTEREST = 7, /* down, to engines */
    WIRE_FILLER = 8       /* in the journal only: the unused end of the ring, 8 bytes of header */
};

enum wire_record_flag {
    WIRE_PATTERN = 1, /* the channel is a pattern */
    WIRE_BINARY = 2   /* the payload is binary, else text */
};

struct wire_request {
    uint8_t version;
    uint8_t operation;
    uint16_t flags;
    uint32_t records; /* how many records follow */
    uint64_t session; /* 0: none (a one-shot SUBMIT, a QUERY) */
    uint64_t
        position; /* ATTACH, and FETCH of a SIMPLE session: everything up to this id was handled */
};

struct wire_reply {
    uint8_t version;
    uint8_t operation; /* of the request */
    uint8_t status;    /* enum status */
    uint8_t flags;
    uint32_t records; /* records that follow; SUBMIT: sessions that its records were queued to */
    uint64_t epoch;
    uint64_t head;  /* the newest broker id */
    uint64_t value; /* SUBMIT: id of its last record; OUT_OF_ORDER, ATTACH: highest sequence known
                       of the origin; FETCH: the position once the batch is handled; VERSION: lowest
                       and highest version spoken in the two low bytes */
};

/* ATTACH's block. name and proof point into the decoded bytes. */
struct wire_attach {
    uint64_t generation; /* of the link within its process: a newer one ends the older */
    uint64_t epoch;      /* the epoch that position belongs to; 0 none */
    uint64_t origin;     /* origin of the process's publishes; 0 none */
    uint64_t unanswered; /* lowest id that the oldest unanswered publish can have got: 1 more than
                            the head known when it was first sent; 0 none */
    uint32_t pid;
    const uint8_t *name; /* shown by brokerctl; of an engine, what it is called */
    size_t name_length;  /* at most WIRE_NAME_MAX */
    const uint8_t *proof;
    size_t proof_length; /* 0 or WIRE_PROOF_SIZE */
};

/* ATTACH's reply block. proof points into the decoded bytes. */
struct wire_attach_reply {
    uint32_t record_max;  /* bytes: the largest record that the broker takes */
    const uint8_t *proof; /* status AUTH: the broker's nonce; OK after a proof: the broker's HMAC */
    size_t proof_length;  /* 0 or 32 */
};

struct wire_record {
    uint8_t type;
    uint8_t flags;
    uint16_t channel_length;
    uint32_t checksum; /* wire_record_checksum, set by the broker; 0 on the way up */
    uint32_t engine;   /* hash of the name of the engine it came from; 0 none; set by the broker */
    uint64_t id;       /* broker id; 0 on the way up. GAP: the last id of the range */
    uint64_t origin;   /* random number of the publishing process */
    uint64_t sequence; /* origin sequence, from 1 without holes. GAP: the first id of the range */
    const uint8_t *channel;
    const uint8_t *payload;
    size_t payload_length;
};

/* The header of a request or reply into exactly WIRE_REQUEST_SIZE / WIRE_REPLY_SIZE bytes. */
void wire_request_encode(uint8_t *out, const struct wire_request *request);
void wire_reply_encode(uint8_t *out, const struct wire_reply *reply);

/* STATUS_OK, STATUS_MALFORMED (too short), STATUS_VERSION (everything that is common to all
 * versions, i.e. version and operation, is set then). */
enum status wire_request_decode(const uint8_t *data, size_t length, struct wire_request *request);
enum status wire_reply_decode(const uint8_t *data, size_t length, struct wire_reply *reply);

/* Bytes that the block takes with name, proof and padding to 8. */
size_t wire_attach_size(const struct wire_attach *attach);
void wire_attach_encode(uint8_t *out, const struct wire_attach *attach);
/* *used: bytes up to the first record. STATUS_OK or STATUS_MALFORMED. */
enum status wire_attach_decode(const uint8_t *data, size_t length, struct wire_attach *attach,
                               size_t *used);

size_t wire_attach_reply_size(const struct wire_attach_reply *block);
void wire_attach_reply_encode(uint8_t *out, const struct wire_attach_reply *block);
enum status wire_attach_reply_decode(const uint8_t *data, size_t length,
                                     struct wire_attach_reply *block, size_t *used);

/* Bytes that a record takes with its padding; 0 when the lengths do not fit (the size field,
 * without padding, is a u32). */
size_t wire_record_size(size_t channel_length, size_t payload_length);

/* Writes the record, wire_record_size bytes, padding zeroed. channel and payload must not overlap
 * out. */
void wire_record_encode(uint8_t *out, const struct wire_record *record);

/* Writes the 8 bytes that begin a FILLER of size bytes, a multiple of 8; the rest has no meaning.
 */
void wire_filler_encode(uint8_t *out, uint32_t size);

/* Reads one record. *used: its bytes with padding. STATUS_OK, STATUS_TRUNCATED (the data ends
 * within it) or STATUS_MALFORMED (size below its own parts, unknown type 0). Lengths above the
 * limits of the API are the caller's business. Of a FILLER only type and *used are set. */
enum status wire_record_decode(const uint8_t *data, size_t length, struct wire_record *record,
                               size_t *used);

/* CRC-32C of an encoded record (size bytes without padding) with the checksum field taken as 0. */
uint32_t wire_record_checksum(const uint8_t *record);

/* Sets id, engine and checksum of an encoded record and makes it a MESSAGE: what the broker does
 * when a PUBLISH enters the journal. */
void wire_record_stamp(uint8_t *record, uint64_t id, uint32_t engine);

/* The number that stands for an engine's name in wire_record.engine: FNV-1a, never 0. */
uint32_t wire_engine_hash(const void *name, size_t length);

#endif
