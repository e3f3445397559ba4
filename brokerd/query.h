#ifndef BROKERD_QUERY_H
#define BROKERD_QUERY_H

/*
 * What QUERY and /metrics tell of the broker's state, as one list of named numbers.
 */
#include <stdbool.h>
#include <stdint.h>

struct server;

typedef void (*query_number_fn)(const char *name, const char *help, bool is_counter, uint64_t value,
                                void *context);

/* Calls back for each counter and gauge. */
void query_each_number(const struct server *server, query_number_fn callback, void *context);

#endif
