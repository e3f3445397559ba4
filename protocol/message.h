#ifndef PROTOCOL_MESSAGE_H
#define PROTOCOL_MESSAGE_H

/*
 * One published message: immutable, shared by reference by everyone who still needs it, freed by
 * the last. The counter is atomic, so references may be taken and dropped on any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct message {
    uint32_t references; /* atomic; only message_ref and message_unref touch it */
    bool binary;         /* the publisher's kind: true binary, false text */
    uint16_t channel_length;
    uint32_t payload_length;
    uint64_t id;     /* the broker id, 0 for a message that stays in its process */
    uint8_t bytes[]; /* channel, then payload */
};

static inline const uint8_t *message_channel(const struct message *m)
{
    return m->bytes;
}
static inline const uint8_t *message_payload(const struct message *m)
{
    return m->bytes + m->channel_length;
}

/* A new message with one reference, which the caller owns; channel and payload are copied. NULL
 * when memory is out or a length does not fit (channel over 65,535 or payload over 2^32 - 1 bytes).
 */
struct message *message_new(const void *channel, size_t channel_length, const void *payload,
                            size_t payload_length, bool binary, uint64_t id);

/* One more reference to the same message; returns m. */
struct message *message_ref(struct message *m);

/* Gives one reference back; the last frees. NULL is allowed. */
void message_unref(struct message *m);

#endif
