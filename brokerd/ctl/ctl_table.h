#ifndef BROKERCTL_CTL_TABLE_H
#define BROKERCTL_CTL_TABLE_H

/* The answer of a QUERY: lines of tab-separated fields, the first line names the columns. */
#include <stdbool.h>
#include <stddef.h>

/* Prints it for people: aligned columns, numbers to the right. */
void ctl_table_print(const char *text, size_t length);

/* Prints it for machines: an array with an object a row (numbers as numbers). pairs: rows are name
 * and value, printed as one object. */
void ctl_table_print_json(const char *text, size_t length, bool pairs);

#endif
