#include "commands.h"
#include "client_internal.h"
#include "hub.h"
#include "io_internal.h"
#include "link.h"
#include "wire.h"
#include <unistd.h>

/* The queue's own limit, for the case that the I/O thread gets no processor time: beside it each
 * client's out-queue and the publish buffer have theirs. Closing is never refused for it. */
enum { QUEUE_LIMIT = 128 * 1024 * 1024 };

/* Gives the references back that a command holds. */
static void command_drop(const struct command *command)
{
    if (command->client != NULL)
        client_unref(command->client);
    if (command->frame != NULL)
        frame_unref(command->frame);
    block_unref(command->block);
}

static void wake(int fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof(one));
    (void)ignored; /* EAGAIN: so many wake-ups wait that one more says nothing */
}

/* Gives the lock back, then wakes the loop if it sleeps: it is the first thing that the loop wants.
 * A stop waits for `waking` before it closes the descriptor. */
static void unlock_and_wake(struct io_thread *io, bool wakes)
{
    int fd = io->wake_fd;
    if (wakes)
        __atomic_add_fetch(&io->waking, 1, __ATOMIC_ACQUIRE);
    pthread_mutex_unlock(&io->lock);
    if (!wakes)
        return;
    wake(fd);
    __atomic_sub_fetch(&io->waking, 1, __ATOMIC_RELEASE);
}

static bool is_urgent(const struct command *command)
{
    return command->kind == COMMAND_CLOSE || command->kind == COMMAND_RESUME ||
           command->kind == COMMAND_SHUTDOWN;
}

/* Under the lock. own: the block that a large command lies in already, else NULL. */
static bool append(struct io_thread *io, const struct command *command, const void *name,
                   const void *payload, struct command_block *own)
{
    if (io->closed || (io->commands.bytes >= QUEUE_LIMIT && !is_urgent(command)))
        return false;
    if (own == NULL)
        return command_queue_add(&io->commands, command, name, payload);
    command_queue_link(&io->commands, own);
    return true;
}

static bool append_and_wake(struct io_thread *io, const struct command *command, const void *name,
                            const void *payload)
{
    struct command_block *own = NULL;
    if (command_is_large(command) && (own = command_block_new(command, name, payload)) == NULL)
        return false;
    pthread_mutex_lock(&io->lock);
    bool accepted = append(io, command, name, payload, own);
    bool asleep = accepted && !io->awake;
    if (asleep)
        io->awake = true;
    unlock_and_wake(io, asleep);
    if (!accepted)
        command_block_free(own);
    return accepted;
}

/* Takes the command's references over; false (and they are given back) when the queue does not take
 * it. name and payload have the lengths that it says. */
static bool post_with(struct io_thread *io, const struct command *command, const void *name,
                      const void *payload)
{
    if (io_is_ours(io) && append_and_wake(io, command, name, payload))
        return true;
    command_drop(command);
    return false;
}

static bool post(struct io_thread *io, const struct command *command)
{
    return post_with(io, command, NULL, NULL);
}

bool commands_open(struct client *c)
{
    struct io_thread *io = c->io;
    if (!io_is_ours(io))
        return false;
    __atomic_add_fetch(&io->client_count, 1, __ATOMIC_ACQ_REL);
    if (post(io, &(struct command){.kind = COMMAND_OPEN, .client = client_ref(c)}))
        return true;
    client_mark_closed(c);
    io_client_gone(io);
    return false;
}

bool commands_write(struct client *c, struct frame *frame)
{
    if (!client_is_open(c)) {
        frame_unref(frame);
        return false;
    }
    client_count_pending(c, 1);
    if (post(c->io,
             &(struct command){.kind = COMMAND_WRITE, .client = client_ref(c), .frame = frame}))
        return true;
    client_count_pending(c, -1);
    /* A stream with a hole is worse than none. */
    client_close_later(c, WS_CLOSE_POLICY);
    return false;
}

void commands_close(struct client *c, uint16_t code)
{
    if (!io_is_ours(c->io) || !client_mark_closed(c))
        return;
    if (!post(c->io,
              &(struct command){.kind = COMMAND_CLOSE, .client = client_ref(c), .number = code}))
        client_close_later(c, code);
}

void commands_resume(struct client *c)
{
    /* When it cannot be posted, the next tick looks at the mailbox itself. */
    post(c->io, &(struct command){.kind = COMMAND_RESUME, .client = client_ref(c)});
}

