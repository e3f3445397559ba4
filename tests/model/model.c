/*
 * A randomised model of delivery: processes, links and a broker that follow the rules of
 * docs/guarantees.md, with a scheduler that may cut a link after any prefix, leave it half open,
 * stop or kill anybody between any two steps, and rings of a few records. It checks the promises P1
 * to P5.
 *
 *   model                     some seconds: no violation with all rules, and each rule, switched
 * off, is missed within a few thousand seeds model --seeds N [--start S]   N seeds with all rules
 *   model --off RULE --seeds N    the same with one rule off; prints how many seeds violate what
 *   model --seed S [--off RULE]   one seed, with a trace
 *
 * Simplifications: one origin and one session per process, ATTACH in one part, no engines, no
 * SIMPLE clients, no torn bytes (a message arrives whole or not at all).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PROCESSES = 3,
    CHANNELS = 3,
    MESSAGES_MAX = 400,
    RING_MAX = 512,
    LINKS_MAX = 16,
    TRAVEL_MAX = 64, /* messages in one direction of a link */
    QUEUE_MAX = 3,   /* of a session */
    BATCH_MAX = 2,
    SUBMIT_MAX = 3,
    CREDITS = 2,
    WINDOW = 4, /* SUBMITs outstanding */
    CHANGES_MAX = 64,
    ORIGINS_MAX = 3, /* less than there are origins: some are forgotten */
    SUBSCRIPTIONS_MAX = 400,
    GAPS_MAX = 200,
    STEPS = 1500
};

#define RULES(X)                                                                                   \
    X(DUPLICATES, "duplicates", "rule 5: what is known is only answered")                          \
    X(LABELS, "labels", "rule 10: nothing at or below the label is delivered")                     \
    X(SERIALS, "serials", "rule 10: a reply never confirms what was made anew")                    \
    X(GAPS, "gaps", "rule 12, 13: what the ring lost is told")                                     \
    X(EPOCHS, "epochs", "rule 7: what was sent is not sent again in another epoch")                \
    X(EPOCH_GAP, "epoch-gap", "rule 12: another epoch is told as GAP")                             \
    X(UNSURE, "unsure", "rule 8: an origin that may have been forgotten is UNSURE")                \
    X(FENCING, "fencing", "rule 17: nothing of an older link is processed")                        \
    X(HEAD_FIRST, "head-first", "rule 2: nothing leaves the broker before head covers it")         \
    X(TAIL_FIRST, "tail-first", "rule 2: the tail moves before anything is overwritten")           \
    X(POSITION, "position", "rule 11: the position is what the batch reached, not the head")       \
    X(CATCH_UP, "catch-up", "rule 13: a full queue leads to catch-up")                             \
    X(AGAIN, "again", "rule 7: what was not answered is sent again")                               \
    X(LIST, "list", "rule 9, 10: an ATTACH reply confirms what its list had, nothing newer")

enum rule {
#define RULE_ENUM(name, word, text) RULE_##name,
    RULES(RULE_ENUM) RULE_COUNT
};
static const char *const rule_words[] = {
#define RULE_WORD(name, word, text) word,
    RULES(RULE_WORD)};
static const char *const rule_texts[] = {
#define RULE_TEXT(name, word, text) text,
    RULES(RULE_TEXT)};

static bool off[RULE_COUNT];
static bool tracing;
static uint64_t random_state;
static jmp_buf violated;
static char violation[200];
static unsigned now; /* the step */

static void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void trace(const char *format, ...)
{
    va_list arguments;
    if (!tracing)
        return;
    printf("%5u  ", now);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static _Noreturn void violate(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void violate(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(violation, sizeof(violation), format, arguments);
    va_end(arguments);
    trace("VIOLATION %s", violation);
    longjmp(violated, 1);
}

static unsigned pick(unsigned n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 20) % n);
}

static bool chance(unsigned one_in)
{
    return pick(one_in) == 0;
}

/* ---- the truth, which the actors do not see ---- */

struct truth { /* one publish */
    unsigned channel, publisher, incarnation, called;
    unsigned accepted; /* how often */
    unsigned accepted_at;
    unsigned epoch, id;
    bool answered, unsure;
};

struct gap {
    unsigned epoch, first, last;
};

struct subscription { /* one from subscribe to unsubscribe, of one process */
    unsigned process, channel, called, confirmed; /* confirmed: 0 not yet */
    bool over;
    uint8_t delivered[MESSAGES_MAX];
    unsigned gap_count;
    struct gap gaps[GAPS_MAX];
    unsigned last_epoch, last_id;
};

static struct truth messages[MESSAGES_MAX];
static unsigned message_count;
static struct subscription subscriptions[SUBSCRIPTIONS_MAX];
static unsigned subscription_count;
static bool epoch_changed, ring_is_large;

/* ---- links ---- */

struct record {
    unsigned id, origin, sequence, channel, message;
};

