#include "simulator/hist.h"

/* Numbers below 2^(SUB+1) have a slot each. */
#define SUB 4

static unsigned slot_of(uint64_t v)
{
    if (v < 2u << SUB)
        return (unsigned)v;
    unsigned top = 63u - (unsigned)__builtin_clzll(v);
    return ((top - SUB) << SUB) + (unsigned)(v >> (top - SUB));
}

_Static_assert(HIST_SLOTS == ((63 - SUB) << SUB) + (2 << SUB), "slot_of(UINT64_MAX) + 1");

uint64_t hist_slot_end(unsigned slot)
{
    if (slot < 2u << SUB)
        return slot;
    unsigned shift = (slot >> SUB) - 1;
    uint64_t lead = (slot & ((1u << SUB) - 1)) | 1u << SUB;
    return (lead << shift) + ((UINT64_C(1) << shift) - 1);
}

void hist_add(struct hist *h, uint64_t v)
{
    h->count[slot_of(v)]++;
    h->n++;
    h->sum += v;
    if (v > h->max)
        h->max = v;
}

void hist_merge(struct hist *into, const struct hist *h)
{
    for (unsigned i = 0; i < HIST_SLOTS; i++)
        into->count[i] += h->count[i];
    into->n += h->n;
    into->sum += h->sum;
    if (h->max > into->max)
        into->max = h->max;
}

uint64_t hist_percentile(const struct hist *h, unsigned per_10000)
{
    uint64_t want = (h->n * per_10000 + 9999) / 10000, seen = 0;

    for (unsigned i = 0; i < HIST_SLOTS && h->n > 0; i++) {
        seen += h->count[i];
        if (seen >= want && seen > 0)
            return hist_slot_end(i) < h->max ? hist_slot_end(i) : h->max;
    }
    return h->max;
}

uint64_t hist_mean_milli(const struct hist *h)
{
    return h->n > 0 ? (uint64_t)((unsigned __int128)h->sum * 1000 / h->n) : 0;
}
