#include "base/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/err.h"

#define MIN_CAP   8
#define SLOT_SIZE (sizeof(void *) + sizeof(uint32_t))

/*
 * Invariants: at least a quarter of the slots is free; an entry sits at its home slot (hash & (cap
 * - 1)) or behind it with no free slot in between; no two entries have the same key.
 */

static const void *key_of(const struct map *m, const void *obj)
{
    return (const char *)obj + m->key_off;
}

static uint32_t hash_of(const struct map *m, const void *key)
{
    uint32_t h = (uint32_t)crypto_siphash(m->hash_key, key, m->key_len);
    return h != 0 ? h : 1;
}

/* Slot of the key, or the free slot where it would go. Needs cap > 0. */
static uint32_t find(const struct map *m, const void *key, uint32_t hash)
{
    uint32_t mask = m->cap - 1;
    uint32_t i = hash & mask;
    __builtin_prefetch(&m->objs[i]); /* elsewhere, and needed if it is here at all */
    while (m->hashes[i] != 0) {
        if (m->hashes[i] == hash && memcmp(key_of(m, m->objs[i]), key, m->key_len) == 0)
            break;
        i = (i + 1) & mask;
    }
    return i;
}

/* Move all entries to a table of another size. ERR_NOMEM leaves the old one. */
static int resize(struct map *m, uint32_t cap)
{
    void **objs = calloc(cap, SLOT_SIZE); /* both arrays in one piece */
    if (objs == NULL)
        return ERR_NOMEM;
    uint32_t *hashes = (uint32_t *)(objs + cap);
    for (uint32_t i = 0; i < m->cap; i++) {
        if (m->hashes[i] == 0)
            continue;
        uint32_t k = m->hashes[i] & (cap - 1);
        while (hashes[k] != 0)
            k = (k + 1) & (cap - 1);
        hashes[k] = m->hashes[i];
        objs[k] = m->objs[i];
    }
    free(m->objs);
    m->objs = objs;
    m->hashes = hashes;
    m->cap = cap;
    return 0;
}

static int make_room(struct map *m)
{
    if (m->len >= m->max) {
        m->refused++;
        return ERR_LIMIT;
    }
    if (m->len < m->cap / 4 * 3)
        return 0;
    return resize(m, m->cap > 0 ? m->cap * 2 : MIN_CAP);
}

static int insert(struct map *m, void *obj, uint32_t hash)
{
    int rc = make_room(m);
    if (rc != 0)
        return rc;
    uint32_t i = find(m, key_of(m, obj), hash);
    m->hashes[i] = hash;
    m->objs[i] = obj;
    m->len++;
    m->changes++;
    return 0;
}

/* Empty slot i and close the gap: each entry of the run behind it that may sit there without
 * passing its home moves up. */
static void erase(struct map *m, uint32_t i)
{
    uint32_t mask = m->cap - 1;
    for (uint32_t k = (i + 1) & mask; m->hashes[k] != 0; k = (k + 1) & mask) {
        uint32_t from_home = (k - m->hashes[k]) & mask, from_gap = (k - i) & mask;
        if (from_home >= from_gap) {
            m->hashes[i] = m->hashes[k];
            m->objs[i] = m->objs[k];
            i = k;
        }
    }
    m->hashes[i] = 0;
    m->objs[i] = NULL;
    m->len--;
    m->changes++;
}

void map_init(struct map *m, size_t key_len, size_t key_off, const uint8_t hash_key[16], size_t max)
{
    assert(key_len >= 1 && key_len <= MAP_KEY_MAX && key_off <= UINT16_MAX);
    *m = (struct map){
        .key_len = (uint16_t)key_len,
        .key_off = (uint16_t)key_off,
        .max = max > 0 && max < MAP_MAX ? (uint32_t)max : MAP_MAX,
    };
    memcpy(m->hash_key, hash_key, sizeof m->hash_key);
}

void map_free(struct map *m)
{
    free(m->objs);
    m->objs = NULL;
    m->hashes = NULL;
    m->cap = m->len = 0;
    m->changes++;
}

void *map_get(const struct map *m, const void *key)
{
    return m->len > 0 ? m->objs[find(m, key, hash_of(m, key))] : NULL;
}

int map_put(struct map *m, void *obj)
{
    const void *key = key_of(m, obj);
    uint32_t hash = hash_of(m, key);
    if (m->len > 0 && m->hashes[find(m, key, hash)] != 0)
        return ERR_EXISTS;
    return insert(m, obj, hash);
}

int map_replace(struct map *m, void *obj, void **old)
{
    const void *key = key_of(m, obj);
    uint32_t hash = hash_of(m, key);
    *old = NULL;
    if (m->len > 0) {
        uint32_t i = find(m, key, hash);
        if (m->hashes[i] != 0) {
            *old = m->objs[i];
            m->objs[i] = obj;
            m->changes++;
            return 0;
        }
    }
    return insert(m, obj, hash);
}

void *map_del(struct map *m, const void *key)
{
    if (m->len == 0)
        return NULL;
    uint32_t i = find(m, key, hash_of(m, key));
    void *obj = m->objs[i];
    if (obj == NULL)
        return NULL;
    erase(m, i);
    if (m->cap > MIN_CAP && m->len < m->cap / 8)
        (void)resize(m, m->cap / 2); /* if it cannot shrink it stays */
    return obj;
}

/*
 * Iteration goes downwards from a free slot. Deleting shifts entries only within their run, from
 * slots above the gap, which have been given out already, and no run crosses the free slot where it
 * began: so nothing is missed or given twice.
 */
struct map_iter map_iter(struct map *m)
{
    struct map_iter it = {.map = m, .left = m->len, .changes = m->changes};
    if (m->cap == 0)
        return it;
    while (m->hashes[it.at] != 0)
        it.at++;
    return it;
}

void *map_next(struct map_iter *it)
{
    const struct map *m = it->map;
    assert(it->changes == m->changes);
    if (it->left == 0)
        return NULL;
    it->left--;
    do {
        it->at = (it->at - 1) & (m->cap - 1);
    } while (m->hashes[it->at] == 0);
    return m->objs[it->at];
}

void map_iter_del(struct map_iter *it)
{
    assert(it->changes == it->map->changes && it->map->hashes[it->at] != 0);
    erase(it->map, it->at);
    it->changes = it->map->changes;
}