void commands_set_timeout(struct client *c, unsigned seconds)
{
    client_set_timeout(c, seconds);
}

/* Told to the caller at once; the hub itself looks again when the command runs. */
static bool has_room(struct io_thread *io, const void *name, size_t length)
{
    if (hub_has_room(io, length))
        return true;
    static uint64_t logged;
    IO_COUNT(io, subscriptions_refused, 1);
    io_log_seldom(io, &logged, LOG_LEVEL_WARN,
                  "subscription to %.*s refused: the names take too much memory",
                  (int)(length < 200 ? length : 200), (const char *)name);
    return false;
}

static bool post_name(struct io_thread *io, struct command command, const void *name, size_t length,
                      bool is_pattern)
{
    command.name_length = (uint32_t)length;
    command.is_pattern = is_pattern;
    return post_with(io, &command, name, NULL);
}

bool commands_subscribe_client(struct client *c, const void *name, size_t length, bool is_pattern,
                               struct block *block, void *as)
{
    if (!client_is_open(c) || !has_room(c->io, name, length))
        return false;
    struct command command = {.kind = COMMAND_SUBSCRIBE_CLIENT,
                              .client = client_ref(c),
                              .block = block == NULL ? NULL : block_ref(block),
                              .as = as};
    return post_name(c->io, command, name, length, is_pattern);
}

bool commands_unsubscribe_client(struct client *c, const void *name, size_t length, bool is_pattern)
{
    struct command command = {.kind = COMMAND_UNSUBSCRIBE_CLIENT, .client = client_ref(c)};
    return post_name(c->io, command, name, length, is_pattern);
}

bool commands_subscribe_block(struct io_thread *io, struct block *block, const void *name,
                              size_t length, bool is_pattern)
{
    struct command command = {.kind = COMMAND_SUBSCRIBE_BLOCK, .block = block_ref(block)};
    if (has_room(io, name, length))
        return post_name(io, command, name, length, is_pattern);
    command_drop(&command);
    return false;
}

bool commands_unsubscribe_block(struct io_thread *io, struct block *block)
{
    return post(io,
                &(struct command){.kind = COMMAND_UNSUBSCRIBE_BLOCK, .block = block_ref(block)});
}

