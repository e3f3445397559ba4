#ifndef PROTOCOL_CRC32C_H
#define PROTOCOL_CRC32C_H

/*
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of records. With the processor's
 * instruction where there is one (SSE 4.2, ARMv8's CRC extension), else by tables. Any thread.
 */
#include "bytes.h"

/* The same as crc32c without the processor's instruction. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length);

/* Does this processor have the instruction? Set before main, or while the library is loaded. */
extern bool crc32c_in_hardware;

/* The instruction, for 8 bytes and for one. Assembler, because a function that the compiler is told
 * to translate for such a processor cannot be inlined into one that it is not. */
#if defined(__x86_64__)
#define CRC32C_WORD(crc, word) __asm__("crc32q %1, %q0" : "+r"(crc) : "rm"(word))
#define CRC32C_BYTE(crc, byte) __asm__("crc32b %1, %k0" : "+r"(crc) : "rm"(byte))
#elif defined(__aarch64__)
#define CRC32C_WORD(crc, word)                                                                     \
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word))
#define CRC32C_BYTE(crc, byte)                                                                     \
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte))
#endif

/* Continues a checksum: 0 to begin, then the result of the bytes before. Here and not in a file of
 * its own because records are short: a call for each costs as much as eight bytes do. */
static inline uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
#if defined(CRC32C_WORD)
    if (__builtin_expect(crc32c_in_hardware, true)) {
        const uint8_t *at = data;
        uint64_t wide = ~crc; /* the upper half is 0, before and after each */

#pragma GCC unroll 5
        for (; length >= 8; at += 8, length -= 8)
            CRC32C_WORD(wide, get_u64le(at));
        for (; length > 0; at++, length--)
            CRC32C_BYTE(wide, *at);
        return ~(uint32_t)wide;
    }
#endif
    return crc32c_portable(crc, data, length);
}

#endif
