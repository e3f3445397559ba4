#include "hub.h"
#include "link_internal.h"
#include "link_secret.h"
#include <string.h>
#include <unistd.h>

/* Rule 9: what the process wants at this moment. */
static void list_key(struct subscription_key *key, void *context)
{
    struct link *link = context;
    size_t size = wire_record_size(key->length, 0);
    if (key->serial == HUB_REFUSED)
        return;
    uint8_t *out = buffer_reserve(&link->list, size);
    if (!out) {
        link->doomed = "out of memory";
        return;
    }
    struct wire_record record = {.type = WIRE_SUBSCRIBE,
                                 .flags = key->is_pattern ? WIRE_PATTERN : 0,
                                 .channel_length = key->length,
                                 .channel = key->name};
    wire_record_encode(out, &record);
    buffer_commit(&link->list, size);
}

/* How much of the list goes into the next part. */
static size_t part_of(const struct link *link, size_t room, uint32_t *records)
{
    const uint8_t *bytes = buffer_bytes(&link->list);
    size_t length = buffer_length(&link->list), size = 0, used;
    struct wire_record record;
    *records = 0;
    while (size < length &&
           wire_record_decode(bytes + size, length - size, &record, &used) == STATUS_OK &&
           size + used <= room) {
        size += used;
        ++*records;
    }
    return size;
}

static const char *send_part(struct link *link, bool with_list, const uint8_t *proof)
{
    const struct io_config *config = &link->io->config;
    struct wire_attach attach = {.generation = link->generation,
                                 .epoch = link->epoch,
                                 .origin = link->unanswered.origin,
                                 .unanswered = unanswered_lowest_id(&link->unanswered),
                                 .pid = (uint32_t)getpid(),
                                 .name = (const uint8_t *)config->name,
                                 .name_length =
                                     config->name ? strnlen(config->name, WIRE_NAME_MAX) : 0,
                                 .proof = proof,
                                 .proof_length = proof ? WIRE_PROOF_SIZE : 0};
    struct wire_request request = {
        .operation = WIRE_ATTACH, .session = link->session, .position = link->position};
    size_t block = wire_attach_size(&attach), part = 0;
    if (with_list)
        part = part_of(link, WIRE_ATTACH_PART_SIZE - WIRE_REQUEST_SIZE - block, &request.records);
    link->attach_is_last = with_list && part == buffer_length(&link->list);
    request.flags = link->attach_is_last ? 0 : WIRE_MORE;
    link->list_part = part;
    uint8_t *out = link_request(link, &request, block + part, &link->attach_request);
    if (!out)
        return "out of memory";
    wire_attach_encode(out, &attach);
    if (part > 0)
        memcpy(out + block, buffer_bytes(&link->list), part);
    link_request_end(link, block + part);
    link_deadline(link, LINK_ATTACH_MS);
    return link_write(link);
}

static const char *send_list(struct link *link)
{
    link->list_serial = link->serial;
    subscriptions_each_key(hub_table(link->io->hub), list_key, link);
    return link->doomed ? link->doomed : send_part(link, true, NULL);
}

const char *link_attach_begin(struct link *link)
{
    const char *path = link->io->config.secret_file, *reason;
    link->state = LINK_ATTACHING;
    if (!path)
        return send_list(link);
    /* Nothing but our own name is told to a broker that has not shown that it knows the secret. */
    link->secret = link_secret_read(path, &reason);
    return link->secret ? send_part(link, false, NULL) : reason;
}

static const char *prove(struct link *link, const struct wire_attach_reply *block)
{
    const char *name = link->io->config.name;
    if (!link->secret)
        return "the broker wants a secret and none is configured (secret_file)";
    const uint8_t *proof = block->proof_length == WIRE_NONCE_SIZE
                               ? link_secret_answer(link->secret, block->proof, name,
                                                    name ? strnlen(name, WIRE_NAME_MAX) : 0)
                               : NULL;
    return proof ? send_part(link, false, proof) : "the authentication could not be completed";
}

static const char *check_proof(struct link *link, const struct wire_attach_reply *block)
{
    if (!link_secret_check(link->secret, block->proof, block->proof_length))
        return "the broker did not show that it knows the secret";
    link_secret_free(link->secret);
    link->secret = NULL;
    return send_list(link);
}

/* Rule 12: another epoch. The subscribers hear of it before labels and position are adopted. */
static void adopt_epoch(struct link *link, const struct wire_reply *reply)
{
    if (link->epoch != 0)
        hub_gap(link->io->hub, link->position + 1, UINT64_MAX);
    hub_forget_labels(link->io->hub);
    link->epoch = reply->epoch;
    link->position = reply->head;
}