/* Room in the publish buffer is taken here, by the caller's thread, so that publish can answer. */
static bool reserve(struct io_thread *io, uint64_t bytes)
{
    uint64_t held = __atomic_load_n(&io->unanswered_bytes, __ATOMIC_RELAXED);
    do {
        if (bytes == 0 || held + bytes > io->config.publish_buffer) {
            static uint64_t logged;
            IO_COUNT(io, publishes_refused, 1);
            io_log_seldom(io, &logged, LOG_LEVEL_WARN,
                          "a publish is refused: %llu bytes wait for the broker's answer already",
                          (unsigned long long)held);
            return false;
        }
    } while (!__atomic_compare_exchange_n(&io->unanswered_bytes, &held, held + bytes, true,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return true;
}

static bool post_publish(struct io_thread *io, enum command_kind kind, const void *channel,
                         size_t channel_length, const void *payload, size_t payload_length,
                         bool binary)
{
    if (channel_length > UINT16_MAX || payload_length > UINT32_MAX)
        return false;
    const struct command command = {.kind = (uint8_t)kind,
                                    .name_length = (uint32_t)channel_length,
                                    .payload_length = (uint32_t)payload_length,
                                    .binary = binary};
    return post_with(io, &command, channel, payload);
}

bool commands_publish(struct io_thread *io, const void *channel, size_t channel_length,
                      const void *payload, size_t payload_length, bool binary)
{
    uint64_t bytes = wire_record_size(channel_length, payload_length);
    if (!io_is_ours(io) || !reserve(io, bytes))
        return false;
    if (post_publish(io, COMMAND_PUBLISH, channel, channel_length, payload, payload_length,
                     binary)) {
        IO_COUNT(io, publishes, 1);
        return true;
    }
    io_answered(io, bytes);
    return false;
}

bool commands_publish_local(struct io_thread *io, const void *channel, size_t channel_length,
                            const void *payload, size_t payload_length, bool binary)
{
    return post_publish(io, COMMAND_PUBLISH_LOCAL, channel, channel_length, payload, payload_length,
                        binary);
}

bool commands_report(struct io_thread *io, uint64_t token)
{
    return post(io, &(struct command){.kind = COMMAND_REPORT, .number = token});
}

bool commands_watch(struct io_thread *io, bool watch)
{
    return post(io, &(struct command){.kind = COMMAND_WATCH, .number = watch});
}

bool commands_shutdown(struct io_thread *io)
{
    return post(io, &(struct command){.kind = COMMAND_SHUTDOWN});
}

void commands_stop(struct io_thread *io)
{
    pthread_mutex_lock(&io->lock);
    io->closed = true;
    unlock_and_wake(io, true);
}

/* I/O thread: each command's meaning. */

static void run_write(struct command *command)
{
    struct client *c = command->client;
    client_queue(c, command->frame, true);
    client_count_pending(c, -1); /* the queue counts it now, or dropped it with the client */
}

static void run_publish_local(struct io_thread *io, const struct command *command)
{
    const struct wire_record record = {.type = WIRE_MESSAGE,
                                       .flags = command->binary ? WIRE_BINARY : 0,
                                       .channel_length = (uint16_t)command->name_length,
                                       .channel = command->bytes,
                                       .payload = command->bytes + command->name_length,
                                       .payload_length = command->payload_length};
    hub_deliver(io->hub, &record, 1);
}

static void run_shutdown(struct io_thread *io)
{
    if (io->shutting_down) /* a server's stop event, then the process's end: told once (S-30) */
        return;
    io->shutting_down = true;
    for (struct client *c = io->clients; c != NULL; c = client_next(c))
        if (client_is_open(c))
            mailbox_post(client_mailbox(c), CALLBACK_SHUTDOWN, NULL, NULL, 0, 0);
}

static void run_client(struct io_thread *io, struct command *command)
{
    struct client *c = command->client;
    switch (command->kind) {
    case COMMAND_OPEN:
        client_start(c);
        break;
    case COMMAND_WRITE:
        run_write(command);
        break;
    case COMMAND_CLOSE:
        client_begin_close(c, (uint16_t)command->number, "");
        break;
    case COMMAND_RESUME:
        client_resume(c);
        break;
    case COMMAND_SUBSCRIBE_CLIENT:
        if (client_is_alive(c))
            hub_subscribe_client(io->hub, c, command->bytes, command->name_length,
                                 command->is_pattern, command->block, command->as);
        break;
    case COMMAND_UNSUBSCRIBE_CLIENT:
        if (client_is_alive(c))
            hub_unsubscribe_client(io->hub, c, command->bytes, command->name_length,
                                   command->is_pattern);
        break;
    default:
        break;
    }
}

static void run_command(struct io_thread *io, struct command *command)
{
    switch (command->kind) {
    case COMMAND_SUBSCRIBE_BLOCK:
        hub_subscribe_block(io->hub, command->block, command->bytes, command->name_length,
                            command->is_pattern);
        break;
    case COMMAND_UNSUBSCRIBE_BLOCK:
        hub_unsubscribe_block(io->hub, command->block);
        break;
    case COMMAND_PUBLISH:
        link_publish(io->link, command->bytes, command->name_length,
                     command->bytes + command->name_length, command->payload_length,
                     command->binary);
        break;
    case COMMAND_PUBLISH_LOCAL:
        run_publish_local(io, command);
        break;
    case COMMAND_REPORT:
        hub_report(io->hub, command->number);
        break;
    case COMMAND_WATCH:
        hub_watch(io->hub, command->number != 0);
        break;
    case COMMAND_SHUTDOWN:
        run_shutdown(io);
        break;
    default:
        run_client(io, command);
        break;
    }
}

static void run_block(struct io_thread *io, struct command_block *block)
{
    size_t at = 0;
    for (struct command *command; (command = command_block_next(block, &at)) != NULL;) {
        run_command(io, command);
        command_drop(command);
    }
}

void commands_run(struct io_thread *io)
{
    pthread_mutex_lock(&io->lock);
    struct command_block *chain = command_queue_take(&io->commands);
    io->awake = true;
    io->stopping = io->closed;
    pthread_mutex_unlock(&io->lock);
    if (chain == NULL)
        return;
    for (struct command_block *block = chain; block != NULL; block = command_block_following(block))
        run_block(io, block);
    pthread_mutex_lock(&io->lock);
    command_queue_give_back(&io->commands, chain);
    pthread_mutex_unlock(&io->lock);
}
