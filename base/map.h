/*
 * map - hash table from fixed-size byte keys to objects of the caller.
 *
 * The key is a member of the object: map_init() is told its size and offset, the table keeps only
 * the object's address and 32 bits of hash (12 bytes a slot, 16 to 34 bytes an entry at the loads
 * it runs at; nothing while it has never been used). An object must not move and its key must not
 * change while it is in the table. Keys are compared as plain bytes, so integer keys work and
 * padding inside a key does not.
 *
 * The hash is SipHash-2-4 under a key of the caller (env->hash_key), so that peers who choose keys
 * cannot choose collisions. Open addressing, linear probing, deletion by shifting back (no
 * tombstones). Grows at 3/4 full, shrinks below 1/8, each by one pass over the slots that needs no
 * hashing: 10^5 entries take well under a millisecond or two.
 *
 * Owner: one thread. The table owns neither objects nor keys: map_free() frees the slots only.
 * Limits: `max` entries as given (0 = 2^30); then ERR_LIMIT, and map.refused counts it. Key 1 … 64
 * bytes. Errors: ERR_NOMEM, ERR_LIMIT, ERR_EXISTS from map_put()/map_replace(), which then changed
 * nothing. Lookup and deletion cannot fail.
 *
 * Iteration has NO meaningful order: it depends on the hash key, the history and the size of the
 * table. Whatever can be observed outside (answers, logs, simulated events) must be sorted first.
 * While iterating, the table may be changed by map_iter_del() only (assert).
 *
 *     struct map m;
 *     map_init(&m, MAP_KEY(struct session, remote), env->hash_key, max_sessions);
 *     rc = map_put(&m, s);
 *     s = map_get(&m, &pk);
 *     for (struct map_iter it = map_iter(&m); (s = map_next(&it)) != NULL;)
 *         ...
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MAP_KEY_MAX 64
#define MAP_MAX     (UINT32_C(1) << 30)

/* Size and offset of the key member, as two arguments for map_init(). */
#define MAP_KEY(type, member) sizeof(((type *)NULL)->member), offsetof(type, member)

struct map {
    void **objs;
    uint32_t *hashes; /* 0 = free slot */
    uint32_t cap;     /* 0 or a power of two */
    uint32_t len, max;
    uint32_t changes; /* for the check of iterators */
    uint16_t key_len, key_off;
    uint8_t hash_key[16];
    uint64_t refused; /* counter: map_put() and map_replace() that met the limit */
};

struct map_iter {
    struct map *map;
    uint32_t at, left, changes;
};

/* An empty table; allocates nothing. key_len 1 … 64, key_off up to 65535. max = 0 means MAP_MAX. */
void map_init(struct map *m, size_t key_len, size_t key_off, const uint8_t hash_key[16],
              size_t max);

/* Free the slots; the objects are the caller's. The map is empty and usable afterwards. */
void map_free(struct map *m);

/* The object with this key (key_len bytes), or NULL. */
void *map_get(const struct map *m, const void *key);

/* Add an object. 0, ERR_EXISTS (its key is taken, maybe by the same object), ERR_LIMIT, ERR_NOMEM.
 */
int map_put(struct map *m, void *obj) __attribute__((warn_unused_result));

/* Add an object, or take the place of the one with the same key. *old = that one or NULL. 0;
 * ERR_LIMIT, ERR_NOMEM when adding. */
int map_replace(struct map *m, void *obj, void **old) __attribute__((warn_unused_result));

/* Take out the object with this key; returns it, or NULL when there is none. */
void *map_del(struct map *m, const void *key);

static inline size_t map_len(const struct map *m)
{
    return m->len;
}

/* Bytes of memory the slots take: a gauge. */
static inline size_t map_bytes(const struct map *m)
{
    return (size_t)m->cap * (sizeof(void *) + sizeof(uint32_t));
}

/* Iterator that gives every object once, in no meaningful order. */
struct map_iter map_iter(struct map *m);

/* The next object, or NULL at the end. */
void *map_next(struct map_iter *it);

/* Take out the object that map_next() gave last. At most once for each. */
void map_iter_del(struct map_iter *it);