struct travelling {
    enum { ATTACH, PUBLISH, CHANGE, FETCH, ATTACHED, ANSWER, CONFIRM, BATCH, REFUSED } type;
    unsigned generation, epoch, position, origin, unanswered, list; /* ATTACH */
    unsigned count, serial;                                         /* CHANGE: of the first */
    struct record records[SUBMIT_MAX];
    bool on[SUBMIT_MAX];
    bool repeated; /* came twice, one behind the other, as libnng's req0 does it by itself */
    bool new_epoch, is_unsure;
    unsigned head, value, gap_first, gap_last; /* replies */
};

struct link {
    bool used, process_end, broker_end; /* which ends are open */
    unsigned process;
    struct travelling up[TRAVEL_MAX], down[TRAVEL_MAX];
    unsigned up_count, down_count;
    bool cut; /* nothing is added any more; what is there arrives, then the end */
};

static struct link links[LINKS_MAX];

static void cut(struct link *l)
{
    if (l->cut)
        return;
    l->cut = true;
    l->up_count = pick(l->up_count + 1);
    l->down_count = pick(l->down_count + 1);
}

static void free_link(struct link *l)
{
    if (!l->process_end && !l->broker_end)
        l->used = false;
}

static void send_up(struct link *l, const struct travelling *t)
{
    if (!l->cut && l->up_count < TRAVEL_MAX)
        l->up[l->up_count++] = *t;
}

static void send_down(struct link *l, const struct travelling *t)
{
    if (!l->cut && l->down_count == TRAVEL_MAX)
        cut(l);
    else if (!l->cut)
        l->down[l->down_count++] = *t;
}

static struct travelling take(struct travelling *queue, unsigned *count)
{
    struct travelling t = queue[0];
    memmove(queue, queue + 1, --*count * sizeof(*queue));
    return t;
}

/* ---- the broker ---- */

struct session {
    bool used, live;
    unsigned generation, list; /* list: bits of channels */
    struct link *link;
    unsigned queue[QUEUE_MAX], queued;
    unsigned told, scanned, gap_first, gap_last, credits;
};

static struct {
    /* The file. */
    unsigned epoch, head, tail, size; /* ids; the ring holds tail..head */
    struct record ring[RING_MAX];
    bool damaged;
    /* The memory. */
    struct session sessions[PROCESSES];
    struct {
        unsigned origin, sequence, id;
    } origins[ORIGINS_MAX];
    unsigned origin_count, forgotten;
} broker;

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

static void new_journal(void)
{
    broker.epoch++;
    broker.head = 0;
    broker.tail = 1;
    broker.damaged = false;
    epoch_changed = broker.epoch > 1;
}

/* SIGKILL and a new start: the file is what is left. */
static void kill_broker(void)
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

static void drop_session(struct session *s)
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

static void broker_read(struct link *l)
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

static void broker_answer(struct session *s)
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

static void catch_up(struct session *s)
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

/* ---- processes ---- */

struct change {
    unsigned channel, serial;
    bool on, sent;
};

struct waiting { /* a publish without an answer */
    unsigned message, channel, sequence, first_head;
    bool sent; /* on some link, since the last ATTACH reply */
};

static struct process {
    unsigned incarnation, origin, generation, epoch, position, head, serial;
    unsigned next; /* sequence of the next publish */
    struct link *link;
    enum { APART, ATTACHING, READY } state;
    unsigned list_serial, credits, submits;
    struct {
        struct subscription *wanted; /* NULL: not subscribed */
        bool labelled;
        unsigned label, serial;
    } keys[CHANNELS];
    struct change changes[CHANGES_MAX];
    unsigned change_count;
    struct waiting waiting[MESSAGES_MAX];
    unsigned waiting_count, cursor;
    unsigned stopped; /* until this step */
} processes[PROCESSES];

static unsigned origins_drawn;

static void begin_process(struct process *p)
{
    unsigned incarnation = p->incarnation + 1;
    *p = (struct process){.incarnation = incarnation, .origin = ++origins_drawn, .next = 1};
}

static void leave_link(struct process *p)
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

static void connect_process(struct process *p)
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

static void subscribe(struct process *p, unsigned channel)
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

static void unsubscribe(struct process *p, unsigned channel)
{
    if (!p->keys[channel].wanted)
        return;
    trace("process %u unsubscribes %u", (unsigned)(p - processes), channel);
    p->keys[channel].wanted->over = true;
    p->keys[channel].wanted = NULL;
    add_change(p, channel, false);
}

static void publish(struct process *p, unsigned channel)
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

static void kill_process(struct process *p)
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
static void process_send(struct process *p)
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
static void check_earlier(const struct subscription *s, unsigned epoch, unsigned before)
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

static void process_read(struct process *p)
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

/* ---- the scheduler ---- */

static void step_process(struct process *p, bool calm)
{
    if (p->stopped > now && !calm)
        return;
    if (!calm) {
        unsigned what = pick(40), channel = pick(CHANNELS);
        if (what < 3)
            subscribe(p, channel);
        else if (what < 5)
            unsubscribe(p, channel);
        else if (what < 11)
            publish(p, channel);
    }
    if (!p->link && (calm || chance(3)))
        connect_process(p);
    for (unsigned n = 1 + pick(2); n > 0 && p->link; n--)
        process_read(p);
    if (p->link && (calm || chance(2)))
        process_send(p);
}

