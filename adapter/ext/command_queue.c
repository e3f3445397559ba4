#include "command_queue.h"
#include "frame.h"
#include <stdlib.h>
#include <string.h>

/* A burst of a few thousand publishes fits what is kept. */
enum { BLOCK_SIZE = 64 * 1024, LARGE = BLOCK_SIZE / 4, SPARES_MAX = 8 };

struct command_block {
    struct command_block *next;
    size_t size; /* of bytes */
    size_t used;
    _Alignas(struct command) uint8_t bytes[];
};

static size_t space_of(const struct command *command)
{
    size_t align = _Alignof(struct command);
    size_t size = sizeof(*command) + command->name_length + (size_t)command->payload_length;
    return (size + align - 1) / align * align;
}

size_t command_size(const struct command *command)
{
    size_t size = sizeof(*command) + command->name_length + (size_t)command->payload_length;
    return command->frame == NULL ? size : size + command->frame->length;
}

bool command_is_large(const struct command *command)
{
    return space_of(command) > LARGE;
}

static struct command_block *block_new(size_t size)
{
    struct command_block *block = malloc(sizeof(*block) + size);
    if (block != NULL)
        *block = (struct command_block){.size = size};
    return block;
}

static void block_put(struct command_block *block, const struct command *command, const void *name,
                      const void *payload)
{
    struct command *copy = (struct command *)(void *)(block->bytes + block->used);
    *copy = *command;
    if (command->name_length > 0)
        memcpy(copy->bytes, name, command->name_length);
    if (command->payload_length > 0)
        memcpy(copy->bytes + command->name_length, payload, command->payload_length);
    block->used += space_of(command);
}

struct command_block *command_block_new(const struct command *command, const void *name,
                                        const void *payload)
{
    struct command_block *block = block_new(space_of(command));
    if (block != NULL)
        block_put(block, command, name, payload);
    return block;
}

void command_block_free(struct command_block *block)
{
    free(block);
}

static struct command_block *block_for(struct command_queue *queue, size_t space)
{
    struct command_block *block = queue->last;
    if (block != NULL && block->size - block->used >= space)
        return block;
    block = queue->spare;
    if (block != NULL) {
        queue->spare = block->next;
        queue->spares--;
        block->next = NULL;
        block->used = 0;
    } else {
        block = block_new(BLOCK_SIZE);
    }
    return block;
}

static void link_block(struct command_queue *queue, struct command_block *block)
{
    if (queue->last == NULL)
        queue->first = block;
    else
        queue->last->next = block;
    queue->last = block;
}

bool command_queue_add(struct command_queue *queue, const struct command *command, const void *name,
                       const void *payload)
{
    struct command_block *block = block_for(queue, space_of(command));
    if (block == NULL)
        return false;
    block_put(block, command, name, payload);
    if (block != queue->last)
        link_block(queue, block);
    queue->bytes += command_size(command);
    return true;
}

void command_queue_link(struct command_queue *queue, struct command_block *block)
{
    size_t at = 0;
    queue->bytes += command_size(command_block_next(block, &at));
    link_block(queue, block);
}

struct command_block *command_queue_take(struct command_queue *queue)
{
    struct command_block *chain = queue->first;
    queue->first = queue->last = NULL;
    queue->bytes = 0;
    return chain;
}

struct command *command_block_next(struct command_block *block, size_t *at)
{
    if (*at >= block->used)
        return NULL;
    struct command *command = (struct command *)(void *)(block->bytes + *at);
    *at += space_of(command);
    return command;
}

struct command_block *command_block_following(const struct command_block *block)
{
    return block->next;
}

void command_queue_give_back(struct command_queue *queue, struct command_block *chain)
{
    while (chain != NULL) {
        struct command_block *next = chain->next;
        if (chain->size == BLOCK_SIZE && queue->spares < SPARES_MAX) {
            chain->next = queue->spare;
            queue->spare = chain;
            queue->spares++;
        } else {
            free(chain);
        }
        chain = next;
    }
}

void command_queue_release(struct command_queue *queue)
{
    while (queue->spare != NULL) {
        struct command_block *next = queue->spare->next;
        free(queue->spare);
        queue->spare = next;
    }
    queue->spares = 0;
}
