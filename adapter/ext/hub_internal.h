#ifndef ADAPTER_HUB_INTERNAL_H
#define ADAPTER_HUB_INTERNAL_H

/*
 * The hub's struct: hub.c (who wants what), hub_deliver.c (fan-out). I/O thread only.
 *
 * The table must not change while it is matched, and nothing that a delivery calls changes it: a
 * client that is evicted by one only ends (client_end marks it) and is dropped here when io_flush
 * reaps it; callbacks are posted, not run. `matching` is there to assert it.
 */
#include "hash.h"
#include "hash_index.h"
#include "hub.h"
#include "io_internal.h"

struct hub_block;

struct hub {
    struct io_thread *io;
    struct subscriptions *table;
    bool watched; /* hub_watch */
    struct hash_seed seed;
    struct hash_index blocks; /* of struct hub_block, by block */

    bool matching;
    struct ws_deflater *deflater; /* made when the first compressed frame is wanted */
};

/* Is it one of the three markers? Else it is a block. */
static inline bool hub_is_direct(const void *context)
{
    return context == &HUB_DIRECT_AUTO || context == &HUB_DIRECT_TEXT ||
           context == &HUB_DIRECT_BINARY;
}

#endif
