#include "crc32c.h"
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define CRC32C_POLYNOMIAL 0x82f63b78u /* reflected */

static uint32_t crc32c_tables[8][256]; /* slicing by 8: the CRC of a byte followed by n zeros */
bool crc32c_in_hardware;

/* Before main, or while the library is loaded: no thread can see half-made tables. */
__attribute__((constructor)) static void crc32c_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
        crc32c_tables[0][byte] = crc;
    }
    for (int n = 1; n < 8; n++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = crc32c_tables[n - 1][byte];
            crc32c_tables[n][byte] = (before >> 8) ^ crc32c_tables[0][before & 0xff];
        }
#if defined(__x86_64__)
    __builtin_cpu_init();
    crc32c_in_hardware = __builtin_cpu_supports("sse4.2");
#elif defined(__aarch64__)
    crc32c_in_hardware = (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t length)
{
    const uint8_t *at = data;

    crc = ~crc;
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word = get_u64le(at) ^ crc;
        crc = 0;
        for (int n = 0; n < 8; n++)
            crc ^= crc32c_tables[7 - n][(word >> (8 * n)) & 0xff];
    }
    for (; length > 0; at++, length--)
        crc = (crc >> 8) ^ crc32c_tables[0][(crc ^ *at) & 0xff];
    return ~crc;
}
