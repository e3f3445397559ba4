#include "hub_internal.h"
#include "link.h"
#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    LIST_MAX = 64 * 1024 * 1024, /* bytes of an ATTACH list */
    WEAK_MAX = 64 /* of one process, as the broker has it: what it would refuse is refused here */
};

char HUB_DIRECT_AUTO, HUB_DIRECT_TEXT, HUB_DIRECT_BINARY;

/* A block that is subscribed outside any client: a subscriber with one subscription. */
struct hub_block {
    struct subscriber subscriber;
    struct block *block; /* a reference */
};

static uint64_t hash_of_block(const struct hub *hub, const struct block *block)
{
    return hash_bytes(&hub->seed, &block, sizeof(block));
}

static uint64_t hash_of_entry(uintptr_t ref, const void *context)
{
    return hash_of_block(context, ((const struct hub_block *)ref)->block);
}

static bool draw(void *out, size_t size)
{
    return getrandom(out, size, 0) == (ssize_t)size;
}

struct hub *hub_new(struct io_thread *io)
{
    uint8_t seed[16];
    struct hub *hub = calloc(1, sizeof(*hub));
    if (!hub)
        return NULL;
    hub->io = io;
    hash_index_init(&hub->blocks, hash_of_entry, hub, 0);
    if (draw(seed, sizeof(seed)) && draw(&hub->seed, sizeof(hub->seed)))
        hub->table = subscriptions_new(seed);
    if (!hub->table) {
        hub_free(hub);
        return NULL;
    }
    subscriptions_set_quota(hub->table, WEAK_MAX, WEAK_MAX);
    return hub;
}

static void free_entry(uintptr_t ref, void *context)
{
    struct hub_block *entry = (struct hub_block *)ref;
    (void)context;
    block_unref(entry->block);
    free(entry);
}

/* The table is about to go: what its subscription of that block holds, and the entry. */
static void leave_entry(uintptr_t ref, void *context)
{
    block_unref(((struct hub_block *)ref)->block);
    free_entry(ref, context);
}

void hub_free(struct hub *hub)
{
    if (!hub)
        return;
    hash_index_each(&hub->blocks, leave_entry, NULL);
    hash_index_release(&hub->blocks);
    if (hub->table)
        subscriptions_free(hub->table);
    ws_deflater_free(hub->deflater);
    free(hub);
}

struct subscriptions *hub_table(struct hub *hub)
{
    return hub->table;
}

/* Engines' notices. */

static void post_interest(struct hub *hub, const struct subscription_key *key,
                          enum callback_kind kind, uint64_t token)
{
    struct message *m = message_new(key->name, key->length, NULL, 0, key->is_pattern, 0);
    if (m)
        mailbox_post(hub->io->notices, kind, NULL, m, token, 0);
}

struct report {
    struct hub *hub;
    uint64_t token;
};

static void report_key(struct subscription_key *key, void *context)
{
    struct report *report = context;
    post_interest(report->hub, key, CALLBACK_INTEREST, report->token);
}

void hub_report(struct hub *hub, uint64_t token)
{
    struct report report = {.hub = hub, .token = token};
    mailbox_post(hub->io->notices, CALLBACK_REPORT, NULL, NULL, token, 0);
    subscriptions_each_key(hub->table, report_key, &report);
}

void hub_watch(struct hub *hub, bool watch)
{
    hub->watched = watch;
}

/* Subscribing. */

bool hub_has_room(const struct io_thread *io, size_t length)
{
    uint64_t size = wire_record_size(length, 0);
    return __atomic_load_n(&io->names_bytes, __ATOMIC_RELAXED) + size <= LIST_MAX;
}

static void key_appeared(struct hub *hub, struct subscription_key *key)
{
    __atomic_add_fetch(&hub->io->names_bytes, wire_record_size(key->length, 0), __ATOMIC_RELAXED);
    key->label = HUB_UNLABELLED;
    key->serial = link_subscribe(hub->io->link, key);
    if (hub->watched)
        post_interest(hub, key, CALLBACK_INTEREST, 0);
}

static void key_vanishes(struct hub *hub, struct subscription_key *key)
{
    __atomic_sub_fetch(&hub->io->names_bytes, wire_record_size(key->length, 0), __ATOMIC_RELAXED);
    link_unsubscribe(hub->io->link, key);
    if (hub->watched)
        post_interest(hub, key, CALLBACK_NO_INTEREST, 0);
}

/* A subscription lets go of what it delivered to. withdrawn: what still waits there is skipped. */
static void release_context(void *context, bool withdrawn)
{
    if (hub_is_direct(context))
        return;
    if (withdrawn)
        block_cancel(context);
    block_unref(context);
}

static void remove_one(struct hub *hub, struct subscription *s, bool withdrawn)
{
    void *context = s->context;
    assert(!hub->matching);
    if (s->key->count == 1)
        key_vanishes(hub, s->key);
    subscriptions_remove(hub->table, s);
    release_context(context, withdrawn);
}

