/* What a SUBMIT must do: messages, with the rule of origins, or subscriptions. */
#include "model.h"

struct m_message *model_logged(uint64_t id)
{
    struct m_message *m = &model.log[id % M_LOG];
    return id != 0 && m->id == id ? m : NULL;
}

static void submit_names(const struct asked *a)
{
    uint32_t done;
    if (a->session == NULL) {
        model_expect_bare(a, STATUS_NOT_ATTACHED);
        return;
    }
    unsigned status = model_do_names(a->session, a->body, a->length, a->header.records, &done);
    model_expect_done(a, status, done);
    if (status == STATUS_MALFORMED || status == STATUS_CHANNEL_LENGTH)
        model_last_reply(a);
}

/* ---- publishes ---- */

static struct m_origin *origin_of(uint64_t origin)
{
    for (unsigned i = 0; i < model.origin_count; i++)
        if (model.origins[i].origin == origin)
            return &model.origins[i];
    return NULL;
}

uint64_t model_known(uint64_t origin)
{
    struct m_origin *o = origin_of(origin);
    return o != NULL ? o->sequence : 0;
}

static unsigned check_publishes(const struct asked *a, uint64_t *origin, uint64_t *first)
{
    const uint8_t *at = a->body;
    size_t length = a->length, used;
    for (uint32_t i = 0; i < a->header.records; i++, at += used, length -= used) {
        struct wire_record r;
        if (wire_record_decode(at, length, &r, &used) != STATUS_OK || r.type != WIRE_PUBLISH ||
            r.origin == 0 || r.sequence == 0)
            return STATUS_MALFORMED;
        if (i == 0) {
            *origin = r.origin;
            *first = r.sequence;
        }
        if (r.origin != *origin || r.sequence != *first + i)
            return STATUS_MALFORMED;
        if (r.channel_length > CHANNEL_LENGTH_MAX)
            return STATUS_CHANNEL_LENGTH;
        if (used > model.record_max || r.payload_length > model.payload_max)
            return STATUS_TOO_LARGE;
    }
    return length == 0 ? STATUS_OK : STATUS_MALFORMED;
}

static struct m_message *take_publish(const struct wire_record *r, uint32_t engine)
{
    struct m_message *m = &model.log[++model.head % M_LOG];
    struct wire_record kept = *r;
    free(m->record);
    kept.type = WIRE_MESSAGE;
    kept.flags &= WIRE_BINARY;
    kept.checksum = 0;
    m->id = model.head;
    m->size = wire_record_size(r->channel_length, r->payload_length);
    m->record = malloc(m->size);
    wire_record_encode(m->record, &kept);
    wire_record_stamp(m->record, m->id, engine);
    return m;
}

static void note_origin(uint64_t origin, uint64_t sequence)
{
    struct m_origin *o = origin_of(origin);
    if (o == NULL) {
        if (model.origin_count == M_ORIGINS)
            violated("the model has no room for origins");
        o = &model.origins[model.origin_count++];
    }
    *o = (struct m_origin){origin, sequence, model.head};
}

static void submit_publishes(const struct asked *a)
{
    uint64_t origin = 0, first = 0, sequence;
    unsigned status = check_publishes(a, &origin, &first);
    if (status != STATUS_OK) {
        model_expect_bare(a, status);
        if (status == STATUS_MALFORMED || status == STATUS_CHANNEL_LENGTH)
            model_last_reply(a);
        return;
    }
    uint64_t known = model_known(origin);
    if (known != 0 && first > known + 1) {
        model_expect(a, (struct m_expected){
                            .status = STATUS_OUT_OF_ORDER, .has_value = true, .value = known});
        return;
    }
    static bool reached[M_SESSIONS];
    memset(reached, 0, sizeof(reached));
    const uint8_t *at = a->body;
    size_t length = a->length, used;
    for (sequence = first; sequence < first + a->header.records; sequence++) {
        struct wire_record r;
        wire_record_decode(at, length, &r, &used);
        at += used;
        length -= used;
        if (sequence <= known)
            continue;
        struct m_message *m = take_publish(&r, a->session != NULL ? a->session->hash : 0);
        note_origin(origin, sequence);
        for (unsigned i = 0; i < M_SESSIONS; i++)
            if (model.sessions[i].used &&
                !reached[i]) /* since: a list that is not complete counts */
                reached[i] = model_wants(&model.sessions[i], m, false) &&
                             model_wants(&model.sessions[i], m, true);
    }
    uint32_t sessions = 0;
    for (unsigned i = 0; i < M_SESSIONS; i++)
        sessions += reached[i];
    model_expect(a, (struct m_expected){.status = STATUS_OK,
                                        .has_value = true,
                                        .value = origin_of(origin)->id,
                                        .has_records = true,
                                        .records = sessions});
}

void model_submit(const struct asked *a)
{
    struct wire_record first;
    size_t used;
    if (a->header.records == 0 ||
        wire_record_decode(a->body, a->length, &first, &used) != STATUS_OK) {
        model_expect_bare(a, STATUS_MALFORMED);
        model_last_reply(a);
    } else if (first.type == WIRE_PUBLISH) {
        submit_publishes(a);
    } else {
        submit_names(a);
    }
}
