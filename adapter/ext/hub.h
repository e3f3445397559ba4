#ifndef ADAPTER_HUB_H
#define ADAPTER_HUB_H

/*
 * Who in this process wants which channel, and the fan-out to them. I/O thread only.
 *
 * A local subscription is a subscription of protocol/subscriptions.h whose context says where
 * deliveries go: one of the three HUB_DIRECT markers (straight to the client that owns the
 * subscriber) or a block. The key of that table is the process-level subscription: with its first
 * local subscriber the link is asked to SUBSCRIBE, with its last to UNSUBSCRIBE. key->label and
 * key->serial implement rule 10 of delivery: a message with an id goes to a key only if the id is
 * higher than its label; HUB_UNLABELLED until the broker confirmed the key.
 */
#include "client.h"
#include "mailbox.h"
#include "message.h"
#include "subscriptions.h"
#include "wire.h"

struct hub;
struct io_thread;

#define HUB_UNLABELLED UINT64_MAX

/* The serial of a key that the broker refused: it is not asked again for it. */
#define HUB_REFUSED UINT64_MAX

/* Contexts of block-less subscriptions: the payload's own kind, always text, always binary. */
extern char HUB_DIRECT_AUTO, HUB_DIRECT_TEXT, HUB_DIRECT_BINARY;

struct hub *hub_new(struct io_thread *io);
void hub_free(struct hub *hub);

/* Do the names of this process leave room for one of that length? Any thread; what waits in the
 * command queue is not counted, so a subscribe may still be refused by it. */
bool hub_has_room(const struct io_thread *io, size_t length);

/* A client's subscription; block NULL: direct, as is one of the markers; else the block's (takes a
 * reference). The same name and kind again replaces; the block of a subscription that is replaced,
 * withdrawn or refused (limits: logged) is cancelled. The name was checked by the caller. */
void hub_subscribe_client(struct hub *hub, struct client *client, const void *name, size_t length,
                          bool is_pattern, struct block *block, void *as);
void hub_unsubscribe_client(struct hub *hub, struct client *client, const void *name, size_t length,
                            bool is_pattern);

/* Drops all subscriptions of an ended client. Called when it is reaped (io_flush), never from
 * within a delivery: client_end, which a delivery may come to, only marks. Deliveries that wait for
 * blocks of the client stay. */
void hub_drop_client(struct hub *hub, struct client *client);

/* A subscription outside any client: the block is its own subscriber, for exactly one name. */
void hub_subscribe_block(struct hub *hub, struct block *block, const void *name, size_t length,
                         bool is_pattern);
void hub_unsubscribe_block(struct hub *hub, struct block *block);

/*
 * Delivers a run of publications, count of them (1 to HUB_RUN_RECORDS), all of one channel and in
 * the order of their ids, to every local subscription that they are for. What goes straight to
 * browsers is built once for each kind of client and shared, the whole run in one piece: a client
 * costs the same for a run as for one message. Blocks get a callback for each. id 0: a
 * process-local publish, labels do not count. The records' bytes are only read during the call.
 */
enum { HUB_RUN_RECORDS = 64, HUB_RUN_BYTES = 64 * 1024 };
void hub_deliver(struct hub *hub, const struct wire_record *records, unsigned count);

/* Ids first..last can no longer be had (rule 14): told to blocks whose key has label < last, and,
 * if there is any such key, to the notices mailbox once. last is UINT64_MAX when a new epoch began:
 * how many messages of the old one are lost cannot be known. */
void hub_gap(struct hub *hub, uint64_t first, uint64_t last);

/* The link is attached: every key confirmed by that ATTACH (serial at most `serial`) gets this
 * label unless it has one. */
void hub_label_attached(struct hub *hub, uint64_t serial, uint64_t head);

/* The reply with this head confirmed the subscribe request of that serial for that key. Ignored
 * when the key was withdrawn or made anew since (its serial differs). */
void hub_label(struct hub *hub, const void *name, size_t length, bool is_pattern, uint64_t serial,
               uint64_t head);

/* Is it a status by which the broker refuses one subscription, and nothing else is wrong? */
bool hub_may_refuse(unsigned status);

/* The broker refused the subscription that this SUBSCRIBE record asked for: logged, and left out of
 * the lists from now on, until the key is made anew. */
void hub_refuse(struct hub *hub, const struct wire_record *record, unsigned status);

/* A new epoch: labels start again; see rule 12. */
void hub_forget_labels(struct hub *hub);

/* The table, for the link's ATTACH list. */
struct subscriptions *hub_table(struct hub *hub);

/* Ruby engines: posts CALLBACK_REPORT and one CALLBACK_INTEREST per key, all with that token, to
 * the notices mailbox. watch: from now on changes of interest are posted with token 0. */
void hub_report(struct hub *hub, uint64_t token);
void hub_watch(struct hub *hub, bool watch);

#endif
