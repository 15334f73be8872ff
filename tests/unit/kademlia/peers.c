#include "tests/unit/kademlia/peers.h"

#include "base/cursor.h"
#include "tests/unit/vectors.h"

static uint32_t *slot_of(const struct peers *p, const struct pubkey *pk)
{
    size_t at = (size_t)get_be64(pk->b + 1) & (p->index_cap - 1);

    while (p->index[at] != 0 && !pubkey_equal(&p->list[p->index[at] - 1]->pk, pk))
        at = (at + 1) & (p->index_cap - 1);
    return &p->index[at];
}

static void grow(struct peers *p)
{
    p->cap = p->cap > 0 ? 2 * p->cap : 64;
    p->list = realloc(p->list, p->cap * sizeof p->list[0]);
    assert_non_null(p->list);
    free(p->index);
    p->index_cap = 2 * p->cap;
    p->index = calloc(p->index_cap, sizeof *p->index);
    assert_non_null(p->index);
    for (size_t i = 0; i < p->n; i++)
        *slot_of(p, &p->list[i]->pk) = (uint32_t)i + 1;
}

static kad_peer add(struct peers *p, const struct pubkey *pk, const struct kad_id *id)
{
    if (p->n == p->cap)
        grow(p);
    uint32_t *slot = slot_of(p, pk);
    if (*slot == 0) {
        struct peers_one *added = p->list[p->n] = malloc(sizeof *added);
        assert_non_null(added);
        *added = (struct peers_one){.pk = *pk, .id = id != NULL ? *id : kad_id_of(pk)};
        *slot = (uint32_t)++p->n;
    }
    return (kad_peer)(*slot - 1);
}

kad_peer peers_add(struct peers *p, const struct pubkey *pk)
{
    return add(p, pk, NULL);
}

kad_peer peers_add_id(struct peers *p, const struct kad_id *id)
{
    struct pubkey pk = {{0}};

    pk.b[0] = 2;
    memcpy(pk.b + 1, id->b, sizeof id->b);
    return add(p, &pk, id);
}

static struct peers_one *one(void *arg, kad_peer peer)
{
    struct peers *p = arg;

    assert_true(peer < p->n);
    return p->list[peer];
}

static kad_peer op_intern(void *arg, const struct pubkey *pk)
{
    kad_peer peer = peers_add(arg, pk);
    one(arg, peer)->refs++;
    return peer;
}

static void op_ref(void *arg, kad_peer peer)
{
    one(arg, peer)->refs++;
}

static void op_unref(void *arg, kad_peer peer)
{
    assert_true(one(arg, peer)->refs > 0);
    one(arg, peer)->refs--;
}

static const struct pubkey *op_pk(void *arg, kad_peer peer)
{
    return &one(arg, peer)->pk;
}

static const struct kad_id *op_id(void *arg, kad_peer peer)
{
    return &one(arg, peer)->id;
}

static uint32_t op_group(void *arg, kad_peer peer)
{
    return one(arg, peer)->group;
}

void peers_set_group(struct peers *p, kad_peer peer, uint32_t group)
{
    one(p, peer)->group = group;
}

void peers_init(struct peers *p)
{
    *p = (struct peers){.ops = {.arg = p,
                                .intern = op_intern,
                                .ref = op_ref,
                                .unref = op_unref,
                                .pk = op_pk,
                                .id = op_id,
                                .group = op_group}};
}

size_t peers_refs(const struct peers *p)
{
    size_t refs = 0;
    for (size_t i = 0; i < p->n; i++)
        refs += p->list[i]->refs;
    return refs;
}

void peers_close(struct peers *p)
{
    assert_int_equal(peers_refs(p), 0);
    for (size_t i = 0; i < p->n; i++)
        free(p->list[i]);
    free(p->list);
    free(p->index);
    memset(p, 0, sizeof *p);
}
