#ifndef WS_LOAD_FAULT_SERVER_H
#define WS_LOAD_FAULT_SERVER_H

/*
 * A small WebSocket and SSE server that makes mistakes on purpose and counts them, for the load
 * program's test of itself. Every message that arrives at /pub goes to all connections of /sub. Its
 * own code, from the frame up, so that it and the load program do not share an error.
 */
#include <stdint.h>
#include <sys/types.h>

/* Each n-th delivery is treated so (0: none), from the FAULTLESS-th message on. */
struct fault_plan {
    unsigned drop, duplicate, swap, invent;
    unsigned close_at; /* after so many messages one client is closed */
    unsigned pause_at; /* at this message the server does nothing for 300 ms */
};

enum { FAULTLESS = 200, FAULT_CLIENTS_MAX = 60, FAULT_PAUSE_MS = 300 };

/* What it did, in memory that both processes see. */
struct fault_counts {
    _Atomic uint64_t dropped, duplicated, swapped, invented, closed;
};

/* Forks the server; *port is where it listens. The caller kills and reaps the pid. */
pid_t fault_server_start(const struct fault_plan *plan, struct fault_counts *counts,
                         uint16_t *port);

#endif
