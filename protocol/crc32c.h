#ifndef PROTOCOL_CRC32C_H
#define PROTOCOL_CRC32C_H

/*
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of records. With the processor's
 * instruction where there is one, else by tables. Any thread.
 */
#include <stddef.h>
#include <stdint.h>

/* Continues a checksum: 0 to begin, then the result of the bytes before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

/* The same without the processor's instruction; for the tests. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length);

#endif
