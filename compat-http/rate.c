#include "compat-http/rate.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_1000S UINT64_C(1000000000000)

struct bucket {
    uint8_t key[RATE_KEY];
    struct list_node node;
    uint64_t full_ns; /* when it will be full again */
};

static uint64_t cost(const struct rate *r)
{
    return NS_PER_1000S / r->per_1000s;
}

static void drop(struct rate *r, struct bucket *b)
{
    (void)map_del(&r->keys, b->key);
    list_remove(&b->node);
    free(b);
}

/* Those that were used longest ago and are full again. */
static void forget(struct rate *r, uint64_t now_ns)
{
    struct bucket *b;
    for (int i = 0; i < 4; i++) {
        b = list_first_as(&r->order, struct bucket, node);
        if (b == NULL || b->full_ns > now_ns)
            return;
        drop(r, b);
    }
}

static struct bucket *bucket_of(struct rate *r, const uint8_t key[RATE_KEY], uint64_t now_ns)
{
    struct bucket *b = map_get(&r->keys, key);
    if (b != NULL)
        return b;
    forget(r, now_ns);
    if ((b = calloc(1, sizeof(*b))) == NULL)
        return NULL;
    memcpy(b->key, key, RATE_KEY);
    b->full_ns = now_ns;
    if (map_put(&r->keys, b) < 0) {
        free(b);
        return NULL;
    }
    list_push_back(&r->order, &b->node);
    return b;
}

bool rate_take(struct rate *r, const void *key, size_t n, uint64_t now_ns)
{
    uint8_t whole[RATE_KEY] = {0};
    assert(n <= RATE_KEY);
    memcpy(whole, key, n);
    struct bucket *b = bucket_of(r, whole, now_ns);
    if (b == NULL) {
        r->no_room++;
        return false;
    }
    uint64_t full = (b->full_ns > now_ns ? b->full_ns : now_ns) + cost(r);
    if (full > now_ns + r->burst * cost(r)) {
        r->refused++;
        return false;
    }
    b->full_ns = full;
    list_remove(&b->node);
    list_push_back(&r->order, &b->node);
    return true;
}

void rate_init(struct rate *r, uint64_t per_1000s, unsigned burst, size_t max,
               const uint8_t hash_key[16])
{
    memset(r, 0, sizeof(*r));
    r->per_1000s = per_1000s;
    r->burst = burst;
    list_init(&r->order);
    map_init(&r->keys, MAP_KEY(struct bucket, key), hash_key, max);
}

void rate_free(struct rate *r)
{
    struct bucket *b;
    while ((b = list_first_as(&r->order, struct bucket, node)) != NULL)
        drop(r, b);
    map_free(&r->keys);
}
