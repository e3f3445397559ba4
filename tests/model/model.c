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
#include "model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct truth messages[MESSAGES_MAX];
unsigned message_count;
struct subscription subscriptions[SUBSCRIPTIONS_MAX];
unsigned subscription_count;
bool epoch_changed, ring_is_large;

static const char *const rule_words[] = {
#define RULE_WORD(name, word, text) word,
    RULES(RULE_WORD)};
static const char *const rule_texts[] = {
#define RULE_TEXT(name, word, text) text,
    RULES(RULE_TEXT)};

bool off[RULE_COUNT];
static bool tracing;
static uint64_t random_state;
static jmp_buf violated;
static char violation[200];
unsigned now; /* the step */

void trace(const char *format, ...)
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

_Noreturn void violate(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(violation, sizeof(violation), format, arguments);
    va_end(arguments);
    trace("VIOLATION %s", violation);
    longjmp(violated, 1);
}

unsigned pick(unsigned n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 20) % n);
}

bool chance(unsigned one_in)
{
    return pick(one_in) == 0;
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