static void step_broker(bool calm)
{
    struct link *l = &links[pick(LINKS_MAX)];
    for (unsigned i = 0; i < (calm ? LINKS_MAX : 1u); i++) {
        if (calm)
            l = &links[i];
        if (!l->used || !l->broker_end)
            continue;
        if (l->up_count > 0) {
            broker_read(l);
        } else if (l->cut) {
            struct session *s = &broker.sessions[l->process];
            if (s->used && s->link == l)
                drop_session(s);
            l->broker_end = false;
            free_link(l);
        }
    }
    struct session *s = &broker.sessions[pick(PROCESSES)];
    if (s->used && !s->live)
        catch_up(s);
    if (s->used && (s->queued > 0 || s->gap_last != 0 || chance(8)))
        broker_answer(s);
}

static void fault(void)
{
    if (chance(25))
        cut(&links[pick(LINKS_MAX)]);
    if (chance(30) && processes[pick(PROCESSES)].link) {
        /* The process gives up a link that the broker believes in: half open. */
        leave_link(&processes[pick(PROCESSES)]);
    }
    if (chance(90))
        kill_broker();
    if (chance(250))
        kill_process(&processes[pick(PROCESSES)]);
    if (chance(60))
        processes[pick(PROCESSES)].stopped = now + pick(150);
}

static bool is_idle(void)
{
    for (unsigned i = 0; i < PROCESSES; i++) {
        struct process *p = &processes[i];
        if (p->state != READY || p->waiting_count > 0 || p->change_count > 0 ||
            p->position != broker.head)
            return false;
    }
    return true;
}

static void check_end(void)
{
    for (unsigned i = 0; i < subscription_count; i++) {
        if (!subscriptions[i].over)
            check_earlier(&subscriptions[i], UINT32_MAX, 0);
    }
    for (unsigned i = 0; i < message_count; i++) {
        if (messages[i].accepted == 0 && !messages[i].unsure)
            violate("P4: message %u was neither taken nor called unsure", i);
    }
}

static void simulate(uint64_t seed)
{
    random_state = seed * 0x9e3779b97f4a7c15u | 1;
    for (int i = 0; i < 20; i++)
        pick(2);
    memset(links, 0, sizeof(links));
    memset(&broker, 0, sizeof(broker));
    memset(processes, 0, sizeof(processes));
    message_count = subscription_count = origins_drawn = 0;
    ring_is_large = seed % 4 == 0;
    broker.size = ring_is_large ? RING_MAX : 3 + pick(12);
    epoch_changed = false;
    new_journal();
    for (unsigned i = 0; i < PROCESSES; i++)
        begin_process(&processes[i]);
    for (now = 1; now < STEPS; now++) {
        step_process(&processes[pick(PROCESSES)], false);
        step_broker(false);
        fault();
    }
    for (; !is_idle(); now++) {
        if (now > STEPS + 20000)
            violate("P1: it does not come to rest");
        step_process(&processes[now % PROCESSES], true);
        step_broker(true);
    }
    check_end();
}

/* true: no violation. */
static bool run(uint64_t seed)
{
    if (setjmp(violated))
        return false;
    simulate(seed);
    return true;
}

/* How many of the seeds violate something; at most `enough` are counted. */
static unsigned run_many(uint64_t start, uint64_t seeds, unsigned enough, bool print)
{
    unsigned count = 0;
    for (uint64_t seed = start; seed < start + seeds && count < enough; seed++) {
        if (run(seed))
            continue;
        if (print && count < 10)
            printf("seed %llu: %s\n", (unsigned long long)seed, violation);
        count++;
    }
    return count;
}

static int short_run(void)
{
    enum { SEEDS = 30000, EACH = 20000 };
    int result = 0;
    unsigned bad = run_many(1, SEEDS, 10, true);
    printf("all rules: %u of %d seeds violate a promise\n", bad, SEEDS);
    if (bad > 0)
        result = 1;
    for (unsigned rule = 0; rule < RULE_COUNT; rule++) {
        off[rule] = true;
        unsigned found = run_many(1, EACH, 1, false);
        off[rule] = false;
        printf("without %-10s %s%s (%s)\n", rule_words[rule], found ? "" : "NOT MISSED; ",
               found ? violation : "no seed violates anything", rule_texts[rule]);
        if (!found)
            result = 1;
    }
    return result;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 0, start = 1, one = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seeds") == 0)
            seeds = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--start") == 0)
            start = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            one = strtoull(argv[i + 1], NULL, 10);
        for (unsigned r = 0; strcmp(argv[i], "--off") == 0 && r < RULE_COUNT; r++)
            off[r] = off[r] || strcmp(argv[i + 1], rule_words[r]) == 0;
    }
    if (one) {
        tracing = true;
        return run(one) ? 0 : 1;
    }
    if (!seeds)
        return short_run();
    unsigned bad = run_many(start, seeds, UINT32_MAX, true);
    printf("%u of %llu seeds violate a promise\n", bad, (unsigned long long)seeds);
    return bad > 0;
}
