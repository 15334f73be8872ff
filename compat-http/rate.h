/*
 * rate - token buckets by key: so many a second, with bursts.
 *
 * Keys are up to RATE_KEY bytes (a public key, an address as text). A bucket that is full again is forgotten, at the latest when the table of max keys is full; a new key that
 * finds no place then is refused (counted). One thread; the caller gives the time.
 *
 *     rate_init(&r, 100 * 1000, 200, 65536, env->hash_key);   // 100 a second, 200 at once
 *     if (!rate_take(&r, &pk, sizeof(pk), now_ns))
 *         …429…
 */
#pragma once

#include <stdbool.h>

#include "base/list.h"
#include "base/map.h"

#define RATE_KEY 48

struct rate {
    struct map keys;
    struct list order; /* used last at the end */
    uint64_t per_1000s, burst;
    uint64_t refused, no_room;
};

/* per_1000s: tokens in a thousand seconds. */
void rate_init(struct rate *r, uint64_t per_1000s, unsigned burst, size_t max,
               const uint8_t hash_key[16]);
void rate_free(struct rate *r);
/* n <= RATE_KEY */
bool rate_take(struct rate *r, const void *key, size_t n, uint64_t now_ns);
