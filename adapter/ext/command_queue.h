#ifndef ADAPTER_COMMAND_QUEUE_H
#define ADAPTER_COMMAND_QUEUE_H

/*
 * What threads ask of the I/O thread, in order. Commands lie one behind the other in blocks of
 * 64 KiB, which go round: a command costs its poster a copy and no allocation (an allocation made
 * by one thread and freed by another takes the allocator's lock twice, and threads wait for it).
 * The queue has no lock of its own; the owner's guards it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct client;
struct frame;

enum command_kind {
    COMMAND_OPEN,
    COMMAND_WRITE,
    COMMAND_CLOSE,
    COMMAND_RESUME,
    COMMAND_SUBSCRIBE_CLIENT,
    COMMAND_UNSUBSCRIBE_CLIENT,
    COMMAND_SUBSCRIBE_BLOCK,
    COMMAND_UNSUBSCRIBE_BLOCK,
    COMMAND_PUBLISH,
    COMMAND_PUBLISH_LOCAL,
    COMMAND_REPORT,
    COMMAND_WATCH,
    COMMAND_SHUTDOWN
};

struct command {
    struct client *client; /* these three: references, or NULL */
    struct frame *frame;
    struct block *block;
    void *as;
    uint64_t number; /* token, flag or close code */
    uint32_t name_length;
    uint32_t payload_length;
    uint8_t kind;
    bool is_pattern;
    bool binary;
    uint8_t bytes[]; /* name or channel, then payload */
};

struct command_block;

struct command_queue {
    struct command_block *first;
    struct command_block *last;
    struct command_block *spare; /* emptied ones, a few */
    unsigned spares;
    size_t bytes; /* what it holds, frames included */
};

/* Bytes that a command takes, with its frame's. */
size_t command_size(const struct command *command);

/* Is it large enough for a block of its own? That is made without the queue's lock. */
bool command_is_large(const struct command *command);

/* A block with a copy of this command alone, for command_queue_link; NULL: no memory. Any thread.
 */
struct command_block *command_block_new(const struct command *command, const void *name,
                                        const void *payload);
void command_block_free(struct command_block *block);

/* Appends a copy of the command, with that name and payload (read during the call only). The
 * references stay the caller's when it returns false (no memory), else they are the queue's. */
bool command_queue_add(struct command_queue *queue, const struct command *command, const void *name,
                       const void *payload);

/* Appends a block; the queue owns it from now on. */
void command_queue_link(struct command_queue *queue, struct command_block *block);

static inline bool command_queue_is_empty(const struct command_queue *queue)
{
    return queue->first == NULL;
}

/* Takes all that is queued: the first block, or NULL. */
struct command_block *command_queue_take(struct command_queue *queue);

/* Walks what was taken: *at is 0 at first; NULL behind a block's last command. No lock needed. */
struct command *command_block_next(struct command_block *block, size_t *at);

/* The block behind it. */
struct command_block *command_block_following(const struct command_block *block);

/* Gives the blocks of a chain back that was taken and walked: some are kept, the others freed. */
void command_queue_give_back(struct command_queue *queue, struct command_block *chain);

/* Frees the spare blocks. Nothing may be queued. */
void command_queue_release(struct command_queue *queue);

#endif
