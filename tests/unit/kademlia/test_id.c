#include "kademlia/id.h"

#include "base/err.h"
#include "kademlia/kad.h"
#include "tests/unit/kademlia/dht_items.h"
#include "tests/unit/prop.h"

static json_t *root;

static int setup(void **state)
{
    (void)state;
    root = vectors_load("dht");
    return crypto_init();
}

static int teardown(void **state)
{
    (void)state;
    json_decref(root);
    return 0;
}

static void test_node_ids(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "node_ids"), i, v)
    {
        struct pubkey pk;
        struct kad_id want, id;
        char hex[KAD_ID_HEX + 1];

        vec_hex(v, "pk", &pk, sizeof pk);
        vec_hex(v, "node_id", &want, sizeof want);
        id = kad_id_of(&pk);
        assert_true(kad_id_equal(&id, &want));
        assert_string_equal(kad_id_hex(hex, &id), vec_str(v, "node_id"));
        assert_int_equal(kad_id_from_hex(&id, vec_str(v, "node_id"), KAD_ID_HEX), 0);
        assert_memory_equal(&id, &want, sizeof id);
    }
    assert_int_equal(i, 7);
}

static void test_targets(void **state)
{
    size_t i, n, own = 0;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "targets"), i, v)
    {
        struct pubkey pk;
        struct kad_id want;
        uint8_t *salt = vec_hex_dup(v, "salt_hex", &n);

        vec_hex(v, "pk", &pk, sizeof pk);
        vec_hex(v, "target", &want, sizeof want);
        struct kad_id t = kad_target(&pk, salt, n), id = kad_id_of(&pk);
        assert_true(kad_id_equal(&t, &want));
        /* The target of the empty salt is the owner's ID. */
        assert_int_equal(kad_id_equal(&t, &id), n == 0);
        own += n == 0;
        free(salt);
    }
    assert_int_equal(i, 48);
    assert_true(own > 0);
}

static void test_distance(void **state)
{
    size_t i;
    const json_t *v;

    (void)state;
    json_array_foreach(vec_get(root, "distance"), i, v)
    {
        struct kad_id self, other, xor,
            zero = {
                {0}};

        vec_hex(v, "self", &self, sizeof self);
        vec_hex(v, "other", &other, sizeof other);
        vec_hex(v, "xor", &xor, sizeof xor);
        assert_int_equal(kad_id_cpl(&self, &other), vec_int(v, "common_prefix_len"));
        assert_int_equal(kad_id_cpl(&zero, &xor), vec_int(v, "common_prefix_len"));
        assert_int_equal(kad_id_bucket(&self, &other), vec_int(v, "bucket_index"));
        for (size_t j = 0; j < sizeof xor ; j++)
            assert_int_equal(self.b[j] ^ other.b[j], xor.b[j]);
    }
    assert_int_equal(i, 29);
}

static struct kad_id by_name(const char *name)
{
    struct pubkey pk;

    dht_key(root, name, NULL, &pk);
    return kad_id_of(&pk);
}

static void test_closer(void **state)
{
    size_t i, j;
    const json_t *v, *name;

    (void)state;
    json_array_foreach(vec_get(root, "closest_order"), i, v)
    {
        struct kad_id target, before = {{0}};
        vec_hex(v, "target", &target, sizeof target);
        json_array_foreach(vec_get(v, "closest_first"), j, name)
        {
            struct kad_id id = by_name(json_string_value(name));
            assert_int_equal(kad_id_closer(&target, &id, &id), 0);
            if (j > 0) {
                assert_true(kad_id_closer(&target, &before, &id) < 0);
                assert_true(kad_id_closer(&target, &id, &before) > 0);
            }
            before = id;
        }
        assert_int_equal(j, 7);
    }
    assert_int_equal(i, 3);
}

/* Against the definition, byte by byte, on IDs that differ late as often as early. */
static void test_property(void **state)
{
    struct prop r = prop_init("ids");

    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct kad_id t, a, b, xa, xb;

        prop_bytes(&r, &t, sizeof t);
        a = b = t;
        for (size_t n = prop_below(&r, 3); n > 0; n--)
            a.b[prop_below(&r, 32)] ^= (uint8_t)(1u << prop_below(&r, 8));
        for (size_t n = prop_below(&r, 3); n > 0; n--)
            b.b[prop_below(&r, 32)] ^= (uint8_t)(1u << prop_below(&r, 8));
        for (size_t i = 0; i < sizeof t; i++) {
            xa.b[i] = a.b[i] ^ t.b[i];
            xb.b[i] = b.b[i] ^ t.b[i];
        }
        int want = memcmp(&xa, &xb, sizeof xa), got = kad_id_closer(&t, &a, &b);
        assert_int_equal((got > 0) - (got < 0), (want > 0) - (want < 0));
        assert_int_equal(kad_id_cpl(&a, &t), kad_id_cpl(&t, &a));
        unsigned cpl = kad_id_cpl(&a, &t);
        for (unsigned bit = 0; bit < cpl; bit++)
            assert_int_equal(xa.b[bit / 8] >> (7 - bit % 8) & 1, 0);
        if (cpl < KAD_ID_BITS)
            assert_int_equal(xa.b[cpl / 8] >> (7 - cpl % 8) & 1, 1);
        assert_int_equal(kad_id_is_zero(&xa), cpl == KAD_ID_BITS);
        assert_int_equal(kad_id_cmp(&a, &b) == 0, kad_id_equal(&a, &b));
    }
}

static void test_hex(void **state)
{
    const char *upper = "5B6B92B37B765963AB61D52A3171A54DA33778C13118108F918E78CD2A8E3C15";
    struct kad_id id, want = by_name("key0");

    (void)state;
    assert_int_equal(kad_id_from_hex(&id, upper, 64), 0);
    assert_true(kad_id_equal(&id, &want));
    memset(&id, 7, sizeof id);
    struct kad_id before = id;
    for (size_t n = 0; n < 64; n++)
        assert_int_equal(kad_id_from_hex(&id, upper, n), ERR_FORMAT);
    char bad[66];
    memcpy(bad, upper, 65);
    bad[64] = '0';
    assert_int_equal(kad_id_from_hex(&id, bad, 65), ERR_FORMAT);
    for (size_t i = 0; i < 64; i++) {
        memcpy(bad, upper, 65);
        bad[i] = i % 2 != 0 ? 'g' : ' ';
        assert_int_equal(kad_id_from_hex(&id, bad, 64), ERR_FORMAT);
    }
    assert_memory_equal(&id, &before, sizeof id);
}

static void test_constants(void **state)
{
    const json_t *c = vec_get(root, "constants");

    (void)state;
    assert_int_equal(KAD_ID_BITS, vec_int(c, "id_bits"));
    assert_int_equal(KAD_K, vec_int(c, "k"));
    assert_int_equal(KAD_PORT, vec_int(c, "dmsg_port"));
    assert_int_equal(ITEM_MAX_SALT, vec_int(c, "max_salt"));
    assert_int_equal(ITEM_MAX_VALUE, vec_int(c, "max_value"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_node_ids),  cmocka_unit_test(test_targets),
        cmocka_unit_test(test_distance),  cmocka_unit_test(test_closer),
        cmocka_unit_test(test_property),  cmocka_unit_test(test_hex),
        cmocka_unit_test(test_constants),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
