#ifndef PROTOCOL_SP_H
#define PROTOCOL_SP_H

/*
 * SP, the wire protocol of NNG: the 8-byte hello, the length prefix of a message, and the REQ
 * header. Bytes in, facts out; no I/O. docs/protocol.md, section "SP", has the layout with
 * examples.
 */
#include "status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SP_HELLO_SIZE = 8,
    SP_REQ = 0x30, /* protocol number of the asking side */
    SP_REP = 0x31, /* protocol number of the answering side */
    SP_PREFIX_MAX = 9,
    SP_BACKTRACE_MAX = 8 /* 4-byte words before a body: devices between the peers add one each */
};

/* ipc puts a byte 01 before each length, tcp and tls do not. */
enum sp_transport { SP_TCP, SP_IPC };

/* Writes our hello, SP_HELLO_SIZE bytes, for the protocol number SP_REQ or SP_REP. */
void sp_hello_encode(uint8_t out[SP_HELLO_SIZE], uint16_t protocol);

/* Checks the peer's hello: STATUS_OK, or STATUS_MALFORMED when it is not SP or not the protocol
 * that is wanted. length may be less than 8: STATUS_TRUNCATED as long as what is there could still
 * become right (so that garbage is refused at its first wrong byte). */
enum status sp_hello_check(const uint8_t *data, size_t length, uint16_t wanted);

/* Size of the prefix before a message: 9 on ipc, 8 otherwise. */
static inline size_t sp_prefix_size(enum sp_transport transport)
{
    return transport == SP_IPC ? 9 : 8;
}

/* Writes the prefix of a message of body_length bytes; returns its size. */
size_t sp_prefix_encode(uint8_t out[SP_PREFIX_MAX], enum sp_transport transport,
                        uint64_t body_length);

/* Reads the prefix: STATUS_OK (*body_length set), STATUS_TRUNCATED (fewer bytes than a prefix),
 * STATUS_MALFORMED (ipc's first byte is not 01), STATUS_TOO_LARGE (longer than limit). */
enum status sp_prefix_decode(const uint8_t *data, size_t length, enum sp_transport transport,
                             uint64_t limit, uint64_t *body_length);

/*
 * Reads the backtrace at the start of a REQ body: 4-byte words up to and including the one whose
 * top bit is set. *size is its length in bytes, all of which the reply must repeat. STATUS_OK, or
 * STATUS_MALFORMED when no such word is among the first SP_BACKTRACE_MAX.
 */
enum status sp_backtrace_decode(const uint8_t *body, size_t length, size_t *size);

#endif
