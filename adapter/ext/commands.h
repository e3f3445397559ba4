#ifndef ADAPTER_COMMANDS_H
#define ADAPTER_COMMANDS_H

/*
 * The only way into the I/O thread. Each function may be called from any thread, never blocks
 * beyond one short lock, posts one command and wakes the loop if it sleeps; commands run in the
 * order in which they were posted. They fail only when memory is out or the process forked since
 * the I/O thread was started. What is given is copied, references are taken.
 */
#include "client.h"
#include "io_thread.h"
#include "mailbox.h"

/* The connection enters the loop: response sent, CALLBACK_OPEN posted. */
bool commands_open(struct client *c);

/* One write. The frame's reference is taken over. False when the client is closed; or when the
 * queue itself is over its limit (128 MiB: the I/O thread gets no processor time), the client is
 * then evicted. */
bool commands_write(struct client *c, struct frame *frame);

/* Close after what was written. The client counts as closed from this call on. code 1000, 1001 ...
 */
void commands_close(struct client *c, uint16_t code);

void commands_set_timeout(struct client *c, unsigned seconds); /* at once */

/* block NULL: direct, as = one of HUB_DIRECT_*. The name must have passed glob_check / the length
 * limit. */
bool commands_subscribe_client(struct client *c, const void *name, size_t length, bool is_pattern,
                               struct block *block, void *as);
bool commands_unsubscribe_client(struct client *c, const void *name, size_t length,
                                 bool is_pattern);
bool commands_subscribe_block(struct io_thread *io, struct block *block, const void *name,
                              size_t length, bool is_pattern);
bool commands_unsubscribe_block(struct io_thread *io, struct block *block);

/* To the broker. False when the publish buffer is full (counted), lengths are the caller's
 * business. */
bool commands_publish(struct io_thread *io, const void *channel, size_t channel_length,
                      const void *payload, size_t payload_length, bool binary);

/* To this process's subscribers alone, without the broker. */
bool commands_publish_local(struct io_thread *io, const void *channel, size_t channel_length,
                            const void *payload, size_t payload_length, bool binary);

/* Engines: hub_report and hub_watch. */
bool commands_report(struct io_thread *io, uint64_t token);
bool commands_watch(struct io_thread *io, bool watch);

/* Posts CALLBACK_SHUTDOWN to every client; clients that open afterwards are closed with 1001. */
bool commands_shutdown(struct io_thread *io);

/* A paused client may read again: its mailbox has room. Safe under a mailbox pool's lock. */
void commands_resume(struct client *c);

/* For io_thread_stop: what is queued still runs, nothing more is taken, the loop ends. */
void commands_stop(struct io_thread *io);

/* I/O thread: runs what is queued, once per loop turn. */
void commands_run(struct io_thread *io);

#endif
