#include "ctl_table.h"
#include "json.h"
#include <stdio.h>
#include <string.h>

enum { COLUMNS_MAX = 32, EXACT_DIGITS = 15 };

struct field {
    const char *text;
    size_t length;
};

/* Splits off the next line; false at the end. */
static bool next_line(const char **text, size_t *length, struct field *line)
{
    if (*length == 0)
        return false;
    const char *end = memchr(*text, '\n', *length);
    size_t size = end ? (size_t)(end - *text) : *length;
    *line = (struct field){*text, size};
    size_t used = end ? size + 1 : size;
    *text += used;
    *length -= used;
    return true;
}

static size_t split(struct field line, struct field fields[COLUMNS_MAX])
{
    size_t count = 0;
    while (count < COLUMNS_MAX) {
        const char *tab = memchr(line.text, '\t', line.length);
        size_t size = tab ? (size_t)(tab - line.text) : line.length;
        fields[count++] = (struct field){line.text, size};
        if (!tab)
            break;
        line = (struct field){tab + 1, line.length - size - 1};
    }
    return count;
}

static bool is_number(struct field f)
{
    for (size_t i = 0; i < f.length; i++)
        if (f.text[i] < '0' || f.text[i] > '9')
            return false;
    return f.length > 0 && (f.text[0] != '0' || f.length == 1);
}

static size_t characters(struct field f)
{
    size_t count = 0;
    for (size_t i = 0; i < f.length; i++)
        count += ((unsigned char)f.text[i] & 0xc0) != 0x80;
    return count;
}

static void print_row(const struct field *fields, size_t count, const size_t *widths)
{
    for (size_t i = 0; i < count; i++) {
        int gap = (int)(widths[i] - characters(fields[i]));
        bool right = is_number(fields[i]);
        bool last = i + 1 == count;
        printf("%*s%.*s", right ? gap : 0, "", (int)fields[i].length, fields[i].text);
        printf("%*s", (right || last ? 0 : gap) + (last ? 0 : 2), "");
    }
    putchar('\n');
}

void ctl_table_print(const char *text, size_t length)
{
    size_t widths[COLUMNS_MAX] = {0};
    struct field line, fields[COLUMNS_MAX];
    const char *again = text;
    size_t left = length;
    while (next_line(&again, &left, &line)) {
        size_t count = split(line, fields);
        for (size_t i = 0; i < count; i++)
            if (characters(fields[i]) > widths[i])
                widths[i] = characters(fields[i]);
    }
    while (next_line(&text, &length, &line)) {
        size_t count = split(line, fields);
        print_row(fields, count, widths);
    }
}

static void print_value(struct field f)
{
    /* Longer numbers, such as an epoch, are more than a JSON reader's double can hold. */
    if (is_number(f) && f.length <= EXACT_DIGITS)
        printf("%.*s", (int)f.length, f.text);
    else
        json_string(stdout, f.text, f.length);
}

void ctl_table_print_json(const char *text, size_t length, bool pairs)
{
    struct field line, names[COLUMNS_MAX], fields[COLUMNS_MAX];
    if (!next_line(&text, &length, &line))
        return;
    size_t columns = split(line, names);
    bool first = true;
    putchar(pairs ? '{' : '[');
    while (next_line(&text, &length, &line)) {
        size_t count = split(line, fields);
        fputs(first ? "\n  " : ",\n  ", stdout);
        first = false;
        if (pairs && count == 2) {
            json_string(stdout, fields[0].text, fields[0].length);
            fputs(": ", stdout);
            print_value(fields[1]);
            continue;
        }
        putchar('{');
        for (size_t i = 0; i < count && i < columns; i++) {
            fputs(i ? ", " : "", stdout);
            json_string(stdout, names[i].text, names[i].length);
            fputs(": ", stdout);
            print_value(fields[i]);
        }
        putchar('}');
    }
    fputs(first ? "" : "\n", stdout);
    puts(pairs ? "}" : "]");
}
