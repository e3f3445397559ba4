/* A process: what it wants and publishes, its link, and the promises that what comes is held to. */
#include "model.h"

struct process processes[PROCESSES];
unsigned origins_drawn;

void begin_process(struct process *p)
{
    unsigned incarnation = p->incarnation + 1;
    *p = (struct process){.incarnation = incarnation, .origin = ++origins_drawn, .next = 1};
}

void leave_link(struct process *p)
{
    if (p->link) {
        /* What was not read is lost; what was sent may still arrive. */
        p->link->process_end = false;
        p->link->cut = true;
        p->link->down_count = 0;
        free_link(p->link);
    }
    p->link = NULL;
    p->state = APART;
    p->change_count = 0;
    p->credits = p->submits = 0;
}

void connect_process(struct process *p)
{
    struct link *l = NULL;
    for (unsigned i = 0; i < LINKS_MAX && !l; i++)
        l = links[i].used ? NULL : &links[i];
    if (!l)
        return;
    *l = (struct link){.used = true, .process_end = true, .broker_end = true};
    l->process = (unsigned)(p - processes);
    p->link = l;
    p->state = ATTACHING;
    struct travelling t = {.type = ATTACH,
                           .generation = ++p->generation + 1000 * p->incarnation,
                           .epoch = p->epoch,
                           .position = p->position,
                           .origin = p->origin,
                           .serial = p->serial};
    p->list_serial = p->serial;
    if (p->waiting_count > 0 && p->waiting[0].sent)
        t.unanswered = p->waiting[0].first_head + 1;
    for (unsigned c = 0; c < CHANNELS; c++) {
        if (p->keys[c].wanted)
            t.list |= 1u << c;
    }
    send_up(l, &t);
}

static void add_change(struct process *p, unsigned channel, bool on)
{
    if (p->state == APART)
        p->keys[channel].serial = 0;
    else if (p->change_count < CHANGES_MAX)
        p->changes[p->change_count++] =
            (struct change){.channel = channel, .serial = ++p->serial, .on = on};
    else
        leave_link(p);
    if (p->state != APART)
        p->keys[channel].serial = p->serial;
}

void subscribe(struct process *p, unsigned channel)
{
    if (p->keys[channel].wanted || subscription_count == SUBSCRIPTIONS_MAX)
        return;
    struct subscription *s = &subscriptions[subscription_count++];
    *s = (struct subscription){
        .process = (unsigned)(p - processes), .channel = channel, .called = now};
    p->keys[channel].wanted = s;
    p->keys[channel].labelled = false;
    trace("process %u subscribes %u", s->process, channel);
    add_change(p, channel, true);
}

void unsubscribe(struct process *p, unsigned channel)
{
    if (!p->keys[channel].wanted)
        return;
    trace("process %u unsubscribes %u", (unsigned)(p - processes), channel);
    p->keys[channel].wanted->over = true;
    p->keys[channel].wanted = NULL;
    add_change(p, channel, false);
}

void publish(struct process *p, unsigned channel)
{
    if (message_count == MESSAGES_MAX)
        return;
    messages[message_count] = (struct truth){.channel = channel,
                                             .publisher = (unsigned)(p - processes),
                                             .incarnation = p->incarnation,
                                             .called = now};
    p->waiting[p->waiting_count++] =
        (struct waiting){.message = message_count, .channel = channel, .sequence = p->next++};
    trace("process %u publishes message %u to %u", (unsigned)(p - processes), message_count,
          channel);
    message_count++;
}

void kill_process(struct process *p)
{
    trace("process %u killed", (unsigned)(p - processes));
    leave_link(p);
    for (unsigned c = 0; c < CHANNELS; c++) {
        if (p->keys[c].wanted)
            p->keys[c].wanted->over = true;
    }
    for (unsigned i = 0; i < p->waiting_count; i++)
        messages[p->waiting[i].message].unsure = true;
    begin_process(p);
}

