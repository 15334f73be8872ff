/*
 * noise_cache - bounded memory of static-static secrets, one ECDH less per stream.
 *
 * In KK both ends compute ECDH(own static, peer's static), the same value for every stream between
 * two keys. A cache holds the most recently used ones of one own key; when it is full the least
 * recently used one goes. Entries are made only when the handshake message that used the secret was
 * authentic, so a stranger's garbage does not push out anybody.
 *
 * Owner: whoever owns the static key; one thread. Secrets are wiped when they leave and by
 * noise_cache_free(). Memory: about 90 bytes an entry, allocated once.
 *
 *     struct noise_cache *c = noise_cache_new(256, env->hash_key);
 *     cfg.cache = c;                                     // struct noise_cfg of every KK handshake
 * with this key noise_cache_free(c);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/crypto.h"

struct noise_cache;

struct noise_cache_stats {
    uint64_t hits, misses, evicted;
    size_t used, cap; /* gauge and limit, in entries */
};

/* cap: 1 … 65534 entries; hash_key: of the env, against crowded hash chains. NULL when out of
 * memory. */
struct noise_cache *noise_cache_new(size_t cap, const uint8_t hash_key[16]);

/* NULL is allowed. */
void noise_cache_free(struct noise_cache *c);

/* Copy the secret shared with this peer to out and make it the most recently used; false when it is
 * not there. */
bool noise_cache_get(struct noise_cache *c, const struct pubkey *peer, uint8_t out[32]);

/* Remember it; the least recently used entry goes when the cache is full. */
void noise_cache_put(struct noise_cache *c, const struct pubkey *peer, const uint8_t secret[32]);

void noise_cache_stats(const struct noise_cache *c, struct noise_cache_stats *out);
