/*
 * prop - seeded random numbers for property tests.
 *
 * A property test makes one struct prop at its start. The seed comes from the environment variable
 * KADMSG_SEED, or is drawn afresh, and is printed at once, so that a failing run can be repeated.
 * Not for anything secret.
 *
 *     struct prop r = prop_init("map against a model");
 *     if (prop_below(&r, 3) == 0) ...
 */
#pragma once

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

struct prop {
    uint64_t state;
};

static inline struct prop prop_init(const char *what)
{
    struct prop r = {0};
    const char *text = getenv("KADMSG_SEED");
    if (text != NULL)
        r.state = strtoull(text, NULL, 0);
    else if (getrandom(&r.state, sizeof r.state, 0) != (ssize_t)sizeof r.state)
        abort();
    printf("%s: KADMSG_SEED=%" PRIu64 "\n", what, r.state);
    fflush(stdout);
    return r;
}

/* splitmix64: every seed, also 0, is a good one. */
static inline uint64_t prop_u64(struct prop *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* In [0, bound), bound > 0; the bias of the remainder does not matter here. */
static inline size_t prop_below(struct prop *r, size_t bound)
{
    return (size_t)(prop_u64(r) % bound);
}

static inline bool prop_chance(struct prop *r, unsigned percent)
{
    return prop_below(r, 100) < percent;
}

static inline void prop_bytes(struct prop *r, void *out, size_t n)
{
    uint8_t *p = out;
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)prop_u64(r);
}

/* A length in [0, max] that is often small and often near a power of two. */
static inline size_t prop_size(struct prop *r, size_t max)
{
    size_t n = (size_t)1 << prop_below(r, 20);
    n += prop_below(r, 5);
    n = n > 2 ? n - 2 : 0;
    if (prop_chance(r, 40))
        n = prop_below(r, n + 1);
    return n <= max ? n : prop_below(r, max + 1);
}
