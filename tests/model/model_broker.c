/* The broker: a ring that outlives it, and sessions that do not. */
#include "model.h"

struct broker broker;

static struct record *ring_at(unsigned id)
{
    return &broker.ring[id % broker.size];
}

static unsigned known_of(unsigned origin)
{
    for (unsigned i = 0; i < broker.origin_count; i++) {
        if (broker.origins[i].origin == origin)
            return broker.origins[i].sequence;
    }
    return 0;
}

static void note_origin(const struct record *r)
{
    unsigned oldest = 0, i;
    for (i = 0; i < broker.origin_count && broker.origins[i].origin != r->origin; i++) {
        if (broker.origins[i].id < broker.origins[oldest].id)
            oldest = i;
    }
    if (i == ORIGINS_MAX) {
        i = oldest;
        if (broker.origins[i].id > broker.forgotten)
            broker.forgotten = broker.origins[i].id;
    } else if (i == broker.origin_count) {
        broker.origin_count++;
    }
    broker.origins[i].origin = r->origin;
    broker.origins[i].sequence = r->sequence;
    broker.origins[i].id = r->id;
}

/* Origins are remembered while they are in the ring, at most. */
static void forget_origins(void)
{
    for (unsigned i = 0; i < broker.origin_count;) {
        if (broker.origins[i].id >= broker.tail)
            i++;
        else
            broker.origins[i] = broker.origins[--broker.origin_count];
    }
}

void new_journal(void)
{
    broker.epoch++;
    broker.head = 0;
    broker.tail = 1;
    broker.damaged = false;
    epoch_changed = broker.epoch > 1;
}

/* SIGKILL and a new start: the file is what is left. */
void kill_broker(void)
{
    trace("broker killed; ring %u..%u", broker.tail, broker.head);
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        if (links[i].used && links[i].broker_end) {
            cut(&links[i]);
            links[i].up_count = 0;
            links[i].broker_end = false;
            free_link(&links[i]);
        }
    }
    memset(broker.sessions, 0, sizeof(broker.sessions));
    broker.origin_count = broker.forgotten = 0;
    if (broker.damaged)
        violate("the journal is damaged by a kill");
    if (!ring_is_large && chance(20)) {
        trace("the journal is lost");
        new_journal();
    }
    for (unsigned id = broker.tail; id <= broker.head; id++)
        note_origin(ring_at(id));
}

static void lapped(struct session *s)
{
    unsigned middle = broker.tail + (broker.head - broker.tail + 1) / 2;
    if (!off[RULE_GAPS]) {
        if (s->gap_last == 0)
            s->gap_first = s->told + 1;
        s->gap_last = middle - 1;
    }
    s->queued = 0;
    s->live = false;
    s->scanned = middle - 1;
}

static void check_lapped(struct session *s)
{
    if ((s->queued > 0 && s->queue[0] < broker.tail) || (!s->live && s->scanned + 1 < broker.tail))
        lapped(s);
}

static void match_live(const struct record *r)
{
    for (unsigned p = 0; p < PROCESSES; p++) {
        struct session *s = &broker.sessions[p];
        if (!s->used || !s->live || !(s->list & 1u << r->channel))
            continue;
        if (s->queued < QUEUE_MAX) {
            s->queue[s->queued++] = r->id;
        } else if (!off[RULE_CATCH_UP]) {
            s->queued = 0;
            s->live = false;
            s->scanned = s->told > s->gap_last ? s->told : s->gap_last;
        }
    }
}

/* Rule 2: tail, record, head. A kill may come between any two of them. Returns false when it came.
 */
static bool append(struct record r)
{
    bool killed = chance(60);
    unsigned stage = pick(3);
    bool overwrites = broker.head - broker.tail + 1 == broker.size;
    r.id = broker.head + 1;
    if (overwrites && !off[RULE_TAIL_FIRST])
        broker.tail++;
    if (killed && stage == 0)
        return false;
    if (killed && stage == 1) {
        /* torn: the bytes of the one that it overwrites are gone */
        broker.damaged = overwrites && off[RULE_TAIL_FIRST];
        return false;
    }
    *ring_at(r.id) = r;
    if (overwrites && off[RULE_TAIL_FIRST])
        broker.tail++;
    if (killed && off[RULE_HEAD_FIRST]) {
        broker.head++; /* it is delivered ... */
        match_live(&r);
        for (unsigned p = 0; p < PROCESSES; p++) {
            struct session *s = &broker.sessions[p];
            if (s->used && s->credits > 0 && s->queued > 0 && s->queue[0] == r.id) {
                struct travelling batch = {.type = BATCH,
                                           .epoch = broker.epoch,
                                           .head = broker.head,
                                           .value = r.id,
                                           .count = 1,
                                           .records = {r}};
                send_down(s->link, &batch);
            }
        }
        messages[r.message].epoch = broker.epoch;
        messages[r.message].id = r.id;
        broker.head--; /* ... and the file does not have it */
        return false;
    }
    if (killed)
        return false;
    broker.head = r.id;
    forget_origins();
    note_origin(&r);
    struct truth *m = &messages[r.message];
    if (++m->accepted > 1)
        violate("P4: message %u was taken twice", r.message);
    m->accepted_at = now;
    m->epoch = broker.epoch;
    m->id = r.id;
    trace("message %u is id %u", r.message, r.id);
    match_live(&r);
    for (unsigned p = 0; p < PROCESSES; p++) {
        if (broker.sessions[p].used)
            check_lapped(&broker.sessions[p]);
    }
    return true;
}

