#ifndef ADAPTER_LINK_H
#define ADAPTER_LINK_H

/*
 * The process's connection to the broker: SP REQ on libevent, ATTACH, credits, batches down,
 * publishes and subscriptions up. I/O thread only.
 *
 * It owns the origin and its sequence, the publishes that were not answered yet (in wire format, in
 * order, until the broker's answer), the position, the epoch and the link generation. A cut link is
 * no event for anyone else: it connects again with jittered back-off (50 ms to 2 s), attaches with
 * the hub's list and its position, and sends again what was not answered. Rules 5 to 19 of delivery
 * are the text that this file implements; each rule's number stands at its place.
 */
#include "subscriptions.h"
#include "wire.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_thread;
struct link;

struct link *link_new(struct io_thread *io);

/* Closes without ceremony and frees. */
void link_free(struct link *link);

/* Begins to connect (and goes on for ever until link_free). */
void link_start(struct link *link);

/* DETACH and no reconnecting; for io_thread_stop. */
void link_detach(struct link *link);

/* The key appeared in or vanished from the hub. Returns the serial of the request that will tell
 * the broker (0 when nothing is sent now since the next ATTACH lists it). */
uint64_t link_subscribe(struct link *link, const struct subscription_key *key);
void link_unsubscribe(struct link *link, const struct subscription_key *key);

/*
 * Appends one publish: gives it the next sequence and sends it with this turn's SUBMIT. The room in
 * the publish buffer was already reserved by the caller (io->unanswered_bytes, commands.c:
 * wire_record_size), so it cannot be full here; the bytes go back to that counter with the broker's
 * answer. A record that is larger than the broker said it takes is dropped, counted
 * (publishes_refused) and logged.
 */
void link_publish(struct link *link, const void *channel, size_t channel_length,
                  const void *payload, size_t payload_length, bool binary);

/* Sends what gathered during this turn: called once per loop turn, before io_flush. */
void link_flush(struct link *link);

/* At the end of a turn, behind io_flush, when clients were found lagging: a process that has much
 * to catch up with takes it at its browsers' pace, as long as they go on reading, at least two
 * batches in a second. Else all of them would be closed as too slow when a stopped process goes on.
 */
void link_pace(struct link *link);

/* Once a second: begins again where there was no memory for the timer that connects and waits. */
void link_tick(struct link *link);

/* The process did not run for a while: the link has an absence to catch up with. */
void link_catch_up(struct link *link);

bool link_is_attached(const struct link *link);

/* Publishes that the broker has not answered. */
uint64_t link_unanswered(const struct link *link);

#endif
