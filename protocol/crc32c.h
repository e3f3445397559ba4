#ifndef PROTOCOL_CRC32C_H
#define PROTOCOL_CRC32C_H

/*
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of records. With the processor's
 * instruction where there is one, else by tables. Any thread.
 */
#include "bytes.h"

/* The same as crc32c without the processor's instruction. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length);

extern bool crc32c_in_hardware; /* set before main, or while the library is loaded */

/* Continues a checksum: 0 to begin, then the result of the bytes before. Here and not in a file of
 * its own because records are short: a call for each costs as much as eight bytes do. */
static inline uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
#if defined(__x86_64__)
    if (__builtin_expect(crc32c_in_hardware, true)) {
        const uint8_t *at = data;
        uint64_t wide = ~crc;

#pragma GCC unroll 5
        for (; length >= 8; at += 8, length -= 8)
            __asm__("crc32q %1, %0" : "+r"(wide) : "rm"(get_u64le(at)));
        crc = (uint32_t)wide;
        for (; length > 0; at++, length--)
            __asm__("crc32b %1, %0" : "+r"(crc) : "rm"(*at));
        return ~crc;
    }
#endif
    return crc32c_portable(crc, data, length);
}

#endif
