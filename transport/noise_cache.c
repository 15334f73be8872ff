#include "transport/noise_cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "base/list.h"

#define NONE UINT16_MAX

struct entry {
    struct list_node lru; /* front = most recently used */
    uint16_t next;        /* of the hash chain; NONE = end */
    struct pubkey peer;
    uint8_t secret[32];
};

struct noise_cache {
    struct list lru;
    struct noise_cache_stats stats;
    uint8_t hash_key[16];
    size_t chains; /* power of two */
    uint16_t *heads;
    struct entry entries[];
};

struct noise_cache *noise_cache_new(size_t cap, const uint8_t hash_key[16])
{
    assert(cap > 0 && cap < NONE);
    struct noise_cache *c = calloc(1, sizeof *c + cap * sizeof c->entries[0]);
    if (c == NULL)
        return NULL;
    for (c->chains = 1; c->chains < cap;)
        c->chains *= 2;
    c->heads = malloc(c->chains * sizeof c->heads[0]);
    if (c->heads == NULL) {
        free(c);
        return NULL;
    }
    memset(c->heads, 0xff, c->chains * sizeof c->heads[0]); /* NONE */
    memcpy(c->hash_key, hash_key, sizeof c->hash_key);
    c->stats.cap = cap;
    list_init(&c->lru);
    return c;
}

void noise_cache_free(struct noise_cache *c)
{
    if (c == NULL)
        return;
    free(c->heads);
    sodium_memzero(c, sizeof *c + c->stats.cap * sizeof c->entries[0]);
    free(c);
}

static uint16_t *chain_of(struct noise_cache *c, const struct pubkey *peer)
{
    uint64_t hash = crypto_siphash(c->hash_key, peer->b, sizeof peer->b);
    return &c->heads[hash & (c->chains - 1)];
}

/* The link that leads to the peer's entry, or the chain's last link. */
static uint16_t *find(struct noise_cache *c, const struct pubkey *peer)
{
    uint16_t *link = chain_of(c, peer);

    while (*link != NONE && !pubkey_equal(&c->entries[*link].peer, peer))
        link = &c->entries[*link].next;
    return link;
}

static void touch(struct noise_cache *c, struct entry *e)
{
    list_remove(&e->lru);
    list_push_front(&c->lru, &e->lru);
}

bool noise_cache_get(struct noise_cache *c, const struct pubkey *peer, uint8_t out[32])
{
    uint16_t at = *find(c, peer);

    if (at == NONE) {
        c->stats.misses++;
        return false;
    }
    c->stats.hits++;
    touch(c, &c->entries[at]);
    memcpy(out, c->entries[at].secret, sizeof c->entries[at].secret);
    return true;
}

/* A free entry, if need be the one that was not used for longest. */
static struct entry *take(struct noise_cache *c)
{
    if (c->stats.used < c->stats.cap)
        return &c->entries[c->stats.used++];
    struct entry *e = container_of(c->lru.head.prev, struct entry, lru);
    *find(c, &e->peer) = e->next;
    c->stats.evicted++;
    return e;
}

void noise_cache_put(struct noise_cache *c, const struct pubkey *peer, const uint8_t secret[32])
{
    uint16_t at = *find(c, peer);
    struct entry *e = at != NONE ? &c->entries[at] : take(c);

    if (at == NONE) {
        uint16_t *head = chain_of(c, peer);
        e->peer = *peer;
        e->next = *head;
        *head = (uint16_t)(e - c->entries);
    }
    memcpy(e->secret, secret, sizeof e->secret);
    touch(c, e);
}

void noise_cache_stats(const struct noise_cache *c, struct noise_cache_stats *out)
{
    *out = c->stats;
}
