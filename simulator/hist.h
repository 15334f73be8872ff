/*
 * hist - counts of numbers by size: exact below 32, then 16 steps for each power of two (an error of
 * at most 1/16 in a percentile). Integers only; adding up histograms is the same in any order.
 *
 * A plain value of 7.7 KiB; zeroed is empty. One thread.
 *
 *     hist_add(&h, took_us);
 *     p99 = hist_percentile(&h, 9900);
 */
#pragma once

#include <stdint.h>

#define HIST_SLOTS 976

struct hist {
    uint64_t n, sum, max;
    uint64_t count[HIST_SLOTS];
};

void hist_add(struct hist *h, uint64_t v);
void hist_merge(struct hist *into, const struct hist *h);

/* Largest number that slot (below HIST_SLOTS) counts. */
uint64_t hist_slot_end(unsigned slot);

/* Smallest number that at least this share (in 1/10 000) does not exceed, rounded up to the end of
 * its step, at most the largest one; 0 when empty. */
uint64_t hist_percentile(const struct hist *h, unsigned per_10000);

/* Mean in thousandths; 0 when empty. */
uint64_t hist_mean_milli(const struct hist *h);
