#include "kademlia/peers.h"

#include "tests/unit/prop.h"
#include "tests/unit/vectors.h"

static const uint8_t hash_key[16] = "peers, any key!";

static struct pubkey key(uint32_t i)
{
    struct pubkey pk = {{2}};
    memcpy(pk.b + 1, &i, sizeof i);
    return pk;
}

static void test_references(void **state)
{
    struct peers *t = peers_new(hash_key, 10);
    struct kad_peers p = peers_ops(t);
    struct pubkey a = key(1), b = key(2);
    (void)state;
    kad_peer pa = p.intern(p.arg, &a), pb = p.intern(p.arg, &b);
    assert_true(pa != pb && pa != KAD_PEER_NONE && pb != KAD_PEER_NONE);
    assert_int_equal(p.intern(p.arg, &a), pa); /* two references */
    assert_true(pubkey_equal(p.pk(p.arg, pa), &a));
    struct kad_id id = kad_id_of(&b);
    assert_memory_equal(p.id(p.arg, pb), &id, sizeof id);
    p.unref(p.arg, pa);
    assert_int_equal(peers_len(t), 2);
    p.ref(p.arg, pa);
    p.unref(p.arg, pa);
    p.unref(p.arg, pa);
    assert_int_equal(peers_len(t), 1);
    p.unref(p.arg, pb);
    assert_int_equal(peers_len(t), 0);
    peers_free(t);
    peers_free(NULL);
}

static void test_limit(void **state)
{
    struct peers *t = peers_new(hash_key, 3);
    struct kad_peers p = peers_ops(t);
    kad_peer got[3];
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        struct pubkey pk = key(i);
        got[i] = p.intern(p.arg, &pk);
        assert_true(got[i] != KAD_PEER_NONE);
    }
    struct pubkey more = key(3), known = key(1);
    assert_int_equal(p.intern(p.arg, &more), KAD_PEER_NONE);
    assert_int_equal(peers_refused(t), 1);
    assert_int_equal(p.intern(p.arg, &known), got[1]); /* a known one needs no room */
    p.unref(p.arg, got[0]);
    assert_int_equal(p.intern(p.arg, &more), got[0]); /* the number is used again */
    peers_free(t);
}

/* Beyond one slab, entries stay where they are. */
static void test_entries_do_not_move(void **state)
{
    struct peers *t = peers_new(hash_key, 5000);
    struct kad_peers p = peers_ops(t);
    (void)state;
    struct pubkey first = key(0);
    kad_peer pf = p.intern(p.arg, &first);
    const struct pubkey *where = p.pk(p.arg, pf);
    for (uint32_t i = 1; i < 5000; i++) {
        struct pubkey pk = key(i);
        assert_true(p.intern(p.arg, &pk) != KAD_PEER_NONE);
    }
    assert_ptr_equal(p.pk(p.arg, pf), where);
    assert_int_equal(peers_len(t), 5000);
    peers_free(t);
}

static void test_against_a_model(void **state)
{
    enum { KEYS = 400 };
    struct prop r = prop_init("peers against counters");
    struct peers *t = peers_new(hash_key, 300);
    struct kad_peers p = peers_ops(t);
    static unsigned refs[KEYS];
    static kad_peer handle[KEYS];
    size_t held = 0;
    (void)state;
    memset(refs, 0, sizeof refs);
    for (int step = 0; step < 50000; step++) {
        uint32_t i = (uint32_t)prop_below(&r, KEYS);
        struct pubkey pk = key(i);
        if (refs[i] > 0 && prop_chance(&r, 55)) {
            p.unref(p.arg, handle[i]);
            held -= --refs[i] == 0;
        } else {
            kad_peer got = p.intern(p.arg, &pk);
            assert_true((got == KAD_PEER_NONE) == (refs[i] == 0 && held == 300));
            if (got == KAD_PEER_NONE)
                continue;
            assert_true(refs[i] == 0 || got == handle[i]);
            handle[i] = got;
            held += refs[i]++ == 0;
        }
        assert_int_equal(peers_len(t), held);
        for (uint32_t k = 0; k < 3; k++) {
            uint32_t any = (uint32_t)prop_below(&r, KEYS);
            struct pubkey want = key(any);
            if (refs[any] > 0)
                assert_true(pubkey_equal(p.pk(p.arg, handle[any]), &want));
        }
    }
    peers_free(t);
}

/* The number of a set of relays: the same in any order and after everybody was forgotten, another one for
 * another set; what an entry says is not replaced by what was only seen. */
static void test_relays(void **state)
{
    struct peers *t = peers_new(hash_key, 100);
    struct kad_peers p = peers_ops(t);
    struct pubkey keys[8], out[PEERS_RELAYS];

    (void)state;
    for (uint32_t i = 0; i < 8; i++)
        keys[i] = key(i);
    kad_peer a = p.intern(p.arg, &keys[6]), b = p.intern(p.arg, &keys[7]);
    assert_int_equal(p.group(p.arg, a), KAD_GROUP_NONE);
    peers_set_relays(t, a, keys, 0, true);
    assert_int_equal(p.group(p.arg, a), KAD_GROUP_NONE);
    peers_set_relays(t, a, (struct pubkey[]){keys[0], keys[1]}, 2, true);
    peers_set_relays(t, b, (struct pubkey[]){keys[1], keys[0]}, 2, true);
    uint32_t group = p.group(p.arg, a);
    assert_int_not_equal(group, KAD_GROUP_NONE);
    assert_int_equal(p.group(p.arg, b), group);
    assert_int_equal(peers_relays(t, group, out), 2);
    assert_int_not_equal(pubkey_equal(&out[0], &keys[0]), pubkey_equal(&out[0], &keys[1]));
    peers_set_relays(t, a, &keys[2], 1, false);
    assert_int_equal(p.group(p.arg, a), group);
    peers_set_relays(t, a, &keys[2], 1, true);
    assert_int_not_equal(p.group(p.arg, a), group);
    peers_set_relays(t, a, keys, 6, true); /* those beyond the fourth do not count */
    assert_int_equal(peers_relays(t, p.group(p.arg, a), out), PEERS_RELAYS);
    p.unref(p.arg, b);
    b = p.intern(p.arg, &keys[7]);
    assert_int_equal(p.group(p.arg, b), KAD_GROUP_NONE);
    peers_set_relays(t, b, &keys[2], 1, false);
    peers_set_relays(t, b, (struct pubkey[]){keys[0], keys[1]}, 2, true);
    assert_int_equal(p.group(p.arg, b), group);
    assert_int_equal(peers_relays(t, KAD_GROUP_NONE, out), 0);
    peers_free(t);
}

/* Sets without number cost no memory without end. */
static void test_many_sets_of_relays(void **state)
{
    struct peers *t = peers_new(hash_key, 10);
    struct kad_peers p = peers_ops(t);
    struct pubkey out[PEERS_RELAYS], mine = key(1);
    kad_peer a = p.intern(p.arg, &mine);
    unsigned known = 0;

    (void)state;
    for (uint32_t i = 0; i < 2 * KAD_MAX_GROUPS; i++) {
        struct pubkey relay = key(i);
        peers_set_relays(t, a, &relay, 1, true);
        known += peers_relays(t, p.group(p.arg, a), out) > 0;
    }
    assert_int_equal(known, KAD_MAX_GROUPS);
    peers_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_relays),
        cmocka_unit_test(test_many_sets_of_relays),
        cmocka_unit_test(test_entries_do_not_move),
        cmocka_unit_test(test_against_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
