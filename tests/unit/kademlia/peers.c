#include "tests/unit/kademlia/peers.h"

#include "tests/unit/vectors.h"

static kad_peer add(struct peers *p, const struct pubkey *pk, const struct kad_id *id)
{
    for (size_t i = 0; i < p->n; i++) {
        if (pubkey_equal(&p->list[i].pk, pk))
            return (kad_peer)i;
    }
    p->list = realloc(p->list, (p->n + 1) * sizeof p->list[0]);
    assert_non_null(p->list);
    p->list[p->n] = (struct peers_one){.pk = *pk, .id = *id};
    return (kad_peer)p->n++;
}

kad_peer peers_add(struct peers *p, const struct pubkey *pk)
{
    struct kad_id id = kad_id_of(pk);
    return add(p, pk, &id);
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
    return &p->list[peer];
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

void peers_init(struct peers *p)
{
    *p = (struct peers){.ops = {.arg = p,
                                .intern = op_intern,
                                .ref = op_ref,
                                .unref = op_unref,
                                .pk = op_pk,
                                .id = op_id}};
}

size_t peers_refs(const struct peers *p)
{
    size_t refs = 0;
    for (size_t i = 0; i < p->n; i++)
        refs += p->list[i].refs;
    return refs;
}

void peers_close(struct peers *p)
{
    assert_int_equal(peers_refs(p), 0);
    free(p->list);
    p->list = NULL;
    p->n = 0;
}
