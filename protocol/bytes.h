#ifndef PROTOCOL_BYTES_H
#define PROTOCOL_BYTES_H

/*
 * Fixed-width integers in byte order, and the one place where sizes from outside are added up.
 * The wire protocol is little-endian, SP framing is big-endian (network order). Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "brokerd is written for little-endian machines"
#endif

#define BYTES_GETTER(name, type)                                                                   \
    static inline type name(const void *at)                                                        \
    {                                                                                              \
        type value;                                                                                \
        memcpy(&value, at, sizeof(value));                                                         \
        return value;                                                                              \
    }
#define BYTES_SETTER(name, type)                                                                   \
    static inline void name(void *at, type value)                                                  \
    {                                                                                              \
        memcpy(at, &value, sizeof(value));                                                         \
    }

BYTES_GETTER(get_u16le, uint16_t)
BYTES_GETTER(get_u32le, uint32_t)
BYTES_GETTER(get_u64le, uint64_t)
BYTES_SETTER(put_u16le, uint16_t)
BYTES_SETTER(put_u32le, uint32_t)
BYTES_SETTER(put_u64le, uint64_t)
#undef BYTES_GETTER
#undef BYTES_SETTER

static inline uint16_t get_u16be(const void *at)
{
    return __builtin_bswap16(get_u16le(at));
}
static inline uint32_t get_u32be(const void *at)
{
    return __builtin_bswap32(get_u32le(at));
}
static inline uint64_t get_u64be(const void *at)
{
    return __builtin_bswap64(get_u64le(at));
}
static inline void put_u16be(void *at, uint16_t v)
{
    put_u16le(at, __builtin_bswap16(v));
}
static inline void put_u32be(void *at, uint32_t v)
{
    put_u32le(at, __builtin_bswap32(v));
}
static inline void put_u64be(void *at, uint64_t v)
{
    put_u64le(at, __builtin_bswap64(v));
}

/* *sum = a + b; false when that does not fit a size_t, *sum is then undefined. */
static inline bool size_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

/* n rounded up to a multiple of 8. n must be at most SIZE_MAX - 7. */
static inline size_t size_align8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

#endif
