#ifndef WS_LOAD_HISTOGRAM_H
#define WS_LOAD_HISTOGRAM_H

/*
 * A histogram of durations with bounded relative error: values below 128 ns exactly, above in steps
 * of 1/64 of their power of two (error at most 1.6 %). Fixed size, no allocation, one thread.
 */
#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 6,
    HISTOGRAM_BUCKETS = (65 - HISTOGRAM_SUB_BITS) << HISTOGRAM_SUB_BITS
};

struct histogram {
    uint64_t count, max, sum;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *h);

/* One value, in ns. */
void histogram_add(struct histogram *h, uint64_t ns);

/* The value in microseconds that a share of p (0 to 1) of all values does not exceed; 0 when empty.
 */
double histogram_percentile(const struct histogram *h, double p);

#endif
