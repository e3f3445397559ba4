#include "message.h"
#include "bytes.h"
#include <stdlib.h>
#include <string.h>

struct message *message_new(const void *channel, size_t channel_length, const void *payload,
                            size_t payload_length, bool binary, uint64_t id)
{
    struct message *m;
    size_t size;

    if (channel_length > UINT16_MAX || payload_length > UINT32_MAX ||
        !size_add(sizeof(*m) + channel_length, payload_length, &size))
        return NULL;
    m = malloc(size);
    if (m == NULL)
        return NULL;
    m->references = 1;
    m->binary = binary;
    m->channel_length = (uint16_t)channel_length;
    m->payload_length = (uint32_t)payload_length;
    m->id = id;
    if (channel_length > 0)
        memcpy(m->bytes, channel, channel_length);
    if (payload_length > 0)
        memcpy(m->bytes + channel_length, payload, payload_length);
    return m;
}

struct message *message_ref(struct message *m)
{
    __atomic_fetch_add(&m->references, 1, __ATOMIC_RELAXED);
    return m;
}

void message_unref(struct message *m)
{
    /* acquire: what other threads did with the message before they dropped it happens before free
     */
    if (m != NULL && __atomic_fetch_sub(&m->references, 1, __ATOMIC_ACQ_REL) == 1)
        free(m);
}
