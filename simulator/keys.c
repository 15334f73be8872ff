/*
 * Handles are the numbers of nodes. A stand-in key is 02, the number, and random bytes: finding the
 * node of a key is one comparison. Real keys are found through a table that is read-only while the
 * network runs.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/err.h"
#include "simulator/world.h"

static void random32(uint8_t out[32], const struct sim *s, uint32_t node)
{
    for (uint32_t i = 0; i < 4; i++)
        put_be64(out + 8 * i, node_trait(s, node, TRAIT_KEY + i));
}

struct seckey keys_secret(const struct sim *s, uint32_t node)
{
    struct seckey sk = {0};

    random32(sk.b, s, node);
    return sk;
}

void keys_make(struct sim *s, uint32_t node)
{
    struct sim_key *k = &s->keys[node];
    uint8_t draw[32];

    random32(draw, s, node);
    if (s->cfg.signatures == SIM_SIG_REAL) {
        struct seckey sk;
        if (crypto_keypair(&sk, &k->pk, draw) != 0)
            abort(); /* one in 2^128 */
    } else {
        k->pk.b[0] = 2;
        put_be32(k->pk.b + 1, node);
        memcpy(k->pk.b + 5, draw, sizeof k->pk.b - 5);
    }
    k->id = kad_id_of(&k->pk);
}

static uint32_t slot_of(const struct sim *s, const struct pubkey *pk)
{
    return (uint32_t)get_be64(pk->b + 1) & s->key_mask;
}

int keys_init(struct sim *s)
{
    s->keys = calloc(s->cfg.nodes, sizeof *s->keys);
    return s->keys != NULL ? 0 : ERR_NOMEM;
}

int keys_index(struct sim *s)
{
    uint32_t cap = 64;

    if (s->cfg.signatures != SIM_SIG_REAL)
        return 0;
    while (cap < 2 * s->cfg.nodes)
        cap *= 2;
    s->key_index = calloc(cap, sizeof *s->key_index);
    if (s->key_index == NULL)
        return ERR_NOMEM;
    s->key_mask = cap - 1;
    for (uint32_t i = 0; i < s->cfg.nodes; i++) {
        uint32_t at = slot_of(s, &s->keys[i].pk);
        while (s->key_index[at] != 0)
            at = (at + 1) & s->key_mask;
        s->key_index[at] = i + 1;
    }
    return 0;
}

void keys_soon(const struct sim *s, const struct pubkey *pks, size_t n)
{
    for (size_t i = 0; s->key_index == NULL && i < n; i++) {
        uint32_t node = get_be32(pks[i].b + 1);
        if (node < s->cfg.nodes) {
            __builtin_prefetch(&s->keys[node].id);
            __builtin_prefetch(&s->keys[node].pk);
        }
    }
}

static uint32_t find_real(const struct sim *s, const struct pubkey *pk)
{
    uint32_t at = slot_of(s, pk);

    for (; s->key_index[at] != 0; at = (at + 1) & s->key_mask) {
        if (pubkey_equal(&s->keys[s->key_index[at] - 1].pk, pk))
            return s->key_index[at] - 1;
    }
    return KAD_PEER_NONE;
}

/* A key that no node has cannot be reached: as if the host's table had no room for it. */
static kad_peer intern(void *arg, const struct pubkey *pk)
{
    const struct sim *s = arg;

    if (s->key_index != NULL)
        return find_real(s, pk);
    uint32_t i = get_be32(pk->b + 1);
    return i < s->cfg.nodes && pubkey_equal(&s->keys[i].pk, pk) ? i : KAD_PEER_NONE;
}

static void no_count(void *arg, kad_peer p)
{
    (void)arg;
    (void)p;
}

static const struct pubkey *pk_of(void *arg, kad_peer p)
{
    return &((const struct sim *)arg)->keys[p].pk;
}

static const struct kad_id *id_of(void *arg, kad_peer p)
{
    return &((const struct sim *)arg)->keys[p].id;
}

bool keys_is_native(const struct sim *s, uint32_t node)
{
    return s->cfg.native_ppm > 0 &&
           draw_share(node_trait(s, node, TRAIT_NATIVE), s->cfg.native_ppm);
}

/* Whoever speaks JSON only is not asked for more by anybody. */
static enum kad_dialect dialect_of(void *arg, kad_peer p)
{
    return keys_is_native(arg, p) ? KAD_DIALECT_NATIVE : KAD_DIALECT_JSON;
}

static uint32_t group_of(void *arg, kad_peer p)
{
    return wire_group(arg, p);
}

struct kad_peers keys_peers(struct sim_shard *sh)
{
    struct kad_peers ops = {.arg = sh->sim,
                            .intern = intern,
                            .ref = no_count,
                            .unref = no_count,
                            .pk = pk_of,
                            .id = id_of,
                            .dialect = dialect_of,
                            .group = sh->sim->cfg.relays.count > 0 ? group_of : NULL};

    return ops;
}