/* What is ready goes up: one SUBMIT. */
void process_send(struct process *p)
{
    struct travelling t = {.type = CHANGE};
    for (unsigned i = 0; p->state == READY && i < p->change_count && t.count < SUBMIT_MAX; i++) {
        struct change *c = &p->changes[i];
        if (c->sent)
            continue;
        if (t.count == 0)
            t.serial = c->serial;
        t.records[t.count].channel = c->channel;
        t.on[t.count++] = c->on;
        c->sent = true;
    }
    if (t.count > 0)
        send_up(p->link, &t);
    if (p->state != READY)
        return;
    while (p->credits < CREDITS) {
        struct travelling fetch = {.type = FETCH};
        send_up(p->link, &fetch);
        p->credits++;
    }
    if (p->submits == WINDOW || p->cursor == p->waiting_count)
        return;
    t = (struct travelling){.type = PUBLISH};
    for (; p->cursor < p->waiting_count && t.count < SUBMIT_MAX; p->cursor++) {
        struct waiting *w = &p->waiting[p->cursor];
        t.records[t.count++] = (struct record){.origin = p->origin,
                                               .sequence = w->sequence,
                                               .channel = w->channel,
                                               .message = w->message};
        if (!w->sent)
            w->first_head = p->head;
        w->sent = true;
    }
    p->submits++;
    t.repeated = chance(20);
    send_up(p->link, &t);
}

static void drop_waiting(struct process *p, unsigned n, bool answered)
{
    for (unsigned i = 0; i < n; i++) {
        struct truth *m = &messages[p->waiting[i].message];
        if (!answered) {
            m->unsure = true;
            trace("message %u is unsure", p->waiting[i].message);
        } else if (m->accepted == 0) {
            violate("P4: message %u was answered and is not in the journal", p->waiting[i].message);
        }
        m->answered = answered;
    }
    p->waiting_count -= n;
    memmove(p->waiting, p->waiting + n, p->waiting_count * sizeof(p->waiting[0]));
    p->cursor = p->cursor > n ? p->cursor - n : 0;
}

static void answered(struct process *p, unsigned sequence)
{
    unsigned n = 0;
    while (n < p->waiting_count && p->waiting[n].sequence <= sequence)
        n++;
    drop_waiting(p, n, true);
}

static void confirm(struct process *p, unsigned channel, unsigned head)
{
    if (!p->keys[channel].wanted || p->keys[channel].labelled)
        return;
    p->keys[channel].labelled = true;
    p->keys[channel].label = head;
    p->keys[channel].wanted->confirmed = now;
}

static void handle_gap(struct process *p, unsigned first, unsigned last)
{
    trace("process %u: GAP %u..%u", (unsigned)(p - processes), first, last);
    if (ring_is_large && !epoch_changed)
        violate("P1: a GAP though the ring holds everything");
    for (unsigned c = 0; c < CHANNELS; c++) {
        struct subscription *s = p->keys[c].wanted;
        if (s && p->keys[c].labelled && p->keys[c].label < last && s->gap_count < GAPS_MAX)
            s->gaps[s->gap_count++] = (struct gap){.epoch = p->epoch, .first = first, .last = last};
    }
}

static void handle_attached(struct process *p, const struct travelling *t)
{
    bool other = t->new_epoch || t->epoch != p->epoch;
    unsigned sent = 0;
    while (sent < p->waiting_count && p->waiting[sent].sent)
        sent++;
    if ((other && !off[RULE_EPOCHS]) || t->is_unsure) {
        if (ring_is_large && sent > 0 && !epoch_changed && broker.forgotten == 0)
            violate("P4: UNSURE though the ring holds everything");
        drop_waiting(p, sent, false);
    } else {
        answered(p, other ? 0 : t->value);
        if (off[RULE_AGAIN]) {
            while (p->waiting_count > 0 && p->waiting[0].sent)
                drop_waiting(p, 1, true);
        }
    }
    for (unsigned i = 0; i < p->waiting_count; i++)
        p->waiting[i].sent = false;
    p->cursor = 0;
    if (other) {
        if (p->epoch != 0 && !off[RULE_EPOCH_GAP])
            handle_gap(p, p->position + 1, UINT32_MAX);
        p->epoch = t->epoch;
        p->position = t->head;
        for (unsigned c = 0; c < CHANNELS; c++)
            p->keys[c].labelled = p->keys[c].labelled && off[RULE_EPOCH_GAP];
    }
    p->head = t->head;
    for (unsigned c = 0; c < CHANNELS; c++) {
        if (p->keys[c].wanted && (off[RULE_LIST] || p->keys[c].serial <= p->list_serial))
            confirm(p, c, t->head);
    }
    p->state = READY;
}

