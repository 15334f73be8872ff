#include "kademlia/peers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/map.h"

#define SLAB 256u /* entries allocated together; entries never move */

struct entry {
    struct pubkey pk;
    struct kad_id id;
    uint32_t refs; /* 0 = free */
    uint32_t self; /* handle; when free: the next free one */
    enum kad_dialect dialect;
    uint64_t dialect_ns; /* when that was learnt */
    uint32_t group;      /* of the relays it is behind */
    bool said;           /* these are those of its entry */
};

/* Which relays a number stands for: only to show them. */
struct group {
    uint32_t number;
    uint8_t n;
    struct pubkey relays[PEERS_RELAYS];
};

struct peers {
    struct map by_pk, groups;
    uint8_t hash_key[16];
    struct entry **slabs;
    uint32_t n_slabs, free_head, max;
};

static struct entry *at(const struct peers *t, kad_peer p)
{
    assert(p / SLAB < t->n_slabs);
    return &t->slabs[p / SLAB][p % SLAB];
}

static bool grow(struct peers *t)
{
    struct entry *slab = calloc(SLAB, sizeof(*slab));
    struct entry **slabs = realloc(t->slabs, (t->n_slabs + 1) * sizeof(struct entry *));
    if (slabs != NULL)
        t->slabs = slabs;
    if (slab == NULL || slabs == NULL) {
        free(slab);
        return false;
    }
    t->slabs[t->n_slabs] = slab;
    for (uint32_t i = SLAB; i-- > 0;) {
        slab[i].self = t->free_head;
        t->free_head = t->n_slabs * SLAB + i;
    }
    t->n_slabs++;
    return true;
}

static kad_peer intern(void *arg, const struct pubkey *pk)
{
    struct peers *t = arg;
    struct entry *e = map_get(&t->by_pk, pk);
    if (e != NULL) {
        e->refs++;
        return e->self;
    }
    if (map_len(&t->by_pk) < t->max && t->free_head == KAD_PEER_NONE && !grow(t))
        return KAD_PEER_NONE;
    if (t->free_head == KAD_PEER_NONE)
        return KAD_PEER_NONE;
    kad_peer p = t->free_head;
    e = at(t, p);
    e->pk = *pk;
    if (map_put(&t->by_pk, e) < 0) /* counts the refusal when it is for the limit */
        return KAD_PEER_NONE;
    t->free_head = e->self;
    e->self = p;
    e->id = kad_id_of(pk);
    e->refs = 1;
    e->dialect = KAD_DIALECT_UNKNOWN;
    e->group = KAD_GROUP_NONE;
    e->said = false;
    return p;
}

static void ref(void *arg, kad_peer p)
{
    struct entry *e = at(arg, p);
    assert(e->refs > 0);
    e->refs++;
}

static void unref(void *arg, kad_peer p)
{
    struct peers *t = arg;
    struct entry *e = at(t, p);
    assert(e->refs > 0);
    if (--e->refs > 0)
        return;
    map_del(&t->by_pk, &e->pk);
    e->self = t->free_head;
    t->free_head = p;
}

static const struct pubkey *pk_of(void *arg, kad_peer p)
{
    return &at(arg, p)->pk;
}

static const struct kad_id *id_of(void *arg, kad_peer p)
{
    return &at(arg, p)->id;
}

static enum kad_dialect dialect_of(void *arg, kad_peer p)
{
    return at(arg, p)->dialect;
}

/* What others say counts only where nothing is known. */
static void hint(void *arg, kad_peer p, enum kad_dialect said)
{
    struct entry *e = at(arg, p);
    if (e->dialect == KAD_DIALECT_UNKNOWN)
        e->dialect = said;
}

enum kad_dialect peers_dialect(const struct peers *t, kad_peer p, uint64_t now_ns)
{
    struct entry *e = at(t, p);
    if (e->dialect == KAD_DIALECT_JSON && now_ns - e->dialect_ns >= PEERS_JSON_NS)
        e->dialect = KAD_DIALECT_UNKNOWN;
    return e->dialect;
}

void peers_set_dialect(struct peers *t, kad_peer p, enum kad_dialect d, uint64_t now_ns)
{
    struct entry *e = at(t, p);
    e->dialect = d;
    e->dialect_ns = now_ns;
}

/* ---- relays ---- */

static uint32_t group_of(void *arg, kad_peer p)
{
    return at(arg, p)->group;
}

static int compare_keys(const void *a, const void *b)
{
    return pubkey_cmp(a, b);
}

static void remember(struct peers *t, const struct group *g)
{
    struct group *mine = map_get(&t->groups, &g->number) == NULL ? malloc(sizeof *mine) : NULL;

    if (mine == NULL)
        return;
    *mine = *g;
    if (map_put(&t->groups, mine) != 0)
        free(mine); /* too many: it has a number, and no face */
}

/* The number is the same for the same set in any order, also after it was forgotten, and nobody outside can
 * make another set that has it. */
void peers_set_relays(struct peers *t, kad_peer p, const struct pubkey *relays, size_t n, bool said)
{
    struct entry *e = at(t, p);
    struct group g = {.n = (uint8_t)(n < PEERS_RELAYS ? n : PEERS_RELAYS)};

    if (n == 0 || (e->said && !said))
        return;
    memcpy(g.relays, relays, g.n * sizeof *relays);
    qsort(g.relays, g.n, sizeof g.relays[0], compare_keys);
    g.number = (uint32_t)crypto_siphash(t->hash_key, g.relays, g.n * sizeof g.relays[0]) | 1;
    e->group = g.number;
    e->said = said;
    remember(t, &g);
}

size_t peers_relays(const struct peers *t, uint32_t group, struct pubkey out[PEERS_RELAYS])
{
    const struct group *g = map_get(&t->groups, &group);

    if (g == NULL)
        return 0;
    memcpy(out, g->relays, g->n * sizeof out[0]);
    return g->n;
}

struct peers *peers_new(const uint8_t hash_key[16], uint32_t max)
{
    struct peers *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    map_init(&t->by_pk, MAP_KEY(struct entry, pk), hash_key, max);
    map_init(&t->groups, MAP_KEY(struct group, number), hash_key, KAD_MAX_GROUPS);
    memcpy(t->hash_key, hash_key, sizeof t->hash_key);
    t->free_head = KAD_PEER_NONE;
    t->max = max;
    return t;
}

void peers_free(struct peers *t)
{
    struct group *g;

    if (t == NULL)
        return;
    map_free(&t->by_pk);
    for (struct map_iter it = map_iter(&t->groups); (g = map_next(&it)) != NULL;) {
        map_iter_del(&it);
        free(g);
    }
    map_free(&t->groups);
    for (uint32_t i = 0; i < t->n_slabs; i++)
        free(t->slabs[i]);
    free(t->slabs);
    free(t);
}

struct kad_peers peers_ops(struct peers *t)
{
    struct kad_peers ops = {.arg = t,
                            .intern = intern,
                            .ref = ref,
                            .unref = unref,
                            .pk = pk_of,
                            .id = id_of,
                            .dialect = dialect_of,
                            .hint = hint,
                            .group = group_of};
    return ops;
}

size_t peers_len(const struct peers *t)
{
    return map_len(&t->by_pk);
}

uint64_t peers_refused(const struct peers *t)
{
    return t->by_pk.refused;
}
