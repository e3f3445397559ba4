#ifndef TESTS_MODEL_H
#define TESTS_MODEL_H

/* The world of the model (model.c): what is true, the links, the broker (model_broker.c) and the
 * processes (model_process.c). Everything is reset for each seed. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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

extern bool off[RULE_COUNT];
extern unsigned now; /* the step */

void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void violate(const char *format, ...) __attribute__((format(printf, 1, 2)));
unsigned pick(unsigned n);
bool chance(unsigned one_in);

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

extern struct truth messages[MESSAGES_MAX];
extern unsigned message_count;
extern struct subscription subscriptions[SUBSCRIPTIONS_MAX];
extern unsigned subscription_count;
extern bool epoch_changed, ring_is_large;

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

extern struct link links[LINKS_MAX];

void cut(struct link *l);
void free_link(struct link *l);
void send_up(struct link *l, const struct travelling *t);
void send_down(struct link *l, const struct travelling *t);
struct travelling take(struct travelling *queue, unsigned *count);

/* ---- the broker ---- */

struct session {
    bool used, live;
    unsigned generation, list; /* list: bits of channels */
    struct link *link;
    unsigned queue[QUEUE_MAX], queued;
    unsigned told, scanned, gap_first, gap_last, credits;
};

struct broker {
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
};

extern struct broker broker;

void new_journal(void);
void kill_broker(void);
void drop_session(struct session *s);
void broker_read(struct link *l);
void broker_answer(struct session *s);
void catch_up(struct session *s);

/* ---- processes ---- */

struct change {
    unsigned channel, serial;
    bool on, sent;
};

struct waiting { /* a publish without an answer */
    unsigned message, channel, sequence, first_head;
    bool sent; /* on some link, since the last ATTACH reply */
};

struct process {
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
};

extern struct process processes[PROCESSES];
extern unsigned origins_drawn;

void begin_process(struct process *p);
void leave_link(struct process *p);
void connect_process(struct process *p);
void subscribe(struct process *p, unsigned channel);
void unsubscribe(struct process *p, unsigned channel);
void publish(struct process *p, unsigned channel);
void kill_process(struct process *p);
void process_send(struct process *p);
void process_read(struct process *p);
void check_earlier(const struct subscription *s, unsigned epoch, unsigned before);

#endif
