#ifndef WS_LOAD_PROCESS_H
#define WS_LOAD_PROCESS_H

/*
 * What the server's processes use: CPU time and memory, read from the kernel. A tree is the
 * processes named and all their descendants, looked up anew at each reading (a server may fork
 * meanwhile).
 */
#include <stdint.h>
#include <sys/types.h>

enum { PROCESS_ROOTS_MAX = 16 };

struct process_tree {
    pid_t root[PROCESS_ROOTS_MAX];
    unsigned count;
};

/* Reads "123,456"; false when that is no list of pids. */
_Bool process_tree_parse(struct process_tree *tree, const char *text);

/* CPU time in ns that the tree's living processes have used, ended threads included; exact to the
 * scheduler's accounting, not to a tick. */
uint64_t process_tree_cpu(const struct process_tree *tree);

/* Proportional set size in KiB (shared pages count by share), and the sum of peak resident sizes.
 */
uint64_t process_tree_pss(const struct process_tree *tree);
uint64_t process_tree_peak(const struct process_tree *tree);

/* CPU time in ns of this program. */
uint64_t process_own_cpu(void);

#endif