static bool was_told(const struct subscription *s, const struct truth *m)
{
    for (unsigned i = 0; i < s->gap_count; i++) {
        const struct gap *g = &s->gaps[i];
        if (g->epoch == m->epoch && g->first <= m->id && m->id <= g->last)
            return true;
    }
    return false;
}

/* P1: published after the confirmation, so it must come, or a GAP before anything later does. */
void check_earlier(const struct subscription *s, unsigned epoch, unsigned before)
{
    for (unsigned i = 0; i < message_count; i++) {
        const struct truth *m = &messages[i];
        if (m->accepted == 0 || m->channel != s->channel || s->confirmed == 0 ||
            m->called <= s->confirmed || s->delivered[i])
            continue;
        if ((m->epoch < epoch || (m->epoch == epoch && m->id < before)) && !was_told(s, m))
            violate("P1: process %u misses message %u (id %u) without a GAP", s->process, i, m->id);
    }
}

static void deliver(struct process *p, const struct record *r)
{
    struct subscription *s = p->keys[r->channel].wanted;
    struct truth *m = &messages[r->message];
    if (!s)
        return;
    if (!off[RULE_LABELS] && (!p->keys[r->channel].labelled || r->id <= p->keys[r->channel].label))
        return;
    trace("process %u gets message %u (id %u)", s->process, r->message, r->id);
    if (s->delivered[r->message]++)
        violate("P1: process %u got message %u twice", s->process, r->message);
    if (m->accepted > 0 && m->accepted_at <= s->called)
        violate("P2: process %u got message %u, which is older than its subscription", s->process,
                r->message);
    if (s->last_epoch == p->epoch && r->id <= s->last_id)
        violate("P3: process %u got id %u after %u", s->process, r->id, s->last_id);
    if (m->accepted == 0 || m->id != r->id)
        violate("P3: process %u got id %u, which the journal does not have so", s->process, r->id);
    s->last_epoch = p->epoch;
    s->last_id = r->id;
    for (unsigned i = r->message + 1; i < message_count; i++) {
        if (s->delivered[i] && messages[i].publisher == m->publisher &&
            messages[i].incarnation == m->incarnation)
            violate("P3: process %u got message %u after %u of one publisher", s->process,
                    r->message, i);
    }
    check_earlier(s, p->epoch, r->id);
}

static void handle_batch(struct process *p, const struct travelling *t)
{
    p->credits -= p->credits > 0;
    if (t->gap_last != 0) {
        handle_gap(p, t->gap_first, t->gap_last);
        p->position = t->gap_last;
    }
    for (unsigned i = 0; i < t->count; i++) {
        deliver(p, &t->records[i]);
        p->position = t->records[i].id;
    }
    if (t->value > p->position)
        p->position = t->value;
}

static void handle_confirm(struct process *p, const struct travelling *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        unsigned c = t->records[i].channel;
        if (t->on[i] && (off[RULE_SERIALS] || p->keys[c].serial == t->serial + i))
            confirm(p, c, t->head);
    }
    while (p->change_count > 0 && p->changes[0].serial < t->serial + t->count)
        memmove(p->changes, p->changes + 1, --p->change_count * sizeof(p->changes[0]));
}

void process_read(struct process *p)
{
    struct link *l = p->link;
    if (l->down_count == 0) {
        if (l->cut)
            leave_link(p);
        return;
    }
    struct travelling t = take(l->down, &l->down_count);
    if (p->state == READY && t.head > p->head)
        p->head = t.head;
    switch (t.type) {
    case ATTACHED:
        handle_attached(p, &t);
        break;
    case ANSWER:
        p->submits -= p->submits > 0;
        answered(p, t.value);
        break;
    case CONFIRM:
        handle_confirm(p, &t);
        break;
    case BATCH:
        handle_batch(p, &t);
        break;
    default:
        leave_link(p); /* rule 5 */
    }
}
