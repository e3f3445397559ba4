#include "self_test.h"
#include "ledger.h"
#include <stdio.h>
#include <string.h>

/* What two clients of one process and one of another receive: publisher and sequence, a digit each.
 */
struct scene {
    const char *name, *received[3];
    uint64_t missing, twice, late, foreign;
    bool diverged, order;
};

static const struct scene scenes[] = {
    {"all is well", {"01 11 02 12", "01 11 02 12", "01 11 02 12"}, .order = true},
    {"one client misses one",
     {"01 11 02 12", "01 02 12", "01 11 02 12"},
     .missing = 1,
     .diverged = true,
     .order = true},
    {"a process misses one", {"01 02 11", "01 02 11", "01 11"}, .order = true},
    {"a process misses one in between",
     {"01 03 11", "01 03 11", "01 02 03 11"},
     .missing = 2,
     .order = true},
    {"one comes twice",
     {"01 11 02", "01 11 11 02", "01 11 02"},
     .twice = 1,
     .diverged = true,
     .order = false},
    {"one comes late", {"01 03 02", "01 03 02", "01 02 03"}, .late = 2, .order = false},
    {"one client has another order",
     {"01 11 02", "11 01 02", "01 11 02"},
     .diverged = true,
     .order = true},
    {"two processes have two orders",
     {"01 11 02 12", "01 11 02 12", "01 02 11 12"},
     .order = false},
    {"marks do not count", {"f1 01 f2", "01 f1", "01"}, .order = true},
    {"one was published by nobody", {"01 91 02", "01 02", "01 02"}, .foreign = 1, .order = true}};

static void receive(struct ledger *ledger, struct receipt *receipt, const char *words)
{
    for (; *words != '\0'; words += words[2] == ' ' ? 3 : 2) {
        uint8_t text[MESSAGE_LENGTH];
        memset(text, '0', sizeof(text));
        text[0] = (uint8_t)words[0];
        text[MESSAGE_LENGTH - 1] = (uint8_t)words[1];
        ledger_take(ledger, receipt, text, sizeof(text));
    }
}

static bool plays_as_told(const struct scene *scene)
{
    struct ledger ledger = {0};
    struct receipt receipts[3] = {{.group = 0}, {.group = 0}, {.group = 1}};
    struct scene got = {.order = true};
    for (int i = 0; i < 3; i++) {
        receive(&ledger, &receipts[i], scene->received[i]);
        got.missing += receipts[i].missing;
        got.twice += receipts[i].twice;
        got.late += receipts[i].late;
        got.diverged |= receipts[i].diverged;
        receipt_release(&receipts[i]);
    }
    got.foreign = ledger.foreign;
    got.order = ledger_has_total_order(&ledger);
    ledger_release(&ledger);
    bool right = got.missing == scene->missing && got.twice == scene->twice &&
                 got.late == scene->late && got.foreign == scene->foreign &&
                 got.diverged == scene->diverged && got.order == scene->order;
    printf("%s  %s\n", right ? "right" : "WRONG", scene->name);
    return right;
}

bool self_test(void)
{
    bool right = true;
    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++)
        right &= plays_as_told(&scenes[i]);
    return right;
}