/* Rules 7 and 8. NULL, or why the reply cannot be true. */
static const char *settle_publishes(struct link *link, const struct wire_reply *reply, bool unsure)
{
    struct unanswered *u = &link->unanswered;
    if (unsure) {
        struct unanswered_removed lost = unanswered_drop_written(u);
        link_give_back(link, lost);
        IO_COUNT(link->io, publishes_unsure, lost.count);
        if (lost.count > 0)
            io_log(link->io, LOG_LEVEL_WARN,
                   "%llu publishes were sent and not answered, and the broker cannot tell any more "
                   "whether it took them: they are not sent again",
                   (unsigned long long)lost.count);
    } else {
        if (reply->value >= u->first && reply->value > u->written)
            return "the broker knows publishes of this process that were never sent";
        link_give_back(link, unanswered_answer(u, reply->value));
        unanswered_rewind(u);
    }
    struct unanswered_removed refused = {0, 0};
    if (link->refused != 0 && link->refused == u->first && unanswered_count(u) > 0)
        refused = unanswered_drop_first(u);
    link->refused = 0;
    link_give_back(link, refused);
    struct unanswered_removed large = unanswered_drop_larger(u, link->record_max);
    link_give_back(link, large);
    IO_COUNT(link->io, publishes_refused, large.count);
    if (large.count > 0)
        io_log(link->io, LOG_LEVEL_ERROR,
               "%llu publishes are larger than the broker takes (%zu bytes)",
               (unsigned long long)large.count, link->record_max);
    return NULL;
}

static const char *attached(struct link *link, const struct wire_reply *reply,
                            const struct wire_attach_reply *block)
{
    bool other_epoch = reply->epoch != link->epoch || (reply->flags & WIRE_NEW_EPOCH);
    if (block->record_max < WIRE_RECORD_SIZE || reply->epoch == 0)
        return "the broker's answer to ATTACH makes no sense";
    if (!other_epoch && reply->head < link->position)
        return "the broker's newest message is older than what it sent";
    link->record_max = block->record_max < LINK_RECORD_MAX ? block->record_max : LINK_RECORD_MAX;
    const char *reason = settle_publishes(link, reply, other_epoch || (reply->flags & WIRE_UNSURE));
    if (reason)
        return reason;
    if (other_epoch)
        adopt_epoch(link, reply);
    link->head = reply->head;
    hub_label_attached(link->io->hub, link->list_serial, reply->head);
    size_t batch = link->record_max > WIRE_BATCH_SIZE ? link->record_max : WIRE_BATCH_SIZE;
    link->message_max = batch + 4096; /* the header, and a GAP before a large record */
    buffer_release(&link->list);
    link->state = LINK_ATTACHED;
    link->catching_up = link->head > link->position;
    link->refill_due = true;
    link->last_failure[0] = 0;
    link->backoff_ms = LINK_BACKOFF_MIN_MS;
    link_deadline(link, LINK_SILENCE_MS);
    IO_COUNT(link->io, link_connects, 1);
    __atomic_store_n(&link->io->stats.connected, true, __ATOMIC_RELAXED);
    io_log(link->io, LOG_LEVEL_INFO, "attached to %s%s", link->io->config.url,
           other_epoch && link->generation > 1 ? ", with a new journal" : "");
    return NULL;
}

/* One subscription that is refused must not keep the others from the broker: the next list is
 * without the one behind the first `records`. */
static const char *refused_list(struct link *link, const struct wire_reply *reply)
{
    const uint8_t *at = buffer_bytes(&link->list);
    size_t left = link->list_part, used;
    struct wire_record record;
    for (uint32_t n = 0; left > 0; n++, at += used, left -= used) {
        if (wire_record_decode(at, left, &record, &used) != STATUS_OK)
            break;
        if (n == reply->records) {
            hub_refuse(link->io->hub, &record, reply->status);
            break;
        }
    }
    return status_text(reply->status);
}

const char *link_attach_reply(struct link *link, const struct wire_reply *reply,
                              const uint8_t *body, size_t length)
{
    struct wire_attach_reply block = {0};
    size_t used;
    link->attach_request = 0;
    if (length > 0 && wire_attach_reply_decode(body, length, &block, &used) != STATUS_OK)
        return "a malformed answer to ATTACH";
    if (reply->status == STATUS_AUTH)
        return prove(link, &block);
    if (reply->status != STATUS_OK)
        return hub_may_refuse(reply->status) ? refused_list(link, reply)
                                             : status_text(reply->status);
    if (link->secret)
        return check_proof(link, &block);
    buffer_consume(&link->list, link->list_part);
    if (!link->attach_is_last)
        return send_part(link, true, NULL);
    return attached(link, reply, &block);
}