static enum status subscribe(struct hub *hub, const void *name, size_t length, bool is_pattern,
                             struct subscriber *subscriber, void *context)
{
    struct subscription *s;
    bool created;
    assert(!hub->matching);
    if (!hub_has_room(hub->io, length))
        return STATUS_FULL;
    enum status status = subscriptions_subscribe(hub->table, name, length, is_pattern, subscriber,
                                                 context, &s, &created);
    if (status != STATUS_OK)
        return status;
    if (!created) {
        release_context(s->context, true);
        s->context = context;
    } else if (s->key->count == 1) {
        key_appeared(hub, s->key);
    }
    return STATUS_OK;
}

static void log_refusal(struct hub *hub, const void *name, size_t length, const char *reason)
{
    IO_COUNT(hub->io, subscriptions_refused, 1);
    io_log(hub->io, LOG_LEVEL_WARN, "subscription to %.*s refused: %s",
           (int)(length < 200 ? length : 200), (const char *)name, reason);
}

void hub_subscribe_client(struct hub *hub, struct client *client, const void *name, size_t length,
                          bool is_pattern, struct block *block, void *as)
{
    void *context = block ? (void *)block_ref(block) : as ? as : &HUB_DIRECT_AUTO;
    enum status status =
        subscribe(hub, name, length, is_pattern, client_subscriber(client), context);
    if (status == STATUS_OK)
        return;
    log_refusal(hub, name, length, status_text(status));
    release_context(context, true);
}

void hub_unsubscribe_client(struct hub *hub, struct client *client, const void *name, size_t length,
                            bool is_pattern)
{
    struct subscription *s =
        subscriptions_find(hub->table, name, length, is_pattern, client_subscriber(client));
    if (s)
        remove_one(hub, s, true);
}

void hub_drop_client(struct hub *hub, struct client *client)
{
    struct subscriber *subscriber = client_subscriber(client);
    while (subscriber->first) /* what waits for its blocks still runs, before on_close */
        remove_one(hub, subscriber->first, false);
}

static struct hub_block *find_block(struct hub *hub, const struct block *block)
{
    struct hash_cursor cursor;
    uintptr_t ref = hash_index_first(&hub->blocks, hash_of_block(hub, block), &cursor);
    while (ref && ((struct hub_block *)ref)->block != block)
        ref = hash_index_next(&cursor);
    return (struct hub_block *)ref;
}

void hub_subscribe_block(struct hub *hub, struct block *block, const void *name, size_t length,
                         bool is_pattern)
{
    struct hub_block *entry = find_block(hub, block) ? NULL : calloc(1, sizeof(*entry));
    if (!entry)
        return;
    subscriber_init(&entry->subscriber);
    entry->block = block_ref(block);
    enum status status = STATUS_NO_MEMORY;
    if (hash_index_insert(&hub->blocks, hash_of_block(hub, block), (uintptr_t)entry)) {
        block_ref(block); /* the subscription's */
        status = subscribe(hub, name, length, is_pattern, &entry->subscriber, block);
        if (status == STATUS_OK)
            return;
        block_unref(block);
        hash_index_remove(&hub->blocks, hash_of_block(hub, block), (uintptr_t)entry);
    }
    log_refusal(hub, name, length, status_text(status));
    block_cancel(block);
    free_entry((uintptr_t)entry, NULL);
}

void hub_unsubscribe_block(struct hub *hub, struct block *block)
{
    struct hub_block *entry = find_block(hub, block);
    if (!entry)
        return;
    remove_one(hub, entry->subscriber.first, true);
    hash_index_remove(&hub->blocks, hash_of_block(hub, block), (uintptr_t)entry);
    free_entry((uintptr_t)entry, NULL);
}

/* What the broker says of the keys. */

struct labels {
    uint64_t serial, head;
};

static void label_attached(struct subscription_key *key, void *context)
{
    const struct labels *labels = context;
    if (key->label == HUB_UNLABELLED && key->serial <= labels->serial)
        key->label = labels->head;
}

void hub_label_attached(struct hub *hub, uint64_t serial, uint64_t head)
{
    struct labels labels = {.serial = serial, .head = head};
    subscriptions_each_key(hub->table, label_attached, &labels);
}

void hub_label(struct hub *hub, const void *name, size_t length, bool is_pattern, uint64_t serial,
               uint64_t head)
{
    struct subscription_key *key = subscriptions_key(hub->table, name, length, is_pattern);
    if (key && key->serial == serial && key->label == HUB_UNLABELLED)
        key->label = head;
}

static void forget_label(struct subscription_key *key, void *context)
{
    (void)context;
    key->label = HUB_UNLABELLED;
}

void hub_forget_labels(struct hub *hub)
{
    subscriptions_each_key(hub->table, forget_label, NULL);
}

bool hub_may_refuse(unsigned status)
{
    return status == STATUS_CHANNEL_LENGTH || status == STATUS_PATTERN ||
           status == STATUS_WEAK_PATTERN || status == STATUS_FULL;
}

void hub_refuse(struct hub *hub, const struct wire_record *record, unsigned status)
{
    struct subscription_key *key = subscriptions_key(
        hub->table, record->channel, record->channel_length, record->flags & WIRE_PATTERN);
    log_refusal(hub, record->channel, record->channel_length, status_text(status));
    if (key)
        key->serial = HUB_REFUSED;
}
