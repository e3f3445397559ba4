#ifndef WS_CHECK_SELF_TEST_H
#define WS_CHECK_SELF_TEST_H

#include <stdbool.h>

/* Plays every fault into the ledger, and prints for each whether it was counted as what it is. */
bool self_test(void);

#endif
