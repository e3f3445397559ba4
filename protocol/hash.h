#ifndef PROTOCOL_HASH_H
#define PROTOCOL_HASH_H

/*
 * Keyed hashing for tables whose keys come from outside: without the seed nobody can choose names
 * that collide. Not for signatures. Built on the 64 x 64 -> 128 bit product, folded. Any thread.
 */
#include "bytes.h"

struct hash_seed {
    uint64_t a, b;
};

static inline uint64_t hash_fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* One more number into a hash. */
static inline uint64_t hash_mix(uint64_t hash, uint64_t word)
{
    return hash_fold(hash ^ 0x9e3779b97f4a7c15u, word ^ 0xe7037ed1a0b428dbu);
}

/* Up to 8 bytes as one number, the same for the same bytes and length. */
static inline uint64_t hash_small(const uint8_t *at, size_t length)
{
    if (length >= 4)
        return get_u32le(at) | (uint64_t)get_u32le(at + length - 4) << 32;
    if (length == 0)
        return 0;
    return at[0] | (uint64_t)at[length >> 1] << 8 | (uint64_t)at[length - 1] << 16;
}

static inline uint64_t hash_bytes(const struct hash_seed *seed, const void *data, size_t length)
{
    const uint8_t *at = data;
    uint64_t hash = seed->a, low, high;
    size_t left = length;

    for (; left > 16; at += 16, left -= 16)
        hash = hash_fold(get_u64le(at) ^ seed->b, get_u64le(at + 8) ^ hash);
    if (left > 8) {
        low = get_u64le(at);
        high = get_u64le(at + left - 8);
    } else {
        low = hash_small(at, left);
        high = 0;
    }
    hash = hash_fold(low ^ seed->b, high ^ hash);
    return hash_fold(hash ^ seed->a, length ^ 0xa0761d6478bd642fu);
}

#endif
