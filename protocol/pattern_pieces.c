#include "glob_element.h"
#include "pattern_bucket.h"
#include <stdlib.h>

/* Is the class a byte in disguise, such as [a]? */
static bool class_is_literal(const uint8_t *text, size_t length, uint8_t *byte)
{
    if (length == 3 && text[1] != '^') {
        *byte = text[1];
        return true;
    }
    if (length == 4 && text[1] == '\\') {
        *byte = text[2];
        return true;
    }
    return false;
}

/* The next element: its length, and whether it is a literal byte. */
static size_t next_element(const uint8_t *text, size_t length, bool *literal, uint8_t *byte)
{
    size_t size = 1;

    *literal = true;
    *byte = *text;
    switch (*text) {
    case '*':
    case '?':
        *literal = false;
        break;
    case '[':
        size = glob_class_length(text, length);
        *literal = class_is_literal(text, size, byte);
        break;
    case '\\':
        if (length > 1) {
            size = 2;
            *byte = text[1];
        }
        break;
    default:
        break;
    }
    return size;
}

static void shape_of(struct pieces *pieces, const uint8_t *text, size_t length)
{
    const uint8_t *first = length > 0 ? memchr(text, '*', length) : NULL;
    size_t stars = 0;

    pieces->shape = SHAPE_EXACT;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '?' || text[i] == '[' || text[i] == '\\') {
            pieces->shape = first != NULL ? SHAPE_GENERAL : SHAPE_FIXED;
            return;
        }
        stars += text[i] == '*';
    }
    if (stars == 0)
        return;
    pieces->shape = SHAPE_STAR;
    for (size_t i = 0; i < stars; i++)
        if (first[i] != '*')
            pieces->shape = SHAPE_STARS;
}

static void end_run(struct pieces *pieces, struct run *run, bool is_first)
{
    if (is_first) {
        pieces->prefix = *run;
    } else if (run->length > 0) {
        pieces->runs[pieces->run_count++] = *run;
        if (run->length > pieces->longest)
            pieces->longest = run->length;
    }
    run->start = (uint16_t)(run->start + run->length);
    run->length = 0;
}

void pieces_parse(struct pieces *pieces, const uint8_t *text, size_t length)
{
    struct run run = {0, 0};
    bool is_first = true, literal;
    uint8_t byte;

    pieces->run_count = pieces->longest = 0;
    pieces->least = 0;
    pieces->prefix = pieces->suffix = run;
    for (size_t at = 0; at < length;) {
        pieces->least = (uint16_t)(pieces->least + (text[at] != '*'));
        at += next_element(text + at, length - at, &literal, &byte);
        if (literal) {
            pieces->bytes[run.start + run.length++] = byte;
        } else {
            end_run(pieces, &run, is_first);
            is_first = false;
        }
    }
    if (is_first)
        pieces->prefix = run; /* no element that is not literal: one piece, the whole */
    else
        pieces->suffix = run;
    shape_of(pieces, text, length);
}

static uint16_t tally_place(const struct tally *tally, uint16_t id)
{
    uint16_t low = 0, high = tally->used;

    while (low < high) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        if (tally->entries[middle].id < id)
            low = (uint16_t)(middle + 1);
        else
            high = middle;
    }
    return low;
}

bool tally_add(struct tally *tally, uint16_t id, uint64_t mark, size_t *bytes)
{
    uint16_t at = tally_place(tally, id);

    if (at < tally->used && tally->entries[at].id == id) {
        tally->entries[at].count++;
        tally->entries[at].marks |= mark;
        return true;
    }
    if (tally->used == tally->room) {
        uint16_t room = (uint16_t)(tally->room == 0 ? 2 : 2 * tally->room);
        struct tally_entry *entries = realloc(tally->entries, room * sizeof(*entries));
        if (entries == NULL)
            return false;
        *bytes += (size_t)(room - tally->room) * sizeof(*entries);
        tally->entries = entries;
        tally->room = room;
    }
    memmove(&tally->entries[at + 1], &tally->entries[at],
            (size_t)(tally->used - at) * sizeof(*tally->entries));
    tally->entries[at] = (struct tally_entry){mark, 1, id};
    tally->used++;
    return true;
}

bool tally_remove(struct tally *tally, uint16_t id, size_t *bytes)
{
    uint16_t at = tally_place(tally, id);

    if (--tally->entries[at].count > 0)
        return false;
    tally->used--;
    memmove(&tally->entries[at], &tally->entries[at + 1],
            (size_t)(tally->used - at) * sizeof(*tally->entries));
    if (tally->used == 0) {
        free(tally->entries);
        *bytes -= tally->room * sizeof(*tally->entries);
        *tally = (struct tally){0};
    }
    return true;
}