void drop_session(struct session *s)
{
    memset(s, 0, sizeof(*s));
}

static void attach(struct link *l, const struct travelling *t)
{
    struct session *s = &broker.sessions[l->process];
    struct travelling reply = {.type = ATTACHED,
                               .epoch = broker.epoch,
                               .head = broker.head,
                               .serial = t->serial,
                               .generation = t->generation};
    if (s->used && t->generation < s->generation) {
        reply.type = REFUSED;
        send_down(l, &reply);
        return;
    }
    if (s->used && s->link != l && !off[RULE_FENCING]) {
        cut(s->link);
        s->link->up_count = 0;
        s->link->broker_end = false;
        free_link(s->link);
    }
    bool ours = t->epoch == broker.epoch && t->position <= broker.head;
    unsigned known = known_of(t->origin);
    reply.value = known;
    reply.new_epoch = t->epoch != 0 && !ours;
    reply.is_unsure = !off[RULE_UNSURE] && t->unanswered != 0 && known == 0 &&
                      ((t->epoch != broker.epoch && !off[RULE_EPOCHS]) ||
                       t->unanswered < broker.tail || broker.forgotten >= t->unanswered);
    *s = (struct session){.used = true, .generation = t->generation, .link = l, .list = t->list};
    s->told = s->scanned = ours ? t->position : broker.head;
    s->live = s->scanned == broker.head;
    check_lapped(s);
    trace("process %u attached, generation %u, position %u, head %u", l->process, t->generation,
          t->position, broker.head);
    send_down(l, &reply);
}

static void take_publishes(struct link *l, const struct travelling *t)
{
    struct travelling reply = {.type = ANSWER, .epoch = broker.epoch, .serial = t->serial};
    unsigned known = known_of(t->records[0].origin);
    unsigned first = t->records[0].sequence, last = first + t->count - 1;
    if (known != 0 && first > known + 1) {
        reply.type = REFUSED;
        send_down(l, &reply);
        return;
    }
    for (unsigned i = 0; i < t->count; i++) {
        if (t->records[i].sequence <= known && !off[RULE_DUPLICATES])
            continue;
        if (!append(t->records[i])) {
            kill_broker();
            return;
        }
    }
    reply.value = last;
    reply.head = broker.head;
    send_down(l, &reply);
}

static void take_changes(struct link *l, struct session *s, const struct travelling *t)
{
    struct travelling reply = *t;
    for (unsigned i = 0; i < t->count; i++) {
        unsigned bit = 1u << t->records[i].channel;
        s->list = t->on[i] ? s->list | bit : s->list & ~bit;
    }
    reply.type = CONFIRM;
    reply.epoch = broker.epoch;
    reply.head = broker.head;
    send_down(l, &reply);
}

void broker_read(struct link *l)
{
    struct travelling t = take(l->up, &l->up_count);
    struct session *s = &broker.sessions[l->process];
    bool attached = s->used && (s->link == l || off[RULE_FENCING]);
    if (t.type == ATTACH) {
        attach(l, &t);
    } else if (!attached) {
        struct travelling reply = {.type = REFUSED, .epoch = broker.epoch};
        send_down(l, &reply);
    } else if (t.type == FETCH) {
        s->credits += s->credits < CREDITS && s->link == l;
    } else if (t.type == PUBLISH) {
        take_publishes(l, &t);
        if (t.repeated && l->broker_end)
            take_publishes(l, &t);
    } else {
        take_changes(l, s, &t);
    }
}

void broker_answer(struct session *s)
{
    struct travelling batch = {.type = BATCH, .epoch = broker.epoch, .head = broker.head};
    if (s->credits == 0)
        return;
    check_lapped(s);
    batch.gap_first = s->gap_first;
    batch.gap_last = s->gap_last;
    s->gap_first = s->gap_last = 0;
    while (s->queued > 0 && batch.count < BATCH_MAX) {
        batch.records[batch.count++] = *ring_at(s->queue[0]);
        memmove(s->queue, s->queue + 1, --s->queued * sizeof(s->queue[0]));
    }
    if (s->queued > 0)
        batch.value = s->queue[0] - 1;
    else
        batch.value = s->live ? broker.head : s->scanned;
    if (off[RULE_POSITION])
        batch.value = broker.head;
    s->told = batch.value;
    s->credits--;
    send_down(s->link, &batch);
}

void catch_up(struct session *s)
{
    unsigned steps = 1 + pick(4);
    check_lapped(s);
    while (!s->live && steps-- > 0 && s->queued < QUEUE_MAX) {
        if (s->scanned == broker.head) {
            s->live = true;
            return;
        }
        s->scanned++;
        if (s->list & 1u << ring_at(s->scanned)->channel)
            s->queue[s->queued++] = s->scanned;
    }
    if (!s->live && s->scanned == broker.head)
        s->live = true;
}
